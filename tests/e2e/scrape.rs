//! A real Prometheus, which discovers the pods, with the alerts and the dashboard of the chart.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Backend, CHART, Load, Namespace, Sluice, eventually, output, run, shared, test,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![test!(prometheus_finds_every_metric_and_an_alert_fires)]
}

/// The alert that this test is about is made to fire at once.
const VALUES: &str = "
metrics:
  annotations: true
  prometheusRule: { enabled: true, alerts: { noEndpoints: { for: 0s } } }
  dashboard: { enabled: true }
";

fn prometheus_finds_every_metric_and_an_alert_fires() {
    let _cluster = shared();
    let namespace = Namespace::new("scrape");
    let rule = rendered("templates/prometheusrule.yaml");
    let dashboard = rendered("templates/dashboard.yaml");
    let dashboards = dashboard["data"].as_object().expect("files").values();
    let dashboards = dashboards.map(|text| text.as_str().expect("a text"));
    let dashboards: Vec<Value> =
        dashboards.map(|text| serde_json::from_str(text).unwrap()).collect();

    // The definition of PrometheusRule is not in this cluster.
    let sluice = Sluice::install(&namespace, "metrics: { annotations: true }");
    let prometheus = Prometheus::start(namespace.name(), &rule["spec"]);
    Backend::new("one").deploy(&namespace);
    sluice.route("one", "one.example.com", "one");
    Backend { replicas: 0, ..Backend::new("none") }.deploy(&namespace);
    sluice.route("none", "none.example.com", "none");
    let load = Load::start(sluice.target("one.example.com"));
    let none = sluice.target("none.example.com");

    let wanted: BTreeSet<String> =
        [&rule["spec"]].into_iter().chain(&dashboards).flat_map(metrics).collect();
    assert!(wanted.len() > 20, "{wanted:?}");
    let mut missing = BTreeSet::new();
    eventually("Prometheus has every metric of the alerts and of the dashboard", || {
        assert!(none.get().is_err(), "there is no endpoint");
        let found = prometheus.metrics();
        let now: BTreeSet<_> = wanted.difference(&found).cloned().collect();
        if now != missing {
            eprintln!("missing in Prometheus: {now:?}");
            missing = now;
        }
        missing.is_empty().then_some(())
    });
    eventually("SluiceNoEndpoints fires", || {
        assert!(none.get().is_err(), "there is no endpoint");
        prometheus.fires("SluiceNoEndpoints", "none").then_some(())
    });
    assert!(load.finish().failures.is_empty());
    assert_eq!(prometheus.firing(), ["SluiceNoEndpoints"], "no other alert fires");
}

/// A template of the chart, with [`VALUES`].
fn rendered(template: &str) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let values = folder.path().join("values.yaml");
    fs::write(&values, VALUES).unwrap();
    let values = values.to_str().unwrap();
    let text =
        run("helm", &["template", "sluice", CHART, "--values", values, "--show-only", template]);
    serde_yaml::from_str(&text).unwrap()
}

/// The names of metrics in all `expr` of a document.
fn metrics(document: &Value) -> Vec<String> {
    match document {
        Value::Array(items) => items.iter().flat_map(metrics).collect(),
        Value::Object(fields) => {
            let own = fields.get("expr").and_then(Value::as_str).into_iter().flat_map(words);
            own.chain(fields.values().flat_map(metrics)).collect()
        }
        _ => Vec::new(),
    }
}

fn words(expression: &str) -> impl Iterator<Item = String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metric = |word: &&str| word.starts_with("sluice_") || word.starts_with("process_");
    words.filter(metric).map(str::to_owned)
}

/// A server, which ends with the value.
struct Prometheus {
    process: Child,
    folder: TempDir,
}

impl Prometheus {
    /// Starts it, for the pods of a namespace that ask for it in their annotations.
    fn start(namespace: &str, rules: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = env::var("KUBECONFIG").expect("set by tests/e2e/cluster.sh");
        let config = CONFIG.replace("KUBECONFIG", &kubeconfig).replace("NAMESPACE", namespace);
        fs::write(folder.path().join("prometheus.yaml"), config).unwrap();
        fs::write(folder.path().join("rules.yaml"), rules.to_string()).unwrap();
        let log = File::create(log(folder.path())).unwrap();
        let process = Command::new("prometheus")
            .args(["--config.file=prometheus.yaml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={ADDRESS}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("prometheus runs");
        Prometheus { process, folder }
    }

    /// The names of all series.
    fn metrics(&self) -> BTreeSet<String> {
        let names = self.ask("label/__name__/values");
        let names = names.as_array().into_iter().flatten();
        names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
    }

    /// Whether an alert fires for a route.
    fn fires(&self, alert: &str, route: &str) -> bool {
        self.alerts().iter().any(|firing| {
            firing["labels"]["alertname"] == alert && firing["labels"]["route"] == route
        })
    }

    fn firing(&self) -> Vec<String> {
        let name = |alert: &Value| alert["labels"]["alertname"].as_str().map(str::to_owned);
        self.alerts().iter().filter_map(name).collect()
    }

    fn alerts(&self) -> Vec<Value> {
        let alerts = self.ask("alerts")["alerts"].as_array().cloned().unwrap_or_default();
        alerts.into_iter().filter(|alert| alert["state"] == "firing").collect()
    }

    /// Nothing while it starts.
    fn ask(&self, path: &str) -> Value {
        let url = format!("http://{ADDRESS}/api/v1/{path}");
        let answer = output("curl", &["--disable", "--silent", "--max-time", "5", &url]);
        let mut answer = serde_json::from_slice(&answer.stdout).unwrap_or(Value::Null);
        answer["data"].take()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(log(self.folder.path())).unwrap_or_default();
            eprintln!("==== Prometheus:\n{log}");
        }
        // An error means that it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn log(folder: &Path) -> std::path::PathBuf {
    folder.join("prometheus.log")
}

const ADDRESS: &str = "127.0.0.1:9090";

const CONFIG: &str = "
global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [rules.yaml]
scrape_configs:
  - job_name: sluice
    # `namespace` is the route's.
    honor_labels: true
    kubernetes_sd_configs:
      - { role: pod, kubeconfig_file: 'KUBECONFIG', namespaces: { names: [NAMESPACE] } }
    relabel_configs:
      - { source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape], regex: 'true', action: keep }
      - { source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_path], target_label: __metrics_path__ }
      - source_labels: [__meta_kubernetes_pod_ip, __meta_kubernetes_pod_annotation_prometheus_io_port]
        separator: ':'
        target_label: __address__
      - { source_labels: [__meta_kubernetes_pod_name], target_label: pod }
";
