use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const RULE: EjectionRule =
    EjectionRule { failures: 3, first: Duration::from_secs(10), longest: Duration::from_secs(60) };

fn client(number: u8) -> IpAddr {
    [192, 0, 2, number].into()
}

/// A run in which `RULE` has just ejected the endpoint.
fn ejected(now: Moment) -> FailureRun {
    let run = FailureRun::default();
    assert_eq!(run.failed(&RULE, now), None);
    assert_eq!(run.failed(&RULE, now), None);
    assert_eq!(run.judge(&RULE, now), Ejection::None);
    let ejected = run.failed(&RULE, now).expect("an ejection");
    assert_eq!((ejected.times, ejected.reason), (1, FailureKind::Connect));
    assert!((SECOND * 9..=SECOND * 11).contains(&ejected.lasts), "{ejected:?}");
    run
}

#[test]
fn each_run_is_packed_without_loss() {
    for (connects, closes, times, ejected, since) in
        [(0, 0, 0, false, 0), (127, 1, 2, true, 1), (3, 127, 127, false, (1 << 42) - 1)]
    {
        let run = RunState { connects, closes, times, ejected, since };
        assert_eq!(RunState::unpack(run.pack()), run);
    }
}

#[test]
fn failures_in_a_row_eject_for_longer_each_time() {
    let mut now = Moment::now();
    let run = ejected(now);
    // More failures while it is out, of attempts that were under way, do not count against it.
    (0..50).for_each(|_| assert_eq!(run.failed(&RULE, now + SECOND), None));
    let mut lasted = Vec::new();
    for times in 2..=8 {
        now = now + SECOND * 66;
        assert_eq!(run.judge(&RULE, now), Ejection::Due);
        let trial = run.begin_trial(&RULE, now).expect("a trial");
        assert_eq!(run.judge(&RULE, now), Ejection::Ejected, "one trial at a time");
        assert_eq!(run.begin_trial(&RULE, now), None);
        let ejected = run.failed(&RULE, now).expect("another time");
        assert_eq!(ejected.times, times);
        run.abandon_trial(trial);
        assert_eq!(run.judge(&RULE, now), Ejection::Ejected);
        lasted.push(ejected.lasts.as_secs_f64().round());
    }
    assert!(lasted.iter().zip(2..).all(|(lasts, n)| {
        let whole = f64::from(n * 10).min(60.0);
        (whole * 0.9 - 1.0..=(whole * 1.1).min(60.0)).contains(lasts)
    }));
}

#[test]
fn a_success_ends_it_and_a_while_of_health_forgets_it() {
    for (well, times) in [(SECOND * 59, 2), (SECOND * 60, 1)] {
        let now = Moment::now();
        let run = ejected(now);
        let later = now + SECOND * 11;
        let trial = run.begin_trial(&RULE, later).expect("a trial");
        run.connected(|| later);
        assert_eq!(run.judge(&RULE, later), Ejection::None);
        run.abandon_trial(trial);
        let again = later + well;
        let failed: Vec<_> = (0..3).filter_map(|_| run.failed(&RULE, again)).collect();
        assert_eq!(failed.iter().map(|ejected| ejected.times).collect::<Vec<_>>(), [times]);
    }
}

#[test]
fn failures_with_a_success_between_them_eject_nothing() {
    let (run, now) = (FailureRun::default(), Moment::now());
    for _ in 0..20 {
        assert_eq!(run.failed(&RULE, now), None);
        assert_eq!(run.failed(&RULE, now), None);
        run.connected(|| now);
    }
    // An open connection shows nothing about early closes; the first byte does.
    for number in 0..2 {
        assert_eq!(run.closed_early(client(number), false, &RULE, now), None);
        run.connected(|| now);
    }
    run.answered(|| now);
    assert_eq!(run.closed_early(client(3), false, &RULE, now), None);
    assert_eq!(run.closed_early(client(4), false, &RULE, now), None);
    assert!(run.closed_early(client(5), false, &RULE, now).is_some());
    run.connected(|| now);
    assert_eq!(run.judge(&RULE, now), Ejection::Ejected);
}

