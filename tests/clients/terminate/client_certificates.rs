//! What clients show of themselves.

use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, SystemTime};

use testkit::{Authority, Identity, wait_until};

use super::backends::{self, Received};
use super::manifests::{self, call, secret, served, start};
use crate::client::{Answer, Call, Client};
use crate::sluice::{Sluice, rename_over};

/// Clients of all kinds, and a sluice with routes that ask for them or not.
struct Landscape {
    authority: Authority,
    good: Identity,
    /// What no route takes, and why.
    bad: Vec<(&'static str, Identity)>,
    /// Whose files those are, which clients read.
    _issuers: [Authority; 2],
    sluice: Sluice,
    /// Of `silent.test`, which requires a certificate.
    received: Mutex<Receiver<Received>>,
}

const ROUTES: [(&str, &str); 3] =
    [("open.test", ""), ("optional.test", "required: false, "), ("required.test", "")];

impl Landscape {
    fn new() -> Self {
        let (authority, clients, others) = (Authority::new(), Authority::new(), Authority::new());
        let yesterday = SystemTime::now() - Duration::from_secs(24 * 60 * 60);
        let bad = vec![
            ("of another authority", others.issue_client("stranger")),
            ("expired", clients.issue_client_until("late", yesterday)),
            ("of a server", clients.issue(&["server.test"])),
        ];
        let backend = backends::lines();
        let (silent, received) = backends::recorder("");
        let asking =
            |more: &str| format!("clientCertificates: {{ {more}ca: {{ configMap: clients }} }}");
        let names = ["open.test", "optional.test", "required.test", "silent.test"];
        let mut manifests = vec![
            secret("tls", &authority.issue(&names)),
            manifests::authority("clients", &clients),
            served("silent", &["silent.test"], silent, &["tls"], &asking("")),
        ];
        for (name, more) in ROUTES {
            let tls = if name == "open.test" { String::new() } else { asking(more) };
            let route = name.strip_suffix(".test").unwrap();
            manifests.push(served(route, &[name], backend, &["tls"], &tls));
        }
        let good = clients.issue_client("somebody");
        Landscape {
            authority,
            good,
            bad,
            _issuers: [clients, others],
            sluice: start(&manifests),
            received: Mutex::new(received),
        }
    }

    fn call<'a>(&'a self, name: &'a str, version: &'a str) -> Call<'a> {
        call(&self.sluice, &self.authority, name, version)
    }

    fn assert_served(&self, client: Client, call: &Call<'_>, own: Option<&Identity>, what: &str) {
        let answer = client.call_as(call, own);
        assert_eq!(
            answer,
            Ok(Answer::to(call, "")),
            "{client:?} {what} {} {}",
            call.name,
            call.version
        );
    }

    fn assert_refused(&self, client: Client, call: &Call<'_>, own: Option<&Identity>, what: &str) {
        let answer = client.call_as(call, own);
        assert!(answer.is_err(), "{client:?} {what} {} {}: {answer:?}", call.name, call.version);
    }
}

/// By every client, with every version and certificate that fits.
fn asked(landscape: &Landscape, client: Client) {
    for version in ["1.2", "1.3"] {
        for (name, _) in ROUTES {
            let call = landscape.call(name, version);
            landscape.assert_served(client, &call, Some(&landscape.good), "good");
            match name {
                "required.test" => landscape.assert_refused(client, &call, None, "none"),
                _ => landscape.assert_served(client, &call, None, "none"),
            }
            for (what, identity) in &landscape.bad {
                match name {
                    "open.test" => landscape.assert_served(client, &call, Some(identity), what),
                    _ => landscape.assert_refused(client, &call, Some(identity), what),
                }
            }
        }
    }
}

#[test]
fn a_certificate_is_required_optional_or_not_asked_for() {
    let landscape = Landscape::new();
    asked(&landscape, Client::Rustls);
    let metrics = landscape.sluice.metrics();
    // By version: three refused of those who may leave it out, and four of those who may not.
    assert_eq!(metrics.connections("handshake_failed"), 14.0, "{}", metrics.0);
    assert_eq!(metrics.connections("completed"), 16.0, "{}", metrics.0);
}

#[test]
#[ignore = "slow: 150 calls by five programs"]
fn every_client_is_known_by_its_certificate() {
    let landscape = &Landscape::new();
    let clients = [Client::OpenSsl, Client::Curl, Client::Go, Client::Python, Client::GnuTls];
    thread::scope(|scope| {
        for client in clients {
            scope.spawn(move || asked(landscape, client));
        }
    });
}

/// In TLS 1.3 a client that is refused has already sent what it wants to say.
#[test]
fn nothing_of_a_refused_client_reaches_the_backend() {
    let landscape = Landscape::new();
    for version in ["1.2", "1.3"] {
        let call = landscape.call("silent.test", version);
        for client in [Client::Rustls, Client::Go, Client::OpenSsl] {
            landscape.assert_refused(client, &call, None, "none");
            landscape.assert_refused(client, &call, Some(&landscape.bad[0].1), "bad");
        }
    }
    let reached: Vec<Received> = landscape.received.lock().unwrap().try_iter().collect();
    assert!(reached.iter().all(|received| received.bytes.is_empty()), "{reached:?}");
}

#[test]
fn a_changed_authority_counts_for_new_connections() {
    let landscape = Landscape::new();
    let call = landscape.call("required.test", "1.3");
    landscape.assert_served(Client::Rustls, &call, Some(&landscape.good), "before");
    let config = crate::client::client_config_as(&call, Some(&landscape.good));
    let mut open = crate::client::Session::with(config, &call).unwrap();
    open.say("before").unwrap();

    let other = Authority::new();
    let file = landscape.sluice.routes().join("1.yaml");
    rename_over(&file, &manifests::authority("clients", &other));
    wait_until("the client is unknown", || {
        Client::Rustls.call_as(&call, Some(&landscape.good)).is_err()
    });
    let client = other.issue_client("a new one");
    landscape.assert_served(Client::Rustls, &call, Some(&client), "after");
    assert_eq!(open.say("after").as_deref(), Ok("retfa"));
    open.close().unwrap();
}
