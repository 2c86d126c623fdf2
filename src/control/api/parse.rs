//! From values to objects: one way for all sources.

use std::sync::LazyLock;

use kube::CustomResourceExt;
use serde::{Deserialize, Deserializer};
use serde_json::{Error, Value};

use super::SniRoute;
use crate::routing::Kind;
use crate::yaml::{FieldFault, FieldPath, read_strictly, unknown_field};

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

fn unknown(kind: Kind, field: FieldPath) -> Option<FieldFault> {
    // The type stands for these two.
    let is_of_type = matches!(field.to_string().as_str(), "apiVersion" | "kind");
    let schema = (kind == Kind::SniRoute).then(|| &*ROUTE_SCHEMA);
    (!is_of_type).then(|| unknown_field(schema, field))
}
