//! TLS servers in pods.

use std::fs;
use std::path::Path;

use testkit::Identity;

use super::{Namespace, authority};

/// A Deployment of `tests/e2e/backend`, with a Service of the same name on port 443.
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) replicas: u32,
    /// What it answers.
    pub(crate) says: &'static str,
    /// Whether its connections begin with a PROXY header.
    pub(crate) proxied: bool,
}

impl Backend {
    /// One replica, which says its name.
    pub(crate) fn new(name: &'static str) -> Self {
        Backend { name, replicas: 1, says: name, proxied: false }
    }

    /// Applies it, and waits until every pod is ready. Its certificate is good for `*.example.com`.
    pub(crate) fn deploy(&self, namespace: &Namespace) {
        self.apply(namespace);
        namespace.rolled_out(&format!("deployment/{}", self.name));
    }

    /// Applies it.
    pub(crate) fn apply(&self, namespace: &Namespace) {
        let Backend { name, replicas, says, proxied } = self;
        // The kubelet sends no PROXY header.
        let (arguments, probe) = match proxied {
            true => (", -proxy", "tcpSocket: { port: 8443 }"),
            false => ("", "httpGet: { path: /, port: 8443, scheme: HTTPS }"),
        };
        // preStop is for what is on its way here still.
        let container = container(
            "backend",
            &format!("[serve, -name, {says}{arguments}]"),
            &format!(
                "readinessProbe: {{ {probe}, periodSeconds: 1 }},
        lifecycle: {{ preStop: {{ sleep: {{ seconds: 2 }} }} }}"
            ),
        );
        namespace.apply(&format!(
            "
{tls}
---
apiVersion: v1
kind: Service
metadata: {{ name: {name} }}
spec:
  selector: {{ app.kubernetes.io/name: {name} }}
  ports: [{{ name: tls, port: 443, targetPort: 8443 }}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {name} }}
spec:
  replicas: {replicas}
  selector: {{ matchLabels: {{ app.kubernetes.io/name: {name} }} }}
  strategy: {{ rollingUpdate: {{ maxUnavailable: 0, maxSurge: 1 }} }}
  template:
    metadata: {{ labels: {{ app.kubernetes.io/name: {name} }} }}
    spec:
      terminationGracePeriodSeconds: 30
      containers:
      - {container}
      volumes: [{{ name: tls, secret: {{ secretName: tls }} }}]
",
            tls = secret("tls", authority().identity())
        ));
    }
}

/// A Secret with a certificate and its key.
pub(crate) fn secret(name: &str, identity: &Identity) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{ name: {name} }}
type: kubernetes.io/tls
stringData:
  tls.crt: |
{}  tls.key: |
{}",
        indented(&identity.certificate_file),
        indented(&identity.key_file)
    )
}

/// A ConfigMap with the authority of all certificates.
pub(crate) fn authorities(name: &str) -> String {
    format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{ name: {name} }}
data:
  ca.crt: |
{}",
        indented(&authority().file())
    )
}

fn indented(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("PEM");
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// A container that mounts the volume `tls` and passes the restricted standard. `more` has further
/// fields.
pub(crate) fn container(name: &str, arguments: &str, more: &str) -> String {
    format!(
        "{{
        name: {name},
        image: 'localhost/backend:e2e',
        args: {arguments},
        {more},
        securityContext: {{
          allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, runAsNonRoot: true,
          capabilities: {{ drop: [ALL] }}, seccompProfile: {{ type: RuntimeDefault }} }},
        volumeMounts: [{{ name: tls, mountPath: /tls, readOnly: true }}] }}"
    )
}
