//! What one failed attempt to connect spares the clients after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sluice::config::Config;
use sluice::outcome::Outcome;
use sluice::policy::Balancing;
use sluice::policy::Timeout;
use sluice::routing::{Availability, EjectionRule, Moment, TrafficPolicy};
use socket2::Socket;

use crate::support::{
    Backend, Blackhole, Plane, answering, ask, fresh, hello, in_own_network, open, open_from,
    refusing, reset, rest, run, target, wait_until,
};

/// Addresses that refuse, as long as the sockets live.
pub(crate) fn dead(count: usize) -> (Vec<SocketAddr>, Vec<Socket>) {
    (0..count).map(|_| refusing()).unzip()
}

fn active(plane: &Plane) -> Vec<usize> {
    plane.endpoints().iter().map(|endpoint| endpoint.active()).collect()
}

#[test]
fn no_client_fails_beside_dead_endpoints_and_the_live_ones_share() {
    const CLIENTS: usize = 40;
    for policy in Balancing::ALL {
        let (mut addresses, _sockets) = dead(3);
        let live: Vec<_> = (0..3).map(|_| Backend::new()).collect();
        addresses.extend(live.iter().map(Backend::address));
        let target = target("a.test", &addresses).balanced(policy);
        let plane = Plane::start(vec![target]);
        let hello = hello("a.test");
        let mut clients = Vec::new();
        for count in 1..=CLIENTS {
            clients.push(open(plane.address(), &fresh(&hello)));
            wait_until("a connection", || {
                active(&plane)[3..].iter().sum::<usize>() == count
                    || plane.has_ended("a.test", Outcome::ConnectFailed)
            });
            assert!(!plane.has_ended("a.test", Outcome::ConnectFailed), "{policy:?}: {count}");
        }
        let active = active(&plane);
        assert_eq!(active[..3], [0, 0, 0], "{policy:?}");
        if !matches!(policy, Balancing::SourceAddress | Balancing::ServerName) {
            assert!(active[3..].iter().all(|n| (4..26).contains(n)), "{policy:?}: {active:?}");
        }
    }
}

#[test]
fn no_client_fails_beside_dead_backends_that_weigh_more() {
    for policy in Balancing::ALL {
        let (addresses, _sockets) = dead(3);
        let target = target("a.test", &addresses[..1])
            .and(90, &addresses[1..2])
            .and(90, &addresses[2..])
            .and(10, &[answering("served")])
            .with(|spec| {
                spec.policy = TrafficPolicy::of(&policy.into());
                spec.backends[0].1 = 90;
            });
        let plane = Plane::start(vec![target]);
        for _ in 0..30 {
            assert_eq!(ask(plane.address(), "a.test"), "served", "{policy:?}");
        }
    }
}

#[test]
fn a_silent_endpoint_keeps_one_client_waiting_and_those_after_it_not() {
    for policy in Balancing::ALL {
        let blackhole = Blackhole::new();
        let mut addresses = vec![blackhole.address()];
        addresses.extend((0..3).map(|_| answering("served")));
        let target = target("a.test", &addresses).balanced(policy);
        let plane = Plane::start(vec![target]);
        plane.prefer(0);
        let start = Instant::now();
        assert_eq!(ask(plane.address(), "a.test"), "served", "{policy:?}");
        // Long before the attempt is given up, which is after 5 s.
        let first = start.elapsed();
        for endpoint in &plane.endpoints()[1..] {
            endpoint.succeeded();
        }
        let start = Instant::now();
        for _ in 0..12 {
            assert_eq!(ask(plane.address(), "a.test"), "served", "{policy:?}");
        }
        // Now and then one finds out whether it is well again.
        let trials = start.elapsed().as_secs() / 2 + 1;
        assert!(first < Duration::from_millis(4900), "{policy:?}: {first:?}");
        let lines = plane.access_log();
        let waited = lines.iter().filter(|line| line["attempts"] == 2).count() as u64;
        assert!((1..=1 + trials).contains(&waited), "{policy:?}: {waited}");
    }
}

/// How long a route waits is its own affair, and its endpoints may be those of others.
#[test]
fn a_route_that_waits_for_a_moment_only_says_nothing_of_an_endpoint() {
    let blackhole = Blackhole::new();
    let [hasty, patient] = [1, 400].map(|limit| {
        target(&format!("{limit}.test"), &[blackhole.address()])
            .policy(|policy| policy.timeouts.connect = Timeout::new(Duration::from_millis(limit)))
    });
    let key = hasty.spec.backends[0].0.clone();
    let patient = patient.naming(key);
    let plane = Plane::start(vec![hasty, patient]);
    let availability = || plane.endpoints()[0].availability(Moment::now(), &EjectionRule::OFF);
    for (name, expected) in [("1.test", Availability::Well), ("400.test", Availability::Resting)] {
        rest(&mut open(plane.address(), &hello(name)));
        wait_until(name, || plane.has_ended(name, Outcome::ConnectTimeout));
        assert_eq!(availability(), expected, "{name}");
    }
}

