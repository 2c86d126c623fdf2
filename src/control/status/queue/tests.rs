use super::super::tests::key;
use super::*;

const MS: Duration = Duration::from_millis(1);

fn queue(names: &[&str], lane: WriteLane, now: Instant) -> WriteQueue {
    let mut queue = WriteQueue::new(now);
    names.iter().for_each(|name| queue.push(key(name), lane));
    queue
}

fn next(queue: &mut WriteQueue, now: Instant) -> Option<String> {
    queue.next(now).map(|key| key.name().to_owned())
}

fn end(queue: &mut WriteQueue, name: &str, how: WriteResult, now: Instant) {
    queue.end(&key(name), how, now, |pause| pause);
}

#[test]
fn a_route_waits_once_and_in_the_order_of_the_first_change() {
    let now = Instant::now();
    let mut queue = queue(&["b", "a", "b"], WriteLane::Change, now);
    assert_eq!(queue.wake(now), Some(now));
    assert_eq!(next(&mut queue, now).as_deref(), Some("b"));
    assert_eq!(next(&mut queue, now).as_deref(), Some("a"));
    assert_eq!((next(&mut queue, now), queue.wake(now)), (None, None));
    end(&mut queue, "b", WriteResult::Done, now);
    assert_eq!(next(&mut queue, now), None);
}

#[test]
fn what_changes_while_it_is_written_is_written_again() {
    let now = Instant::now();
    for how in [WriteResult::Done, WriteResult::Idle, WriteResult::Refused, WriteResult::Failed] {
        let mut queue = queue(&["a"], WriteLane::Change, now);
        next(&mut queue, now).unwrap();
        queue.push(key("a"), WriteLane::Change);
        assert_eq!(next(&mut queue, now), None, "never twice at once");
        end(&mut queue, "a", how, now);
        assert_eq!(next(&mut queue, now + 100 * MS).as_deref(), Some("a"), "{how:?}");
    }
}

#[test]
fn pauses_grow_with_each_failure_to_a_bound_and_end_with_a_success() {
    let mut now = Instant::now();
    let mut queue = queue(&["a"], WriteLane::Change, now);
    let mut pauses = Vec::new();
    for failures in 0..40 {
        next(&mut queue, now).unwrap();
        assert_eq!(queue.failures(&key("a")), failures);
        end(&mut queue, "a", WriteResult::Failed, now);
        // A change makes no difference to that.
        queue.push(key("a"), WriteLane::Change);
        assert_eq!(next(&mut queue, now), None);
        let wake = queue.wake(now).unwrap();
        pauses.push((wake - now).as_millis());
        now = wake;
    }
    assert_eq!(pauses[..5], [100, 200, 400, 800, 1600]);
    assert_eq!(pauses[8..], [[25_600].as_slice(), &[30_000; 31]].concat());
    next(&mut queue, now).unwrap();
    end(&mut queue, "a", WriteResult::Done, now);
    queue.push(key("a"), WriteLane::Change);
    assert!(next(&mut queue, now).is_some());
    assert_eq!(queue.failures(&key("a")), 0);
}

#[test]
fn writes_come_in_bounded_bursts_and_few_at_once() {
    let now = Instant::now();
    let names: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut crowd = queue(&names, WriteLane::Change, now);
    let at_once: Vec<_> = std::iter::from_fn(|| next(&mut crowd, now)).collect();
    assert_eq!((at_once.len(), crowd.wake(now)), (4, None), "the rest waits for one to end");

    let mut queue = queue(&names, WriteLane::Change, now);
    let mut write = |now, how| {
        let name = next(&mut queue, now)?;
        end(&mut queue, &name, how, now);
        Some(queue.wake(now).unwrap())
    };
    let burst = std::iter::from_fn(|| write(now, WriteResult::Done));
    assert_eq!(burst.last(), Some(now + 20 * MS));
    let count = |now, write: &mut dyn FnMut(Instant, WriteResult) -> Option<Instant>| {
        std::iter::from_fn(|| write(now, WriteResult::Done)).count()
    };
    assert_eq!(count(now + 19 * MS, &mut write), 0);
    assert_eq!(count(now + 20 * MS, &mut write), 1);
    assert_eq!(count(now + 220 * MS, &mut write), 10);
    // What needs no write costs no turn.
    let idle = (0..50).filter_map(|_| write(now + 240 * MS, WriteResult::Idle)).count();
    assert_eq!((idle, count(now + 240 * MS, &mut write)), (50, 1));
}

