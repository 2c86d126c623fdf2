//! A real Prometheus, with the monitors, the alerts and the dashboard of the chart.

use std::collections::BTreeSet;
use std::env;

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::prometheus::{Prometheus, of_annotations, of_pod_monitor, of_service_monitor};
use crate::support::{
    Backend, CHART, Load, Namespace, Sluice, authority, eventually, kubectl, run, secret, shared,
    test,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![test!(prometheus_finds_every_metric_and_an_alert_fires)]
}

/// The alert that this test is about is made to fire at once.
const VALUES: &str = "
terminate: true
metrics:
  annotations: true
  serviceMonitor: { enabled: true }
  prometheusRule: { enabled: true, alerts: { noEndpoints: { for: 0s } } }
  dashboard: { enabled: true }
";
const JOB: &str = "sluice-admin";

fn prometheus_finds_every_metric_and_an_alert_fires() {
    let _cluster = shared();
    define_monitors();
    let namespace = Namespace::new("scrape");
    let sluice = Sluice::install(&namespace, VALUES);
    // No release has both monitors.
    namespace.apply(&pod_monitor());
    let rules = namespace.get("prometheusrule/sluice")["spec"].take();
    let scrapes = [
        of_service_monitor(&namespace.get("servicemonitor/sluice")),
        of_pod_monitor(&namespace.get("podmonitor/sluice")),
        of_annotations(namespace.name()),
    ];
    let prometheus = Prometheus::start(&scrapes, &rules);
    Backend::new("one").deploy(&namespace);
    sluice.route("one", "one.example.com", "one");
    Backend { replicas: 0, ..Backend::new("none") }.deploy(&namespace);
    sluice.route("none", "none.example.com", "none");
    namespace.apply(&secret("own", authority().identity()));
    sluice.terminate("own", "own.example.com", "one", "own");
    let load = Load::start(sluice.target("one.example.com"));
    let none = sluice.target("none.example.com");

    let pods = sluice.pods().into_iter().collect();
    for job in [JOB, "scrape/sluice", "annotations"] {
        eventually(&format!("the job {job} has every pod"), || {
            (prometheus.scraped(job) == pods).then_some(())
        });
    }
    let mut wanted = metrics(&rules);
    wanted.extend(dashboards(&namespace).iter().flat_map(metrics));
    assert!(wanted.len() > 20, "{wanted:?}");
    let mut missing = BTreeSet::new();
    eventually("Prometheus has every metric of the alerts and of the dashboard", || {
        assert!(none.get().is_err(), "there is no endpoint");
        let found = prometheus.metrics(JOB);
        let now: BTreeSet<_> = wanted.difference(&found).cloned().collect();
        if now != missing {
            eprintln!("missing in Prometheus: {now:?}");
            missing = now;
        }
        missing.is_empty().then_some(())
    });
    let alert = ("SluiceNoEndpoints".to_owned(), Some("none".to_owned()));
    eventually("SluiceNoEndpoints fires", || {
        assert!(none.get().is_err(), "there is no endpoint");
        prometheus.firing().contains(&alert).then_some(())
    });
    assert!(load.finish().failures.is_empty());
    assert_eq!(prometheus.firing(), [alert], "no other alert fires");
    let (count, failed) = prometheus.rules();
    assert!(count > 10 && failed.is_empty(), "{count} rules: {failed:?}");
}

/// The operator's own definitions of the monitors' kinds.
fn define_monitors() {
    let folder = env::var("PROMETHEUS_OPERATOR_CRDS").expect("set by tests/e2e/run.sh");
    for kind in ["servicemonitors", "podmonitors", "prometheusrules"] {
        let file = format!("{folder}/monitoring.coreos.com_{kind}.yaml");
        // Too large for an annotation of what was last applied.
        kubectl(&["apply", "--server-side", "-f", &file]);
        let definition = format!("{kind}.monitoring.coreos.com");
        kubectl(&["wait", "--for=condition=Established", "--timeout=300s", "crd", &definition]);
    }
}

fn pod_monitor() -> String {
    let set = "metrics.podMonitor.enabled=true";
    let template = ["--show-only", "templates/monitors.yaml", "--namespace", "scrape"];
    run("helm", &[&["template", "sluice", CHART, "--set", set], &template[..]].concat())
}

fn dashboards(namespace: &Namespace) -> Vec<Value> {
    let config = namespace.get("configmap/sluice-dashboard");
    let files = config["data"].as_object().expect("files").values();
    files.map(|text| serde_json::from_str(text.as_str().unwrap()).unwrap()).collect()
}

/// The names of metrics in all queries of a document.
fn metrics(document: &Value) -> BTreeSet<String> {
    match document {
        Value::Array(items) => items.iter().flat_map(metrics).collect(),
        Value::Object(fields) => {
            let queries = ["expr", "query"].map(|field| fields.get(field).and_then(Value::as_str));
            let own = queries.into_iter().flatten().flat_map(words);
            own.chain(fields.values().flat_map(metrics)).collect()
        }
        _ => BTreeSet::new(),
    }
}

fn words(query: &str) -> impl Iterator<Item = String> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metric = |word: &&str| word.starts_with("sluice_") || word.starts_with("process_");
    words.filter(metric).map(str::to_owned)
}
