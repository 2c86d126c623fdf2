//! The turns of bulk.

use super::*;

#[test]
fn tasks_with_bulk_have_one_turn_each_after_all_others() {
    let order = run(|reactor| async move {
        let log = Rc::new(RefCell::new(Vec::new()));
        // `b` has two turns in a row.
        for (name, places) in [
            ("a", [QueueEnd::Back, QueueEnd::Back]),
            ("b", [QueueEnd::Back, QueueEnd::Front]),
            ("c", [QueueEnd::Back, QueueEnd::Back]),
        ] {
            let (inner, log) = (Rc::clone(&reactor), Rc::clone(&log));
            reactor.spawn(async move {
                let mut places = places.into_iter();
                poll_fn(|_| {
                    if inner.is_bulk_turn() {
                        log.borrow_mut().push(name);
                    }
                    match places.next() {
                        Some(place) => inner.queue_for_bulk(place),
                        None => return Poll::Ready(()),
                    }
                    Poll::Pending
                })
                .await;
            });
        }
        // A task that is always runnable has a turn between any two of them.
        poll_fn(|_| {
            log.borrow_mut().push("-");
            match log.borrow().len() {
                14.. => return Poll::Ready(()),
                _ => reactor.wake_current(),
            }
            Poll::Pending
        })
        .await;
        log.take().join("")
    });
    assert_eq!(order.trim_matches('-'), "a-b-b-c-a-c");
}

#[test]
fn an_event_comes_before_bulk() {
    const TURNS: usize = 3;
    let order = run(|reactor| async move {
        let log = Rc::new(RefCell::new(Vec::new()));
        let (ours, theirs) = pair();
        let (inner, logged) = (Rc::clone(&reactor), Rc::clone(&log));
        reactor.spawn(async move {
            let mut turns = 0;
            poll_fn(|_| {
                if inner.is_bulk_turn() {
                    logged.borrow_mut().push("bulk");
                    rustix::io::write(&theirs, b"x").unwrap();
                    turns += 1;
                }
                if turns == TURNS {
                    return Poll::Ready(());
                }
                inner.queue_for_bulk(QueueEnd::Back);
                Poll::Pending
            })
            .await;
        });
        let source = reactor.register(&ours, epoll::EventFlags::IN, Ready::NONE).unwrap();
        for _ in 0..TURNS {
            let event = until(&reactor, source, Ready::READ);
            assert_eq!(reactor.within(Duration::from_secs(10), event).await, Ok(()));
            reactor.clear(source, Ready::READ);
            log.borrow_mut().push("event");
        }
        log.take()
    });
    assert_eq!(order, ["bulk", "event"].repeat(TURNS));
}

#[test]
fn bulk_waits_for_no_event() {
    run(|reactor| async move {
        let bulk = poll_fn(|_| match reactor.is_bulk_turn() {
            true => Poll::Ready(()),
            false => {
                reactor.queue_for_bulk(QueueEnd::Back);
                Poll::Pending
            }
        });
        assert_eq!(reactor.within(Duration::from_secs(10), bulk).await, Ok(()));
        // The next turn is an ordinary one.
        let wait = reactor.within(Duration::from_millis(40), pending::<()>()).await;
        assert_eq!((wait, reactor.is_bulk_turn()), (Err(Interrupted::Elapsed), false));
    });
}

/// The turns are far shorter than the millisecond after which the worker yields anyway.
#[test]
fn the_worker_yields_between_any_two_turns_of_bulk() {
    const TURNS: usize = 50;
    let offers = run(|reactor| async move {
        let mut turns = 0;
        poll_fn(|_| {
            turns += usize::from(reactor.is_bulk_turn());
            if turns == TURNS {
                return Poll::Ready(());
            }
            reactor.queue_for_bulk(QueueEnd::Back);
            Poll::Pending
        })
        .await;
        reactor.offers()
    });
    assert!(offers >= TURNS - 1, "{offers} times in {TURNS} turns");
}
