use super::ReferenceUser::{Checks, Routes};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn secret(key: &str) -> ObjectRef {
    object(Kind::Secret, key)
}

fn object(kind: Kind, key: &str) -> ObjectRef {
    let (namespace, name) = key.split_once('/').unwrap();
    ObjectRef::new(kind, ObjectKey::new(namespace, name))
}

fn version(text: &str) -> SeenVersion {
    Some(text.to_owned())
}

/// A schedule in which all Secrets are watched.
fn watched(now: Instant) -> ReadSchedule {
    let mut schedule = ReadSchedule::new();
    schedule.bound_rate(now);
    schedule.listed(&None, &HashSet::new(), now);
    schedule
}

/// Begins all reads that are due.
fn begun(schedule: &mut ReadSchedule, now: Instant) -> Vec<ReadJob> {
    std::iter::from_fn(|| schedule.next(now)).collect()
}

/// Reads the only object that is due, as it is in this version.
#[track_caller]
fn read(schedule: &mut ReadSchedule, text: &str, now: Instant) {
    let mut jobs = begun(schedule, now);
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert!(schedule.finish(&jobs.pop().unwrap(), ReadEnd::Read(version(text)), now));
}

#[test]
fn a_watched_secret_is_read_when_it_is_named_and_when_it_changes() {
    let start = Instant::now();
    let mut schedule = watched(start);
    let secret = secret("ns/a");
    schedule.want(&secret, Routes, start);
    read(&mut schedule, "1", start);
    assert_eq!(schedule.next_due(start), None);
    // The same version, which a watch shows that began before.
    schedule.seen(&secret.key, version("1"), start + SECOND);
    assert_eq!(schedule.next_due(start + SECOND), None);
    schedule.seen(&secret.key, version("2"), start + 2 * SECOND);
    read(&mut schedule, "2", start + 2 * SECOND);
    schedule.seen(&secret.key, None, start + 4 * SECOND);
    let job = schedule.next(start + 4 * SECOND).unwrap();
    assert!(schedule.finish(&job, ReadEnd::Missing, start + 4 * SECOND));
    assert_eq!(schedule.next_due(start + 4 * SECOND), None);
    schedule.seen(&secret.key, version("3"), start + 6 * SECOND);
    read(&mut schedule, "3", start + 6 * SECOND);
    // One that no route names is not read.
    schedule.seen(&ObjectKey::new("ns", "b"), version("1"), start + 6 * SECOND);
    assert_eq!(begun(&mut schedule, start + 9 * SECOND).len(), 0);
}

#[test]
fn a_secret_that_changes_all_the_time_is_read_once_a_second() {
    let start = Instant::now();
    let mut schedule = watched(start);
    let secret = secret("ns/a");
    schedule.want(&secret, Routes, start);
    let mut reads = 0;
    for millisecond in 0..10_000_u32 {
        let now = start + Duration::from_millis(1) * millisecond;
        schedule.seen(&secret.key, version(&millisecond.to_string()), now);
        for job in begun(&mut schedule, now) {
            reads += 1;
            schedule.finish(&job, ReadEnd::Read(version(&millisecond.to_string())), now);
        }
    }
    assert_eq!(reads, 10);
    // The last version is read in the end.
    schedule.seen(&secret.key, version("last"), start + 10 * SECOND);
    read(&mut schedule, "last", start + 10 * SECOND);
}

#[test]
fn an_object_that_is_named_again_and_again_is_read_once_a_second() {
    let start = Instant::now();
    let mut schedule = watched(start);
    let secrets = ["ns/a", "ns/b"].map(secret);
    let mut reads = 0;
    for step in 0..1000_u32 {
        let now = start + Duration::from_millis(10) * step;
        for secret in &secrets {
            schedule.want(secret, Routes, now);
        }
        for job in begun(&mut schedule, now) {
            reads += 1;
            schedule.finish(&job, ReadEnd::Read(version("1")), now);
        }
        for secret in &secrets {
            schedule.unwant(secret, Routes, now);
        }
    }
    assert_eq!(reads, 2 * 10);
    assert!(begun(&mut schedule, start + 11 * SECOND).is_empty());
    assert!(schedule.left.is_empty());
}

