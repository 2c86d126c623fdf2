//! The text of the Lease. Only the fields that the protocol uses are parsed; all other metadata is written
//! back unchanged.

use k8s_openapi::api::coordination::v1::LeaseSpec;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::control::objects::{FieldScanner, ObjectText};

/// A Lease.
#[derive(Clone, Debug)]
pub(super) struct LeaseText {
    /// The spec. A field that cannot be read is treated as missing.
    pub(super) spec: LeaseSpec,
    /// The metadata as JSON.
    metadata: Vec<u8>,
    resource_version: Option<String>,
}

impl LeaseText {
    /// A Lease that does not exist yet.
    pub(super) fn new(name: &str) -> Self {
        LeaseText {
            spec: LeaseSpec::default(),
            metadata: json!({ "name": name }).to_string().into_bytes(),
            resource_version: None,
        }
    }

    /// A Lease from the API server.
    pub(super) fn of(text: &ObjectText) -> Self {
        let field = |name| read(text.field(&["spec", name]));
        let spec = LeaseSpec {
            acquire_time: read(text.field(&["spec", "acquireTime"])),
            holder_identity: field("holderIdentity"),
            lease_duration_seconds: read(text.field(&["spec", "leaseDurationSeconds"])),
            lease_transitions: read(text.field(&["spec", "leaseTransitions"])),
            preferred_holder: field("preferredHolder"),
            renew_time: read(text.field(&["spec", "renewTime"])),
            strategy: field("strategy"),
        };
        // The server keeps `managedFields` if they are missing from a write. They are often most of the
        // object.
        let metadata = FieldScanner::of(text.field(&["metadata"]).unwrap_or_default());
        let kept = metadata.filter(|(name, _)| *name != b"\"managedFields\"");
        let kept: Vec<Vec<u8>> = kept.map(|(name, value)| [name, b":", value].concat()).collect();
        LeaseText {
            spec,
            metadata: [&b"{"[..], &kept.join(&b','), b"}"].concat(),
            resource_version: text.head().resource_version,
        }
    }

    /// Whether the Lease does not exist yet.
    pub(super) fn is_new(&self) -> bool {
        self.resource_version.is_none()
    }

    /// The Lease as JSON, with another spec. The server refuses it if the Lease has changed since it was
    /// read.
    pub(super) fn with(&self, spec: &LeaseSpec) -> Vec<u8> {
        let head = br#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":"#;
        let spec = json!(spec).to_string();
        [head, &*self.metadata, br#","spec":"#, spec.as_bytes(), b"}"].concat()
    }
}

fn read<T: DeserializeOwned>(value: Option<&[u8]>) -> Option<T> {
    serde_json::from_slice(value?).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn unused_fields_are_written_back_and_unexpected_values_are_ignored() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        let text = format!(
            "{{\"metadata\": {{\"name\": \"a\", \"resourceVersion\": \"7\", \"uid\": \"u\", \
             \"managedFields\": [{{\"time\": \"9999-12-31T23:59:59Z\", \"fieldsV1\": {deep}}}], \
             \"annotations\": {{\"x\": \"}}\"}}}}, \"spec\": {{\"holderIdentity\": \"other\", \
             \"renewTime\": \"9999-12-31T23:59:59.000000Z\", \"leaseTransitions\": \"many\"}}}}"
        );
        let lease = LeaseText::of(&ObjectText::new(text.as_bytes()));
        assert_eq!(lease.spec.holder_identity.as_deref(), Some("other"));
        assert_eq!((&lease.spec.renew_time, lease.spec.lease_transitions), (&None, None));
        assert!(!lease.is_new());
        let spec = LeaseSpec { lease_transitions: Some(1), ..LeaseSpec::default() };
        let written: Value = serde_json::from_slice(&lease.with(&spec)).unwrap();
        let metadata = json!({
            "name": "a", "resourceVersion": "7", "uid": "u", "annotations": { "x": "}" }
        });
        assert_eq!(written["metadata"], metadata);
        assert_eq!(written["spec"], json!({ "leaseTransitions": 1 }));
        assert_eq!(written["kind"], "Lease");
    }

    #[test]
    fn invalid_text_causes_no_panic() {
        for text in ["", "[]", "{\"spec\": 5, \"metadata\": []}", "{\"metadata\": {\"a\": "] {
            let lease = LeaseText::of(&ObjectText::new(text.as_bytes()));
            assert!(lease.is_new(), "{text}");
            assert!(serde_json::from_slice::<Value>(&lease.with(&lease.spec)).is_ok(), "{text}");
        }
        let new = LeaseText::new("a");
        let written: Value = serde_json::from_slice(&new.with(&new.spec)).unwrap();
        assert_eq!(written["metadata"], json!({ "name": "a" }));
    }
}
