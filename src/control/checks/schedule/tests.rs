//! The times of checks, by a clock that only the tests move.

use super::super::fixture::{route, snapshot, table};
use super::super::plan::plan;
use super::*;
use crate::policy::{Balancing, Policy, Timeout};
use crate::routing::{Availability, BackendKey, EndpointRequest, RouteSpec, TableReader, choose};

/// Makes a connection of each route.
fn use_backends(reader: &TableReader) {
    let table = reader.table();
    table.routes().for_each(|route| {
        let source = "192.0.2.9".parse().unwrap();
        choose(route, &EndpointRequest::new(source, &[], 0)).unwrap();
    });
}

fn schedule(per_second: u32, reader: &TableReader, now: Instant) -> CheckSchedule {
    let mut schedule = CheckSchedule::new(NonZeroU32::new(per_second).unwrap(), 512, now);
    schedule.replace(plan(&reader.table(), usize::MAX).checks, now);
    schedule
}

/// Makes all checks until `end`, each of which takes no time and has the result of `check`. Returns when each
/// was made.
fn run(
    schedule: &mut CheckSchedule,
    from: Instant,
    until: Duration,
    mut check: impl FnMut(&CheckJob) -> Option<bool>,
) -> Vec<(Duration, CheckKey)> {
    let (mut now, mut made) = (from, Vec::new());
    loop {
        while let Some(job) = schedule.next(now) {
            let result = check(&job);
            schedule.finish(&job, result, now);
            made.push((now - from, job.key));
        }
        now = schedule.wake().unwrap().max(now);
        if now - from > until {
            return made;
        }
    }
}

fn many(backend: &str, number: u8, count: u8) -> (String, Vec<String>) {
    (backend.to_owned(), (0..count).map(|last| format!("192.0.{number}.{last}:1")).collect())
}

fn borrowed<'b>(backends: &'b [(String, Vec<String>)]) -> Vec<(&'b str, Vec<&'b str>)> {
    let texts = |addresses: &'b [String]| addresses.iter().map(String::as_str).collect();
    backends.iter().map(|(key, addresses)| (key.as_str(), texts(addresses))).collect()
}

fn reader_of(routes: Vec<RouteSpec>, backends: &[(String, Vec<String>)]) -> TableReader {
    let backends = borrowed(backends);
    let backends: Vec<_> = backends.iter().map(|(key, all)| (*key, all.as_slice())).collect();
    table(routes, &backends).1
}

#[test]
fn a_check_is_made_once_in_each_interval_and_faster_in_transition() {
    let (_writer, reader) =
        table(vec![route("a/r", &["x"], Some("TCP"))], &[("x", &["192.0.2.1:1"])]);
    let start = Instant::now();
    use_backends(&reader);
    let mut schedule = schedule(100, &reader, start);
    let made = run(&mut schedule, start, Duration::from_secs(100), |_| Some(true));
    assert!((9..=12).contains(&made.len()), "{made:?}");
    assert!(made[0].0 <= FIRST);
    for pair in made.windows(2) {
        let pause = pair[1].0 - pair[0].0;
        assert!((9..=11).contains(&pause.as_secs()) && pause.as_secs() < 11, "{pause:?}");
    }
    // Three failures in a row, of which the first comes after an interval.
    let then = start + Duration::from_secs(100);
    let mut results = Vec::new();
    let failed = run(&mut schedule, then, Duration::from_secs(15), |_| {
        results.push(());
        Some(false)
    });
    assert!(failed.len() >= 3, "{failed:?}");
    for pair in failed[..3].windows(2) {
        assert!(
            pair[1].0 - pair[0].0 < TRANSITION * 11 / 10 + Duration::from_millis(1),
            "{failed:?}"
        );
    }
}

