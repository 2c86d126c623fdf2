//! Reads one Secret or ConfigMap.
//!
//! What a Secret holds stays in memory that is wiped when it is dropped ([`fetch_wiped`]). No error text has anything of
//! it.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::GetParams;
use kube::core::Request;
use kube::{Client, Error};
use serde::Deserialize;
use tokio::time::timeout;

use super::schedule::ReadEnd;
use crate::control::api::SecretData;
use crate::control::objects::{fetch_wiped, field};
use crate::routing::{Kind, ObjectRef};

/// How long the API server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a read has brought.
#[derive(Debug)]
pub(super) enum ReferenceContent {
    /// The entries of a Secret.
    Secret(SecretData),
    /// The `data` of a ConfigMap.
    ConfigMap(Option<BTreeMap<String, String>>),
    /// The object does not exist.
    Missing,
    /// The object could not be read.
    Unread {
        /// Why, for those who read the status of a route. It holds nothing of the object, and is the same each time.
        cause: &'static str,
        /// What the API server says, for the operator: it names accounts, and may be another each time.
        detail: String,
        /// Whether sluice lacks the permission.
        forbidden: bool,
    },
}

/// What a route is told that lacks a permission of sluice's.
fn forbidden(kind: Kind) -> &'static str {
    match kind {
        Kind::Secret => {
            "sluice may not get Secrets there; the value terminate of its chart lets it"
        }
        _ => "sluice may not get ConfigMaps there; the value rbac.configMaps of its chart lets it",
    }
}

/// Reads an object.
pub(super) async fn read(client: &Client, object: &ObjectRef) -> (ReadEnd, ReferenceContent) {
    let mut failed = None;
    // A connection that was kept for later use may have ended meanwhile, which is no failure of the server.
    for _ in 0..2 {
        match timeout(TIMEOUT, get(client, object)).await {
            Ok(Ok((version, content))) => return (ReadEnd::Read(version), content),
            Ok(Err(Error::Api(status))) if status.code == 404 => {
                return (ReadEnd::Missing, ReferenceContent::Missing);
            }
            Ok(Err(Error::Api(status))) => {
                let is_forbidden = status.code == 403;
                let cause = match is_forbidden {
                    true => forbidden(object.kind),
                    false => "the API server does not give it",
                };
                let detail = status.message.clone();
                return unread(cause, detail, is_forbidden);
            }
            Ok(Err(error)) => {
                failed = Some(unread("the API server does not give it", error.to_string(), false));
            }
            Err(elapsed) => {
                return unread("the API server does not answer", elapsed.to_string(), false);
            }
        }
    }
    failed.unwrap_or_else(|| unread("the API server does not give it", String::new(), false))
}

fn unread(cause: &'static str, detail: String, forbidden: bool) -> (ReadEnd, ReferenceContent) {
    (ReadEnd::Failed, ReferenceContent::Unread { cause, detail, forbidden })
}

async fn get(
    client: &Client,
    object: &ObjectRef,
) -> Result<(Option<String>, ReferenceContent), Error> {
    let (namespace, name) = (object.key.namespace(), object.key.name());
    let plural = if object.kind == Kind::Secret { "secrets" } else { "configmaps" };
    let resource = Request::new(format!("/api/v1/namespaces/{namespace}/{plural}"));
    let request = resource.get(name, &GetParams::default()).map_err(Error::BuildRequest)?;
    let text = fetch_wiped(client, request).await?;
    let content = match object.kind {
        Kind::Secret => secret(&text),
        _ => config_map(&text),
    };
    let version = field(&text, "metadata").and_then(|head| field(head, "resourceVersion"));
    let version = version.and_then(|version| serde_json::from_slice(version).ok());
    Ok((version, content.unwrap_or_else(|cause| unread(cause, String::new(), false).1)))
}

fn secret(text: &[u8]) -> Result<ReferenceContent, &'static str> {
    let data = field(text, "data").map_or(Ok(SecretData::default()), serde_json::from_slice);
    // The error would say what is in the Secret.
    data.map(ReferenceContent::Secret).map_err(|_| "its data is not an object of texts in base64")
}