#[test]
fn a_client_that_leaves_takes_no_trial_with_it() {
    let (blackhole, backend) = (Blackhole::new(), Backend::new());
    let plane = Plane::start(vec![target("a.test", &[blackhole.address(), backend.address()])]);
    plane.prefer(0);
    let tried = &plane.endpoints()[0];
    let availability = || tried.availability(Moment::now(), &EjectionRule::OFF);
    tried.failed(Moment::now());
    let hello = hello("a.test");
    for _ in 0..2 {
        wait_until("its rest to be over", || availability() == Availability::Due);
        let client = open(plane.address(), &fresh(&hello));
        wait_until("a trial", || availability() == Availability::Resting);
        reset(client);
        wait_until("its end", || tried.active() == 0);
        assert_eq!(availability(), Availability::Due);
    }
}

/// It goes on while others are tried, and may still win.
#[test]
fn a_slow_endpoint_is_not_given_up_for_another_that_is_silent() {
    let (slow, silent) = (Blackhole::new(), Blackhole::new());
    let (address, addresses) = (slow.address(), [slow.address(), silent.address()]);
    let plane = Plane::start(vec![target("a.test", &addresses)]);
    plane.prefer(0);
    let hello = hello("a.test");
    let mut client = open(plane.address(), &hello);
    wait_until("both to be tried", || active(&plane) == [1, 1]);
    let mut server = slow.accept_late();
    crate::support::expect(&mut server, &hello);
    wait_until("the other to be given up", || active(&plane) == [1, 0]);
    let availability =
        |index: usize| plane.endpoints()[index].availability(Moment::now(), &EjectionRule::OFF);
    assert_eq!(availability(0), Availability::Well);
    drop(server);
    rest(&mut client);
    drop(client);
    plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
    let line = plane.access_log().pop().unwrap();
    assert_eq!((&line["endpoint"], &line["attempts"]), (&address.to_string().into(), &2.into()));
    assert_eq!(silent.late(), 0, "the loser is closed");
}

#[test]
fn the_loser_of_a_race_gets_nothing() {
    assert_the_silent_get_nothing(|_| {});
}

/// Of two endpoints, the first answers nothing until the second has the connection.
#[track_caller]
pub(crate) fn assert_the_silent_get_nothing(configure: impl FnOnce(&mut Config)) {
    let (blackhole, backend) = (Blackhole::new(), Backend::new());
    let addresses = [blackhole.address(), backend.address()];
    let plane = Plane::with(vec![target("a.test", &addresses)], configure);
    plane.prefer(0);
    let hello = hello("a.test");
    let mut client = open(plane.address(), &hello);
    drop(backend.accept_with(&hello));
    rest(&mut client);
    drop(client);
    plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
    assert!(!backend.is_wanted(), "one client, one connection");
    assert_eq!(blackhole.late(), 0);
    let line = plane.access_log().pop().unwrap();
    let endpoint = backend.address().to_string();
    assert_eq!((&line["endpoint"], &line["attempts"]), (&endpoint.into(), &2.into()));
}

#[test]
fn processes_that_start_together_begin_at_different_endpoints() {
    for policy in [Balancing::RoundRobin, Balancing::LeastConnections] {
        let backends = ["1", "2", "3", "4", "5", "6"].map(answering);
        let first: BTreeSet<String> = (0..24)
            .map(|_| {
                let target = target("a.test", &backends).balanced(policy);
                ask(Plane::start(vec![target]).address(), "a.test")
            })
            .collect();
        // Three are all that is reached once in a million times.
        assert!(first.len() > 3, "{policy:?}: {first:?}");
    }
}

/// In a network of one family.
#[test]
fn a_family_without_a_route_costs_no_attempt() {
    const NAME: &str = "failover::a_family_without_a_route_costs_no_attempt";
    in_own_network(NAME, || {
        // The kernel has no route, and then not even an address to send from.
        asks_one_family();
        if fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").is_ok() {
            asks_one_family();
        }
    });
}