#[test]
fn a_budget_that_is_too_small_makes_intervals_longer_for_all_alike() {
    let routes = vec![route("a/r", &["x"], Some("TCP")), route("b/r", &["y"], Some("TCP"))];
    let reader = reader_of(routes, &[many("x", 1, 200), many("y", 2, 10)]);
    let start = Instant::now();
    use_backends(&reader);
    // 210 checks every 10 s would be 21 in a second.
    let mut schedule = schedule(10, &reader, start);
    let made = run(&mut schedule, start, Duration::from_secs(60), |_| Some(true));
    assert!((590..=612).contains(&made.len()), "{}", made.len());
    // The namespace with few endpoints is not delayed by the other one.
    let of_b = made.iter().filter(|(_, key)| key.address.to_string().starts_with("192.0.2."));
    assert!((50..=70).contains(&of_b.count()));
    assert!(schedule.delay(start + Duration::from_secs(60)) > Duration::from_secs(5));
    assert_eq!(schedule.len(), 210);
}

#[test]
fn an_endpoint_that_is_back_starts_slowly_for_the_routes_with_this_check() {
    const OVER: Duration = Duration::from_secs(1000);
    let slow = |mut spec: RouteSpec| {
        let mut policy: Policy = spec.policy.effective().of_route();
        policy.load_balancing.slow_start = Timeout::new(OVER);
        policy.load_balancing.policy = Some(Balancing::RoundRobin);
        spec.policy = crate::routing::TrafficPolicy::of(&policy);
        spec
    };
    let routes =
        vec![slow(route("a/checked", &["x"], Some("TCP"))), slow(route("a/not", &["x"], None))];
    let (_writer, reader) = table(routes, &[("x", &["192.0.2.1:1", "192.0.2.2:1"])]);
    use_backends(&reader);
    let start = Instant::now();
    let mut schedule = schedule(100, &reader, start);
    let judged = || {
        let table = reader.table();
        let route = table.routes().find(|route| route.check.is_some()).unwrap();
        let endpoints = route.backends[0].backend.endpoints();
        let judged = endpoints.iter().map(|one| route.health_rule().judge(one, Moment::now()));
        judged.collect::<Vec<_>>()
    };
    let dead = "192.0.2.2:1".parse().unwrap();
    // How many of 300 clients get it.
    let share = |name: &str, now: Moment| {
        let table = reader.table();
        let route = table.routes().find(|route| route.spec.key.name() == name).unwrap();
        let gets = |n: &u64| {
            let source = "192.0.2.9".parse().unwrap();
            let random = *n << 20;
            let request = EndpointRequest { now, ..EndpointRequest::new(source, &[], random) };
            choose(route, &request).unwrap().endpoint().address == dead
        };
        (0..300).filter(gets).count()
    };
    let result = |job: &CheckJob| Some(job.key.address != dead);
    run(&mut schedule, start, Duration::from_secs(1), result);
    assert_eq!(judged(), [Availability::Well, Availability::Unhealthy], "the first result counts");
    run(&mut schedule, start, Duration::from_secs(30), |_| None);
    assert_eq!(judged(), [Availability::Well, Availability::Unhealthy]);
    assert_eq!([share("checked", Moment::of(start)), share("not", Moment::of(start))], [0, 150]);
    let back = start + Duration::from_secs(30);
    run(&mut schedule, back, Duration::from_secs(30), |_| Some(true));
    assert_eq!(judged(), [Availability::Well, Availability::Well]);
    let then = Moment::of(back);
    assert!(share("checked", then) < 30, "it starts");
    assert!((60..140).contains(&share("checked", then + OVER / 2)), "half of the time");
    assert_eq!(share("checked", then + OVER * 2), 150);
    assert_eq!(share("not", then), 150, "nothing has happened for this route");
}

