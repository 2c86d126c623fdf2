use std::time::Duration;

use super::*;
use crate::routing::RouteKey;

fn wanted(name: &str, by: &[(&str, i64)]) -> WantedName {
    let rank =
        |namespace: &str, created| Rank { created, route: RouteKey::sni_route(namespace, name) };
    let each = by.iter().map(|(namespace, at)| ((*namespace).into(), rank(namespace, *at)));
    WantedName { name: name.into(), namespaces: each.collect() }
}

fn want(schedule: &mut LookupSchedule, wanted: Vec<WantedName>, now: Instant) {
    schedule.change(NameChanges { wanted, unwanted: Vec::new() }, now);
}

fn begun(schedule: &mut LookupSchedule, now: Instant) -> Vec<LookupJob> {
    std::iter::from_fn(|| schedule.next(now)).collect()
}

fn found(seconds: u64) -> LookupResult {
    LookupResult::Found(vec!["10.0.0.1".parse().unwrap()], Duration::from_secs(seconds))
}

#[test]
fn a_silent_family_does_not_delay_the_other() {
    let (mut schedule, now) = (LookupSchedule::default(), Instant::now());
    want(&mut schedule, vec![wanted("a", &[("ns", 0)])], now);
    let jobs = begun(&mut schedule, now);
    assert_eq!(jobs.iter().map(|job| job.family).collect::<Vec<_>>(), Family::ALL);
    schedule.finish(&jobs[0], found(10), now);
    assert_eq!(schedule.take_answers().len(), 1, "told at once");
    // The other family's lookup is still running when this one is due again.
    let later = now + Duration::from_secs(10);
    assert_eq!(schedule.next_due(), Some(later));
    let again = begun(&mut schedule, later);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].family, Family::V4);
    schedule.finish(&jobs[1], LookupResult::Failed("silent".to_owned()), later);
    assert!(schedule.take_answers().is_empty(), "nothing new");
    assert_eq!(schedule.next_due(), Some(later + Duration::from_secs(1)));
}

#[test]
fn a_name_of_several_namespaces_is_looked_up_once_in_the_first_turn() {
    let (mut schedule, now) = (LookupSchedule::default(), Instant::now());
    let many = (0..500).map(|n| wanted(&format!("n{n}"), &[("bad", 0)]));
    let shared = wanted("zz", &[("bad", 0), ("good", 9)]);
    want(&mut schedule, many.chain([shared]).collect(), now);
    let jobs = begun(&mut schedule, now);
    assert_eq!(jobs.iter().filter(|job| *job.name == *"zz").count(), 2);
    assert_eq!(jobs.len(), 2 * (6 + 1));
}

#[test]
fn the_earliest_names_of_a_namespace_are_looked_up_and_the_others_reported() {
    let (mut schedule, now) = (LookupSchedule::default(), Instant::now());
    let name = |n: i64| wanted(&format!("n{n}"), &[("ns", 5000 - n)]);
    want(&mut schedule, (0..1100).map(name).collect(), now);
    let told: BTreeSet<DnsName> = schedule
        .take_answers()
        .into_iter()
        .map(|(name, answer)| {
            assert_eq!(answer.fault, Some(NameFault::TooManyNames));
            name
        })
        .collect();
    let youngest: BTreeSet<DnsName> = (0..100).map(|n| format!("n{n}").into()).collect();
    assert_eq!(told, youngest);
    // Another namespace has room for one of these names.
    want(&mut schedule, vec![wanted("n0", &[("ns", 5000), ("other", 1)])], now);
    let first = schedule.next(now).unwrap();
    schedule.finish(&first, found(10), now);
    assert!(begun(&mut schedule, now).iter().any(|job| *job.name == *"n0"));
    // When an older name is removed, the next one gets its place.
    let unwanted = vec!["n1099".into(), "n0".into()];
    schedule.change(NameChanges { wanted: Vec::new(), unwanted }, now);
    assert_eq!(schedule.names.values().filter(|one| one.admitted.is_empty()).count(), 98);
    assert!(!schedule.names[&DnsName::from("n99")].admitted.is_empty());
}

#[test]
fn unused_names_leave_no_state() {
    let (mut schedule, now) = (LookupSchedule::default(), Instant::now());
    let names: Vec<DnsName> = (0..1200).map(|n| format!("n{n}").into()).collect();
    let all = names.iter().map(|name| wanted(name, &[("a", 0), ("b", 0)])).collect();
    want(&mut schedule, all, now);
    let jobs = begun(&mut schedule, now);
    assert!(!jobs.is_empty());
    schedule.change(NameChanges { wanted: Vec::new(), unwanted: names }, now);
    jobs.iter().for_each(|job| schedule.finish(job, found(10), now));
    assert!(begun(&mut schedule, now + Duration::from_secs(99)).is_empty());
    assert!(schedule.names.is_empty() && schedule.namespaces.is_empty());
    assert!(schedule.due.is_empty() && schedule.v4.is_empty() && schedule.v6.is_empty());
}
