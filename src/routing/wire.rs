//! The text form of routes, for `/routes`, `explain` and the saved table.
//!
//! It contains everything that a lookup needs, so that a table made from it decides like the original. Each
//! field of a route is defined here once; those of its policy are in [`Policy`](crate::policy::Policy) itself. Readers
//! ignore unknown fields.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    AnyOn, Attachment, BackendKey, Hostname, Hostnames, InvalidHostname, Kind, ObjectKey,
    ObjectRef, RouteKey, RouteSpec, Scope, ServicePort, TrafficPolicy,
};
use crate::policy::{AccessLists, EffectivePolicy};
use crate::termination::{NotReady, Termination, TerminationText};

/// A route without its backends, which each use of this form writes differently.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteText {
    /// The kind of its object.
    #[serde(default)]
    pub kind: Kind,
    /// The namespace of its object.
    pub namespace: String,
    /// The name of its object.
    pub name: String,
    /// The index of the rule in the object.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rule: u16,
    /// When the object was created, in seconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// Its first attachment, if that is to listeners of the configuration, as with nearly every route.
    /// Otherwise this has no hostnames.
    #[serde(flatten)]
    pub first: AttachmentText,
    /// Its other attachments, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<ScopedText>,
    /// The protocols of which the client must offer one; empty means any.
    #[serde(default)]
    pub alpn: Vec<Box<str>>,
    /// How it serves TLS. `None` is Passthrough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TerminationText>,
    /// Its traffic policy.
    #[serde(flatten)]
    pub policy: EffectivePolicy,
}

/// An attachment, without its scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentText {
    /// The hostnames that the route has there.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// The listeners on which `*` is served; `None` means all of the attachment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any_on: Option<AnyOnText>,
    /// The listeners; empty means all of the scope.
    #[serde(default)]
    pub listeners: Vec<Box<str>>,
}

/// An attachment with its scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScopedText {
    /// The Gateway of these listeners. `None` means the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayText>,
    /// The attachment.
    #[serde(flatten)]
    pub attachment: AttachmentText,
}

/// The identity of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayText {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A selection of listeners.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AnyOnText {
    /// Only these.
    Only(Box<[Box<str>]>),
    /// All except these.
    Except(Box<[Box<str>]>),
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendText {
    /// `namespace/service:port`, or the address as the route writes it.
    pub backend: String,
    /// The type of the backend.
    pub kind: BackendKind,
    /// Of an address: the namespace of the routes that name it.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub namespace: Box<str>,
}

/// The type of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendKind {
    /// A port of a Service.
    Service,
    /// An address outside the cluster.
    Address,
}

/// Why a text is no valid route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    /// A hostname is invalid.
    #[error(transparent)]
    Hostname(#[from] InvalidHostname),
    /// The policy and the origins of its fields disagree.
    #[error("policyFrom has other fields than the policy")]
    Policy,
    /// A Service's port is invalid.
    #[error("{0:?} is no namespace/service:port")]
    Service(String),
}

impl RouteText {
    /// The text form of a route.
    pub fn of(spec: &RouteSpec) -> Self {
        // Lists every field, so that the compiler reports a new one that is missing here.
        let RouteSpec { key, created, attachments, alpn, backends: _, policy, termination } = spec;
        let (first, attachments) = match &**attachments {
            [first, others @ ..] if first.scope == Scope::Config && !first.hostnames.is_empty() => {
                (AttachmentText::of(first), others)
            }
            all => (AttachmentText::default(), all),
        };
        RouteText {
            created: *created,
            first,
            attachments: attachments.iter().map(ScopedText::of).collect(),
            alpn: alpn.clone(),
            tls: termination.as_ref().map(|termination| termination.text().clone()),
            policy: policy.effective().clone(),
            ..RouteText::named(key.object(), key.rule())
        }
    }

    /// The text form of a route of which only the identity is known.
    pub fn named(object: &ObjectRef, rule: u16) -> Self {
        RouteText {
            kind: object.kind,
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            rule,
            ..RouteText::default()
        }
    }

