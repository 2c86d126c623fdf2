//! What a document claims to hold.

use serde_yaml::Value;

use crate::control::api::Kind;
use crate::control::build::DEFAULT_NAMESPACE;
use crate::control::files::locate::FieldPath;

/// What an object claims to be.
pub(super) struct Head {
    pub(super) kind: Kind,
    /// For people, such as `SniRoute data/kafka`.
    pub(super) shown: String,
    /// Where it is in its document.
    pub(super) within: FieldPath,
}

/// The kind of such objects, if it is supported.
fn kind_of(api_version: &str, kind: &str) -> Option<Kind> {
    match (api_version, kind) {
        ("sluice.dev/v1alpha1", "SniRoute") => Some(Kind::SniRoute),
        ("v1", "Service") => Some(Kind::Service),
        ("discovery.k8s.io/v1", "EndpointSlice") => Some(Kind::EndpointSlice),
        (
            "gateway.networking.k8s.io/v1" | "gateway.networking.k8s.io/v1beta1",
            "ReferenceGrant",
        ) => Some(Kind::ReferenceGrant),
        _ => None,
    }
}

/// The objects that a document claims to hold; or where it claims something else, and what is wrong
/// with that.
pub(super) fn heads(value: &Value) -> Result<Vec<Head>, (FieldPath, String)> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    if (text("apiVersion"), text("kind")) != ("v1", "List") {
        return Ok(vec![head(value, FieldPath::default())?]);
    }
    match value.get("items") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Sequence(items)) => items
            .iter()
            .enumerate()
            .map(|(index, item)| head(item, FieldPath::item("items", index)))
            .collect(),
        Some(_) => Err((FieldPath::parse("items"), "items is not a list".to_owned())),
    }
}

fn head(value: &Value, within: FieldPath) -> Result<Head, (FieldPath, String)> {
    const SUPPORTED: &str = "supported are SniRoute (sluice.dev/v1alpha1), Service (v1), \
                             EndpointSlice (discovery.k8s.io/v1), ReferenceGrant \
                             (gateway.networking.k8s.io/v1) and List (v1) of these";
    if !value.is_mapping() {
        return Err((within, format!("is not an object; {SUPPORTED}")));
    }
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let (Some(api_version), Some(kind)) = (text("apiVersion"), text("kind")) else {
        let missing = if text("kind").is_none() { "kind" } else { "apiVersion" };
        return Err((within, format!("has no {missing}; {SUPPORTED}")));
    };
    let Some(known) = kind_of(api_version, kind) else {
        return Err((within, format!("{kind} ({api_version}) is not supported; {SUPPORTED}")));
    };
    let metadata = value.get("metadata");
    let named = |key: &str| metadata.and_then(|metadata| metadata.get(key)).and_then(Value::as_str);
    let shown = match named("name") {
        Some(name) => format!("{kind} {}/{name}", named("namespace").unwrap_or(DEFAULT_NAMESPACE)),
        None => kind.to_owned(),
    };
    Ok(Head { kind: known, shown, within })
}
