//! What may be wrong with the settings, and where.

use std::io;
use std::path::PathBuf;

use crate::yaml::{FieldFault, FieldPath, Node, Step};

/// Why there is no configuration. The message says where the fault is and what to write instead.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A layer has what no setting takes.
    #[error("{place}: {message}")]
    Invalid {
        /// The flag, the variable, or file, line and name.
        place: String,
        /// What is wrong there.
        message: String,
    },
    /// The configuration file cannot be read.
    #[error("{place}: cannot read {path:?}")]
    Unreadable {
        /// What names the file.
        place: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is nothing to serve.
    #[error(
        "no routes: give a file or folder of SniRoute manifests with --routes PATH \
         (or SLUICE_ROUTES, or routes: in the configuration file), or a cluster with --kubeconfig"
    )]
    NoRoutes,
    /// Two sources at once.
    #[error("routes come from kubernetes or from files, not from both: leave out source or routes")]
    TwoSources,
    /// Files are there whenever sluice is.
    #[error(
        "stateDir is for routes from kubernetes: a table that comes from files is never saved; \
         leave it out"
    )]
    StateOfFiles,
    /// What starts would not end in the log.
    #[error(
        "accessLogStart has a line for the start of each connection, so accessLog has to be all, for \
         their ends; set that, or leave accessLogStart out"
    )]
    StartWithoutEnd,
    /// A route would have a longer time for asking nothing than it may ask for.
    #[error(
        "the longest {field} that routes may ask for, by timeouts.max or policyCeiling, is {ceiling}, \
         which is shorter than the {default} of routes that ask for nothing; lengthen the one or \
         shorten the other"
    )]
    CeilingTooLow {
        /// The field of a policy.
        field: &'static str,
        /// Its default.
        default: String,
        /// Its ceiling.
        ceiling: String,
    },
}

impl ConfigError {
    pub(super) fn invalid(place: String, message: String) -> ConfigError {
        ConfigError::Invalid { place, message }
    }
}

/// What is wrong with a value.
pub(super) struct ValueFault {
    /// Where, below the setting: an item, and a field of that.
    pub(super) field: FieldPath,
    pub(super) message: String,
}

impl ValueFault {
    /// The same fault, seen from one level up.
    pub(super) fn within(mut self, step: Step) -> ValueFault {
        self.field = self.field.within(step);
        self
    }
}

impl From<String> for ValueFault {
    fn from(message: String) -> ValueFault {
        ValueFault { field: FieldPath::default(), message }
    }
}

impl From<FieldFault> for ValueFault {
    fn from(fault: FieldFault) -> ValueFault {
        ValueFault { field: fault.field, message: fault.message }
    }
}

/// One value, before its setting has looked at it.
pub(super) enum Value {
    Text(String),
    /// An object, which only the file can have.
    Object(Node),
}

impl Value {
    /// The text of a value that cannot be an object.
    pub(super) fn text(&self) -> Result<&str, ValueFault> {
        match self {
            Value::Text(text) => Ok(text),
            Value::Object(_) => Err("takes text, not an object".to_owned().into()),
        }
    }
}
