//! Installations of the chart.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Once;

use tempfile::NamedTempFile;

use super::kubectl::apply;
use super::{NODE, Namespace, Target, kubectl, run};

/// The release of the chart in a namespace. Its class is the namespace's name, so that it serves no
/// other test's routes.
pub(crate) struct Sluice<'n> {
    namespace: &'n Namespace,
}

/// The port of a pod's listener.
const LISTENER: u16 = 8443;

/// The name of every release, and so of its objects.
pub(crate) const RELEASE: &str = "sluice";

impl<'n> Sluice<'n> {
    /// `helm install --wait`, with the values of a YAML text. The definition of SniRoute is all
    /// tests' together and not the release's.
    pub(crate) fn install(namespace: &'n Namespace, values: &str) -> Self {
        define_routes();
        let sluice = Sluice { namespace };
        sluice.helm("install", values, false);
        sluice
    }

    /// `helm install --wait`, with the definition.
    pub(crate) fn install_with_definition(namespace: &'n Namespace, values: &str) -> Self {
        let sluice = Sluice { namespace };
        sluice.helm("install", values, true);
        sluice
    }

    /// `helm upgrade --wait` of [such a release](Self::install_with_definition), with these values
    /// alone.
    pub(crate) fn upgrade(&self, values: &str) {
        self.helm("upgrade", values, true);
    }

    fn helm(&self, action: &str, values: &str, definition: bool) {
        let files = [tests_values(self.namespace.name()).as_str(), values].map(|text| {
            let mut file = NamedTempFile::with_suffix(".yaml").expect("a temporary file");
            file.write_all(text.as_bytes()).expect("room for it");
            file
        });
        let [common, own] = files.each_ref().map(|file| file.path().to_str().expect("UTF-8"));
        run(
            "helm",
            &[
                action,
                RELEASE,
                CHART,
                "--namespace",
                self.namespace.name(),
                "--wait",
                "--timeout=300s",
                "--values",
                common,
                "--values",
                own,
                "--set",
                &format!("crds.enabled={definition}"),
            ],
        );
    }

    /// The port of the node that the Service has.
    pub(crate) fn node_port(&self) -> SocketAddr {
        let path = "jsonpath={.spec.ports[0].nodePort}";
        let port = self.namespace.kubectl(&["get", "service", RELEASE, "--output", path]);
        format!("{NODE}:{port}").parse().expect("an address")
    }

    /// A server name, through the port of the node.
    pub(crate) fn target(&self, name: &'static str) -> Target {
        Target { address: self.node_port(), name }
    }

    /// Applies a route of five lines to a Service's port 443.
    pub(crate) fn route(&self, name: &str, hostname: &str, service: &str) {
        let class = self.namespace.name();
        self.namespace.apply(&format!(
            "apiVersion: sluice.dev/v1alpha1
kind: SniRoute
metadata: {{ name: {name} }}
spec: {{ className: {class}, hostnames: [{hostname}],
  backends: [{{ service: {{ name: {service}, port: 443 }} }}] }}
"
        ));
    }

    /// Applies a route of a Service's port 443 that serves TLS with the certificate of a Secret, and
    /// speaks TLS with the backends.
    pub(crate) fn terminate(&self, name: &str, hostname: &str, service: &str, secret: &str) {
        let class = self.namespace.name();
        self.namespace.apply(&super::authorities("authorities"));
        self.namespace.apply(&format!(
            "apiVersion: sluice.dev/v1alpha1
kind: SniRoute
metadata: {{ name: {name} }}
spec:
  className: {class}
  hostnames: [{hostname}]
  backends: [{{ service: {{ name: {service}, port: 443 }} }}]
  tls:
    mode: Terminate
    certificates: [{{ secret: {secret} }}]
    upstream: {{ serverName: backend.example.com, ca: {{ configMap: authorities }} }}
"
        ));
    }

    /// A server name, at each of its pods by itself.
    pub(crate) fn targets(&self, name: &'static str) -> Vec<Target> {
        let selector = format!("app.kubernetes.io/name={RELEASE}");
        let path = "jsonpath={.items[*].status.podIP}";
        let pods = ["get", "pods", "--selector", &selector, "--output", path];
        let addresses = self.namespace.kubectl(&pods);
        let pod = |ip| Target { address: format!("{ip}:{LISTENER}").parse().unwrap(), name };
        addresses.split_whitespace().map(pod).collect()
    }

    /// The names of its pods, those that are ending too.
    pub(crate) fn pods(&self) -> Vec<String> {
        self.namespace.pods(RELEASE)
    }

    /// `kubectl rollout restart`, to its end: the new pods are ready, and old ones may be draining.
    pub(crate) fn restart(&self) {
        self.namespace.kubectl(&["rollout", "restart", "deployment", RELEASE]);
        self.namespace.rolled_out(&format!("deployment/{RELEASE}"));
    }
}

/// What all tests' releases differ in from the defaults: a node of two CPUs is enough for all of
/// them at once, and they need not wait long for a drain.
fn tests_values(class: &str) -> String {
    format!(
        "class: {class}
service: {{ type: NodePort }}
resources: {{ requests: {{ cpu: 10m }} }}
drain: {{ delay: 2s, timeout: 10s }}
# Or what a test that failed shows would be thousands of connections that did not.
accessLog: errors
"
    )
}

/// The folder of the chart.
pub(crate) const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/sluice");

/// Applies the definitions of `crds/`, once.
pub(crate) fn define_routes() {
    static DEFINED: Once = Once::new();
    DEFINED.call_once(|| {
        let definition = include_str!("../../../crds/sniroutes.sluice.dev.yaml");
        apply("default", definition);
        kubectl(&["wait", "--for=condition=Established", "--timeout=300s", "crd", CRD]);
    });
}

/// The name of the definition of SniRoute.
pub(crate) const CRD: &str = "sniroutes.sluice.dev";