    /// Whether no attachment of the route has a hostname.
    pub fn is_without_hostnames(&self) -> bool {
        let others = self.attachments.iter().map(|scoped| &scoped.attachment);
        [&self.first].into_iter().chain(others).all(|one| one.hostnames.is_empty())
    }

    /// The key of the route.
    pub fn key(&self) -> RouteKey {
        let key = ObjectKey::new(&self.namespace, &self.name);
        RouteKey::of_rule(ObjectRef::new(self.kind, key), self.rule)
    }

    /// Its effective policy.
    ///
    /// # Errors
    /// When the origins of its fields are not those of the fields that it has.
    pub fn traffic_policy(&self, lists: &mut AccessLists) -> Result<TrafficPolicy, InvalidText> {
        match self.policy.is_consistent() {
            true => Ok(TrafficPolicy::new(self.policy.clone(), lists)),
            false => Err(InvalidText::Policy),
        }
    }

    /// The route, with these backends and this policy. One that terminates TLS waits for its certificates, which are
    /// in no text.
    ///
    /// # Errors
    /// When a hostname is invalid.
    pub fn spec(
        self,
        backends: Vec<(BackendKey, u32)>,
        policy: Arc<TrafficPolicy>,
    ) -> Result<RouteSpec, InvalidText> {
        let key = self.key();
        let RouteText { created, first, attachments, alpn, tls, .. } = self;
        let first = Some(first).filter(|first| !first.hostnames.is_empty());
        let first = first.map(|first| first.attachment(Scope::Config));
        let others = attachments.into_iter().map(ScopedText::attachment);
        let attachments = first.into_iter().chain(others).collect::<Result<_, _>>()?;
        let termination =
            tls.map(|text| Arc::new(Termination::not_ready(text, NotReady::NoCertificate)));
        Ok(RouteSpec { key, created, attachments, alpn, backends, policy, termination })
    }
}

impl AttachmentText {
    fn of(attachment: &Attachment) -> Self {
        let Attachment { scope: _, listeners, hostnames } = attachment;
        AttachmentText {
            hostnames: hostnames.iter().map(|hostname| hostname.to_string()).collect(),
            any_on: match hostnames.any_on().clone() {
                AnyOn::All => None,
                AnyOn::Only(listeners) => Some(AnyOnText::Only(listeners)),
                AnyOn::Except(listeners) => Some(AnyOnText::Except(listeners)),
            },
            listeners: listeners.clone(),
        }
    }

    fn attachment(self, scope: Scope) -> Result<Attachment, InvalidText> {
        let AttachmentText { hostnames, any_on, listeners } = self;
        let hostnames = hostnames.iter().map(|name| name.parse::<Hostname>());
        let hostnames = hostnames.collect::<Result<Hostnames, _>>()?.with_any_on(match any_on {
            None => AnyOn::All,
            Some(AnyOnText::Only(listeners)) => AnyOn::Only(listeners),
            Some(AnyOnText::Except(listeners)) => AnyOn::Except(listeners),
        });
        Ok(Attachment { scope, listeners, hostnames })
    }
}

impl ScopedText {
    fn of(attachment: &Attachment) -> Self {
        let gateway = match &attachment.scope {
            Scope::Config => None,
            Scope::Gateway(key) => Some(GatewayText {
                namespace: key.namespace().to_owned(),
                name: key.name().to_owned(),
            }),
        };
        ScopedText { gateway, attachment: AttachmentText::of(attachment) }
    }

    fn attachment(self) -> Result<Attachment, InvalidText> {
        let scope = match self.gateway {
            None => Scope::Config,
            Some(GatewayText { namespace, name }) => {
                Scope::Gateway(ObjectKey::new(&namespace, &name))
            }
        };
        self.attachment.attachment(scope)
    }
}

