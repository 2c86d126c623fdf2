//! How a route serves TLS: its `spec.tls` with the Secrets and ConfigMaps that it names.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::certificate_notes::certificate_notes;
use super::conditions::Problem;
use super::named_objects::{CONFIG_MAPS_OF_A_NAMESPACE, SECRETS_OF_A_NAMESPACE};
use super::resolve::Targets;
use super::tls_object::{TlsEntry, TlsFault, UsedEntries};
use super::tls_objects::PermittedObjects;
use super::tls_references::{Reference, Role, references, text};
use crate::control::api::TlsSpec;
use crate::routing::{Kind, ObjectRef, RouteSpec};
use crate::termination::{
    CertificateText, ClientCertificates, Identity, NotReady, Roots, ServerParts, Termination,
    TerminationText, TicketKeys, UpstreamParts,
};

/// The reason for a Secret or ConfigMap that is missing or cannot be used.
const INVALID_REF: &str = "InvalidCertificateRef";
/// The reason for one that is not known, and for a route that is not served for want of one.
const NOT_READY: &str = "CertificateNotReady";
/// The reason for a route that is not served because the installation does not serve TLS.
const DISABLED: &str = "TerminateDisabled";
/// The reason for a route on listeners where there is no TLS.
const NO_TLS: &str = "ListenerNotTls";
/// The reason for one beyond the most that the routes of a namespace may name.
const TOO_MANY: &str = "TooManyReferences";

/// How a route serves TLS, and what it has for that.
#[derive(Debug)]
pub(super) struct RouteTls {
    route: ObjectRef,
    text: TerminationText,
    /// What it names, in the order of the fields.
    references: Vec<Reference>,
    /// The last good content of each object. It outlives the object, but not the right to use it.
    last: LastGood,
    /// The objects to which it may refer, as the store counts them.
    pub(super) permitted: PermittedObjects,
    /// Why it is not served, if so: the reason and the message.
    pub(super) unserved: Option<(&'static str, String)>,
    /// What is to be said of the certificates that it serves.
    pub(super) notes: Vec<String>,
    /// Whether its listeners are of the protocol `tcp`, all of them.
    on_tcp: bool,
    /// What was made last, and of what.
    made: Option<(Parts, Arc<Termination>)>,
    /// What an earlier version of the route was served with, until new certificates that it names are read.
    meanwhile: Option<Arc<Termination>>,
}

#[derive(Debug, Default)]
struct LastGood {
    identities: BTreeMap<ObjectRef, Arc<Identity>>,
    roots: BTreeMap<ObjectRef, Arc<Roots>>,
}

impl LastGood {
    fn forget(&mut self, object: &ObjectRef) {
        self.identities.remove(object);
        self.roots.remove(object);
    }
}

/// The content of the objects, as far as there is any.
#[derive(Debug, Default, PartialEq)]
struct Parts {
    certificates: Vec<(CertificateText, Arc<Identity>)>,
    client_ca: Option<Arc<Roots>>,
    upstream_ca: Option<Arc<Roots>>,
    upstream_certificate: Option<(CertificateText, Arc<Identity>)>,
    /// The protocols that are selected from.
    alpn: Vec<Box<str>>,
    /// Whether some are not what their objects have now.
    stale: bool,
    /// Whether some were not read yet.
    unread: bool,
}

impl Parts {
    /// Adds a certificate, unless its Secret is named twice.
    fn add_certificate(&mut self, certificate: Option<(CertificateText, Arc<Identity>)>) {
        let known = |text: &CertificateText| self.certificates.iter().any(|(one, _)| one == text);
        let certificate = certificate.filter(|(text, _)| !known(text));
        self.certificates.extend(certificate);
    }
}

impl RouteTls {
    pub(super) fn new(route: &ObjectRef, spec: &TlsSpec, on_tcp: bool) -> Self {
        let references = references(route, spec);
        RouteTls {
            route: route.clone(),
            text: text(route, spec),
            references,
            last: LastGood::default(),
            permitted: PermittedObjects::new(),
            unserved: None,
            notes: Vec::new(),
            on_tcp,
            made: None,
            meanwhile: None,
        }
    }

    /// The Secrets and ConfigMaps that it names.
    pub(super) fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        self.references.iter().map(|reference| &reference.object)
    }

    /// Why there is no TLS on its listeners, if so: the reason and the message.
    pub(super) fn without_tls(&self) -> Option<(&'static str, &str)> {
        let unserved = self.unserved.as_ref().filter(|(reason, _)| *reason == NO_TLS);
        unserved.map(|(reason, message)| (*reason, &**message))
    }

    /// Takes over what an earlier version of the route has had.
    pub(super) fn inherit(&mut self, former: &mut RouteTls) {
        self.last = std::mem::take(&mut former.last);
        let uses = |object: &ObjectRef, entries: UsedEntries| {
            let mut references = self.references.iter();
            references.any(|one| one.object == *object && one.role.used_entries() == entries)
        };
        self.last.identities.retain(|object, _| uses(object, UsedEntries::Identity));
        self.last.roots.retain(|object, _| uses(object, UsedEntries::Authorities));
        let made = former.made.take();
        match self.text == former.text {
            true => (self.made, self.meanwhile) = (made, former.meanwhile.take()),
            false => {
                let served = made.map(|(_, made)| made).or_else(|| former.meanwhile.take());
                self.meanwhile = served.filter(|_| self.has_only_other_certificates(former));
            }
        }
    }

