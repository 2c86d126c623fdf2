//! A test's own namespace.

use serde_json::Value;

use super::kubectl::{apply, kubectl};
use super::{eventually, output};

/// A namespace, which goes with the value. If the test fails, it shows what was in it first.
pub(crate) struct Namespace {
    name: &'static str,
}

impl Namespace {
    /// Makes it.
    pub(crate) fn new(name: &'static str) -> Self {
        kubectl(&["create", "namespace", name]);
        Namespace { name }
    }

    /// Makes it with a label that lets in no pod but one of the restricted Pod Security Standard.
    pub(crate) fn restricted(name: &'static str) -> Self {
        let namespace = Namespace::new(name);
        let label = "pod-security.kubernetes.io/enforce=restricted";
        kubectl(&["label", "namespace", name, label]);
        namespace
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// `kubectl apply`, by default in this namespace.
    pub(crate) fn apply(&self, manifests: &str) {
        apply(self.name, manifests);
    }

    /// kubectl in this namespace.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        kubectl(&[&["--namespace", self.name], arguments].concat())
    }

    /// An object as it is now.
    pub(crate) fn get(&self, object: &str) -> Value {
        let text = self.kubectl(&["get", object, "--output", "json"]);
        serde_json::from_str(&text).expect("JSON")
    }

    /// The names of the pods with that value of the label `app`, those that are being deleted too.
    pub(crate) fn pods(&self, app: &str) -> Vec<String> {
        let selector = format!("app.kubernetes.io/name={app}");
        let names = self.kubectl(&["get", "pods", "--selector", &selector, "--output", "name"]);
        names.lines().map(|line| line.trim_start_matches("pod/").to_owned()).collect()
    }

    /// Waits until a rollout is done.
    pub(crate) fn rolled_out(&self, workload: &str) {
        self.kubectl(&["rollout", "status", workload, "--timeout=300s"]);
    }

    /// Waits until the names of the pods are as wanted.
    pub(crate) fn until_pods(&self, app: &str, what: &str, wanted: impl Fn(&[String]) -> bool) {
        eventually(what, || wanted(&self.pods(app)).then_some(()));
    }

    fn report(&self) {
        eprintln!("==== the namespace {} of a test that failed", self.name);
        let of = ["--namespace", self.name];
        show(&[&["get", "pods,services,endpointslices,sniroutes", "-o", "wide"], &of[..]].concat());
        show(&[&["get", "events", "--sort-by=.lastTimestamp"], &of[..]].concat());
        let pods = output("kubectl", &[&["get", "pods", "-o", "name"], &of[..]].concat());
        for pod in String::from_utf8_lossy(&pods.stdout).lines() {
            let logs = ["logs", pod, "--all-containers", "--prefix", "--tail=30"];
            show(&[&logs, &of[..]].concat());
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.report();
        }
        // Not waited for: the cluster ends soon, whatever is left.
        output("kubectl", &["delete", "namespace", self.name, "--wait=false"]);
    }
}

fn show(arguments: &[&str]) {
    let output = output("kubectl", arguments);
    eprintln!("---- kubectl {}", arguments.join(" "));
    eprint!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
}
