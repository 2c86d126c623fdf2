//! The life of a Helm release.

use libtest_mimic::Trial;

use crate::support::{Backend, CRD, Load, Namespace, RELEASE, Sluice, alone, kubectl, run, test};

pub(crate) fn tests() -> Vec<Trial> {
    vec![test!(helm_installs_tests_upgrades_rolls_back_and_uninstalls)]
}

fn helm_installs_tests_upgrades_rolls_back_and_uninstalls() {
    let _cluster = alone();
    // Of the other tests. Theirs is the same.
    kubectl(&["delete", "crd", CRD, "--ignore-not-found", "--timeout=300s"]);
    let namespace = Namespace::new("release");
    let sluice = Sluice::install_with_definition(&namespace, "{}");
    let helm =
        |arguments: &[&str]| run("helm", &[arguments, &["--namespace", namespace.name()]].concat());
    helm(&["test", RELEASE, "--timeout=300s"]);

    Backend::new("one").deploy(&namespace);
    sluice.route("one", "one.example.com", "one");
    let target = sluice.target("one.example.com");
    target.until_says("one");
    let load = Load::start(target);
    sluice.upgrade("{ replicas: 1, accessLog: errors }");
    assert_eq!(available(&namespace), "1");
    helm(&["test", RELEASE, "--timeout=300s"]);
    helm(&["rollback", RELEASE, "1", "--wait", "--timeout=300s"]);
    assert_eq!(available(&namespace), "2");
    load.goes_on(100);
    let tally = load.finish();
    assert!(tally.failures.is_empty(), "{tally:?}");

    let said = helm(&["uninstall", RELEASE, "--wait", "--timeout=300s"]);
    assert!(said.contains(CRD), "it says what is kept: {said}");
    // The pods drain still.
    namespace.until_pods(RELEASE, "the pods are gone", <[String]>::is_empty);
    let kinds = "deployments,services,serviceaccounts,configmaps,roles,rolebindings,\
                 poddisruptionbudgets,pods,leases";
    let of_release = format!("app.kubernetes.io/instance={RELEASE}");
    let left = ["get", kinds, "--output=name", "--selector", &of_release];
    assert_eq!(namespace.kubectl(&left), "", "left behind in the namespace");
    let cluster_wide = kubectl(&["get", "clusterroles,clusterrolebindings", "--output=name"]);
    assert!(!cluster_wide.contains("sluice-release"), "{cluster_wide}");
    // What remains: the definition, with the routes, and who led last.
    let lease = namespace.kubectl(&["get", "leases", "--output=name"]);
    assert_eq!(lease.trim(), "lease.coordination.k8s.io/sluice-release");
    kubectl(&["get", "crd", CRD]);
    namespace.kubectl(&["get", "sniroute", "one"]);
}

fn available(namespace: &Namespace) -> String {
    let path = "jsonpath={.status.availableReplicas}";
    namespace.kubectl(&["get", "deployment", RELEASE, "--output", path])
}
