//! Every client with every version and every kind of certificate.

use std::thread;

use testkit::{Authority, wait_until};

use super::backends;
use super::manifests::{call, secret, served, start};
use crate::client::{Answer, Client, s_client_with};
use crate::sluice::{Sluice, route};

/// A sluice with names whose certificates are of RSA, of ECDSA or of both.
fn landscape(authority: &Authority) -> Sluice {
    let backend = backends::lines();
    let names = ["rsa.test", "ecdsa.test", "both.test", "*.wild.test"];
    start(&[
        secret("rsa", &authority.issue_rsa(&names)),
        secret("ecdsa", &authority.issue(&names)),
        served("rsa", &["rsa.test"], backend, &["rsa"], ""),
        served("ecdsa", &["ecdsa.test"], backend, &["ecdsa"], ""),
        served("both", &["both.test"], backend, &["ecdsa", "rsa"], ""),
        served("wild", &["*.wild.test"], backend, &["rsa", "ecdsa"], ""),
    ])
}

#[test]
#[ignore = "slow: 48 calls by six programs"]
fn every_client_is_served_in_every_version_with_every_certificate() {
    let authority = Authority::new();
    let sluice = landscape(&authority);
    let names = ["rsa.test", "ecdsa.test", "both.test", "a.wild.test"];
    thread::scope(|scope| {
        for client in Client::SERVED {
            let (sluice, authority) = (&sluice, &authority);
            scope.spawn(move || {
                for version in ["1.2", "1.3"] {
                    for name in names {
                        let call = call(sluice, authority, name, version);
                        let answer = client.call(&call);
                        let expected = Ok(Answer::to(&call, ""));
                        assert_eq!(answer, expected, "{client:?} {version} {name}");
                    }
                }
            });
        }
    });
    let metrics = sluice.metrics();
    assert_eq!(metrics.connections("completed"), 48.0, "{}", metrics.0);
    assert_eq!(metrics.sum("sluice_connections_total", &[]), 48.0, "{}", metrics.0);
    assert_eq!(metrics.sum("sluice_connections_active", &[]), 0.0);
}

#[test]
fn each_client_is_served() {
    let authority = Authority::new();
    let sluice = landscape(&authority);
    thread::scope(|scope| {
        for client in Client::SERVED {
            let call = call(&sluice, &authority, "both.test", "1.3");
            scope.spawn(move || {
                assert_eq!(client.call(&call), Ok(Answer::to(&call, "")), "{client:?}");
            });
        }
    });
    wait_until("all to be counted", || sluice.metrics().connections("completed") == 6.0);
}

#[test]
fn a_client_gets_the_cheapest_certificate_that_it_can_use() {
    let authority = Authority::new();
    let sluice = landscape(&authority);
    let rsa = ["-sigalgs", "RSA-PSS+SHA256:RSA+SHA256"];
    let ecdsa = ["-sigalgs", "ECDSA+SHA256"];
    for version in ["1.2", "1.3"] {
        for (name, flags, bits) in [
            ("both.test", &[][..], 256),
            ("both.test", &ecdsa, 256),
            ("both.test", &rsa, 2048),
            // RSA is the first of its list, and costs more.
            ("a.wild.test", &[], 256),
            ("a.wild.test", &ecdsa, 256),
            ("a.wild.test", &rsa, 2048),
        ] {
            let call = call(&sluice, &authority, name, version);
            let said = s_client_with(&call, name, flags).unwrap();
            let expected = format!("Server public key is {bits} bit");
            assert!(said.contains(&expected), "{name} {flags:?} {version}: {said}");
        }
        // One that can use none is refused, and not served with what it cannot use.
        let call = call(&sluice, &authority, "ecdsa.test", version);
        let refused = s_client_with(&call, call.name, &rsa).unwrap_err();
        assert!(refused.contains("alert handshake failure"), "{version}: {refused}");
    }
}

#[test]
fn every_client_notices_the_wrong_certificate() {
    let authority = Authority::new();
    let backend = backends::lines();
    let sluice = start(&[
        secret("right", &authority.issue(&["right.test"])),
        served("right", &["right.test", "wrong.test"], backend, &["right"], ""),
    ]);
    let words = ["certificate", "hostname mismatch", "NotValidForName", "name"];
    thread::scope(|scope| {
        for client in Client::SERVED {
            let right = call(&sluice, &authority, "right.test", "1.3");
            let wrong = call(&sluice, &authority, "wrong.test", "1.3");
            scope.spawn(move || {
                assert!(client.call(&right).is_ok(), "{client:?}: {:?}", client.call(&right));
                let refused = client.call(&wrong).unwrap_err();
                assert!(words.iter().any(|word| refused.contains(word)), "{client:?}: {refused}");
            });
        }
    });
}

/// A name that is passed through, and one that is served, on one listener.
#[test]
fn served_and_passed_through_names_stand_side_by_side() {
    use crate::server::{Kind, Server};
    let (authority, other) = (Authority::new(), Authority::new());
    let passed = Server::start(Kind::Rustls, &other, &["passed.test"], &[]);
    let sluice = start(&[
        secret("served", &authority.issue(&["served.test"])),
        served("served", &["served.test"], backends::lines(), &["served"], ""),
        route("passed", &["passed.test"], passed.address),
    ]);
    for version in ["1.2", "1.3"] {
        for (name, authority) in [("served.test", &authority), ("passed.test", &other)] {
            let call = call(&sluice, authority, name, version);
            assert_eq!(Client::Rustls.call(&call), Ok(Answer::to(&call, "")), "{name}");
        }
    }
}

#[test]
fn a_route_without_a_certificate_or_the_switch_is_refused_and_never_passed_through() {
    let authority = Authority::new();
    let (address, received) = backends::recorder("");
    let missing = served("missing", &["missing.test"], address, &["none"], "");
    let sluice = start(std::slice::from_ref(&missing));
    let off = Sluice::start(&[
        ("secret.yaml", secret("none", &authority.issue(&["missing.test"]))),
        ("route.yaml", missing),
    ]);
    for sluice in [&sluice, &off] {
        let call = call(sluice, &authority, "missing.test", "1.3");
        assert!(Client::Rustls.call(&call).is_err());
        assert_eq!(sluice.entry_of("missing.test")["outcome"], "no_certificate");
    }
    assert!(received.try_recv().is_err(), "the backend saw a connection");
}
