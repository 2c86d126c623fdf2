//! A route whose endpoint is sluice itself must not go round until there are no descriptors left.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use rustix::process::{Resource, Rlimit, prlimit};
use sluice::outcome::Outcome;
use sluice::policy::Timeout;
use sluice::reach::EndpointRefusalKind;

use crate::support::{
    Plane, Process, answering, ask, connect, hello, in_own_network, manifest, millis, open, rest,
    run, target, wait_until,
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

#[test]
fn nor_to_the_admin_port() {
    let process = Process::start("", &[]);
    let port = process.admin.port();
    process.serve(&format!(
        "{}{}",
        manifest("a.test", process.admin, ""),
        manifest("b.test", process.admin, "")
            .replace(&process.admin.to_string(), &format!("localhost:{port}"))
    ));
    for name in ["a.test", "b.test"] {
        wait_until("the route", || {
            let mut client = open(process.address, &hello(name));
            let (answer, _) = rest(&mut client);
            assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
            let outcome = process.access_line()["outcome"].clone();
            // At first there is no route, and a name that is not looked up yet.
            let early = outcome == "no_route" || outcome == "no_endpoints";
            assert!(early || outcome == "connect_failed", "{outcome}");
            outcome == "connect_failed"
        });
    }
}

#[test]
fn nor_to_a_network_that_is_excluded() {
    let mut plane = Plane::with(vec![], |config| {
        config.addresses.deny = vec!["127.0.0.0/8".parse().unwrap()];
    });
    plane.apply(vec![target("a.test", &[answering("a")])]);
    let mut client = open(plane.address(), &hello("a.test"));
    assert!(rest(&mut client).0.is_empty());
    plane.assert_ended(&[("a.test", Outcome::ConnectFailed, 1)]);
    let refused = |reason| plane.metrics.endpoint_refused(reason).get();
    assert_eq!(
        (refused(EndpointRefusalKind::Denied), refused(EndpointRefusalKind::OwnPort)),
        (1, 0)
    );
}

#[test]
fn nor_when_there_is_no_descriptor_to_ask_with() {
    in_own_network("loops::nor_when_there_is_no_descriptor_to_ask_with", || {
        run("ip link add name one type veth peer name other");
        run("ip address add 198.18.0.1/24 dev one");
        run("ip link set one up");
        let mut plane = Plane::with(vec![], |config| {
            config.listeners[0].address.set_ip(Ipv4Addr::UNSPECIFIED.into());
            config.workers = 1.try_into().unwrap();
        });
        let port = plane.address().port();
        plane.apply(vec![target("a.test", &[SocketAddr::from(([198, 18, 0, 1], port))])]);
        let own = SocketAddr::from(([127, 0, 0, 1], port));
        let mut first = connect(own);
        plane.assert_active(1);
        let next = u64::try_from(fs::File::open("/dev/null").unwrap().as_raw_fd()).unwrap();
        let limit = |most| {
            let limit = Rlimit { current: Some(most), maximum: Some(next + 40) };
            prlimit(None, Resource::Nofile, limit).unwrap();
        };
        limit(next);
        first.write_all(&hello("a.test")).unwrap();
        assert!(rest(&mut first).0.is_empty());
        drop(first);
        // What could not be asked is no answer to keep.
        limit(next + 40);
        let mut client = open(own, &hello("a.test"));
        assert!(rest(&mut client).0.is_empty());
        plane.assert_ended(&[("a.test", Outcome::ConnectFailed, 2)]);
    });
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
        // No interface has these addresses, and yet they are this machine's.
        run("ip route add local 198.18.9.0/24 dev lo");
        tries(Ipv4Addr::UNSPECIFIED.into(), [198, 18, 9, 9].into(), Outcome::ConnectFailed);
        let v4 = |last| IpAddr::from([198, 18, 0, last]);
        tries(Ipv4Addr::UNSPECIFIED.into(), v4(1), Outcome::ConnectFailed);
        tries(Ipv4Addr::UNSPECIFIED.into(), v4(2), Outcome::ConnectFailed);
        tries(Ipv4Addr::UNSPECIFIED.into(), v4(3), Outcome::ConnectTimeout);
        if fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").is_ok() {
            run("ip address add fd00:198:18::1/64 dev one nodad");
            let v6 = |last| IpAddr::from([0xfd00, 0x198, 0x18, 0, 0, 0, 0, last]);
            // The kernel has it a moment after the link is up.
            wait_until("the route to it", || {
                let routes = fs::read_to_string("/proc/net/ipv6_route").unwrap();
                routes.lines().any(|line| line.starts_with("fd000198001800000000000000000001 80"))
            });
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
            config.policy.timeouts.connect = Timeout::new(millis(200));
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
        config.policy.timeouts.connect = Timeout::new(millis(200));
    });
    let port = plane.address().port();
    plane.apply(vec![target("a.test", &[SocketAddr::from((address, port))])]);
    let loopback =
        if all.is_ipv4() { IpAddr::from([127, 0, 0, 1]) } else { Ipv6Addr::LOCALHOST.into() };
    let mut client = open(SocketAddr::from((loopback, port)), &hello("a.test"));
    assert!(rest(&mut client).0.is_empty());
    plane.assert_ended(&[("a.test", outcome, 1)]);
}
