//! The proxy for the API server, found as client-go does: `proxy-url` of the kubeconfig, or else
//! `HTTPS_PROXY`, unless `NO_PROXY` includes the server.

use anyhow::Context;
use hyper::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::{Cluster, Kubeconfig};

/// The forms of a proxy's address.
const FORM: &str = "write http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT";

/// The cluster of the current context.
pub(super) fn current_cluster(kubeconfig: &mut Kubeconfig) -> Option<(String, &mut Cluster)> {
    let current = kubeconfig.current_context.as_ref()?;
    let context = kubeconfig.contexts.iter().find(|context| &context.name == current)?;
    let name = context.context.as_ref()?.cluster.clone();
    let cluster = kubeconfig.clusters.iter_mut().find(|cluster| cluster.name == name)?;
    Some((name, cluster.cluster.as_mut()?))
}

/// The proxy in a field of a kubeconfig. It is used for any server.
///
/// # Errors
/// When the field is no proxy address.
pub(super) fn from_field(cluster: &str, text: &str) -> anyhow::Result<Uri> {
    parse(text).with_context(|| format!("clusters[name={cluster}].cluster.proxy-url"))
}

/// The proxy for `server` in the environment. Loopback addresses have none.
///
/// # Errors
/// When the variable is no proxy address.
pub(super) fn from_environment(
    server: &Uri,
    variable: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Option<Uri>> {
    let set = |name| variable(name).filter(|text| !text.trim().is_empty()).map(|text| (name, text));
    let Some((name, text)) = set("HTTPS_PROXY").or_else(|| set("https_proxy")) else {
        return Ok(None);
    };
    let direct =
        set("NO_PROXY").or_else(|| set("no_proxy")).map_or(String::new(), |(_, text)| text);
    if is_direct(server, &direct) {
        return Ok(None);
    }
    // Like other programs, accepts an address without a scheme; a kubeconfig must have one.
    let text = if text.contains("://") { text } else { format!("http://{text}") };
    parse(&text).map(Some).context(name)
}

fn is_direct(server: &Uri, direct: &str) -> bool {
    if server.scheme_str() != Some("https") {
        return true;
    }
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let entries: Vec<&str> = direct.split([',', ' ']).collect();
    let bare: Vec<&str> = entries.iter().map(|entry| without_port(entry)).collect();
    // The library implements the rules: names with all names below them, addresses, networks.
    let matcher = Matcher::builder().https("http://proxy").no(bare.join(",")).build();
    is_loopback
        || host == "localhost"
        || entries.contains(&"*")
        || matcher.intercept(server).is_none()
}

/// An entry without its port, a leading `*.`, and brackets around an IPv6 address. The port is ignored,
/// because the API server is the only destination.
fn without_port(entry: &str) -> &str {
    let name = match entry.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() && !is_ipv6(entry) => name,
        _ => entry,
    };
    name.trim_start_matches('*').trim_matches(['[', ']'])
}

fn is_ipv6(entry: &str) -> bool {
    let address = entry.split('/').next().unwrap_or_default();
    address.parse::<std::net::Ipv6Addr>().is_ok()
}

fn parse(text: &str) -> anyhow::Result<Uri> {
    let shown = shown(text);
    let uri: Uri = match text.trim().strip_prefix("socks5h://") {
        // The proxy resolves names with either scheme.
        Some(rest) => format!("socks5://{rest}").parse(),
        None => text.trim().parse(),
    }
    .with_context(|| format!("{shown:?} is no address of a proxy; {FORM}"))?;
    let authority = uri.authority();
    match (uri.scheme_str(), authority) {
        (Some("socks5"), Some(authority)) if authority.as_str().contains('@') => {
            anyhow::bail!("{shown:?} has a user, which sluice cannot give to a SOCKS proxy")
        }
        (Some("http" | "https" | "socks5"), Some(authority)) if !authority.host().is_empty() => {
            Ok(uri)
        }
        _ => anyhow::bail!("{shown:?} is no address of a proxy; {FORM}"),
    }
}

