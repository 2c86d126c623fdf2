//! Connections that come back to sluice in TLS of its own: each time with another hello.

use rcgen::PKCS_ECDSA_P256_SHA256;
use serde_json::json;
use sluice::config::{OtherPeers, Protocol, ProxyProtocolIn, TrustedPeers};
use sluice::outcome::Outcome;

use super::peer::{TlsEnd, TlsPeer};
use super::pki::Authority;
use crate::rounds::forwarder;
use crate::support::{Innocent, Plane, hello, innocent, listener, target};

/// How many connections may go round before the way back ends. A loop that nothing else ends makes as many.
const MOST_ROUNDS: usize = 20;
const CLIENTS: u64 = 5;

/// A plane with a route for `a.test` that leads back to the listener `back`, and clients of it.
fn go_round(plane: &mut Plane, back: &str, proxy_protocol: &serde_json::Value) {
    let (authority, beside) = (Authority::new(), innocent::backend());
    let alias = forwarder(plane.address_of(back), MOST_ROUNDS);
    let parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    let round = target("a.test", &[alias]).terminated(parts, Some(authority.upstream("a.test")));
    let round = round.policy(|policy| {
        policy.proxy_protocol = serde_json::from_value(proxy_protocol.clone()).unwrap();
    });
    plane.apply(vec![round, target("i.test", &[beside])]);
    let innocent = Innocent::start(plane.address(), hello("i.test"), beside);
    for _ in 0..CLIENTS {
        let mut client = TlsPeer::open(plane.address(), "a.test", &authority.client());
        assert_ne!(client.rest().1, TlsEnd::Closed);
    }
    innocent.finish();
    plane.assert_active(0);
    let count = |outcome| plane.count("a.test", outcome);
    // What each client sees, and what has come back.
    assert_eq!((count(Outcome::ConnectFailed), count(Outcome::Loop)), (CLIENTS, CLIENTS));
}

#[test]
fn one_that_leads_to_itself_ends_what_comes_back() {
    go_round(&mut Plane::start(vec![]), "https", &json!({}));
}

/// A header comes before its hello.
#[test]
fn nor_does_a_proxy_header_hide_what_comes_back() {
    let mut plane = Plane::with(vec![], |config| {
        let mut back = listener("back", Protocol::Tls, false);
        back.proxy_protocol = Some(ProxyProtocolIn {
            from: vec!["127.0.0.1".parse().unwrap()],
            trusted: TrustedPeers::Require,
            others: OtherPeers::Refuse,
        });
        config.listeners.push(back);
    });
    go_round(&mut plane, "back", &json!({ "send": "V2" }));
}
