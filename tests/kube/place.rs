//! A place for one odd object: a namespace with a route that is as one expects, and a sluice that serves it.

use std::net::SocketAddr;

use serde_json::{Value, json};
use testkit::Greeted;

use crate::controlled::Sluice;
use crate::objects::{Objects, account, route, servers, service, slice};
use crate::support::{ApiServer, Kubeconfig, PATIENCE, within};

/// A sluice in a namespace with one route, `good.test`, that is as one expects.
pub(crate) struct Place {
    pub(crate) objects: Objects,
    pub(crate) account: Kubeconfig,
    class: String,
    pub(crate) servers: [SocketAddr; 2],
    pub(crate) sluice: Sluice,
    /// How often it was seen that [`unharmed`](Self::unharmed).
    seen: usize,
}

impl Place {
    pub(crate) fn start(api: &ApiServer, namespace: &str) -> Self {
        api.namespace(namespace);
        let objects = Objects::of(api.admin(), namespace);
        let servers = servers(["198.18.5.1", "198.18.5.2"]);
        objects.put(&service("good"));
        objects.put(&slice("good", &servers[..1]));
        objects.put(&route("good", namespace, "good.test", "good"));
        let arguments = ["--require-class", "--namespaces", namespace];
        let account = account(api, namespace);
        let sluice = Sluice::start(&account, namespace, &arguments);
        sluice.await_ready();
        Place { objects, account, class: namespace.to_owned(), servers, sluice, seen: 0 }
    }

    /// Waits for what becomes of a route: the reasons of `Accepted` and `ResolvedRefs`, and the
    /// endpoints of its first backend.
    pub(crate) fn await_route(&self, name: &str, reasons: [&str; 2], endpoints: &[SocketAddr]) {
        self.await_route_of(&self.sluice, name, reasons, endpoints);
    }

    /// The same, as another sluice has it.
    pub(crate) fn await_route_of(
        &self,
        sluice: &Sluice,
        name: &str,
        reasons: [&str; 2],
        endpoints: &[SocketAddr],
    ) {
        let what = format!("{name} has {reasons:?} and {endpoints:?}");
        within(PATIENCE, &what, || {
            let route = sluice.routes().into_iter().find(|route| route["name"] == name)?;
            let has = [0, 1].map(|index| route["conditions"][index]["reason"].clone());
            (has == reasons && addresses(&route["backends"][0]) == endpoints).then_some(())
        });
    }

    /// Waits until a route is told that it cannot be read, with a message that has `why` in it;
    /// `served` as it was before, or not at all.
    pub(crate) fn await_invalid(&self, name: &str, why: &str, served: bool) {
        within(PATIENCE, why, || {
            let route = self.sluice.routes().into_iter().find(|route| route["name"] == name)?;
            let accepted = &route["conditions"][0];
            let told = accepted["message"].as_str()?.contains(why);
            (route["served"] == served && accepted["reason"] == "Invalid" && told).then_some(())
        });
    }

    /// The good route is served and changes, as do its endpoints, and the admin port answers.
    pub(crate) fn unharmed(&mut self) {
        self.seen += 1;
        let seen = self.seen;
        let hostname = format!("good-{seen}.test");
        let mut good = route("good", &self.class, "good.test", "good");
        good["spec"]["hostnames"] = json!(["good.test", hostname]);
        self.objects.put(&good);
        self.objects.put(&slice("good", &self.servers[..1 + seen % 2]));
        within(PATIENCE, "the good route is followed", || {
            let route = self.sluice.routes().into_iter().find(|route| route["name"] == "good")?;
            let endpoints = addresses(&route["backends"][0]).len();
            (route["hostnames"][1] == *hostname && endpoints == 1 + seen % 2).then_some(())
        });
        for name in ["good.test", &hostname] {
            self.visit(name);
        }
        for page in ["/livez", "/readyz", "/metrics", "/routes"] {
            assert_eq!(self.sluice.get(page).0, 200, "{page}");
        }
        assert_eq!(self.sluice.metric("sluice_panics_total"), 0.0);
    }

    /// Who answers to a name at another sluice, if anybody does.
    pub(crate) fn visit_at(&self, sluice: &Sluice, name: &str) -> Option<String> {
        Greeted::visit(sluice.address, name).ok()
    }

    /// What was logged with this message of objects of this kind.
    pub(crate) fn lines(&self, message: &str, kind: &str) -> Vec<Value> {
        let mut lines = self.sluice.all_logged(message);
        lines.retain(|line| line["kind"] == kind);
        lines
    }

    /// Waits for the first of those lines.
    pub(crate) fn await_line(&self, message: &str, kind: &str) -> Value {
        within(PATIENCE, message, || self.lines(message, kind).into_iter().next())
    }

    pub(crate) fn visit(&self, name: &str) -> String {
        Greeted::visit(self.sluice.address, name).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub(crate) fn refuses(&self, name: &str) -> bool {
        Greeted::visit(self.sluice.address, name).is_err()
    }
}

pub(crate) const FINE: [&str; 2] = ["Accepted", "ResolvedRefs"];

/// A definition that takes whatever it is given, as one may that is not known here.
pub(crate) fn lenient(name: &str, kind: &str, version: &str) -> String {
    let (plural, group) = name.split_once('.').unwrap();
    format!(
        "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: {name}
  annotations: {{ api-approved.kubernetes.io: unapproved }}
spec:
  group: {group}
  names: {{ kind: {kind}, plural: {plural}, singular: {}, shortNames: [{}] }}
  scope: Namespaced
  versions:
    - name: {version}
      served: true
      storage: true
      subresources: {{ status: {{}} }}
      schema:
        openAPIV3Schema: {{ type: object, x-kubernetes-preserve-unknown-fields: true }}
",
        kind.to_lowercase(),
        if kind == "SniRoute" { "sni" } else { "refgrant" },
    )
}

pub(crate) fn addresses(backend: &Value) -> Vec<SocketAddr> {
    let endpoints = backend["endpoints"].as_array().into_iter().flatten();
    endpoints.map(|endpoint| endpoint["address"].as_str().unwrap().parse().unwrap()).collect()
}
