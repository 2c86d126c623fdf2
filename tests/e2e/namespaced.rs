//! An installation that may look into some namespaces only.

use libtest_mimic::Trial;

use crate::support::{Backend, Namespace, Sluice, kubectl, kubectl_fails, shared, test};

pub(crate) fn tests() -> Vec<Trial> {
    vec![test!(with_roles_alone_it_serves_its_namespaces_and_sees_no_other)]
}

fn with_roles_alone_it_serves_its_namespaces_and_sees_no_other() {
    let _cluster = shared();
    let own = Namespace::new("namespaced");
    let other = Namespace::new("not-watched");
    let sluice = Sluice::install(&own, "{ namespaces: [namespaced], replicas: 1 }");
    for namespace in [&own, &other] {
        Backend::new("one").deploy(namespace);
    }
    sluice.route("one", "one.example.com", "one");
    other.apply(
        "apiVersion: sluice.dev/v1alpha1
kind: SniRoute
metadata: { name: other }
spec: { className: namespaced, hostnames: [other.example.com],
  backends: [{ service: { name: one, port: 443 } }] }
",
    );
    sluice.target("one.example.com").until_says("one");
    own.kubectl(&["wait", "--for=condition=Accepted", "--timeout=300s", "sniroute/one"]);
    let answer = sluice.target("other.example.com").get();
    assert!(answer.is_err(), "a route of another namespace is served: {answer:?}");

    let of_release = "app.kubernetes.io/instance=sluice";
    for kind in ["clusterroles", "clusterrolebindings"] {
        let names = kubectl(&["get", kind, "--selector", of_release, "--output", "name"]);
        assert!(!names.contains("namespaced"), "{names}");
    }
    let user = "--as=system:serviceaccount:namespaced:sluice";
    for what in ["sniroutes.sluice.dev", "services", "endpointslices.discovery.k8s.io"] {
        kubectl(&["auth", "can-i", "watch", what, "--namespace=namespaced", user]);
        kubectl_fails(&["auth", "can-i", "watch", what, "--namespace=not-watched", user]);
    }
    kubectl_fails(&["auth", "can-i", "get", "secrets", "--namespace=namespaced", user]);
}