fn config_map(text: &[u8]) -> Result<ReferenceContent, &'static str> {
    #[derive(Deserialize)]
    struct UsedConfigMap {
        #[serde(default)]
        data: Option<BTreeMap<String, String>>,
    }
    let config_map: Result<UsedConfigMap, _> = serde_json::from_slice(text);
    config_map
        .map(|config_map| ReferenceContent::ConfigMap(config_map.data))
        .map_err(|_| "its data is not an object of texts")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use hyper::{Request as HttpRequest, Response};
    use kube::client::Body;
    use tower::service_fn;

    use super::*;
    use crate::routing::ObjectKey;

    /// What is read of an object if the API server answers this.
    async fn answered(kind: Kind, code: u16, text: &'static str) -> (ReadEnd, ReferenceContent) {
        let answer = move |request: HttpRequest<Body>| async move {
            assert!(request.uri().path().starts_with("/api/v1/namespaces/ns/"), "{request:?}");
            let answer =
                Response::builder().status(code).body(Body::from(text.as_bytes().to_vec()));
            Ok::<_, std::convert::Infallible>(answer.unwrap())
        };
        let client = Client::new(service_fn(answer), "default");
        read(&client, &ObjectRef::new(kind, ObjectKey::new("ns", "a"))).await
    }

    #[tokio::test]
    async fn a_secret_is_read_with_its_version() {
        let text = r#"{"metadata": {"resourceVersion": "7", "managedFields": 5}, "data":
            {"tls.key": "a2V5", "tls.crt": "Y3J0", "other": "eA=="}}"#;
        let (end, content) = answered(Kind::Secret, 200, text).await;
        assert_eq!(end, ReadEnd::Read(Some("7".to_owned())));
        let ReferenceContent::Secret(data) = content else { panic!("{content:?}") };
        assert_eq!(
            (data.get("tls.key"), data.get("tls.crt")),
            (Some(&b"key"[..]), Some(&b"crt"[..]))
        );
        let (_, content) = answered(Kind::Secret, 200, r#"{"metadata": {}}"#).await;
        assert!(matches!(content, ReferenceContent::Secret(data) if data == SecretData::default()));
    }

    #[tokio::test]
    async fn a_config_map_is_read() {
        let text = r#"{"metadata": {"resourceVersion": "7"}, "data": {"ca.crt": "text"}}"#;
        let (end, content) = answered(Kind::ConfigMap, 200, text).await;
        assert_eq!(end, ReadEnd::Read(Some("7".to_owned())));
        let ReferenceContent::ConfigMap(Some(data)) = content else { panic!("{content:?}") };
        assert_eq!(data["ca.crt"], "text");
    }

    #[tokio::test]
    async fn failures_are_told_without_what_the_object_holds() {
        for (kind, code, text, expected) in [
            (
                Kind::Secret,
                200,
                r#"{"data": {"tls.key": ["PRIVATE"]}}"#,
                "its data is not an object",
            ),
            (
                Kind::ConfigMap,
                200,
                r#"{"data": {"ca.crt": ["PRIVATE"]}}"#,
                "its data is not an object",
            ),
            (Kind::Secret, 403, r#"{"code": 403, "message": "user x"}"#, "may not get Secrets"),
            (Kind::ConfigMap, 403, r#"{"code": 403}"#, "may not get ConfigMaps"),
            (Kind::Secret, 500, "PRIVATE", "does not give it"),
        ] {
            let (_, content) = answered(kind, code, text).await;
            let ReferenceContent::Unread { cause, forbidden, .. } = content else {
                panic!("{content:?}")
            };
            assert!(cause.contains(expected) && !cause.contains("PRIVATE"), "{cause}");
            assert_eq!(forbidden, code == 403);
        }
        let (end, content) = answered(Kind::Secret, 404, r#"{"code": 404}"#).await;
        assert_eq!(end, ReadEnd::Missing);
        assert!(matches!(content, ReferenceContent::Missing));
    }
}
