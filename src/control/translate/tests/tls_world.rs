//! A builder whose routes serve TLS, and certificates for them.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use zeroize::Zeroizing;

use super::*;
use crate::control::api::SecretData;
use crate::control::status::RouteStatus;
use crate::termination::{NotReady, Termination, TicketKeys, TlsState};

/// A builder, with what it has come to.
pub(super) struct World {
    pub(super) builder: Builder,
    pub(super) served: Option<Arc<Termination>>,
    pub(super) status: Option<RouteStatus>,
    pub(super) wanted: std::collections::BTreeSet<String>,
    /// Those that are to be read since the last change.
    pub(super) read_anew: Vec<String>,
}

impl World {
    pub(super) fn new() -> Self {
        World::of(Builder::new(terminating()))
    }

    pub(super) fn of(builder: Builder) -> Self {
        World {
            builder,
            served: None,
            status: None,
            wanted: Default::default(),
            read_anew: Vec::new(),
        }
    }

    /// With the route `r` of namespace `data`, whose `tls` has these fields.
    pub(super) fn with(tls: &str) -> Self {
        let mut world = World::new();
        world.put(tls);
        world
    }

    pub(super) fn put(&mut self, tls: &str) -> &mut Self {
        self.builder.put_route(&tls_route("r", tls));
        self.settle()
    }

    /// Follows the route `r`. Returns how many routes were processed.
    pub(super) fn settle(&mut self) -> &mut Self {
        let delta = self.builder.settle();
        for (key, spec) in delta.changes.routes {
            if key.name() == "r" {
                self.served = spec.and_then(|spec| spec.termination);
            }
        }
        let told = delta.statuses.into_iter().find(|status| status.object.name() == "r");
        self.status = told.or(self.status.take());
        let shown = |object: &ObjectRef| format!("{} {}", object.kind, object.key);
        delta.references.unwanted.iter().for_each(|object| _ = self.wanted.remove(&shown(object)));
        self.read_anew = delta.references.wanted.iter().map(shown).collect();
        self.wanted.extend(self.read_anew.iter().cloned());
        self
    }

    pub(super) fn secret(&mut self, name: &str, entries: &[(&str, &str)]) -> &mut Self {
        self.builder.put_secret(&key_of(name), &data(entries));
        self.settle()
    }

    pub(super) fn certificate(&mut self, name: &str, of: &Pair) -> &mut Self {
        self.secret(name, &of.entries())
    }

    /// Whether the route is served with something that its objects no longer have.
    pub(super) fn is_stale(&self) -> bool {
        self.served.as_ref().unwrap().state() == TlsState::Stale
    }

    /// The conditions `ResolvedRefs` and `Programmed`.
    pub(super) fn conditions(&self) -> [String; 2] {
        let [_, refs, programmed] = &self.status.as_ref().unwrap().conditions;
        [refs, programmed].map(|condition| {
            let text = format!("{} {} {}", condition.status, condition.reason, condition.message);
            text.trim_end().to_owned()
        })
    }

    #[track_caller]
    pub(super) fn is(&self, refs: &str, programmed: &str) {
        assert_eq!(self.conditions(), [refs, programmed]);
    }

    /// The serial numbers of the served certificates, or why there are none.
    pub(super) fn serves(&self) -> Result<Vec<String>, NotReady> {
        let served = self.served.as_ref().unwrap();
        served.server()?;
        Ok(served.certificates().map(|(_, facts)| facts.serial.to_string()).collect())
    }

    pub(super) fn grant(&mut self, kind: &str) -> &mut Self {
        self.builder.put_grant(&yaml(&format!(
            "metadata: {{name: g, namespace: other}}\n\
             spec: {{from: [{{group: sluice.dev, kind: SniRoute, namespace: data}}], \
             to: [{{group: '', kind: {kind}}}]}}"
        )));
        self.settle()
    }
}

pub(super) fn terminating() -> Installation {
    Installation { termination: Some(TicketKeys::default()), ..installation() }
}

pub(super) fn tls_route(name: &str, tls: &str) -> SniRoute {
    let fields = format!("hostnames: [{name}.test], tls: {{mode: Terminate, {tls}}}");
    route(name, &fields, ADDRESS)
}

pub(super) const ONE: &str = "certificates: [{secret: one}]";
pub(super) const FINE: [&str; 2] = ["true ResolvedRefs", "true Programmed"];

pub(super) fn key_of(name: &str) -> ObjectKey {
    let (namespace, name) = name.split_once('/').unwrap_or(("data", name));
    ObjectKey::new(namespace, name)
}

pub(super) fn data(entries: &[(&str, &str)]) -> SecretData {
    let mut data = SecretData::default();
    for (key, text) in entries {
        data.set(key, Zeroizing::new(text.as_bytes().to_vec()));
    }
    data
}

/// A certificate that its own key has signed, and the key.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) serial: String,
}

impl Pair {
    pub(super) fn new(names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Self {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        let key = key.serialize_pem();
        let read = crate::termination::Identity::from_pem(certificate.as_bytes(), key.as_bytes());
        let serial = read.unwrap().facts().serial.to_string();
        Pair { certificate, key, serial }
    }

    pub(super) fn of_r() -> Self {
        Pair::new(&["r.test"], |_| ())
    }

    pub(super) fn entries(&self) -> [(&str, &str); 2] {
        [("tls.crt", &self.certificate), ("tls.key", &self.key)]
    }
}
