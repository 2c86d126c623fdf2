//! Fields that do not exist.

use std::sync::LazyLock;

use kube::CustomResourceExt;
use serde_json::Value;

use super::{FieldFault, SniRoute};
use crate::routing::Kind;
use crate::yaml::{FieldPath, Step, nearest};

/// The schema of a route, as the API server has it.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let crd = serde_json::to_value(SniRoute::crd()).unwrap_or_default();
    crd.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned().unwrap_or_default()
});

/// The fault of a field that does not exist. Of a route, which field was probably meant, or which there
/// are.
pub(super) fn unknown(kind: Kind, field: FieldPath) -> FieldFault {
    let hint = match kind {
        Kind::SniRoute => hint(&field),
        _ => None,
    };
    let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    FieldFault { field, message: format!("unknown field{hint}") }
}

fn hint(field: &FieldPath) -> Option<String> {
    let (Step::Key(wrong), parent) = field.steps().split_last()? else { return None };
    let mut schema = &*SCHEMA;
    for step in parent {
        schema = match step {
            Step::Key(key) => schema.get("properties")?.get(key)?,
            Step::Index(_) => schema.get("items")?,
        };
    }
    let known = || schema.get("properties")?.as_object().map(|fields| fields.keys());
    let known: Vec<&str> = known()?.map(String::as_str).collect();
    Some(match nearest(wrong, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("there are {}", known.join(", ")),
    })
}
