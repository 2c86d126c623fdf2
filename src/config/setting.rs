//! What a setting is: a name, which makes a flag and a variable, and how its values are read and shown.

use super::fault::{Value, ValueFault};
use super::types::Config;

/// One setting.
pub(super) struct Setting {
    /// Its path in the configuration file.
    pub(super) name: &'static str,
    /// What stands for its value in the help.
    pub(super) metavar: &'static str,
    /// How many values it takes.
    pub(super) takes: Takes,
    /// A variable that beats the one with sluice's own prefix.
    pub(super) common_variable: Option<&'static str>,
    /// One line of help.
    pub(super) help: &'static str,
    /// Reads the values, of which there is at least one, into the configuration.
    pub(super) set: Set,
    /// The value in force, as a variable would have it.
    pub(super) show: Show,
}

/// How many values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// One, and a bare flag means `true`.
    Switch,
    /// One.
    One,
    /// A list: a repeated flag, a variable with commas, a sequence in the file.
    Many,
    /// An object in the file. There is neither a flag nor a variable.
    Object,
}

impl Setting {
    /// Whether flags and variables can give it.
    pub(super) fn is_text(&self) -> bool {
        self.takes != Takes::Object
    }

    /// The flag, without its dashes.
    pub(super) fn flag(&self) -> String {
        flag(self.name)
    }

    pub(super) const fn beaten_by(mut self, variable: &'static str) -> Setting {
        self.common_variable = Some(variable);
        self
    }

    /// The variables, the one that wins first.
    pub(super) fn variables(&self) -> impl Iterator<Item = String> {
        self.common_variable.map(str::to_owned).into_iter().chain([variable(self.name)])
    }
}

pub(super) type Set = fn(&mut Config, &[Value]) -> Result<(), ValueFault>;
pub(super) type Show = fn(&Config) -> String;

/// `log.level` → `log-level`, `accessLog` → `access-log`.
pub(super) fn flag(name: &str) -> String {
    let mut flag = String::with_capacity(name.len() + 2);
    for c in name.chars() {
        match c {
            '.' => flag.push('-'),
            c if c.is_ascii_uppercase() => {
                flag.push('-');
                flag.push(c.to_ascii_lowercase());
            }
            c => flag.push(c),
        }
    }
    flag
}

/// `log.level` → `SLUICE_LOG_LEVEL`.
pub(super) fn variable(name: &str) -> String {
    format!("SLUICE_{}", flag(name).replace('-', "_").to_ascii_uppercase())
}

pub(super) const fn one(
    name: &'static str,
    metavar: &'static str,
    help: &'static str,
    set: Set,
    show: Show,
) -> Setting {
    Setting { name, metavar, takes: Takes::One, common_variable: None, help, set, show }
}

pub(super) const fn many(
    name: &'static str,
    metavar: &'static str,
    help: &'static str,
    set: Set,
    show: Show,
) -> Setting {
    Setting { takes: Takes::Many, ..one(name, metavar, help, set, show) }
}

pub(super) const fn object(name: &'static str, set: Set, show: Show) -> Setting {
    Setting { takes: Takes::Object, ..one(name, "", "", set, show) }
}

pub(super) const fn switch(
    name: &'static str,
    help: &'static str,
    set: Set,
    show: Show,
) -> Setting {
    Setting { takes: Takes::Switch, ..one(name, "true|false", help, set, show) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_makes_the_flag_and_the_variable() {
        for (name, flag_name, variable_name) in [
            ("class", "class", "SLUICE_CLASS"),
            ("accessLog", "access-log", "SLUICE_ACCESS_LOG"),
            ("accessLogStart", "access-log-start", "SLUICE_ACCESS_LOG_START"),
            ("drain.delay", "drain-delay", "SLUICE_DRAIN_DELAY"),
        ] {
            assert_eq!(flag(name), flag_name);
            assert_eq!(variable(name), variable_name);
        }
    }
}