#[test]
fn a_change_during_a_read_leads_to_another_one() {
    let start = Instant::now();
    let mut schedule = watched(start);
    let secret = secret("ns/a");
    schedule.want(&secret, Routes, start);
    let job = schedule.next(start).unwrap();
    schedule.seen(&secret.key, version("2"), start);
    schedule.finish(&job, ReadEnd::Read(version("1")), start);
    assert_eq!(schedule.next_due(start), Some(start + GAP));
    let job = schedule.next(start + GAP).unwrap();
    schedule.seen(&secret.key, version("3"), start + GAP);
    schedule.finish(&job, ReadEnd::Read(version("3")), start + GAP);
    assert_eq!(schedule.next_due(start), None, "it was read already");
}

#[test]
fn what_is_not_watched_is_read_again() {
    let start = Instant::now();
    let mut schedule = watched(start);
    for object in [secret("ns/a"), object(Kind::ConfigMap, "ns/a")] {
        schedule.want(&object, Routes, start);
    }
    for job in begun(&mut schedule, start) {
        schedule.finish(&job, ReadEnd::Read(version("1")), start);
    }
    let again = begun(&mut schedule, start + AGAIN);
    assert_eq!(again.iter().map(|job| job.object.kind).collect::<Vec<_>>(), [Kind::ConfigMap]);
    schedule.unwatched(&None, start + AGAIN);
    assert_eq!(begun(&mut schedule, start + AGAIN).len(), 0);
    let again = begun(&mut schedule, start + 2 * AGAIN);
    assert_eq!(again.iter().map(|job| job.object.kind).collect::<Vec<_>>(), [Kind::Secret]);
    // The watch of a namespace is enough for its Secrets.
    let seen = [ObjectKey::new("ns", "a")].into();
    schedule.listed(&Some("ns".to_owned()), &seen, start + 2 * AGAIN);
    schedule.finish(&again[0], ReadEnd::Read(version("1")), start + 2 * AGAIN);
    assert_eq!(schedule.next_due(start + 2 * AGAIN), None);
}

#[test]
fn a_list_shows_what_is_gone_and_ends_the_pauses_of_failures() {
    let start = Instant::now();
    let mut schedule = watched(start);
    for (key, end) in [
        ("ns/there", ReadEnd::Read(version("1"))),
        ("ns/gone", ReadEnd::Read(version("1"))),
        ("ns/missing", ReadEnd::Missing),
        ("ns/failed", ReadEnd::Failed),
    ] {
        schedule.want(&secret(key), Routes, start);
        let job = schedule.next(start).unwrap();
        schedule.finish(&job, end, start);
    }
    let seen = ["there", "failed"].map(|name| ObjectKey::new("ns", name));
    schedule.listed(&None, &seen.into(), start + SECOND);
    let mut read: Vec<_> = begun(&mut schedule, start + SECOND)
        .iter()
        .map(|job| job.object.key.name().to_owned())
        .collect();
    read.sort();
    assert_eq!(read, ["failed", "gone"]);
}

#[test]
fn pauses_after_failures_grow_to_a_bound() {
    let start = Instant::now();
    let mut schedule = watched(start);
    schedule.want(&secret("ns/a"), Routes, start);
    let mut now = start;
    for row in 1..20 {
        let job = schedule.next(now).unwrap();
        schedule.finish(&job, ReadEnd::Failed, now);
        let longest = (AGAIN_AFTER_FAILURE * row).min(LONGEST_PAUSE);
        let due = schedule.next_due(now).unwrap();
        assert!((now + longest / 2..=now + longest).contains(&due), "{row}");
        now = due;
    }
}

#[test]
fn one_failure_is_no_news_of_what_was_read_before() {
    let mut now = Instant::now();
    let mut schedule = ReadSchedule::new();
    schedule.bound_rate(now);
    let map = object(Kind::ConfigMap, "ns/ca");
    schedule.want(&map, Checks, now);
    let mut told = Vec::new();
    let (fine, failed) = (ReadEnd::Read(version("1")), ReadEnd::Failed);
    let ends = [&failed, &fine, &failed, &failed, &fine, &failed, &failed, &failed, &failed];
    for end in ends.into_iter().chain([&ReadEnd::Missing, &failed]) {
        now += AGAIN + LONGEST_PAUSE;
        let job = schedule.next(now).unwrap();
        schedule.finish(&job, end.clone(), now);
        told.push(schedule.tells_of_failure(&map, false));
    }
    let expected = [true, true, false, false, true, false, false, true, true, true, true];
    assert_eq!(told, expected);
    // A new user has nothing that was read before.
    read(&mut schedule, "2", now + LONGEST_PAUSE);
    schedule.want(&map, Routes, now + LONGEST_PAUSE);
    let job = schedule.next(now + 2 * LONGEST_PAUSE).unwrap();
    schedule.finish(&job, failed, now + 2 * LONGEST_PAUSE);
    assert!(schedule.tells_of_failure(&map, false));
}

