use super::*;

fn settings(identity: &str) -> LeaseSettings {
    LeaseSettings {
        namespace: "ns".to_owned(),
        name: "lease".to_owned(),
        identity: identity.to_owned(),
        duration: Duration::from_millis(14_500),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn a_lease_is_named_after_the_class() {
    assert_eq!(name_for("sluice"), "sluice-sluice");
    assert_eq!(name_for("a-1"), "sluice-a-1");
    // This name must never change, because replicas of different versions must use the same Lease.
    assert_eq!(name_for("Example.com/Edge"), "sluice-example-com-edge-fa92e676");
    assert_ne!(name_for("example.com/edge"), name_for("example-com.edge"));
    assert_ne!(name_for("example.com/edge"), name_for("Example.com/Edge"));
    let names = ["a-", "a.", &"x".repeat(253), &"A".repeat(253), ".", "ä"].map(name_for);
    for name in names {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(name.len() <= 253 && name.chars().all(fits) && !name.ends_with('-'), "{name}");
    }
}

#[test]
fn identities_are_unique() {
    assert_ne!(identity(), identity());
}

#[test]
fn a_lease_is_taken_renewed_and_released() {
    let (one, two) = (settings("one"), settings("two"));
    let first = held(LeaseSpec::default(), &one, at(10));
    assert_eq!(first.holder_identity.as_deref(), Some("one"));
    assert_eq!(first.lease_duration_seconds, Some(15));
    assert_eq!(
        (first.acquire_time.clone(), first.lease_transitions),
        (Some(MicroTime(at(10))), Some(0))
    );
    let renewed = held(first, &one, at(12));
    assert_eq!(renewed.renew_time, Some(MicroTime(at(12))));
    assert_eq!(renewed.acquire_time, Some(MicroTime(at(10))));
    assert_eq!(renewed.lease_transitions, Some(0));
    let taken = held(renewed, &two, at(30));
    assert_eq!(taken.holder_identity.as_deref(), Some("two"));
    assert_eq!(
        (taken.acquire_time.clone(), taken.lease_transitions),
        (Some(MicroTime(at(30))), Some(1))
    );
    let given_up = released(taken, at(31));
    assert_eq!(
        (given_up.holder_identity.as_ref(), given_up.lease_duration_seconds),
        (None, Some(1))
    );
    assert_eq!(held(given_up, &one, at(32)).lease_transitions, Some(2));
}

#[test]
fn another_replicas_lease_is_free_after_its_duration_without_renewal() {
    let (one, two) = (settings("one"), settings("two"));
    let (start, second) = (Instant::now(), Duration::from_secs(1));
    let mut seen = ObservedLease::default();
    // By its own times, the Lease has expired long ago.
    let lease = held(LeaseSpec::default(), &one, at(10));
    assert!(!seen.is_free(lease.clone(), &two, start));
    assert!(!seen.is_free(lease.clone(), &two, start + 14 * second));
    let renewed = held(lease, &one, at(11));
    assert!(!seen.is_free(renewed.clone(), &two, start + 15 * second), "it was renewed");
    assert!(!seen.is_free(renewed.clone(), &two, start + 29 * second));
    assert!(seen.is_free(renewed.clone(), &two, start + 30 * second));
    assert!(ObservedLease::default().is_free(renewed.clone(), &one, start), "its own");
    assert!(ObservedLease::default().is_free(released(renewed, at(12)), &two, start));
    assert!(ObservedLease::default().is_free(LeaseSpec::default(), &two, start));
    // Values that another program may have written.
    let odd = LeaseSpec {
        holder_identity: Some("other".to_owned()),
        lease_duration_seconds: Some(i32::MIN),
        ..LeaseSpec::default()
    };
    let mut seen = ObservedLease::default();
    assert!(!seen.is_free(odd.clone(), &two, start));
    assert!(seen.is_free(odd, &two, start + 15 * second));
}

#[test]
fn a_leader_stops_before_another_may_lead() {
    let settings = settings("one");
    assert!(settings.renew_deadline() < settings.duration);
    assert!(settings.retry() * 4 < settings.renew_deadline());
}