    /// Whether it differs from an earlier version only in the certificates, and nothing that that one named needed a
    /// grant, which could be taken back.
    fn has_only_other_certificates(&self, former: &RouteTls) -> bool {
        let certificates = self.text.certificates.clone();
        let namespace = former.route.namespace();
        let is_own = |reference: &Reference| reference.object.namespace() == namespace;
        TerminationText { certificates, ..former.text.clone() } == self.text
            && former.references.iter().all(is_own)
    }

    /// How it serves TLS now. Adds what is wrong with what it names to `problems`.
    pub(super) fn resolve(
        &mut self,
        route: &RouteSpec,
        targets: &Targets,
        tickets: Option<&TicketKeys>,
        problems: &mut Vec<Problem>,
    ) -> Arc<Termination> {
        self.permitted.clear();
        self.notes.clear();
        let mut parts = Parts { alpn: route.alpn.clone(), ..Parts::default() };
        // Where no TLS is served, nothing is read for it.
        let is_read = tickets.is_some() && !self.on_tcp;
        for index in 0..self.references.len() {
            let fault = self.resolve_one(index, route, targets, is_read, &mut parts);
            let field = self.references.get(index).map(|reference| &reference.field);
            if let (Some((reason, message)), Some(field)) = (fault, field) {
                let field = format!("spec.tls.{field}");
                problems.push(Problem { key: route.key.clone(), field, reason, message });
            }
        }
        self.unserved = self.unserved(tickets.is_some(), &parts);
        let Some(tickets) = tickets else {
            self.meanwhile = None;
            return self.not_ready(NotReady::Disabled);
        };
        if self.unserved.is_some() {
            let meanwhile = self.meanwhile.take().filter(|_| parts.unread);
            let Some(meanwhile) = meanwhile else { return self.not_ready(NotReady::NoCertificate) };
            self.unserved = None;
            self.meanwhile = Some(Arc::clone(&meanwhile));
            return meanwhile;
        }
        self.meanwhile = None;
        let upstream = parts.upstream_certificate.as_ref();
        self.notes = certificate_notes(route, &parts.certificates, upstream, targets.tls.now());
        self.make(route, parts, tickets).unwrap_or_else(|cause| {
            let message = format!("{cause}; connections of the route are refused");
            let field = "spec.tls".to_owned();
            self.unserved = Some((NOT_READY, message.clone()));
            problems.push(Problem { key: route.key.clone(), field, reason: NOT_READY, message });
            self.not_ready(NotReady::NoCertificate)
        })
    }

    /// Finds what one field names. Returns what is wrong with it: the reason and the message.
    fn resolve_one(
        &mut self,
        index: usize,
        route: &RouteSpec,
        targets: &Targets,
        is_read: bool,
        parts: &mut Parts,
    ) -> Option<(&'static str, String)> {
        let Reference { object, role, .. } = self.references.get(index)?;
        let refused = not_granted(object, route, targets)
            .or_else(|| beyond_most(object, route, targets).filter(|_| is_read));
        if refused.is_some() || !is_read {
            // What it had last may be old when it is read again.
            self.last.forget(object);
            return refused;
        }
        self.permitted.insert((object.clone(), role.used_entries()));
        let (fault, is_served) = match role {
            Role::Certificate | Role::UpstreamCertificate => {
                let found = targets.tls.identity(object);
                let (identity, fault) =
                    good(found, object, &mut self.last.identities, &mut parts.stale);
                let is_served = identity.is_some();
                let identity = identity.map(|identity| (certificate_text(object), identity));
                match role {
                    Role::UpstreamCertificate => parts.upstream_certificate = identity,
                    _ => parts.add_certificate(identity),
                }
                (fault, is_served)
            }
            Role::ClientCa | Role::UpstreamCa => {
                let found = targets.tls.authorities(object);
                let (roots, fault) = good(found, object, &mut self.last.roots, &mut parts.stale);
                let is_served = roots.is_some();
                match role {
                    Role::UpstreamCa => parts.upstream_ca = roots,
                    _ => parts.client_ca = roots,
                }
                (fault, is_served)
            }
        };
        let fault = fault?;
        let ObjectRef { kind, key } = object;
        parts.unread |= fault == TlsFault::NotRead;
        let reason = match fault {
            TlsFault::NotRead | TlsFault::Unreadable(_) => NOT_READY,
            _ => INVALID_REF,
        };
        let instead = if is_served { "; what it had last is still used" } else { "" };
        Some((reason, format!("{kind} {key} {fault}{instead}")))
    }

