//! A route whose endpoint is sluice itself must not go round until there are no descriptors left.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use sluice::outcome::Outcome;

use crate::support::{
    Plane, Process, answering, ask, hello, in_own_network, manifest, millis, open, rest, run,
    target, wait_until,
};

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

#[test]
fn nor_by_an_ipv4_address_in_the_form_of_ipv6() {
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::from((ip.to_ipv6_mapped(), address.port())),
        IpAddr::V6(_) => address,
    };
    let mut plane = Plane::start(vec![]);
    plane.apply(vec![
        target("a.test", &[mapped(plane.address())]),
        target("b.test", &[mapped(answering("b"))]),
    ]);
    let mut client = open(plane.address(), &hello("a.test"));
    assert!(rest(&mut client).0.is_empty());
    assert_eq!(ask(plane.address(), "b.test"), "b");
    plane.assert_ended(&[("a.test", Outcome::ConnectFailed, 1), ("b.test", Outcome::Completed, 1)]);
}

/// Where addresses can be bound that are another machine's, as on nodes that share one.
#[test]
fn nor_is_another_machine_taken_for_this_one() {
    in_own_network("loops::nor_is_another_machine_taken_for_this_one", || {
        fs::write("/proc/sys/net/ipv4/ip_nonlocal_bind", "1").unwrap();
        // Without ARP, nobody says that there is nobody.
        run("ip link add name one arp off type veth peer name other");
        run("ip address add 198.18.0.1/24 dev one");
        run("ip address add 198.18.0.2/24 dev one");
        run("ip link set one up");
        run("ip link set other up");
        let v4 = |last| IpAddr::from([198, 18, 0, last]);
        tries(Ipv4Addr::UNSPECIFIED.into(), v4(1), Outcome::ConnectFailed);
        tries(Ipv4Addr::UNSPECIFIED.into(), v4(2), Outcome::ConnectFailed);
        tries(Ipv4Addr::UNSPECIFIED.into(), v4(3), Outcome::ConnectTimeout);
        if fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").is_ok() {
            run("ip address add fd00:198:18::1/64 dev one nodad");
            let v6 = |last| IpAddr::from([0xfd00, 0x198, 0x18, 0, 0, 0, 0, last]);
            tries(Ipv6Addr::UNSPECIFIED.into(), v6(1), Outcome::ConnectFailed);
            tries(Ipv6Addr::UNSPECIFIED.into(), v6(3), Outcome::ConnectTimeout);
        }
    });
}

#[test]
#[ignore = "slow: waits until an address is looked at again, ten seconds"]
fn nor_for_long_is_one_that_an_address_has_moved_to() {
    in_own_network("loops::nor_for_long_is_one_that_an_address_has_moved_to", || {
        run("ip link add name one arp off type veth peer name other");
        run("ip link set one up");
        run("ip link set other up");
        run("ip address add 198.18.0.1/24 dev one");
        let mut plane = Plane::with(vec![], |config| {
            config.listeners[0].address.set_ip(Ipv4Addr::UNSPECIFIED.into());
            config.timeouts.connect = millis(200);
            // Each of them asks for itself.
            config.workers = 1.try_into().unwrap();
        });
        let port = plane.address().port();
        plane.apply(vec![target("a.test", &[SocketAddr::from(([198, 18, 0, 1], port))])]);
        let meet = || {
            let mut client = open(SocketAddr::from(([127, 0, 0, 1], port)), &hello("a.test"));
            assert!(rest(&mut client).0.is_empty());
        };
        meet();
        plane.assert_ended(&[("a.test", Outcome::ConnectFailed, 1)]);
        // What is left of its network has nobody who answers.
        run("ip address delete 198.18.0.1/24 dev one");
        run("ip address add 198.18.0.2/24 dev one");
        wait_until("a look at the address", || {
            meet();
            plane.has_ended("a.test", Outcome::ConnectTimeout)
        });
    });
}

/// A client of a listener on `all` meets `outcome` when the endpoint is at `address`, on the same
/// port.
#[track_caller]
fn tries(all: IpAddr, address: IpAddr, outcome: Outcome) {
    let mut plane = Plane::with(vec![], |config| {
        config.listeners[0].address.set_ip(all);
        config.timeouts.connect = millis(200);
    });
    let port = plane.address().port();
    plane.apply(vec![target("a.test", &[SocketAddr::from((address, port))])]);
    let loopback =
        if all.is_ipv4() { IpAddr::from([127, 0, 0, 1]) } else { Ipv6Addr::LOCALHOST.into() };
    let mut client = open(SocketAddr::from((loopback, port)), &hello("a.test"));
    assert!(rest(&mut client).0.is_empty());
    plane.assert_ended(&[("a.test", outcome, 1)]);
}
