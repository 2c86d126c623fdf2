//! The metadata of an object.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::de::DeserializeOwned;

use super::scan::{FieldScanner, field};
use crate::control::api::SERVICE_NAME_LABEL;
use crate::routing::ObjectKey;

/// The namespace of an object that has none in its metadata.
const DEFAULT_NAMESPACE: &str = "default";

/// The metadata of an object that sluice uses. Each field is read separately: a field with an unexpected
/// value is treated as missing, and affects no other field.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// The name; empty if there is none.
    pub name: String,
    /// The namespace; `default` if there is none.
    pub namespace: String,
    /// Distinguishes the object from earlier ones with the same name.
    pub uid: Option<String>,
    /// Identifies this version of the object.
    pub resource_version: Option<String>,
    /// The generation, which changes with the object's spec.
    pub generation: Option<i64>,
    /// The creation time; an error if it cannot be read.
    pub created: Result<Option<Time>, Unreadable>,
    /// The label that names the Service of an EndpointSlice.
    pub service_name: Option<String>,
}

/// A value that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl Head {
    pub(super) fn of(object: &[u8]) -> Self {
        let mut head = Head {
            name: String::new(),
            namespace: DEFAULT_NAMESPACE.to_owned(),
            uid: None,
            resource_version: None,
            generation: None,
            created: Ok(None),
            service_name: None,
        };
        let metadata = field(object, "metadata").unwrap_or_default();
        for (name, value) in FieldScanner::of(metadata) {
            match name {
                b"\"name\"" => head.name = read(value).unwrap_or_default(),
                b"\"namespace\"" => {
                    head.namespace = read(value).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
                }
                b"\"uid\"" => head.uid = read(value),
                b"\"resourceVersion\"" => head.resource_version = read(value),
                b"\"generation\"" => head.generation = read(value),
                b"\"creationTimestamp\"" => {
                    head.created = serde_json::from_slice(value).map_err(|_| Unreadable);
                }
                b"\"labels\"" => {
                    head.service_name = field(value, SERVICE_NAME_LABEL).and_then(read)
                }
                _ => {}
            }
        }
        head
    }

    /// The object's key. Its name is empty if the object has no name.
    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(&self.namespace, &self.name)
    }

    /// The metadata in the form of the Kubernetes API types.
    pub(in crate::control) fn metadata(&self) -> ObjectMeta {
        let label = |name: &String| BTreeMap::from([(SERVICE_NAME_LABEL.to_owned(), name.clone())]);
        ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            uid: self.uid.clone(),
            resource_version: self.resource_version.clone(),
            generation: self.generation,
            creation_timestamp: self.created.clone().ok().flatten(),
            labels: self.service_name.as_ref().map(label),
            ..ObjectMeta::default()
        }
    }
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unexpected_value_affects_no_other_field() {
        let head = Head::of(
            br#"{"metadata": {
                "name": "a", "namespace": null, "uid": "u", "resourceVersion": 7,
                "generation": "one", "creationTimestamp": "9999-12-31T23:59:59Z",
                "labels": {"x": {}, "kubernetes.io/service-name": "s"},
                "managedFields": [{"time": "9999-12-31T23:59:59Z"}],
                "ownerReferences": 5
            }}"#,
        );
        let expected = Head {
            name: "a".to_owned(),
            namespace: "default".to_owned(),
            uid: Some("u".to_owned()),
            resource_version: None,
            generation: None,
            created: Err(Unreadable),
            service_name: Some("s".to_owned()),
        };
        assert_eq!(head, expected);
    }

    #[test]
    fn any_text_has_metadata() {
        for object in ["", "5", "{}", "{\"metadata\": []}", "{\"metadata\": {\"name\": 5}}", "{\"m"]
        {
            let head = Head::of(object.as_bytes());
            assert_eq!((head.name.as_str(), head.namespace.as_str()), ("", "default"), "{object}");
        }
    }
}
