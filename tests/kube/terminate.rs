//! Routes that serve TLS with Secrets of the API server.

mod permissions;
mod site;
mod tickets;

use std::thread;
use std::time::Duration;

use libtest_mimic::Trial;
use serde_json::json;
use testkit::{Authority, Identity, Traffic, echo_at, wait_until};

use self::site::{NOT_READY, SERVED, Site, TlsClient, secret, terminating};
use crate::controlled::{Backend, Sluice, ask, manifest};
use crate::objects::{Objects, account};
use crate::status::{await_status, get};
use crate::support::{ApiServer, Mode, PATIENCE, Proxy, quick, slow, succeeded, within};

pub(crate) fn tests() -> Vec<Trial> {
    let mut tests = vec![
        slow!(a_thousand_certificate_changes_under_load_lose_no_connection),
        slow!(secrets_that_no_route_names_take_no_memory),
        slow!(a_replica_that_starts_in_an_outage_waits_for_keys_and_serves_the_rest),
        slow!(a_secret_makes_a_route_served_and_its_last_good_certificate_stays),
        slow!(secrets_that_no_route_names_are_never_read),
        quick!(without_the_switch_no_secret_is_asked_for),
    ];
    tests.extend(permissions::tests());
    tests.extend(tickets::tests());
    tests
}

fn a_secret_makes_a_route_served_and_its_last_good_certificate_stays() {
    let site = Site::new("terminate-live", "live");
    let Site { api, namespace, ref sluice, .. } = site;
    await_status(api, namespace, "app", NOT_READY);
    let message = "jsonpath={.status.conditions[?(@.type=='ResolvedRefs')].message}";
    let told = |text: &str| {
        wait_until(text, || get(api, namespace, "app", message).contains(text));
    };
    told("Secret terminate-live/app does not exist");
    assert!(site.connect().is_err());

    let first = site.put_secret("app");
    await_status(api, namespace, "app", SERVED);
    let mut held = site.await_certificate(&first);
    held.echo("before");

    let second = site.put_secret("app");
    site.await_certificate(&second);
    held.echo("the connection of the first certificate");

    // Key and certificate are not of one pair.
    let broken =
        json!({ "stringData": { "tls.key": key_of(&site.authority.issue(&["other.test"])) } });
    site.patch_secret("app", &broken);
    told("what it had last is still used");
    assert!(site.connect().unwrap().has(&second));
    let third = site.put_secret("app");
    site.await_certificate(&third);
    await_status(api, namespace, "app", SERVED);
    succeeded(api.admin().kubectl(&["delete", "secret", "app", "-n", namespace]));
    told("does not exist; what it had last is still used");
    assert!(site.connect().unwrap().has(&third));
    held.echo("after all");

    let fourth = site.put_secret("app");
    site.await_certificate(&fourth);
    for text in [sluice.log(), sluice.routes(), vec![json!(sluice.metrics().0)]] {
        let text = json!(text).to_string();
        assert!(!text.contains("PRIVATE KEY") && !text.contains(&key_text(&fourth)), "{text}");
    }
}

fn key_of(identity: &Identity) -> String {
    std::fs::read_to_string(&identity.key_file).unwrap()
}

/// A part of a key that its PEM, and the base64 of that, have in common with no other text.
fn key_text(identity: &Identity) -> String {
    key_of(identity).lines().nth(1).unwrap().to_owned()
}

fn secrets_that_no_route_names_are_never_read() {
    let site = Site::new("terminate-named", "named");
    let Site { api, namespace, .. } = site;
    for name in ["other", "app", "another"] {
        site.put_secret(name);
    }
    site.connect_patiently();
    for name in ["other", "app", "another"] {
        site.put_secret(name);
    }
    let before = site.put_secret("app");
    site.await_certificate(&before);
    let requests = api.secret_requests(&format!("system:serviceaccount:{namespace}:sluice"));
    assert!(requests.iter().any(|request| request == "get terminate-named/app"), "{requests:?}");
    let only = ["list /", "watch /", "get terminate-named/app"];
    let others: Vec<_> = requests.iter().filter(|one| !only.contains(&one.as_str())).collect();
    assert!(others.is_empty(), "{others:?}");
}

fn without_the_switch_no_secret_is_asked_for() {
    let api = ApiServer::shared();
    let namespace = api.namespace("terminate-off");
    let account = terminating(api, namespace);
    let authority = Authority::new();
    succeeded(api.admin().apply(&secret(namespace, "app", &authority.issue(&["app.test"]))));
    let sluice = Sluice::start(&account, "switchedoff", &["--require-class"]);
    succeeded(api.admin().apply(&route(namespace, "switchedoff")));
    let status = "Accepted=True/Accepted/1 ResolvedRefs=True/ResolvedRefs/1 \
                  Programmed=False/TerminateDisabled/1 ";
    await_status(api, namespace, "app", status);
    let client = TlsClient::config(&authority);
    assert!(TlsClient::connect(&client, sluice.address, "app.test").is_err());
    let requests = api.secret_requests(&format!("system:serviceaccount:{namespace}:sluice"));
    assert_eq!(requests, [""; 0]);
}

/// A route for `app.test`, to a server that sends back what it receives.
fn route(namespace: &str, class: &str) -> String {
    let address = echo_at("198.18.9.1:0");
    let spec = format!(
        "hostnames: [app.test]\n  backends: [{{ address: '{address}' }}]\n  tls: {{ mode: Terminate, \
         certificates: [{{ secret: app }}] }}"
    );
    manifest(namespace, "app", class, &spec)
}

