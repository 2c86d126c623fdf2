//! A Prometheus server beside the cluster, which discovers what it scrapes there.
//!
//! What it scrapes for a ServiceMonitor or a PodMonitor is what the Prometheus operator would have
//! made of the object, as the API server has it: the same discovery, and the same labels of a
//! target.

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::output;

/// A server, which ends with the value.
pub(crate) struct Prometheus {
    process: Child,
    folder: TempDir,
}

const ADDRESS: &str = "127.0.0.1:9090";

impl Prometheus {
    /// Starts it, with scrape configurations and the `spec` of a PrometheusRule.
    pub(crate) fn start(scrapes: &[Value], rules: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = json!({
            "global": { "scrape_interval": "1s", "evaluation_interval": "1s" },
            "rule_files": ["rules.yaml"],
            "scrape_configs": scrapes,
        });
        // JSON is YAML, too.
        fs::write(folder.path().join("prometheus.yaml"), config.to_string()).unwrap();
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

    /// The names of the series of a job. There are none while it starts.
    pub(crate) fn metrics(&self, job: &str) -> BTreeSet<String> {
        let names = self.ask("label/__name__/values", &[("match[]", &format!("{{job={job:?}}}"))]);
        let names = names.as_array().into_iter().flatten();
        names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
    }

    /// The pods of the targets of a job that were scraped.
    pub(crate) fn scraped(&self, job: &str) -> BTreeSet<String> {
        let found = self.ask("query", &[("query", &format!("up{{job={job:?}}} == 1"))]);
        let found = found["result"].as_array().cloned().unwrap_or_default();
        found
            .iter()
            .filter_map(|series| series["metric"]["pod"].as_str().map(str::to_owned))
            .collect()
    }

    /// The names of the alerts that fire, and the route that each is about.
    pub(crate) fn firing(&self) -> Vec<(String, Option<String>)> {
        let alerts = self.ask("alerts", &[])["alerts"].as_array().cloned().unwrap_or_default();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        let label = |alert: &Value, name: &str| alert["labels"][name].as_str().map(str::to_owned);
        let alert = |alert| (label(alert, "alertname").unwrap_or_default(), label(alert, "route"));
        firing.map(alert).collect()
    }

    /// How many rules there are, and the errors of those that could not be evaluated.
    pub(crate) fn rules(&self) -> (usize, Vec<String>) {
        let answer = self.ask("rules", &[]);
        let groups = answer["groups"].as_array().into_iter().flatten();
        let rules: Vec<_> = groups.flat_map(|group| group["rules"].as_array()).flatten().collect();
        let failed = rules.iter().filter(|rule| rule["health"] == "err");
        (rules.len(), failed.map(|rule| rule.to_string()).collect())
    }

    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let url = format!("http://{ADDRESS}/api/v1/{path}");
        let pairs: Vec<_> =
            parameters.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut arguments = vec!["--disable", "--silent", "--max-time", "5", "--get", &url];
        arguments.extend(pairs.iter().flat_map(|pair| ["--data-urlencode", pair]));
        let answer = output("curl", &arguments);
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

/// What is scraped for a ServiceMonitor. The job is the Service's name.
pub(crate) fn of_service_monitor(monitor: &Value) -> Value {
    let endpoint = &monitor["spec"]["endpoints"][0];
    let mut relabel = selected(monitor, "service");
    relabel.push(keep("endpointslice_port_name", &endpoint["port"]));
    relabel.push(label("service_name", "job"));
    relabel.push(label("pod_name", "pod"));
    scrape(monitor, endpoint, "endpointslice", relabel)
}

/// What is scraped for a PodMonitor. The job is its own namespace and name.
pub(crate) fn of_pod_monitor(monitor: &Value) -> Value {
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    let mut relabel = selected(monitor, "pod");
    relabel.push(keep("pod_container_port_name", &endpoint["port"]));
    relabel.push(json!({ "target_label": "job", "replacement": path(monitor) }));
    relabel.push(label("pod_name", "pod"));
    scrape(monitor, endpoint, "pod", relabel)
}

/// What is scraped of a namespace for the annotations of pods, as widespread configurations have
/// it.
pub(crate) fn of_annotations(namespace: &str) -> Value {
    let annotation = |name: &str| format!("__meta_kubernetes_pod_annotation_prometheus_io_{name}");
    json!({
        "job_name": "annotations",
        "kubernetes_sd_configs": [discovery("pod", namespace)],
        "relabel_configs": [
            { "source_labels": [annotation("scrape")], "regex": "true", "action": "keep" },
            { "source_labels": [annotation("path")], "target_label": "__metrics_path__" },
            { "source_labels": ["__meta_kubernetes_pod_ip", annotation("port")], "separator": ":",
              "target_label": "__address__" },
            label("pod_name", "pod"),
        ],
    })
}

fn scrape(monitor: &Value, endpoint: &Value, role: &str, relabel: Vec<Value>) -> Value {
    let namespace = monitor["metadata"]["namespace"].as_str().expect("a namespace");
    json!({
        "job_name": format!("{}/{}", monitor["kind"], path(monitor)),
        "honor_labels": endpoint["honorLabels"],
        "metrics_path": endpoint["path"],
        "kubernetes_sd_configs": [discovery(role, namespace)],
        "relabel_configs": relabel,
    })
}

fn discovery(role: &str, namespace: &str) -> Value {
    let kubeconfig = env::var("KUBECONFIG").expect("set by tests/e2e/cluster.sh");
    json!({ "role": role, "kubeconfig_file": kubeconfig, "namespaces": { "names": [namespace] } })
}

/// Keeps what has the labels of the monitor's selector.
fn selected(monitor: &Value, kind: &str) -> Vec<Value> {
    let labels = monitor["spec"]["selector"]["matchLabels"].as_object().expect("labels");
    let name = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    labels.iter().map(|(key, value)| keep(&format!("{kind}_label_{}", name(key)), value)).collect()
}

fn keep(meta: &str, value: &Value) -> Value {
    let source = format!("__meta_kubernetes_{meta}");
    json!({ "source_labels": [source], "regex": value, "action": "keep" })
}

fn label(meta: &str, target: &str) -> Value {
    json!({ "source_labels": [format!("__meta_kubernetes_{meta}")], "target_label": target })
}

fn path(object: &Value) -> String {
    let of = |field: &str| object["metadata"][field].as_str().expect("a text").to_owned();
    format!("{}/{}", of("namespace"), of("name"))
}
