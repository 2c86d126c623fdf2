//! Endpoints that do not answer, beside others that do.

use serde_json::Value;
use sluice::config::Config;
use sluice::outcome::Outcome;
use sluice::policy::Balancing;
use sluice::policy::Timeout;

use crate::failover::{assert_the_silent_get_nothing, dead};
use crate::support::{
    Backend, Blackhole, PATIENCE, Plane, Target, answering, ask, hello, millis, open, rest, target,
};

const POLICIES: [Balancing; 5] = [
    Balancing::RoundRobin,
    Balancing::LeastConnections,
    Balancing::Random,
    Balancing::SourceAddress,
    Balancing::ServerName,
];

fn impatient(config: &mut Config) {
    config.policy.timeouts.connect = Timeout::new(millis(50));
}

#[test]
fn a_dead_one_beside_a_live_one_costs_no_client() {
    for policy in POLICIES {
        let (mut addresses, _sockets) = dead(2);
        addresses.push(answering("served"));
        let plane = Plane::start(vec![target("a.test", &addresses).balanced(policy)]);
        for _ in 0..20 {
            assert_eq!(ask(plane.address(), "a.test"), "served", "{policy:?}");
        }
        plane.assert_ended(&[("a.test", Outcome::Completed, 20)]);
    }
}

#[test]
fn a_silent_one_beside_a_live_one_costs_no_client() {
    let blackhole = Blackhole::new();
    let addresses = [blackhole.address(), answering("served")];
    let plane = Plane::with(vec![target("a.test", &addresses)], impatient);
    for _ in 0..10 {
        assert_eq!(ask(plane.address(), "a.test"), "served");
    }
    plane.assert_ended(&[("a.test", Outcome::Completed, 10)]);
}

#[test]
fn a_dead_backend_beside_a_live_one_costs_no_client() {
    let (addresses, _sockets) = dead(1);
    for policy in POLICIES {
        let target = target("a.test", &addresses).and(1, &[answering("served")]).balanced(policy);
        let plane = Plane::start(vec![target]);
        for _ in 0..10 {
            assert_eq!(ask(plane.address(), "a.test"), "served", "{policy:?}");
        }
    }
}

/// The last line of the access log after one client was turned away.
fn turned_away(target: Target, outcome: Outcome) -> Value {
    turned_away_with(target, outcome, impatient, |_| {})
}

fn turned_away_with(
    target: Target,
    outcome: Outcome,
    configure: impl FnOnce(&mut Config),
    prepare: impl FnOnce(&Plane),
) -> Value {
    let plane = Plane::with(vec![target], configure);
    prepare(&plane);
    rest(&mut open(plane.address(), &hello("a.test")));
    plane.assert_ended(&[("a.test", outcome, 1)]);
    plane.access_log().pop().unwrap()
}

#[test]
fn of_those_that_refuse_at_once_many_are_tried_but_not_all() {
    for (count, tried) in [(5, 5), (40, 16)] {
        let (addresses, _sockets) = dead(count);
        for policy in POLICIES {
            let target = target("a.test", &addresses).balanced(policy);
            let patient =
                |config: &mut Config| config.policy.timeouts.connect = Timeout::new(PATIENCE);
            let line = turned_away_with(target, Outcome::ConnectFailed, patient, |_| {});
            assert_eq!(line["attempts"], tried, "{policy:?}");
        }
    }
}

#[test]
fn at_most_three_are_waited_for() {
    let silent: Vec<_> = (0..5).map(|_| Blackhole::new()).collect();
    let addresses: Vec<_> = silent.iter().map(Blackhole::address).collect();
    // One after another, and all at the same time.
    for limit in [50, 1000] {
        let patient =
            |config: &mut Config| config.policy.timeouts.connect = Timeout::new(millis(limit));
        let target = target("a.test", &addresses);
        let line = turned_away_with(target, Outcome::ConnectTimeout, patient, |_| {});
        assert_eq!(line["attempts"], 3);
    }
}

#[test]
fn none_is_tried_twice() {
    for policy in POLICIES {
        for count in [1, 2] {
            let (addresses, _sockets) = dead(count);
            let target = target("a.test", &addresses).balanced(policy);
            let line = turned_away(target, Outcome::ConnectFailed);
            assert_eq!(line["attempts"], count, "{policy:?}");
        }
        let (addresses, _sockets) = dead(1);
        let twice = target("a.test", &addresses).and(1, &addresses).balanced(policy);
        assert_eq!(turned_away(twice, Outcome::ConnectFailed)["attempts"], 1, "{policy:?}");
    }
}

/// A connect that is given up must not come to pass later: the backend would see an empty
/// connection, or worse.
#[test]
fn one_that_was_given_up_gets_nothing() {
    assert_the_silent_get_nothing(impatient);
}

#[test]
fn the_last_failure_names_the_outcome() {
    let (blackhole, (addresses, _sockets)) = (Blackhole::new(), dead(1));
    for (first, outcome) in [(0, Outcome::ConnectTimeout), (1, Outcome::ConnectFailed)] {
        let target = target("a.test", &[addresses[0], blackhole.address()]);
        let line = turned_away_with(target, outcome, impatient, |plane| plane.prefer(first));
        assert_eq!(line["attempts"], 2);
    }
}

#[test]
fn endpoints_count_a_connection_as_long_as_it_lasts() {
    let (addresses, _sockets) = dead(1);
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[addresses[0], backend.address()])]);
    let active = || -> Vec<usize> {
        let table = plane.reader.table();
        let endpoints = table.routes().next().unwrap().backends[0].backend.endpoints();
        endpoints.iter().map(|endpoint| endpoint.active()).collect()
    };
    let hello = hello("a.test");
    let mut client = open(plane.address(), &hello);
    let server = backend.accept_with(&hello);
    assert_eq!(active(), [0, 1]);
    drop(server);
    rest(&mut client);
    drop(client);
    plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
    assert_eq!(active(), [0, 0]);
}
