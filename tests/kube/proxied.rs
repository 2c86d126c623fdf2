//! An API server behind a proxy.

use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::controlled::{Sluice, binary};
use crate::objects::account;
use crate::support::{ApiServer, Tunnel, quick, tunnel};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        quick!(the_environment_leads_through_a_proxy_and_past_it),
        quick!(a_kubeconfig_leads_through_a_proxy),
        quick!(a_proxy_that_makes_no_sense_is_named),
    ]
}

/// Routes of other tests name no class, and some of them are not in order.
const ALONE: &[&str] = &["--require-class"];

/// A name of the API server that its certificate has and that no DNS server here knows.
const NAME: &str = "kubernetes.default.svc";

fn the_environment_leads_through_a_proxy_and_past_it() {
    let api = ApiServer::shared();
    let namespace = api.namespace("proxied-environment");
    let user = account(api, namespace);
    let tunnel = Tunnel::start(api);
    let server = tunnel::reachable(api);
    let variable = format!("http://{}", tunnel.address());

    let past = [("HTTPS_PROXY", variable.as_str()), ("NO_PROXY", "example.com,198.18.0.0/16")];
    let by_address = tunnel::at(&user, server, "198.18.0.1", "");
    let sluice = Sluice::start_in(&past, &by_address, "proxied", ALONE);
    sluice.await_ready();
    sluice.end();
    assert_eq!(tunnel.asked(), [""; 0]);

    for through in [&past[..1], &[("https_proxy", variable.as_str()), ("NO_PROXY", "svc.test")]] {
        let before = tunnel.asked().len();
        let by_name = tunnel::at(&user, server, NAME, "");
        let sluice = Sluice::start_in(through, &by_name, "proxied", ALONE);
        sluice.await_ready();
        let asked = tunnel.asked().split_off(before);
        assert!(!asked.is_empty());
        assert!(asked.iter().all(|target| *target == format!("{NAME}:{}", server.port())));
        sluice.end();
    }
}

fn a_kubeconfig_leads_through_a_proxy() {
    let api = ApiServer::shared();
    let namespace = api.namespace("proxied-kubeconfig");
    let user = account(api, namespace);
    let tunnel = Tunnel::start(api);
    let server = tunnel::reachable(api);
    for (scheme, credentials) in
        [("http://user:pass%40word@", " Basic dXNlcjpwYXNzQHdvcmQ="), ("socks5://", "")]
    {
        let before = tunnel.asked().len();
        let field = format!("proxy-url: \"{scheme}{}\",", tunnel.address());
        let kubeconfig = tunnel::at(&user, server, NAME, &field);
        // What is in the kubeconfig is meant for this very server.
        let sluice = Sluice::start_in(&[("NO_PROXY", "*")], &kubeconfig, "proxied", ALONE);
        sluice.await_ready();
        let shown = sluice.await_logged("a proxy leads to the API server");
        assert!(!shown.to_string().contains("word"), "{shown}");
        let asked = tunnel.asked().split_off(before);
        assert!(!asked.is_empty());
        let expected = format!("{NAME}:{}{credentials}", server.port());
        assert!(asked.iter().all(|target| *target == expected), "{asked:?}");
        sluice.end();
    }
}

fn a_proxy_that_makes_no_sense_is_named() {
    let api = ApiServer::shared();
    let namespace = api.namespace("proxied-nonsense");
    let user = account(api, namespace);
    let server = "198.18.0.1:6443".parse().expect("an address");
    for (field, variable, expected) in [
        (
            "proxy-url: \"proxy:3128\",",
            "",
            "clusters[name=test].cluster.proxy-url: \"proxy:3128\" is no",
        ),
        ("", "ftp://proxy", "HTTPS_PROXY: \"ftp://proxy\" is no address of a proxy; write http://"),
    ] {
        let kubeconfig = tunnel::at(&user, server, NAME, field);
        let output = Command::new(binary())
            .args(["run", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--kubeconfig")
            .arg(kubeconfig.path())
            .env("HTTPS_PROXY", variable)
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        let file = format!("error: cannot use the kubeconfig {}: ", kubeconfig.path().display());
        assert!(error.contains(&file) && error.contains(expected), "{error}");
    }
}
