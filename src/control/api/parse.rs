//! From values to objects: one way for all sources.

use std::sync::LazyLock;

use kube::CustomResourceExt;
use serde::{Deserialize, Deserializer};
use serde_json::{Error, Value};

use super::SniRoute;
use crate::routing::Kind;
use crate::yaml::{FieldFault, FieldPath, Step, read_strictly, unknown_field};

/// The schema of a route, as the API server has it.
static ROUTE_SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let crd = serde_json::to_value(SniRoute::crd()).unwrap_or_default();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned().unwrap_or_default()
});

/// Reads an object of this kind in which every field has to exist.
///
/// # Errors
/// The fields that do not exist, and the first one that cannot be read.
pub fn parse_strictly<'de, T, D>(kind: Kind, deserializer: D) -> Result<T, Vec<FieldFault>>
where
    T: Deserialize<'de>,
    D: Deserializer<'de, Error = Error>,
{
    read_strictly(deserializer, |field| unknown(kind, field))
}

/// The fields of `spec` that say who gets in. A field that does not exist is refused anywhere in them.
const GUARDED: [&str; 2] = ["access", "tls"];

/// Reads an object as the API server has it: fields that do not exist are passed over, except directly in its `spec`,
/// and anywhere in its `tls` and `access`. There, a newer definition may have a field that says how connections are
/// treated, and a route without it would be another route.
///
/// # Errors
/// The first field that does not exist there, or cannot be read, and why.
pub fn parse_with_known_spec<'de, T, D>(kind: Kind, deserializer: D) -> Result<T, FieldFault>
where
    T: Deserialize<'de>,
    D: Deserializer<'de, Error = Error>,
{
    let is_guarded = |field: &FieldPath| match field.steps() {
        [Step::Key(spec), Step::Key(_)] => spec == "spec",
        [Step::Key(spec), Step::Key(guarded), ..] => {
            spec == "spec" && GUARDED.contains(&guarded.as_str())
        }
        _ => false,
    };
    let unknown = |field| {
        let mut fault = is_guarded(&field).then(|| unknown(kind, field)).flatten()?;
        fault.message.push_str("; this version of sluice does not know it");
        Some(fault)
    };
    read_strictly(deserializer, unknown).map_err(|faults| {
        let none = || FieldFault { field: FieldPath::default(), message: String::new() };
        faults.into_iter().next().unwrap_or_else(none)
    })
}

fn unknown(kind: Kind, field: FieldPath) -> Option<FieldFault> {
    // The type stands for these two.
    let is_of_type = matches!(field.to_string().as_str(), "apiVersion" | "kind");
    let schema = (kind == Kind::SniRoute).then(|| &*ROUTE_SCHEMA);
    (!is_of_type).then(|| unknown_field(schema, field))
}