impl BackendText {
    /// The text form of a backend.
    pub fn of(key: &BackendKey) -> Self {
        let (kind, namespace) = match key {
            BackendKey::Service { .. } => (BackendKind::Service, ""),
            BackendKey::Address { namespace, .. } => (BackendKind::Address, &**namespace),
        };
        BackendText { backend: key.to_string(), kind, namespace: namespace.into() }
    }

    /// The key of the backend.
    ///
    /// # Errors
    /// When the port of a Service is invalid.
    pub fn key(&self) -> Result<BackendKey, InvalidText> {
        match self.kind {
            BackendKind::Address => Ok(BackendKey::address(&self.namespace, &self.backend)),
            BackendKind::Service => {
                service(&self.backend).ok_or_else(|| InvalidText::Service(self.backend.clone()))
            }
        }
    }
}

/// Parses the text of a [`BackendKey`] for a Service.
fn service(text: &str) -> Option<BackendKey> {
    let (namespace, rest) = text.split_once('/')?;
    let (name, port) = rest.rsplit_once(':')?;
    // The name of a port contains a letter, so a number is never a name.
    let port =
        port.parse().map_or_else(|_| ServicePort::Name(Arc::from(port)), ServicePort::Number);
    Some(BackendKey::Service { service: ObjectKey::new(namespace, name), port })
}

fn is_zero(rule: &u16) -> bool {
    *rule == 0
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn attachment() -> impl Strategy<Value = Attachment> {
        let scope = prop_oneof![
            Just(Scope::Config),
            "[ab]".prop_map(|name| Scope::Gateway(ObjectKey::new("infra", &name)))
        ];
        let listeners = || vec("[a-z]{1,3}".prop_map(Box::from), 0..3);
        let any_on = prop_oneof![
            Just(AnyOn::All),
            listeners().prop_map(|some| AnyOn::Only(some.into())),
            listeners().prop_map(|some| AnyOn::Except(some.into())),
        ];
        let hostname = prop_oneof![Just("*".to_owned()), "[a-c]\\.test", "\\*\\.[a-c]\\.test"]
            .prop_map(|text| text.parse::<Hostname>().expect("a hostname"));
        (scope, listeners(), vec(hostname, 0..3), any_on).prop_map(
            |(scope, listeners, hostnames, any_on)| {
                let hostnames = hostnames.into_iter().collect::<Hostnames>().with_any_on(any_on);
                Attachment { scope, listeners, hostnames }
            },
        )
    }

    proptest! {
        #[test]
        fn a_route_is_unchanged_after_conversion_to_text_and_back(attachments in vec(attachment(), 0..4)) {
            let key = RouteKey::new(Kind::TlsRoute, "data", "kafka");
            let mut spec = RouteSpec::new(key, Hostnames::default());
            spec.attachments = attachments.into_iter().collect();
            let text = serde_json::to_string(&RouteText::of(&spec)).expect("JSON");
            let read: RouteText = serde_json::from_str(&text).expect("a route");
            let policy = Arc::new(read.traffic_policy(&mut AccessLists::default()).expect("a policy"));
            prop_assert_eq!(read.spec(Vec::new(), policy), Ok(spec), "{}", text);
        }
    }

    #[test]
    fn backends_are_unchanged_after_conversion_to_text_and_back() {
        let kafka = || ObjectKey::new("data", "kafka");
        for key in [
            BackendKey::Service { service: kafka(), port: ServicePort::Number(9093) },
            BackendKey::Service { service: kafka(), port: ServicePort::Name("kafka-tls".into()) },
            BackendKey::address("data", "[2001:db8::1]:443"),
        ] {
            assert_eq!(BackendText::of(&key).key(), Ok(key));
        }
        for backend in ["", "kafka:1", "data/kafka"] {
            let text = BackendText {
                backend: backend.to_owned(),
                kind: BackendKind::Service,
                namespace: Box::default(),
            };
            assert_eq!(text.key(), Err(InvalidText::Service(backend.to_owned())), "{backend:?}");
        }
    }
}
