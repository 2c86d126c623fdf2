//! A route whose endpoint is sluice itself must not go round until there are no descriptors left.

use std::net::SocketAddr;

use sluice::outcome::Outcome;

use crate::support::{Plane, Process, hello, manifest, open, rest, target, wait_until};

#[test]
fn a_route_to_sluice_itself_is_not_connected() {
    let mut plane = Plane::start(vec![]);
    plane.apply(vec![target("a.test", &[plane.address()])]);
    let mut client = open(plane.address(), &hello("a.test"));
    assert!(rest(&mut client).0.is_empty());
    plane.assert_ended(&[("a.test", Outcome::ConnectFailed, 1)]);
}

#[test]
fn nor_to_a_listener_on_all_addresses_by_any_of_them() {
    let process = Process::start("", &["--listen", "0.0.0.0:0"]);
    let own = SocketAddr::from(([127, 0, 0, 1], process.address.port()));
    process.serve(&manifest("a.test", own, ""));
    // At first there is no route.
    wait_until("the route", || {
        let mut client = open(own, &hello("a.test"));
        assert!(rest(&mut client).0.is_empty());
        let outcome = process.access_line()["outcome"].clone();
        assert!(outcome == "no_route" || outcome == "connect_failed", "{outcome}");
        outcome == "connect_failed"
    });
}
