//! From values to objects: one way for all sources.

use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_json::Error;

use super::fields;
use crate::routing::Kind;
use crate::yaml::FieldPath;

/// What is wrong with a field of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldFault {
    /// The field; the object itself, if it is empty.
    pub field: FieldPath,
    /// What is wrong with it, and what to write instead.
    pub message: String,
}

impl fmt::Display for FieldFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field.is_empty() {
            true => f.write_str(&self.message),
            false => write!(f, "{}: {}", self.field, self.message),
        }
    }
}

/// Reads an object. Fields that do not exist are passed over.
///
/// # Errors
/// The first field that cannot be read, and why; without its place in a text, which moves with whatever
/// stands before it.
pub fn parse<'de, T, D>(deserializer: D) -> Result<T, FieldFault>
where
    T: Deserialize<'de>,
    D: Deserializer<'de, Error = Error>,
{
    serde_path_to_error::deserialize(deserializer)
        .map_err(|error| FieldFault { field: error.path().into(), message: message(error.inner()) })
}

/// Reads an object of this kind in which every field has to exist.
///
/// # Errors
/// The fields that do not exist, and the first one that cannot be read.
pub fn parse_strictly<'de, T, D>(kind: Kind, deserializer: D) -> Result<T, Vec<FieldFault>>
where
    T: Deserialize<'de>,
    D: Deserializer<'de, Error = Error>,
{
    let mut faults = Vec::new();
    let mut ignored = |path: serde_ignored::Path<'_>| {
        let field = FieldPath::from(&path);
        // The type stands for these two.
        if !matches!(field.to_string().as_str(), "apiVersion" | "kind") {
            faults.push(fields::unknown(kind, field));
        }
    };
    let parsed = parse(serde_ignored::Deserializer::new(deserializer, &mut ignored));
    match parsed {
        Ok(object) if faults.is_empty() => Ok(object),
        parsed => {
            faults.extend(parsed.err());
            Err(faults)
        }
    }
}

/// What serde says, in the words of manifests: it knows sequences, maps and types of Rust.
fn message(error: &Error) -> String {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = error.to_string();
    let text = text.strip_suffix(&place).unwrap_or(&text);
    let is_type = text.starts_with("invalid type: ");
    if !is_type && !text.starts_with("invalid value: ") {
        return text.to_owned();
    }
    let Some((found, expected)) = text.rsplit_once(", expected ") else { return text.to_owned() };
    let found = match found {
        "invalid type: sequence" => "invalid type: list",
        "invalid type: map" => "invalid type: object",
        other => other,
    };
    let expected = match expected {
        "a sequence" => "a list",
        "a map" => "an object",
        "IntOrString" => "a number or a text",
        "u32" | "i32" | "i64" if is_type => "a whole number",
        "u32" => "a whole number from 0 to 4294967295",
        "i32" => "a whole number from -2147483648 to 2147483647",
        // The types of Kubernetes.
        other if other.starts_with(|c: char| c.is_ascii_uppercase()) => "an object",
        other => other,
    };
    format!("{found}, expected {expected}")
}
