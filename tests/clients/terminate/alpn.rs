//! Which protocol is selected.

use testkit::Authority;

use super::backends;
use super::manifests::{call, secret, served, served_with, start};
use crate::client::{Answer, Call, Client};
use crate::sluice::Sluice;

fn landscape(authority: &Authority) -> Sluice {
    let names = ["plain.test", "listed.test", "acme.test"];
    let backend = backends::lines();
    let lists = |alpn: &str| format!("  alpn: [{alpn}]\n");
    let listed = |name, hostname, alpn: &str| {
        served_with(name, &[hostname], backend, &["tls"], "", &lists(alpn))
    };
    start(&[
        secret("tls", &authority.issue(&names)),
        served("plain", &["plain.test", "acme.test"], backend, &["tls"], ""),
        listed("listed", "listed.test", "h2, http/1.1"),
        listed("acme", "acme.test", "acme-tls/1"),
        // Those who offer nothing of the list.
        served("rest", &["listed.test"], backend, &["tls"], ""),
    ])
}

const CASES: [(&str, &[&str], &str); 13] = [
    // Without a list none is selected, whatever is offered.
    ("plain.test", &[], ""),
    ("plain.test", &["http/1.1"], ""),
    ("plain.test", &["h2", "http/1.1"], ""),
    ("plain.test", &["mqtt"], ""),
    ("plain.test", &["acme-tls/1"], ""),
    // But PostgreSQL's, without which its clients end the connection.
    ("plain.test", &["postgresql"], "postgresql"),
    ("plain.test", &["postgresql", "h2"], ""),
    // What is listed.
    ("listed.test", &["h2"], "h2"),
    ("listed.test", &["http/1.1"], "http/1.1"),
    ("listed.test", &["h2", "http/1.1"], "h2"),
    ("listed.test", &["mqtt", "http/1.1"], "http/1.1"),
    ("listed.test", &["mqtt"], ""),
    ("acme.test", &["acme-tls/1"], "acme-tls/1"),
];

#[test]
fn a_route_selects_what_it_lists() {
    let authority = Authority::new();
    let sluice = landscape(&authority);
    for version in ["1.2", "1.3"] {
        for (name, alpn, selected) in CASES {
            let call = Call { alpn, ..call(&sluice, &authority, name, version) };
            let answer = Client::Rustls.call(&call);
            assert_eq!(answer, Ok(Answer::to(&call, selected)), "{name} {alpn:?} {version}");
        }
    }
}

/// Go ends the connection if a server that selects something selects what was not offered, and Python and
/// OpenSSL tell of nothing that was selected in different ways.
#[test]
#[ignore = "slow: 80 calls by four programs"]
fn every_client_gets_the_protocol_that_the_route_lists() {
    let authority = Authority::new();
    let sluice = landscape(&authority);
    let clients = [Client::OpenSsl, Client::Go, Client::Python, Client::GnuTls, Client::Curl];
    std::thread::scope(|scope| {
        for client in clients {
            let (sluice, authority) = (&sluice, &authority);
            scope.spawn(move || {
                for (name, alpn, selected) in CASES {
                    // curl offers what it speaks itself.
                    if client == Client::Curl && !matches!(alpn, ["http/1.1"] | []) {
                        continue;
                    }
                    let call = Call { alpn, ..call(sluice, authority, name, "1.3") };
                    let answer = client.call(&call);
                    assert_eq!(
                        answer,
                        Ok(Answer::to(&call, selected)),
                        "{client:?} {name} {alpn:?}"
                    );
                }
            });
        }
    });
}
