//! Deadlines: one, several, and one within another.

use super::*;

#[test]
fn a_wait_ends_with_its_event_or_its_deadline() {
    run(|reactor| async move {
        let (ours, theirs) = pair();
        let source = reactor.register(&ours, epoll::EventFlags::IN, Ready::NONE).unwrap();
        let short = Duration::from_millis(100);
        let end = reactor.after(short);
        let read = until(&reactor, source, Ready::READ);
        assert_eq!(reactor.within(short, read).await, Err(Interrupted::Elapsed));
        assert!(reactor.now() >= end);

        rustix::io::write(&theirs, b"x").unwrap();
        let read = until(&reactor, source, Ready::READ);
        assert_eq!(reactor.within(Duration::from_secs(60), read).await, Ok(()));
        reactor.clear(source, Ready::READ);
        drop(theirs);
        until(&reactor, source, Ready::READ_CLOSED).await;
    });
}

#[test]
fn each_of_several_deadlines_ends_a_sleep() {
    let ended = run(|reactor| async move {
        let (main, ended) = (reactor.current(), Rc::new(RefCell::new(Vec::new())));
        // The alarm is first set for a deadline that is not the earliest, and set again after each.
        for millis in [200, 100, 300] {
            let (inner, ended) = (Rc::clone(&reactor), Rc::clone(&ended));
            reactor.spawn(async move {
                let limit = Duration::from_millis(millis);
                assert_eq!(inner.within(limit, pending::<()>()).await, Err(Interrupted::Elapsed));
                ended.borrow_mut().push(millis);
                inner.wake(main);
            });
        }
        let all = poll_fn(|_| match ended.borrow().len() {
            3 => Poll::Ready(()),
            _ => Poll::Pending,
        });
        assert_eq!(reactor.within(Duration::from_secs(60), all).await, Ok(()));
        ended.take()
    });
    assert_eq!(ended, [100, 200, 300]);
}

/// How long a wait took, by the reactor's clock.
async fn timed<T>(reactor: &Reactor, wait: impl Future<Output = T>) -> (T, u64) {
    let begun = reactor.now();
    (wait.await, reactor.now() - begun)
}

#[test]
fn an_inner_deadline_ends_and_the_outer_one_still_counts() {
    run(|reactor| async move {
        let (inner, outer) = (Duration::from_millis(64), Duration::from_millis(256));
        let story = async {
            let first = timed(&reactor, reactor.within(inner, pending::<()>())).await;
            // A deadline that ended before its time has no later effect.
            let second = reactor.within(inner, std::future::ready(())).await;
            assert_eq!(second, Ok(()));
            assert_eq!(first.0, Err(Interrupted::Elapsed));
            assert!((64..256).contains(&first.1), "{}", first.1);
            pending::<()>().await
        };
        let (end, took) = timed(&reactor, reactor.within(outer, story)).await;
        assert_eq!(end, Err(Interrupted::Elapsed));
        assert!((256..10_000).contains(&took), "{took}");
    });
}

#[test]
fn an_outer_deadline_ends_a_longer_inner_one() {
    run(|reactor| async move {
        let outer = Duration::from_millis(64);
        let nested = reactor.within(NEVER, reactor.within(NEVER * 2, pending::<()>()));
        let (end, took) = timed(&reactor, reactor.within(outer, nested)).await;
        assert_eq!(end, Err(Interrupted::Elapsed));
        assert!((64..10_000).contains(&took), "{took}");
    });
}

#[test]
fn concurrent_deadlines_each_end_at_their_time() {
    run(|reactor| async move {
        let limits = [192, 64, 128].map(Duration::from_millis);
        let ended = RefCell::new(Vec::new());
        let wait = async |limit: Duration| {
            let _ = reactor.within(limit, pending::<()>()).await;
            ended.borrow_mut().push(limit.as_millis());
        };
        let mut waits = limits.map(|limit| Some(Box::pin(wait(limit))));
        let all = poll_fn(|context| {
            for wait in &mut waits {
                // The future that has ended is dropped, and one that still waits is kept.
                if wait.as_mut().is_some_and(|wait| wait.as_mut().poll(context).is_ready()) {
                    *wait = None;
                }
            }
            if waits.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
        });
        assert_eq!(reactor.within(NEVER, all).await, Ok(()));
        assert_eq!(*ended.borrow(), [64, 128, 192]);
    });
}