#[test]
fn what_stays_keeps_its_state_and_what_goes_is_forgotten() {
    let routes = || vec![route("a/r", &["x"], Some("TCP"))];
    let (mut writer, reader) = table(routes(), &[("x", &["192.0.2.1:1", "192.0.2.2:1"])]);
    let start = Instant::now();
    let mut schedule = schedule(100, &reader, start);
    run(&mut schedule, start, Duration::from_secs(1), |_| Some(false));
    let verdicts = |reader: &TableReader| {
        let table = reader.table();
        let route = table.routes().next().unwrap();
        let check = route.check.as_ref().unwrap();
        let endpoints = route.backends[0].backend.endpoints();
        endpoints.iter().map(|one| one.check_verdict(check)).collect::<Vec<_>>()
    };
    assert_eq!(verdicts(&reader), [CheckVerdict::Unhealthy, CheckVerdict::Unhealthy]);
    writer.apply(snapshot(routes(), &[("x", &["192.0.2.2:1", "192.0.2.3:1"])]));
    schedule.replace(plan(&reader.table(), usize::MAX).checks, start + Duration::from_secs(1));
    assert_eq!(verdicts(&reader), [CheckVerdict::Unhealthy, CheckVerdict::Unknown]);
    assert_eq!(schedule.len(), 2);
    assert_eq!(schedule.due.len(), 2);
    // The one that is gone was never away for the table, if it is back before the next plan.
    writer.apply(snapshot(routes(), &[("x", &["192.0.2.1:1"])]));
    schedule.replace(plan(&reader.table(), usize::MAX).checks, start + Duration::from_secs(2));
    assert_eq!(verdicts(&reader), [CheckVerdict::Unknown]);
    let backend = BackendKey::address("", "x");
    assert!(reader.table().routes().all(|route| route.spec.backends[0].0 == backend));
}

#[test]
fn endpoints_that_do_not_answer_delay_no_check_that_another_namespace_needs_as_well() {
    let routes = vec![
        route("a/r", &["silent", "shared"], Some("TCP")),
        route("b/r", &["shared", "own"], Some("TCP")),
    ];
    let backends = [many("silent", 1, 100), many("shared", 2, 1), many("own", 3, 200)];
    let reader = reader_of(routes, &backends);
    let start = Instant::now();
    let mut schedule = schedule(10_000, &reader, start);
    let (mut now, mut shared) = (start, 0);
    while now < start + Duration::from_secs(300) {
        while let Some(job) = schedule.next(now) {
            match job.key.address.to_string().as_str() {
                silent if silent.starts_with("192.0.1.") => {}
                other => {
                    shared += u32::from(other.starts_with("192.0.2."));
                    schedule.finish(&job, Some(true), now);
                }
            }
        }
        now = schedule.wake().unwrap().max(now);
    }
    assert!(shared >= 4, "{shared}");
    let [queued, checks] = [schedule.queues.len(), schedule.checks.len()];
    assert!(queued <= 2 * checks, "{queued} of {checks}");
}

#[test]
fn the_delay_is_that_of_the_check_that_waits_longest_and_ends_with_it() {
    let routes = vec![route("a/r", &["silent"], Some("TCP")), route("b/r", &["own"], Some("TCP"))];
    let reader = reader_of(routes, &[many("silent", 1, 100), many("own", 2, 1)]);
    let start = Instant::now();
    use_backends(&reader);
    let mut schedule = schedule(10_000, &reader, start);
    let (mut now, mut of_b) = (start, 0);
    while now < start + Duration::from_secs(100) {
        while let Some(job) = schedule.next(now) {
            if job.namespace.as_ref() == "b" {
                of_b += 1;
                schedule.finish(&job, Some(true), now);
            }
        }
        now = schedule.wake().unwrap().max(now);
    }
    // The last check that began was not late, but those beyond the share of `a` have not begun at all.
    assert!(of_b >= 9, "{of_b}");
    let delay = schedule.delay(now);
    assert!(delay > Duration::from_secs(99) && delay <= now - start, "{delay:?}");
    schedule.replace(Vec::new(), now);
    assert_eq!((schedule.delay(now), schedule.queues.len()), (Duration::ZERO, 0));
}

#[test]
fn a_backend_that_no_client_uses_is_checked_once_a_minute() {
    let (_writer, reader) =
        table(vec![route("a/r", &["x"], Some("TCP"))], &[("x", &["192.0.2.1:1"])]);
    let start = Instant::now();
    let mut schedule = schedule(100, &reader, start);
    let made = run(&mut schedule, start, Duration::from_secs(600), |_| Some(true));
    assert!((9..=11).contains(&made.len()), "{made:?}");
    // Clients come: no check is later than it always would have been.
    use_backends(&reader);
    let then = start + Duration::from_secs(600);
    let made = run(&mut schedule, then, Duration::from_secs(12), |_| Some(true));
    assert!(!made.is_empty());
}