#[test]
fn early_closes_count_once_for_each_client() {
    let (run, now) = (FailureRun::default(), Moment::now());
    let one: [IpAddr; 2] =
        ["2001:db8::1", "2001:db8::ffff:2"].map(|text| text.parse().expect("an address"));
    let mapped: [IpAddr; 2] =
        ["192.0.2.1", "::ffff:192.0.2.1"].map(|text| text.parse().expect("an address"));
    for _ in 0..100 {
        for client in one.into_iter().chain(mapped) {
            assert_eq!(run.closed_early(client, false, &RULE, now), None);
        }
    }
    assert!(run.closed_early(client(2), false, &RULE, now).is_some());
    // A trial of a client that counts already says nothing, and the next one waits a little.
    let later = now + SECOND * 11;
    let trial = run.begin_trial(&RULE, later).expect("a trial");
    assert_eq!(run.closed_early(client(1), true, &RULE, later), None);
    run.abandon_trial(trial);
    assert_eq!(run.judge(&RULE, later), Ejection::Ejected);
    assert_eq!(run.judge(&RULE, later + ENDPOINT_REST), Ejection::Due);
    // The clients of a run are forgotten with it.
    run.answered(|| later);
    assert_eq!(run.closed_early(client(1), false, &RULE, later), None);
    assert_eq!(run.load().closes, 1);
}

#[test]
fn a_flood_of_one_client_counts_once_on_all_threads() {
    let (run, now) = (FailureRun::default(), Moment::now());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                (0..1000).for_each(|_| {
                    assert_eq!(run.closed_early(client(1), false, &RULE, now), None);
                });
            });
        }
    });
    assert_eq!(run.load().failures(), 1);
}

#[test]
fn of_many_threads_one_gets_the_trial_and_one_sees_the_ejection() {
    for _ in 0..50 {
        let now = Moment::now();
        let run = FailureRun::default();
        let all = |work: &(dyn Fn() -> bool + Sync)| {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
                threads
                    .into_iter()
                    .map(|one| one.join().expect("it ends"))
                    .filter(|did| *did)
                    .count()
            })
        };
        let ejections = all(&|| (0..8).filter(|_| run.failed(&RULE, now).is_some()).count() == 1);
        assert_eq!((ejections, run.load().times), (1, 1));
        let later = now + SECOND * 11;
        assert_eq!(all(&|| run.begin_trial(&RULE, later).is_some()), 1);
    }
}

#[test]
fn each_route_judges_by_its_own_rule() {
    let now = Moment::now();
    let patient = EjectionRule { failures: 5, first: SECOND, longest: SECOND };
    let run = ejected(now);
    assert_eq!(run.judge(&patient, now), Ejection::None);
    assert_eq!(run.judge(&EjectionRule::OFF, now), Ejection::None);
    assert_eq!(run.begin_trial(&EjectionRule::OFF, now + SECOND * 60), None);
    run.failed(&EjectionRule::OFF, now);
    assert_eq!(run.judge(&patient, now), Ejection::None);
    run.failed(&patient, now);
    assert_eq!(run.judge(&patient, now), Ejection::Ejected);
    assert_eq!(run.judge(&patient, now + SECOND * 2), Ejection::Due);
    assert_eq!(run.judge(&RULE, now + SECOND * 2), Ejection::Ejected);
}

/// What may happen to an endpoint.
#[derive(Clone, Copy, Debug)]
enum Step {
    Passes(u64),
    Fails(usize),
    ClosesEarly(usize, u8),
    Connects,
    Answers,
}