fn a_replica_that_starts_in_an_outage_waits_for_keys_and_serves_the_rest() {
    let api = ApiServer::shared();
    let namespace = api.namespace("terminate-outage");
    let backend = Backend::start("passed");
    let spec =
        format!("hostnames: [plain.test]\n  backends: [{{ address: '{}' }}]", backend.address);
    succeeded(api.admin().apply(&manifest(namespace, "plain", "keyless", &spec)));
    succeeded(api.admin().apply(&route(namespace, "keyless")));
    let authority = Authority::new();
    let identity = authority.issue(&["app.test"]);
    succeeded(api.admin().apply(&secret(namespace, "app", &identity)));
    let proxy = Proxy::start(api);
    let account = proxy.kubeconfig(&terminating(api, namespace));
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let state = ["--state-dir", folder.path().to_str().unwrap(), "--require-class"];
        let end = ["--terminate", "--drain-delay", "0s", "--drain-timeout", "0s"];
        Sluice::start(&account, "keyless", &[&state[..], &end].concat())
    };
    let client = TlsClient::config(&authority);
    let served = |sluice: &Sluice| TlsClient::connect(&client, sluice.address, "app.test").is_ok();
    let sluice = start();
    sluice.await_ready();
    wait_until("it is served", || served(&sluice));
    sluice.end();
    let saved = std::fs::read(folder.path().join("table")).unwrap();
    let saved = String::from_utf8_lossy(&saved);
    assert!(saved.contains("app.test") && saved.contains("terminate-outage/app"), "{saved}");
    assert!(!saved.contains("PRIVATE") && !saved.contains(&key_text(&identity)), "{saved}");
    assert!(!saved.contains("CERTIFICATE"), "{saved}");

    proxy.set(Mode::Refuse);
    let sluice = start();
    sluice.await_ready();
    assert_eq!(sluice.metric("sluice_table_from_saved"), 1.0);
    assert_eq!(ask(sluice.address, "plain.test"), "passed");
    assert!(!served(&sluice), "without a key");
    let routes = sluice.routes();
    let state =
        |name: &str| routes.iter().find(|route| route["name"] == name).unwrap()["tlsState"].clone();
    assert_eq!((state("app"), state("plain")), (json!("refused"), json!(null)));

    proxy.set(Mode::Pass);
    wait_until("it is served again", || served(&sluice));
}

const CHANGES: usize = 1000;
/// Each visitor opens a connection in this time.
const INTERVAL: Duration = Duration::from_millis(20);
const OLDER: usize = 20;

fn a_thousand_certificate_changes_under_load_lose_no_connection() {
    let site = Site::new("terminate-load", "tlsload");
    let Site { api, namespace, .. } = site;
    site.put_secret("app");
    site.connect_patiently();
    let identities: Vec<_> = (0..10).map(|_| site.authority.issue(&["app.test"])).collect();
    let objects = Objects::of(api.admin(), namespace);
    let mut older: Vec<_> = (0..OLDER).map(|_| site.connect().unwrap()).collect();
    let traffic = Traffic::default();
    thread::scope(|scope| {
        let visitors: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    traffic.run(INTERVAL, || {
                        let mut client = site.connect()?;
                        client.try_echo("a visit")
                    });
                })
            })
            .collect();
        let end = traffic.stop_at_end();
        for number in 0..CHANGES {
            let identity = &identities[number % identities.len()];
            objects.put(&site::secret_object("app", identity));
        }
        let last = site.authority.issue(&["app.test"]);
        objects.put(&site::secret_object("app", &last));
        site.await_certificate(&last);
        drop(end);
        visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
    });
    older.iter_mut().for_each(|client| client.echo("still here"));
    assert!(traffic.done() > 50, "{} visits", traffic.done());
    // Not once for each change.
    let requests = api.secret_requests(&format!("system:serviceaccount:{namespace}:sluice"));
    let reads = requests.iter().filter(|request| request.starts_with("get ")).count();
    assert!(reads > 1 && reads < CHANGES / 4, "{reads}");
}

/// The most that sluice may have held, in MiB.
const MOST: u64 = 70;

fn secrets_that_no_route_names_take_no_memory() {
    let api = ApiServer::start();
    api.install_crds();
    let namespace = api.namespace("terminate-memory");
    let objects = Objects::of(api.admin(), namespace);
    let large = "x".repeat(700 << 10);
    objects.put_all((0..150).map(|number| {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": { "name": format!("large-{number}") },
            "stringData": { "a": large },
        })
    }));
    succeeded(api.admin().apply(&route(namespace, "memory")));
    let authority = Authority::new();
    succeeded(api.admin().apply(&secret(namespace, "app", &authority.issue(&["app.test"]))));
    let sluice = Sluice::start(&terminating(&api, namespace), "memory", &["--terminate"]);
    let client = TlsClient::config(&authority);
    within(PATIENCE, "it is served", || {
        TlsClient::connect(&client, sluice.address, "app.test").ok()
    });
    let most = crate::memory::peak(&sluice);
    eprintln!("150 Secrets of 700 KiB: at most {most} MiB");
    assert!(most <= MOST, "{most} MiB");
}
