//! Manifests of routes that serve TLS, and of what they name.

use std::fs;
use std::net::SocketAddr;

use k8s_openapi::ByteString;
use serde_json::{Value, json};
use testkit::{Authority, Identity};

use crate::client::Call;
use crate::sluice::{Sluice, route_with};

/// A Secret with a certificate and its key.
pub(super) fn secret(name: &str, identity: &Identity) -> String {
    let base64 = |file| serde_json::to_value(ByteString(fs::read(file).unwrap())).unwrap();
    let data = json!({
        "tls.crt": base64(&identity.certificate_file),
        "tls.key": base64(&identity.key_file),
    });
    object("Secret", name, &format!("type: kubernetes.io/tls\ndata: {data}\n"))
}

/// A ConfigMap with the certificate of an authority.
pub(super) fn authority(name: &str, authority: &Authority) -> String {
    let data: Value = json!({ "ca.crt": fs::read_to_string(authority.file()).unwrap() });
    object("ConfigMap", name, &format!("data: {data}\n"))
}

fn object(kind: &str, name: &str, rest: &str) -> String {
    format!("apiVersion: v1\nkind: {kind}\nmetadata: {{ name: {name}, namespace: test }}\n{rest}")
}

/// A route that serves TLS by the Secrets of these names, with more fields of its `tls`.
pub(super) fn served(
    name: &str,
    hostnames: &[&str],
    backend: SocketAddr,
    secrets: &[&str],
    more: &str,
) -> String {
    served_with(name, hostnames, backend, secrets, more, "")
}

/// The same, with more lines in its spec.
pub(super) fn served_with(
    name: &str,
    hostnames: &[&str],
    backend: SocketAddr,
    secrets: &[&str],
    more: &str,
    lines: &str,
) -> String {
    let certificates: Vec<Value> = secrets.iter().map(|name| json!({ "secret": name })).collect();
    let certificates = json!(certificates);
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    let tls = format!("  tls: {{ mode: Terminate, certificates: {certificates}{more} }}\n");
    route_with(name, hostnames, backend, &format!("{tls}{lines}"))
}

/// A sluice that may serve TLS, with these manifests. Each has a file of its own, `N.yaml`.
pub(super) fn start(manifests: &[String]) -> Sluice {
    let files: Vec<(String, String)> =
        manifests.iter().enumerate().map(|(n, text)| (format!("{n}.yaml"), text.clone())).collect();
    let files: Vec<(&str, String)> =
        files.iter().map(|(file, text)| (file.as_str(), text.clone())).collect();
    Sluice::start_with(&files, &["--terminate"])
}

/// A call to a name.
pub(super) fn call<'a>(
    sluice: &Sluice,
    authority: &'a Authority,
    name: &'a str,
    version: &'a str,
) -> Call<'a> {
    Call { to: sluice.address, authority, name, version, alpn: &[] }
}