/// Each event of a busy connection causes a poll, which sets the deadline again.
#[test]
fn a_deadline_outlives_polls_for_other_reasons() {
    run(|reactor| async move {
        let (task, limit) = (reactor.current(), Duration::from_millis(96));
        let inner = Rc::clone(&reactor);
        reactor.spawn(async move {
            for _ in 0..8 {
                let pause = Duration::from_millis(4);
                let _ = inner.within(pause, pending::<()>()).await;
                inner.wake(task);
            }
        });
        let nested = reactor.within(NEVER, pending::<()>());
        let (end, took) = timed(&reactor, reactor.within(limit, nested)).await;
        assert_eq!(end, Err(Interrupted::Elapsed));
        assert!((96..10_000).contains(&took), "{took}");
    });
}

#[test]
fn cancel_ends_nested_waits_from_the_inside() {
    run(|reactor| async move {
        let task = reactor.current();
        let inner = Rc::clone(&reactor);
        reactor.spawn(async move {
            inner.cancel();
            inner.wake(task);
        });
        let nested = reactor.within(NEVER * 2, pending::<()>());
        let end = reactor.within(NEVER, nested).await;
        assert_eq!(end, Ok(Err(Interrupted::Cancelled)));
    });
}

#[test]
fn one_task_is_cancelled_and_others_wait_on() {
    run(|reactor| async move {
        let (task, limit) = (reactor.current(), Duration::from_millis(64));
        let inner = Rc::clone(&reactor);
        reactor.spawn(async move {
            inner.cancel_task(task);
            assert!(!inner.is_cancelled());
        });
        let end = reactor.within(NEVER, pending::<()>()).await;
        assert_eq!(end, Err(Interrupted::Cancelled));
        // Until it is spared.
        assert_eq!(reactor.within(NEVER, pending::<()>()).await, Err(Interrupted::Cancelled));
        reactor.spare_current();
        assert_eq!(reactor.within(limit, pending::<()>()).await, Err(Interrupted::Elapsed));
    });
}

#[test]
fn a_repeated_deadline_has_one_entry() {
    run(|reactor| async move {
        let task = reactor.current();
        for at in [15_001, 15_002, 15_033, 600_000, 15_001, 15_001] {
            reactor.wake_at(task, at);
        }
        assert_eq!(reactor.deadlines(), 1);
        // An earlier deadline takes effect at once.
        reactor.wake_at(task, 5_001);
        assert_eq!(reactor.deadlines(), 2);
    });
}

#[test]
fn a_deadline_that_was_temporarily_earlier_has_one_entry_again() {
    run(|reactor| async move {
        for limit in [200, 100] {
            let mut polled = false;
            let once = poll_fn(|_| match std::mem::replace(&mut polled, true) {
                true => Poll::Ready(()),
                false => {
                    reactor.wake_current();
                    Poll::Pending
                }
            });
            assert_eq!(reactor.within(Duration::from_millis(limit), once).await, Ok(()));
        }
        assert_eq!(reactor.deadlines(), 2);
        let (task, inner, now) = (reactor.current(), Rc::clone(&reactor), reactor.now());
        reactor.spawn(async move {
            let _ = inner.within(Duration::from_millis(300), pending::<()>()).await;
            inner.wake(task);
        });
        let later = poll_fn(|_| match reactor.now() >= now + 300 {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        assert_eq!(reactor.within(Duration::from_secs(600), later).await, Ok(()));
        assert_eq!(reactor.deadlines(), 1);
    });
}
