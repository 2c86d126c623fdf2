//! What a manifest claims to be.

use crate::control::api::kind_of;
use crate::control::translate::DEFAULT_NAMESPACE;
use crate::routing::Kind;
use crate::yaml::{Content, Node};

/// What an object claims to be.
pub(super) struct TypeMeta {
    pub(super) kind: Kind,
    /// For people, such as `SniRoute data/kafka`.
    pub(super) shown: String,
}

const SUPPORTED: &str = "supported are SniRoute (sluice.dev/v1alpha1), Service (v1), EndpointSlice \
                         (discovery.k8s.io/v1), ReferenceGrant (gateway.networking.k8s.io/v1), \
                         ConfigMap (v1), Secret (v1) and List (v1) of these";

impl TypeMeta {
    /// # Errors
    /// Why it is no object that is supported, and which are.
    pub(super) fn of(object: &Node) -> Result<Self, String> {
        if !matches!(object.content, Content::Object(_)) {
            return Err(format!("is not an object; {SUPPORTED}"));
        }
        let text = |key: &str| object.get(key).and_then(Node::text).filter(|text| !text.is_empty());
        let kind = text("kind").ok_or_else(|| format!("has no kind; {SUPPORTED}"))?;
        let api_version =
            text("apiVersion").ok_or_else(|| format!("has no apiVersion; {SUPPORTED}"))?;
        let known = kind_of(api_version, kind)
            .ok_or_else(|| format!("{kind} ({api_version}) is not supported; {SUPPORTED}"))?;
        let metadata = object.get("metadata");
        let named = |key| metadata.and_then(|metadata| metadata.get(key)).and_then(Node::text);
        let shown = match named("name") {
            Some(name) => {
                format!("{kind} {}/{name}", named("namespace").unwrap_or(DEFAULT_NAMESPACE))
            }
            None => kind.to_owned(),
        };
        Ok(TypeMeta { kind: known, shown })
    }
}

/// Whether a document is a list of objects.
pub(super) fn is_list(document: &Node) -> bool {
    let text = |key: &str| document.get(key).and_then(Node::text);
    (text("apiVersion"), text("kind")) == (Some("v1"), Some("List"))
}
