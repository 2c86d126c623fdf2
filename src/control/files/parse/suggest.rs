//! What a field that does not exist was probably meant to be.

use std::sync::LazyLock;

use kube::CustomResourceExt;
use serde_json::Value;

use crate::control::api::SniRoute;
use crate::control::files::locate::FieldPath;

/// The schema of a route, as the API server has it.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let crd = serde_json::to_value(SniRoute::crd()).unwrap_or_default();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned().unwrap_or_default()
});

/// Which field of a route is meant by one that does not exist, or else which fields there are.
pub(super) fn field_of_route(path: &FieldPath) -> Option<String> {
    let (wrong, parent) = path.split_last()?;
    let mut schema = &*SCHEMA;
    for key in parent.keys() {
        schema = property(schema, key)?;
    }
    let known: Vec<&str> = properties(schema)?.keys().map(String::as_str).collect();
    let near = known
        .iter()
        .map(|known| {
            (strsim::damerau_levenshtein(&wrong.to_lowercase(), &known.to_lowercase()), known)
        })
        .min()
        .filter(|(distance, _)| *distance <= 1 + wrong.len() / 4);
    Some(match near {
        Some((_, meant)) => format!("did you mean {meant}?"),
        None => format!("there are {}", known.join(", ")),
    })
}

fn property<'s>(schema: &'s Value, key: &str) -> Option<&'s Value> {
    properties(schema)?.get(key)
}

/// The properties of an object, or of the items of a list.
fn properties(schema: &Value) -> Option<&serde_json::Map<String, Value>> {
    let object = schema.get("items").unwrap_or(schema);
    object.get("properties")?.as_object()
}
