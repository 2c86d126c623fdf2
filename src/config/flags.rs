//! The settings as flags.

use std::collections::BTreeMap;

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::fault::Value;
use super::layers::{Given, Layer, ValueOrigin};
use super::setting::{Setting, Takes, variable};
use super::settings::{self, SETTINGS};
use super::types::Config;

/// The settings that the command line has, not looked at yet.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    pub(super) file: Option<String>,
    values: BTreeMap<&'static str, Vec<String>>,
}

impl Flags {
    pub(super) fn layer(&self) -> Layer<'static> {
        let given = |values: &Vec<String>| Given {
            values: values.iter().cloned().map(Value::Text).collect(),
            origin: ValueOrigin::Flag,
        };
        self.values.iter().map(|(name, values)| (*name, given(values))).collect()
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        let defaults = Config::default();
        let file = Arg::new(settings::FILE)
            .long(settings::FILE)
            .value_name("FILE")
            .value_parser(NonEmptyStringValueParser::new())
            .help(format!("{} [env: {}]", settings::FILE_HELP, variable(settings::FILE)));
        let settings = SETTINGS.iter().filter(|setting| setting.is_text());
        command.arg(file).args(settings.map(|setting| arg(setting, &defaults)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Flags::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Flags, clap::Error> {
        let mut flags = Flags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        if let Some(file) = matches.get_one::<String>(settings::FILE) {
            self.file = Some(file.clone());
        }
        for setting in SETTINGS.iter().filter(|setting| setting.is_text()) {
            if let Some(values) = matches.get_many::<String>(setting.name) {
                self.values.insert(setting.name, values.cloned().collect());
            }
        }
        Ok(())
    }
}

/// The variables are in the help, but clap does not read them: its errors would not name them.
fn arg(setting: &Setting, defaults: &Config) -> Arg {
    let variables = setting.variables().collect::<Vec<_>>().join(", ");
    let mut help = format!("{} [env: {variables}]", setting.help);
    let default = (setting.show)(defaults);
    if !default.is_empty() {
        help.push_str(&format!(" [default: {default}]"));
    }
    let arg = Arg::new(setting.name).long(setting.flag()).value_name(setting.metavar).help(help);
    match setting.takes {
        Takes::One | Takes::Object => arg.action(ArgAction::Set),
        Takes::Many => arg.action(ArgAction::Append),
        Takes::Switch => arg.action(ArgAction::Set).num_args(0..=1).default_missing_value("true"),
    }
}
