//! The three layers that settings come from, and where in them a fault is.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::ConfigError;
use super::file::Document;
use super::settings::{self, SETTINGS, Setting, Takes};

/// What one layer has, by the setting's name.
pub(super) type Layer<'a> = BTreeMap<&'static str, Given<'a>>;

/// What a layer gives for one setting.
pub(super) struct Given<'a> {
    /// At least one.
    pub(super) values: Vec<Value>,
    pub(super) origin: Origin<'a>,
}

/// One value, before its setting has looked at it.
pub(super) enum Value {
    Text(String),
    /// An item of a list, written in the file as an object.
    Object(Vec<(String, String)>),
}

impl Value {
    /// The text of a value that cannot be an object.
    pub(super) fn text(&self) -> Result<&str, Fault> {
        match self {
            Value::Text(text) => Ok(text),
            Value::Object(_) => Err("takes text, not an object".to_owned().into()),
        }
    }
}

/// Where a value was given.
pub(super) enum Origin<'a> {
    Flag,
    Variable(String),
    File(&'a Document),
}

impl Origin<'_> {
    /// The fault with the place where people find it: flag, variable, or file and line.
    pub(super) fn error(&self, setting: &Setting, fault: Fault) -> ConfigError {
        let message = fault.message;
        match self {
            Origin::Flag => ConfigError::invalid(format!("--{}", setting.flag()), message),
            Origin::Variable(name) => ConfigError::invalid(name.clone(), message),
            Origin::File(document) => {
                let mut path: Vec<Step> = setting.name.split('.').map(Step::key).collect();
                path.extend(fault.path);
                document.error(&path, message)
            }
        }
    }
}

/// What is wrong with a value.
pub(super) struct Fault {
    /// Where, below the setting: an item, and a key of that.
    path: Vec<Step>,
    message: String,
}

impl Fault {
    /// The same fault, seen from one level up.
    pub(super) fn within(mut self, step: Step) -> Fault {
        self.path.insert(0, step);
        self
    }
}

impl From<String> for Fault {
    fn from(message: String) -> Fault {
        Fault { path: Vec::new(), message }
    }
}

/// One step on the way from the top of the file to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

impl Step {
    pub(super) fn key(key: &str) -> Step {
        Step::Key(key.to_owned())
    }
}

/// Reads the variables of all settings.
///
/// Other variables that begin with `SLUICE_` are none of its business: Kubernetes sets
/// `SLUICE_SERVICE_HOST`, `SLUICE_PORT` and more of the kind in every pod beside a Service that is
/// named `sluice`. An empty variable is as good as none, as shells and charts cannot always leave
/// one out.
pub(super) fn environment(
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Layer<'static>, ConfigError> {
    let mut layer = Layer::new();
    for setting in SETTINGS {
        for name in setting.variables() {
            let Some(text) = read(variable, &name)? else { continue };
            let values = split(text, setting.takes);
            if !values.is_empty() {
                layer.insert(setting.name, Given { values, origin: Origin::Variable(name) });
                break;
            }
        }
    }
    Ok(layer)
}

/// The path of the configuration file, if a variable has it, and that variable.
pub(super) fn file_variable(
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<(String, String)>, ConfigError> {
    let name = settings::variable(settings::FILE);
    Ok(read(variable, &name)?.map(|path| (path, name)))
}

fn read(
    variable: &dyn Fn(&str) -> Option<OsString>,
    name: &str,
) -> Result<Option<String>, ConfigError> {
    let Some(text) = variable(name).filter(|text| !text.is_empty()) else { return Ok(None) };
    match text.into_string() {
        Ok(text) => Ok(Some(text)),
        Err(text) => Err(ConfigError::invalid(name.to_owned(), format!("{text:?} is not UTF-8"))),
    }
}

fn split(text: String, takes: Takes) -> Vec<Value> {
    match takes {
        Takes::One | Takes::Switch => vec![Value::Text(text)],
        Takes::Many => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            items.map(|item| Value::Text(item.to_owned())).collect()
        }
    }
}
