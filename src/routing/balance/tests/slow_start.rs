//! The shares of endpoints that come back.

use std::time::Duration;

use super::*;
use crate::policy::{Policy, Timeout};
use crate::routing::{EjectionRule, TableWriter};

const OVER: Duration = Duration::from_secs(100);
const CLIENTS: u32 = 6000;

/// A route that starts endpoints slowly, and what changes its endpoints.
struct Slow {
    writer: TableWriter,
    spec: RouteSpec,
    route: Arc<Route>,
}

impl Slow {
    fn new(policy: Balancing, endpoints: &[usize]) -> Self {
        let mut asked = Policy::from(policy);
        asked.load_balancing.slow_start = Timeout::new(OVER);
        let spec = RouteSpec {
            backends: vec![(BackendKey::address("", "0"), 1)],
            policy: TrafficPolicy::of(&asked),
            ..RouteSpec::new(RouteKey::sni_route("ns", "r"), Hostname::Exact("a.com").into())
        };
        let (mut writer, reader) = channel();
        writer.apply(snapshot(&spec, endpoints));
        let route = Arc::clone(reader.table().routes().next().unwrap());
        Slow { writer, spec, route }
    }

    /// Has these endpoints from now on. Returns the time.
    fn change(&mut self, endpoints: &[usize]) -> Moment {
        let now = Moment::now();
        self.writer.apply(snapshot(&self.spec, endpoints));
        now
    }

    /// The share of the endpoint `number` when this part of the time has passed.
    fn share(&self, number: usize, since: Moment, part: f64) -> f64 {
        let chosen = chosen(&self.route, CLIENTS, since + OVER.mul_f64(part));
        f64::from(chosen.get(&address(0, number)).copied().unwrap_or_default()) / f64::from(CLIENTS)
    }
}

fn snapshot(spec: &RouteSpec, endpoints: &[usize]) -> Snapshot {
    let addresses = endpoints.iter().map(|number| address(0, *number)).collect();
    let endpoints = [(spec.backends[0].0.clone(), addresses)].into_iter().collect();
    Snapshot { routes: vec![spec.clone()], endpoints, ..Snapshot::default() }
}

const POLICIES: [Balancing; 3] =
    [Balancing::RoundRobin, Balancing::Random, Balancing::LeastConnections];

#[track_caller]
fn assert_near(share: f64, expected: f64, what: &str) {
    assert!((share - expected).abs() < 0.02, "{what}: {share} in place of {expected}");
}

#[test]
fn the_share_of_an_endpoint_that_comes_back_grows_linearly() {
    for policy in POLICIES {
        for others in [1, 3, 40] {
            let all: Vec<usize> = (0..=others).collect();
            let mut slow = Slow::new(policy, &all[1..]);
            let since = slow.change(&all);
            for part in [0.0, 0.1, 0.5, 0.9, 1.0, 3.0_f64] {
                let weight = part.min(1.0);
                let expected = weight / (others as f64 + weight);
                let what = format!("{policy:?} beside {others} at {part}");
                assert_near(slow.share(0, since, part), expected, &what);
            }
        }
    }
}

/// Each time.
#[test]
fn an_endpoint_that_is_ready_again_starts_slowly_again() {
    let mut slow = Slow::new(Balancing::Random, &[0, 1]);
    for _ in 0..2 {
        slow.change(&[1]);
        let since = slow.change(&[0, 1]);
        assert_near(slow.share(0, since, 0.5), 1.0 / 3.0, "half of the time");
        assert_near(slow.share(0, since, 1.0), 0.5, "all of it");
    }
}

#[test]
fn nothing_starts_slowly_at_a_start_or_where_all_are_new() {
    for policy in POLICIES {
        let mut slow = Slow::new(policy, &[]);
        let start = Moment::now();
        for endpoints in [&[0, 1][..], &[]] {
            slow.change(endpoints);
        }
        slow.change(&[0, 1]);
        assert_near(slow.share(0, start, 0.0), 0.5, "the first of a Service");
        let all = snapshot(&slow.spec, &[0, 1, 2, 3]);
        slow.writer.start_over(all);
        assert_near(slow.share(3, start, 0.0), 0.25, "another table");
    }
}

#[test]
fn an_endpoint_that_comes_back_from_an_ejection_starts_slowly() {
    let slow = Slow::new(Balancing::Random, &[0, 1]);
    let endpoint = Arc::clone(&slow.route.backends[0].backend.endpoints()[0]);
    let rule = EjectionRule::new(1, Duration::from_millis(1), Duration::from_millis(1));
    let start = Moment::now();
    assert!(endpoint.count_failure(start, &rule).is_some());
    endpoint.succeeded();
    let since = Moment::now();
    assert_near(slow.share(0, since, 0.5), 1.0 / 3.0, "half of the time");
    assert_near(slow.share(0, since, 1.0), 0.5, "all of it");
}

/// However small their weights, somebody has to take the connections.
#[test]
fn endpoints_that_come_back_together_share_equally() {
    for policy in POLICIES {
        let mut slow = Slow::new(policy, &[9]);
        let since = slow.change(&[0, 1]);
        for part in [0.0, 0.5] {
            assert_near(slow.share(0, since, part), 0.5, &format!("{policy:?} at {part}"));
        }
    }
}

#[test]
fn a_source_keeps_its_endpoint_whatever_starts() {
    let mut slow = Slow::new(Balancing::SourceAddress, &[1]);
    let since = slow.change(&[0, 1]);
    assert_near(slow.share(0, since, 0.0), 0.5, "at once");
}