fn asks_one_family() {
    for (policy, lost) in Balancing::ALL.into_iter().flat_map(|policy| [(policy, 3), (policy, 40)])
    {
        let mut addresses: Vec<SocketAddr> = ["1", "2", "3"].map(answering).to_vec();
        let net = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0).to_bits();
        addresses.extend((1..=lost).map(|n| SocketAddr::from((Ipv6Addr::from(net + n), 443))));
        let target = target("a.test", &addresses).balanced(policy);
        let plane = Plane::start(vec![target]);
        let mut answers = BTreeMap::new();
        for _ in 0..30 {
            *answers.entry(ask(plane.address(), "a.test")).or_insert(0) += 1;
        }
        assert_eq!(answers.values().sum::<i32>(), 30);
        if !matches!(policy, Balancing::SourceAddress | Balancing::ServerName) {
            assert_eq!(answers.len(), 3, "{policy:?}, {lost}: {answers:?}");
            assert!(answers.values().all(|n| (2..20).contains(n)), "{policy:?}: {answers:?}");
        }
        plane.assert_ended(&[("a.test", Outcome::Completed, 30)]);
    }
}

/// So say routes of the types `unreachable`, `prohibit` and `blackhole`.
#[test]
fn a_family_whose_routes_lead_nowhere_costs_one_attempt_whatever_the_number_of_backends() {
    const NAME: &str = "failover::\
        a_family_whose_routes_lead_nowhere_costs_one_attempt_whatever_the_number_of_backends";
    in_own_network(NAME, || {
        for nowhere in ["unreachable", "prohibit", "blackhole"] {
            run(&format!("ip -6 route replace {nowhere} 2001:db8::/32"));
            let net = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0).to_bits();
            let addresses = |live: SocketAddr| -> Vec<SocketAddr> {
                let lost = (1..=20).map(|n| SocketAddr::from((Ipv6Addr::from(net + n), 443)));
                lost.chain([live]).collect()
            };
            let served = answering("served");
            let target = (1..16).fold(target("a.test", &addresses(served)), |target, _| {
                target.and(1, &addresses(served))
            });
            let plane = Plane::start(vec![target]);
            for _ in 0..30 {
                assert_eq!(ask(plane.address(), "a.test"), "served", "{nowhere}");
            }
            let lines = plane.access_log();
            let attempts = lines.iter().map(|line| line["attempts"].as_u64().unwrap());
            assert!(attempts.max() <= Some(2), "{nowhere}: {lines:?}");
        }
    });
}

/// Which is no fault of the endpoint.
#[test]
fn without_a_local_port_left_another_endpoint_is_tried() {
    const NAME: &str = "failover::without_a_local_port_left_another_endpoint_is_tried";
    const PORTS: usize = 4;
    in_own_network(NAME, || {
        let (full, other) = (Backend::new(), Backend::new());
        let addresses = [full.address(), other.address()];
        let plane = Plane::start(vec![
            target("both.test", &addresses),
            target("full.test", &addresses[..1]),
        ]);
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40003").unwrap();
        // Ports that are bound are not for connects, so clients take others.
        let (of_full, of_both) = (hello("full.test"), hello("both.test"));
        let client = |port: usize, name: &[u8]| {
            let source = SocketAddr::from((Ipv4Addr::LOCALHOST, 50000 + port as u16));
            open_from(source, plane.address(), name)
        };
        let opened: Vec<_> =
            (0..PORTS).map(|port| (client(port, &fresh(&of_full)), full.accept())).collect();
        plane.prefer(0);
        let mut last = client(PORTS, &of_both);
        drop(other.accept_with(&of_both));
        rest(&mut last);
        assert_eq!(
            plane.endpoints()[0].availability(Moment::now(), &EjectionRule::OFF),
            Availability::Well
        );
        drop(opened);
    });
}

#[test]
fn without_descriptors_no_endpoint_is_blamed() {
    const NAME: &str = "failover::without_descriptors_no_endpoint_is_blamed";
    // Alone in a process, whose limit it may lower.
    in_own_network(NAME, || {
        let backends = [Backend::new(), Backend::new()];
        let addresses = backends.each_ref().map(Backend::address);
        let plane = Plane::start(vec![target("a.test", &addresses)]);
        let hello = hello("a.test");
        let mut client = open(plane.address(), &hello[..100]);
        plane.assert_active(1);
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(3), maximum }).unwrap();
        client.write_all(&hello[100..]).unwrap();
        rest(&mut client);
        plane.assert_ended(&[("a.test", Outcome::ConnectFailed, 1)]);
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
        let now = Moment::now();
        assert!(
            plane
                .endpoints()
                .iter()
                .all(|one| one.availability(now, &EjectionRule::OFF) == Availability::Well)
        );
        // Another would have failed in the same way.
        assert_eq!(plane.access_log().pop().unwrap()["attempts"], 1);
    });
}
