//! sluice in the pod of an app.

use libtest_mimic::Trial;

use crate::support::{
    Held, Namespace, Sluice, Target, authority, container, eventually, secret, shared, test,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![test!(a_sidecar_starts_before_the_app_follows_its_config_map_and_drains_after_it)]
}

fn a_sidecar_starts_before_the_app_follows_its_config_map_and_drains_after_it() {
    let _cluster = shared();
    let namespace = Namespace::restricted("sidecar");
    namespace.apply(&secret("tls", authority().identity()));
    // The app ends at once, and is started again, if sluice is not ready when it starts.
    let app = container(
        "app",
        "[serve, -name, app, -listen, '127.0.0.1:9443', -require, 'http://127.0.0.1:9901/readyz']",
        "resources: {}",
    );
    let values = format!(
        "sidecar: true
source: files
replicas: 1
terminationGracePeriodSeconds: 60
drain: {{ delay: 1s, timeout: 1s }}
files: {{ routes: {{ app.yaml: {:?} }} }}
extraVolumes: [{{ name: tls, secret: {{ secretName: tls }} }}]
extraContainers:
      - {app}
",
        route("before.example.com"),
    );
    let sluice = Sluice::install(&namespace, &values);
    let before = sluice.target("before.example.com");
    before.until_says("app");
    let pod = sluice.pods().remove(0);
    assert_eq!(restarts(&namespace, &pod), "0 0");

    let mut held = Held::open(before).unwrap();
    let after = Target { name: "after.example.com", ..before };
    let patch = serde_json::json!({ "data": { "app.yaml": route("after.example.com") } });
    let patch = ["patch", "configmap", "sluice-routes", "--patch", &patch.to_string()];
    namespace.kubectl(&patch);
    after.until_says("app");
    eventually("the old name is gone", || before.get().err());
    assert_eq!(held.get().unwrap(), "app", "no connection notices a change of routes");
    assert_eq!(restarts(&namespace, &pod), "0 0");

    // The app takes longer to end than sluice would have waited, had it been told at the same time.
    held.ask_for_stream(6).unwrap();
    namespace.kubectl(&["delete", "pod", &pod, "--wait=false"]);
    held.finish().expect("sluice ends after the app");
}

fn route(name: &str) -> String {
    format!(
        "apiVersion: sluice.dev/v1alpha1
kind: SniRoute
metadata: {{ name: app, namespace: sidecar }}
spec: {{ className: sidecar, hostnames: [{name}], backends: [{{ address: '127.0.0.1:9443' }}] }}
"
    )
}

/// Of sluice, and of the app.
fn restarts(namespace: &Namespace, pod: &str) -> String {
    let pod = namespace.get(&format!("pod/{pod}"));
    let count = |kind: &str| pod["status"][kind][0]["restartCount"].clone();
    format!("{} {}", count("initContainerStatuses"), count("containerStatuses"))
}
