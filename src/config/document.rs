//! The configuration file as it is written.

use std::path::PathBuf;

use super::fault::ConfigError;
use crate::yaml::{FieldPath, Node};

/// The file as it was read.
pub(super) struct ConfigDocument {
    path: PathBuf,
    pub(super) root: Node,
}

impl ConfigDocument {
    /// # Errors
    /// When it is no YAML, or has a setting twice.
    pub(super) fn parse(path: PathBuf, text: &str) -> Result<ConfigDocument, ConfigError> {
        match Node::parse(text) {
            Ok(root) => {
                let mut document = ConfigDocument { path, root };
                match document.root.take_duplicates().into_iter().next() {
                    None => Ok(document),
                    Some(twice) => {
                        let message = format!("is given twice, first in line {}", twice.first);
                        Err(document.error_at(twice.line, &twice.field, message))
                    }
                }
            }
            Err(error) => {
                let place = format!("{}:{}", path.display(), error.line);
                Err(ConfigError::invalid(place, error.message))
            }
        }
    }

    /// What is wrong, with the line and the name of where it is.
    pub(super) fn error(&self, field: &FieldPath, message: String) -> ConfigError {
        self.error_at(self.root.line_of(field), field, message)
    }

    fn error_at(&self, line: usize, field: &FieldPath, message: String) -> ConfigError {
        let file = self.path.display();
        let name = if field.is_empty() { String::new() } else { format!(": {field}") };
        ConfigError::invalid(format!("{file}:{line}{name}"), message)
    }
}