#[test]
fn namespaces_take_turns_and_the_rate_is_bounded() {
    let start = Instant::now();
    let mut schedule = watched(start);
    for number in 0..1000 {
        schedule.want(&secret(&format!("many/s{number}")), Routes, start);
    }
    schedule.want(&secret("few/a"), Routes, start);
    let jobs = begun(&mut schedule, start);
    assert_eq!(jobs.len(), AT_ONCE_OF_A_NAMESPACE + 1);
    assert!(jobs.iter().any(|job| job.object == secret("few/a")));
    let mut reads = 0;
    let mut running = jobs;
    // Each read takes no time and shows that there is another version.
    for millisecond in 0..20_000_u32 {
        let now = start + Duration::from_millis(1) * millisecond;
        for job in running.drain(..) {
            schedule.seen(&job.object.key, version("other"), now);
            schedule.finish(&job, ReadEnd::Read(version("1")), now);
            reads += 1;
        }
        running = begun(&mut schedule, now);
    }
    assert!((2500..3100).contains(&reads), "{reads}");
}

#[test]
fn the_reads_that_the_first_table_waits_for_begin_as_soon_as_others_end() {
    let now = Instant::now();
    let mut schedule = ReadSchedule::new();
    for number in 0..5000 {
        schedule.want(&secret(&format!("ns{}/s{number}", number % 10)), Routes, now);
    }
    let mut reads = 0;
    while let Some(job) = schedule.next(now) {
        schedule.finish(&job, ReadEnd::Read(version("1")), now);
        reads += 1;
    }
    assert_eq!(reads, 5000);
}

#[test]
fn the_first_table_does_not_take_one_failure_for_an_answer() {
    let mut now = Instant::now();
    let mut schedule = ReadSchedule::new();
    let wanted = secret("ns/a");
    schedule.want(&wanted, Routes, now);
    for tells in [false, false, true] {
        let job = schedule.next(now).expect("a second after the last one");
        schedule.finish(&job, ReadEnd::Failed, now);
        assert_eq!(schedule.tells_of_failure(&wanted, false), tells);
        assert!(schedule.tells_of_failure(&wanted, true), "no permission");
        now += GAP;
    }
    // Later, what is named anew is told at once.
    schedule.bound_rate(now);
    let other = secret("ns/b");
    schedule.want(&other, Routes, now);
    while let Some(job) = schedule.next(now) {
        schedule.finish(&job, ReadEnd::Failed, now);
    }
    assert!(schedule.tells_of_failure(&other, false));
}

#[test]
fn an_object_is_followed_as_long_as_somebody_needs_it() {
    let now = Instant::now();
    let mut schedule = ReadSchedule::new();
    let map = object(Kind::ConfigMap, "ns/ca");
    schedule.want(&map, Checks, now);
    read(&mut schedule, "1", now);
    // Another user hears of it soon.
    schedule.want(&map, Routes, now);
    assert_eq!(schedule.next_due(now), Some(now + GAP));
    schedule.unwant(&map, Checks, now);
    assert!(schedule.is_wanted_by(&map, Routes));
    let job = schedule.next(now + GAP).unwrap();
    schedule.unwant(&map, Routes, now + GAP);
    schedule.want(&map, Routes, now + GAP);
    // The read of the entry that was removed is not that of the new one.
    assert!(!schedule.finish(&job, ReadEnd::Read(version("1")), now + GAP));
    let job = schedule.next(now + 2 * GAP).unwrap();
    schedule.unwant(&map, Routes, now + 2 * GAP);
    assert!(!schedule.finish(&job, ReadEnd::Missing, now + 2 * GAP));
    assert!(schedule.turns.is_empty() && schedule.running == 0 && schedule.due.is_empty());
}
