//! From values to typed objects: one way for all sources.

use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_json::{Error, Value};

use super::{FieldPath, Step, nearest};

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
pub fn read<'de, T, D>(deserializer: D) -> Result<T, FieldFault>
where
    T: Deserialize<'de>,
    D: Deserializer<'de, Error = Error>,
{
    serde_path_to_error::deserialize(deserializer)
        .map_err(|error| FieldFault { field: error.path().into(), message: message(error.inner()) })
}

/// Reads an object in which every field has to exist. `unknown` is asked for the fault of each other field,
/// unless that is to be passed over.
///
/// # Errors
/// The fields that do not exist, and the first one that cannot be read.
pub fn read_strictly<'de, T, D>(
    deserializer: D,
    unknown: impl Fn(FieldPath) -> Option<FieldFault>,
) -> Result<T, Vec<FieldFault>>
where
    T: Deserialize<'de>,
    D: Deserializer<'de, Error = Error>,
{
    let mut faults = Vec::new();
    let mut ignored =
        |path: serde_ignored::Path<'_>| faults.extend(unknown(FieldPath::from(&path)));
    let parsed = read(serde_ignored::Deserializer::new(deserializer, &mut ignored));
    match parsed {
        Ok(object) if faults.is_empty() => Ok(object),
        parsed => {
            faults.extend(parsed.err());
            Err(faults)
        }
    }
}

/// The fault of a field that does not exist. It says which field was probably meant, or which there are, if
/// the JSON schema of the object is known.
pub fn unknown_field(schema: Option<&Value>, field: FieldPath) -> FieldFault {
    let hint = schema.and_then(|schema| hint(schema, &field));
    let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    FieldFault { field, message: format!("unknown field{hint}") }
}

fn hint(schema: &Value, field: &FieldPath) -> Option<String> {
    let (Step::Key(wrong), parent) = field.steps().split_last()? else { return None };
    let mut schema = schema;
    for step in parent {
        schema = match step {
            Step::Key(key) => schema.get("properties")?.get(key)?,
            Step::Index(_) => schema.get("items")?,
        };
    }
    let known = schema.get("properties")?.as_object()?;
    let known: Vec<&str> = known.keys().map(String::as_str).collect();
    Some(match nearest(wrong, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("there are {}", known.join(", ")),
    })
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