#[test]
fn changes_share_the_turns_with_the_backlog() {
    let now = Instant::now();
    let mut queue = queue(&["a", "b", "c", "d"], WriteLane::Backlog, now);
    queue.push(key("x"), WriteLane::Change);
    queue.push(key("y"), WriteLane::Change);
    queue.push(key("d"), WriteLane::Change);
    let order: Vec<String> = std::iter::from_fn(|| {
        let name = next(&mut queue, now)?;
        end(&mut queue, &name, WriteResult::Done, now);
        Some(name)
    })
    .collect();
    assert_eq!(order, ["x", "a", "y", "d", "b", "c"]);
}

#[test]
fn namespaces_take_turns_whatever_is_written_for_them() {
    let now = Instant::now();
    for lane in WriteLane::ALL {
        let mut queue = WriteQueue::new(now);
        for (namespace, routes) in [("many", 40), ("few", 2)] {
            let first = if lane == WriteLane::Retry { WriteLane::Change } else { lane };
            for number in 0..routes {
                queue.push(ObjectRef::sni_route(namespace, &number.to_string()), first);
            }
            while lane == WriteLane::Retry
                && let Some(key) = queue.next(now)
            {
                queue.end(&key, WriteResult::Refused, now, |pause| pause);
            }
        }
        let turns = (0..4).filter_map(|_| queue.next(now + LONGEST_PAUSE));
        let namespaces: Vec<_> = turns.map(|key| key.namespace().to_owned()).collect();
        assert_eq!(namespaces, ["many", "few", "many", "few"], "{lane:?}");
    }
}

#[test]
fn while_everything_fails_only_a_few_are_tried_again() {
    let (start, minute) = (Instant::now(), Duration::from_secs(60));
    let names: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut queue = queue(&names, WriteLane::Backlog, start);
    let fail = |queue: &mut WriteQueue, mut now: Instant, until: Instant| {
        let mut tries = 0;
        while now < until {
            while let Some(name) = next(queue, now) {
                end(queue, &name, WriteResult::Failed, now);
                tries += 1;
            }
            now = queue.wake(now).unwrap();
        }
        tries
    };
    let tries = fail(&mut queue, start, start + minute);
    assert!((300..320).contains(&tries), "each once, and then a few: {tries}");
    let tries = fail(&mut queue, start + minute, start + 6 * minute);
    assert!((5..20).contains(&tries), "{tries}");
    // What is new is tried at once, and if that works, then so may all others.
    let now = start + 6 * minute;
    queue.push(key("new"), WriteLane::Change);
    assert_eq!(next(&mut queue, now).as_deref(), Some("new"));
    end(&mut queue, "new", WriteResult::Done, now);
    let later = now + LONGEST_PAUSE;
    let tried = std::iter::from_fn(|| {
        let name = next(&mut queue, later)?;
        end(&mut queue, &name, WriteResult::Done, later);
        Some(name)
    });
    assert_eq!(tried.count(), 50, "all that a burst may have");
}

#[test]
fn one_route_that_is_refused_holds_up_no_other_that_has_failed() {
    let now = Instant::now();
    let mut queue = queue(&["a", "b"], WriteLane::Change, now);
    next(&mut queue, now).unwrap();
    next(&mut queue, now).unwrap();
    end(&mut queue, "a", WriteResult::Failed, now);
    end(&mut queue, "b", WriteResult::Refused, now);
    let first = next(&mut queue, now + 100 * MS).unwrap();
    assert_eq!(first, "a");
    end(&mut queue, "a", WriteResult::Refused, now + 100 * MS);
    assert_eq!(next(&mut queue, now + 100 * MS).as_deref(), Some("b"));
}