    /// Why it is not served, if so.
    fn unserved(&self, enabled: bool, parts: &Parts) -> Option<(&'static str, String)> {
        let lacks = |role: Role| self.references.iter().any(|reference| reference.role == role);
        let missing = if parts.certificates.is_empty() {
            "no certificate of tls.certificates can be used"
        } else if parts.client_ca.is_none() && lacks(Role::ClientCa) {
            "tls.clientCertificates.ca cannot be used"
        } else if parts.upstream_ca.is_none() && lacks(Role::UpstreamCa) {
            "tls.upstream.ca cannot be used"
        } else if parts.upstream_certificate.is_none() && lacks(Role::UpstreamCertificate) {
            "tls.upstream.clientCertificate cannot be used"
        } else {
            ""
        };
        if self.on_tcp {
            let message = "none of the route's listeners is of protocol tls, so there is no TLS to serve; its \
                           connections are refused";
            Some((NO_TLS, message.to_owned()))
        } else if !enabled {
            let message = "this installation does not serve TLS itself: its setting terminate is off; connections \
                           of the route are refused";
            Some((DISABLED, message.to_owned()))
        } else if missing.is_empty() {
            None
        } else {
            Some((NOT_READY, format!("{missing}; connections of the route are refused")))
        }
    }

    /// A termination without keys. What was made before is dropped with its keys.
    fn not_ready(&mut self, why: NotReady) -> Arc<Termination> {
        self.made = None;
        Arc::new(Termination::not_ready(self.text.clone(), why))
    }

    /// Makes it of what there is, unless that is what it was made of last.
    ///
    /// # Errors
    /// When rustls refuses it. The text is the cause, for people.
    fn make(
        &mut self,
        route: &RouteSpec,
        parts: Parts,
        tickets: &TicketKeys,
    ) -> Result<Arc<Termination>, String> {
        if let Some((made_of, made)) = &self.made
            && *made_of == parts
        {
            return Ok(Arc::clone(made));
        }
        let client_certificates =
            parts.client_ca.as_ref().zip(self.text.client_certificates.as_ref());
        let server = ServerParts {
            certificates: parts.certificates.clone(),
            alpn: parts.alpn.clone(),
            min_version: self.text.min_version,
            client_certificates: client_certificates.map(|(roots, text)| ClientCertificates {
                roots: Arc::clone(roots),
                required: text.required,
            }),
            tickets: tickets.clone(),
            route: route.key.full().to_string().into(),
        };
        let upstream = parts.upstream_ca.as_ref().zip(self.text.upstream.as_ref());
        let upstream = upstream.map(|(roots, text)| UpstreamParts {
            server_name: text.server_name.clone(),
            roots: Arc::clone(roots),
            certificate: parts.upstream_certificate.clone(),
        });
        let made = Termination::new(self.text.clone(), server, upstream)?;
        let made = Arc::new(made.with_stale(parts.stale));
        self.made = Some((parts, Arc::clone(&made)));
        Ok(made)
    }
}

/// What an object has, or what it had last, which is `stale`; and what is wrong with it. An object that cannot be read
/// has what was read of it, as far as is known.
fn good<T>(
    found: TlsEntry<T>,
    object: &ObjectRef,
    last: &mut BTreeMap<ObjectRef, Arc<T>>,
    stale: &mut bool,
) -> (Option<Arc<T>>, Option<TlsFault>) {
    let TlsEntry { value, fault } = found;
    if let Some(value) = &value {
        last.insert(object.clone(), Arc::clone(value));
    }
    let is_own = value.is_some();
    let value = value.or_else(|| last.get(object).cloned());
    *stale |= value.is_some() && !is_own;
    (value, fault)
}

fn certificate_text(secret: &ObjectRef) -> CertificateText {
    CertificateText { secret: secret.key.to_string().into() }
}

/// That no grant lets the route refer to an object, if so: the reason and the message.
fn not_granted(
    object: &ObjectRef,
    route: &RouteSpec,
    targets: &Targets,
) -> Option<(&'static str, String)> {
    let (namespace, name) = (object.namespace(), object.name());
    if targets.grants.allows(route.key.referrer(), object.kind, &object.key) {
        return None;
    }
    let message = format!(
        "no ReferenceGrant in namespace {namespace} lets the {}s of {} refer to {} {name}",
        route.key.kind(),
        route.key.namespace(),
        object.kind,
    );
    Some(("RefNotPermitted", message))
}

/// That the routes of the namespace name too many objects before this one, if so: the reason and the message.
fn beyond_most(
    object: &ObjectRef,
    route: &RouteSpec,
    targets: &Targets,
) -> Option<(&'static str, String)> {
    let ObjectRef { kind, key } = object;
    if !targets.tls.is_beyond(route.key.namespace(), object) {
        return None;
    }
    let most = match kind {
        Kind::ConfigMap => CONFIG_MAPS_OF_A_NAMESPACE,
        _ => SECRETS_OF_A_NAMESPACE,
    };
    let message = format!(
        "{kind} {key} is not read: the routes of this namespace name more than {most} {kind}s for TLS; only those \
         of the oldest routes are read"
    );
    Some((TOO_MANY, message))
}