/// The same as [`FailureRun`], as slow and as plain as possible: everything that has happened since the last
/// success.
#[derive(Default)]
struct Model {
    connects: usize,
    clients: Vec<u8>,
    /// When each ejection began, and whether it was in this run.
    ejections: Vec<(Moment, bool)>,
    /// When the endpoint was well again after the last ejection.
    well_since: Option<Moment>,
}

impl Model {
    fn failures(&self) -> usize {
        self.connects + self.clients.len()
    }

    fn until(&self, rule: &EjectionRule) -> Option<Moment> {
        let (since, in_this_run) = *self.ejections.last()?;
        let reaches = rule.failures > 0 && self.failures() >= rule.failures.into();
        let times = u8::try_from(self.ejections.len()).unwrap();
        (in_this_run && reaches).then(|| since + rule.lasts(times, since))
    }

    fn fails(&mut self, rule: &EjectionRule, now: Moment) -> bool {
        let times = u8::try_from(self.ejections.len()).unwrap();
        let runs = self.ejections.last().is_some_and(|(since, in_this_run)| {
            *in_this_run && *since + rule.lasts(times, *since).max(ENDPOINT_REST) > now
        });
        if rule.failures == 0 || self.failures() < rule.failures.into() || runs {
            return false;
        }
        let in_this_run = self.ejections.last().is_some_and(|(_, in_this_run)| *in_this_run);
        if !in_this_run && self.well_since.is_some_and(|since| since + rule.longest <= now) {
            self.ejections.clear();
        }
        self.ejections.push((now, true));
        true
    }

    fn is_well(&mut self, now: Moment) {
        if let Some((_, in_this_run @ true)) = self.ejections.last_mut() {
            *in_this_run = false;
            self.well_since = Some(now);
        }
        self.connects = 0;
        self.clients.clear();
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u64..30_000).prop_map(Step::Passes),
        (0_usize..3).prop_map(Step::Fails),
        (0_usize..3, 0_u8..5).prop_map(|(rule, client)| Step::ClosesEarly(rule, client)),
        Just(Step::Connects),
        Just(Step::Answers),
    ]
}

proptest! {
    #[test]
    fn it_behaves_as_the_model(steps in vec(step(), 0..80)) {
        let rules = [RULE, EjectionRule { failures: 1, first: SECOND, longest: SECOND * 5 }, EjectionRule::OFF];
        let (run, mut model, mut now) = (FailureRun::default(), Model::default(), Moment::at(1));
        for step in steps {
            match step {
                Step::Passes(millis) => now = now + Duration::from_millis(millis),
                Step::Fails(rule) => {
                    model.connects += 1;
                    let expected = model.fails(&rules[rule], now);
                    prop_assert_eq!(run.failed(&rules[rule], now).is_some(), expected);
                }
                Step::ClosesEarly(rule, number) => {
                    let new = !model.clients.contains(&number);
                    model.clients.extend(new.then_some(number));
                    let expected = new && model.fails(&rules[rule], now);
                    let closed = run.closed_early(client(number), false, &rules[rule], now);
                    prop_assert_eq!(closed.is_some(), expected);
                }
                Step::Connects if model.clients.is_empty() => {
                    run.connected(|| now);
                    model.is_well(now);
                }
                Step::Connects => {
                    run.connected(|| now);
                    model.connects = 0;
                }
                Step::Answers => {
                    run.answered(|| now);
                    model.is_well(now);
                }
            }
            for rule in &rules {
                let expected = match model.until(rule) {
                    None => Ejection::None,
                    Some(until) if until > now => Ejection::Ejected,
                    Some(_) => Ejection::Due,
                };
                let judged = run.judge(rule, now);
                // A trial may begin no earlier than the rest after a failure ends.
                let rests = judged == Ejection::Ejected && expected == Ejection::Due
                    && run.judge(rule, now + ENDPOINT_REST) == Ejection::Due;
                prop_assert!(judged == expected || rests, "{:?} {:?}", judged, expected);
            }
        }
    }
}
