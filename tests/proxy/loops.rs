//! A route whose endpoint is sluice itself must not go round until there are no descriptors left.

use sluice::outcome::Outcome;

use crate::support::{Plane, Process, hello, manifest, open, rest, target};

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
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let everywhere = format!("0.0.0.0:{}", free.port());
    let process = Process::start(&manifest("a.test", free, ""), &["--listen", &everywhere]);
    let mut client = open(free, &hello("a.test"));
    assert!(rest(&mut client).0.is_empty());
    assert_eq!(process.access_line()["outcome"], "connect_failed");
}