/// A proxy's address without its password.
pub(super) fn shown(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map_or("", |(scheme, _)| scheme);
            format!("{scheme}://...@{host}")
        }
        None => text.to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn found(server: &str, variables: &[(&str, &str)]) -> Result<Option<String>, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        from_environment(&server.parse().unwrap(), variable)
            .map(|proxy| proxy.map(|uri| uri.to_string()))
            .map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_environments_proxy_is_used_except_for_no_proxy() {
        const SERVICE: &str = "https://10.96.0.1:443";
        const NAMED: &str = "https://api.example.com:6443";
        for (server, direct, proxied) in [
            (SERVICE, "", true),
            (SERVICE, "10.96.0.1", false),
            (SERVICE, "10.96.0.1:443", false),
            (SERVICE, "example.com,10.96.0.0/16", false),
            (SERVICE, "example.com 10.96.0.0/16,", false),
            (SERVICE, "10.97.0.0/16,.svc,.cluster.local", true),
            (SERVICE, "*", false),
            ("https://kubernetes.default.svc", ".svc,.cluster.local", false),
            ("https://kubernetes.default.svc", "*.svc", false),
            ("https://kubernetes.default.svc", "svc", false),
            ("https://[fd00::1]:443", "fd00::/8", false),
            ("https://[fd00::1]:443", "[fd00::1]:443", false),
            ("https://[fd00::1]:443", "fd00::1", false),
            ("https://[fd00::1]:443", "fd00::2", true),
            (NAMED, "example.com", false),
            (NAMED, "API.example.com", false),
            (NAMED, "other.example.com,10.0.0.0/8", true),
            (NAMED, "ample.com", true),
            // Loopback addresses never use a proxy, as with other Kubernetes clients.
            ("https://127.0.0.1:6443", "", false),
            ("https://[::1]:6443", "", false),
            ("https://localhost:6443", "", false),
            // HTTPS_PROXY is not for unencrypted connections.
            ("http://10.96.0.1:8080", "", false),
        ] {
            let variables = [("HTTPS_PROXY", "http://proxy:3128"), ("NO_PROXY", direct)];
            let expected = proxied.then(|| "http://proxy:3128/".to_owned());
            assert_eq!(found(server, &variables), Ok(expected), "{server} beside {direct:?}");
        }
    }

    #[test]
    fn either_case_of_a_variable_counts_and_a_scheme_can_be_left_out() {
        let server = "https://10.96.0.1";
        for (variables, expected) in [
            (&[][..], None),
            (&[("HTTPS_PROXY", " ")], None),
            (&[("https_proxy", "http://a:1")], Some("http://a:1/")),
            (&[("HTTPS_PROXY", "http://a:1"), ("https_proxy", "http://b:1")], Some("http://a:1/")),
            (&[("https_proxy", "http://a:1"), ("no_proxy", "10.96.0.1")], None),
            (&[("HTTPS_PROXY", "proxy:3128")], Some("http://proxy:3128/")),
            (&[("HTTPS_PROXY", "https://u:p@proxy")], Some("https://u:p@proxy/")),
            (&[("HTTPS_PROXY", "socks5h://proxy:1080")], Some("socks5://proxy:1080/")),
        ] {
            assert_eq!(found(server, variables), Ok(expected.map(str::to_owned)), "{variables:?}");
        }
    }

    #[test]
    fn an_invalid_proxy_is_shown_without_its_password() {
        for (text, expected) in [
            (
                "http://",
                "HTTPS_PROXY: \"http://\" is no address of a proxy; write http://HOST:PORT",
            ),
            ("ftp://proxy:21", "HTTPS_PROXY: \"ftp://proxy:21\" is no address of a proxy"),
            ("http://u:secret@a b", "HTTPS_PROXY: \"http://...@a b\" is no address of a proxy"),
            ("socks5://u:secret@proxy", "\"socks5://...@proxy\" has a user, which sluice cannot"),
        ] {
            let error = found("https://10.96.0.1", &[("HTTPS_PROXY", text)]).unwrap_err();
            assert!(error.contains(expected) && !error.contains("secret"), "{text}: {error}");
        }
        let error = format!("{:#}", from_field("prod", "proxy:3128").unwrap_err());
        let expected = "clusters[name=prod].cluster.proxy-url: \"proxy:3128\" is no address";
        assert!(error.starts_with(expected), "{error}");
    }
}
