//! The three layers that settings come from, and where in them a fault is.

use std::collections::BTreeMap;
use std::ffi::OsString;

use super::document::ConfigDocument;
use super::fault::{ConfigError, Value, ValueFault};
use super::setting::{self, Setting, Takes};
use super::settings::{FILE, SETTINGS};
use crate::yaml::{FieldPath, Step};

/// What one layer has, by the setting's name.
pub(super) type Layer<'a> = BTreeMap<&'static str, Given<'a>>;

/// What a layer gives for one setting.
pub(super) struct Given<'a> {
    /// At least one.
    pub(super) values: Vec<Value>,
    pub(super) origin: ValueOrigin<'a>,
}

/// Where a value was given.
pub(super) enum ValueOrigin<'a> {
    Flag,
    Variable(String),
    File(&'a ConfigDocument),
}

impl Given<'_> {
    /// Whether the configuration file gives it.
    pub(super) fn is_in_file(&self) -> bool {
        matches!(self.origin, ValueOrigin::File(_))
    }
}

impl ValueOrigin<'_> {
    /// The fault with the place where people find it: flag, variable, or file and line.
    pub(super) fn error(&self, setting: &Setting, fault: ValueFault) -> ConfigError {
        let message = fault.message;
        match self {
            ValueOrigin::Flag => ConfigError::invalid(format!("--{}", setting.flag()), message),
            ValueOrigin::Variable(name) => ConfigError::invalid(name.clone(), message),
            ValueOrigin::File(document) => {
                let outside = setting.name.rsplit('.').map(|key| Step::Key(key.to_owned()));
                document.error(&outside.fold(fault.field, FieldPath::within), message)
            }
        }
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
    for setting in SETTINGS.iter().filter(|setting| setting.is_text()) {
        for name in setting.variables() {
            let Some(text) = read(variable, &name)? else { continue };
            let values = split(text, setting.takes);
            if !values.is_empty() {
                layer.insert(setting.name, Given { values, origin: ValueOrigin::Variable(name) });
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
    let name = setting::variable(FILE);
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
        Takes::One | Takes::Switch | Takes::Object => vec![Value::Text(text)],
        Takes::Many => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            items.map(|item| Value::Text(item.to_owned())).collect()
        }
    }
}
