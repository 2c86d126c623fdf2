use std::future::{pending, poll_fn};
use std::sync::mpsc;
use std::time::Duration;

use futures::channel::mpsc as channel;
use futures::{SinkExt, StreamExt};
use tokio::sync::oneshot;

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;

/// A reactor, and how many of its tasks have panicked.
fn reactor() -> (Rc<Reactor>, Rc<Cell<u64>>) {
    let panics = Rc::new(Cell::new(0));
    let counter = Rc::clone(&panics);
    let inbox = Arc::new(Inbox::new().unwrap());
    (Reactor::new(inbox, move || counter.set(counter.get() + 1)).unwrap(), panics)
}

/// Runs what `main` makes on a reactor and a thread of its own: one that is never woken would keep
/// the test waiting for ever.
#[track_caller]
fn run<F>(main: impl FnOnce(Rc<Reactor>) -> F + Send + 'static) -> F::Output
where
    F: Future<Output: Send + 'static> + 'static,
{
    let (done, end) = mpsc::channel();
    thread::spawn(move || {
        let (reactor, _) = reactor();
        done.send(reactor.block_on(main(Rc::clone(&reactor))).unwrap())
    });
    end.recv_timeout(Duration::from_secs(60)).expect("it ends")
}

fn pair() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap()
}

async fn until(reactor: &Reactor, source: SourceId, ready: Ready) {
    poll_fn(|_| match reactor.ready(source).has(ready) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

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
        // The alarm is set for one that is not the first, and again after each.
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

const NEVER: Duration = Duration::from_secs(600);

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
            // One that ended before its time leaves nothing behind either.
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
fn deadlines_side_by_side_end_each_in_its_time() {
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
                // One that has ended is dropped, and one of those that wait is left behind.
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

/// Each event of a busy connection is a poll, and names the deadline again.
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
fn a_panic_ends_its_own_task_and_nothing_else() {
    let (reactor, panics) = reactor();
    let inner = Rc::clone(&reactor);
    let dropped = Rc::new(Cell::new(0));
    let count = Rc::clone(&dropped);
    struct OnDrop(Rc<Cell<u32>>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let main = async move {
        for _ in 0..3 {
            let guard = OnDrop(Rc::clone(&count));
            inner.spawn(async move {
                let _guard = guard;
                panic!("on purpose");
            });
        }
        let short = Duration::from_millis(40);
        assert_eq!(inner.within(short, pending::<()>()).await, Err(Interrupted::Elapsed));
    };
    reactor.block_on(main).unwrap();
    assert_eq!((panics.get(), dropped.get()), (3, 3));
}

#[test]
fn a_panic_of_the_main_task_ends_all() {
    let run = || {
        let (reactor, panics) = reactor();
        let inner = Rc::clone(&reactor);
        let main = async move {
            let held = Rc::clone(&inner);
            inner.spawn(async move {
                pending::<()>().await;
                drop(held);
            });
            panic!("on purpose");
        };
        let error = reactor.block_on::<()>(main).unwrap_err();
        (error.to_string(), panics.get(), Rc::strong_count(&reactor))
    };
    // A reactor that goes on would keep a test waiting for ever.
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(run()));
    let end = end.recv_timeout(Duration::from_secs(60));
    assert_eq!(end, Ok(("the main task has panicked".to_owned(), 1, 1)));
}

#[test]
fn cancel_ends_every_wait_and_what_is_left_is_dropped_at_the_end() {
    let (reactor, _) = reactor();
    let inner = Rc::clone(&reactor);
    let ended = Rc::new(Cell::new(0));
    let count = Rc::clone(&ended);
    let main = async move {
        for _ in 0..10 {
            let (reactor, count) = (Rc::clone(&inner), Rc::clone(&count));
            inner.spawn(async move {
                let wait = reactor.within(Duration::from_secs(600), pending::<()>()).await;
                assert_eq!(wait, Err(Interrupted::Cancelled));
                count.set(count.get() + 1);
            });
        }
        let held = Rc::clone(&inner);
        inner.spawn(async move {
            pending::<()>().await;
            drop(held);
        });
        let mut turns = 0;
        poll_fn(|_| {
            turns += 1;
            match turns {
                2 => inner.cancel(),
                4 => return Poll::Ready(()),
                _ => {}
            }
            inner.wake_current();
            Poll::Pending
        })
        .await;
    };
    reactor.block_on(main).unwrap();
    assert_eq!(ended.get(), 10);
    assert_eq!(Rc::strong_count(&reactor), 1, "a task that is left holds the reactor");
}

#[test]
fn an_event_of_a_closed_descriptor_does_not_reach_its_successor() {
    run(|reactor| async move {
        let (old, theirs) = pair();
        let gone = reactor.register(&old, epoll::EventFlags::IN, Ready::NONE).unwrap();
        rustix::io::write(&theirs, b"x").unwrap();
        reactor.forget(gone);
        // The same slot, while the descriptor of before is still watched.
        let (new, _quiet) = pair();
        let source = reactor.register(&new, epoll::EventFlags::IN, Ready::NONE).unwrap();
        assert_eq!(source.index, gone.index);
        let read = until(&reactor, source, Ready::READ);
        let wait = reactor.within(Duration::from_millis(40), read).await;
        assert_eq!(wait, Err(Interrupted::Elapsed));
        assert_eq!(reactor.ready(gone), Ready::NONE);
    });
}

#[test]
fn a_task_that_has_more_to_do_lets_the_others_go_first() {
    let order = run(|reactor| async move {
        let log = Rc::new(RefCell::new(Vec::new()));
        for name in ["a", "b"] {
            let (inner, log) = (Rc::clone(&reactor), Rc::clone(&log));
            reactor.spawn(async move {
                let mut turns = 0;
                poll_fn(|_| {
                    log.borrow_mut().push(name);
                    turns += 1;
                    if turns == 3 {
                        return Poll::Ready(());
                    }
                    inner.wake_current();
                    Poll::Pending
                })
                .await;
            });
        }
        let _ = reactor.within(Duration::from_millis(40), pending::<()>()).await;
        log.take()
    });
    assert_eq!(order, ["a", "b", "a", "b", "a", "b"]);
}

#[test]
fn a_deadline_that_is_told_again_and_again_is_kept_once() {
    run(|reactor| async move {
        let task = reactor.current();
        for at in [15_001, 15_002, 15_033, 600_000, 15_001, 15_001] {
            reactor.wake_at(task, at);
        }
        assert_eq!(reactor.deadlines(), 1);
        // An earlier one counts at once.
        reactor.wake_at(task, 5_001);
        assert_eq!(reactor.deadlines(), 2);
    });
}

#[test]
fn a_deadline_that_was_earlier_for_a_while_is_kept_once_again() {
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
        // One that is always runnable has a turn between any two of them.
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
        // Its next turn is one like any other.
        let wait = reactor.within(Duration::from_millis(40), pending::<()>()).await;
        assert_eq!((wait, reactor.is_bulk_turn()), (Err(Interrupted::Elapsed), false));
    });
}

/// These turns take far less than a millisecond, after which the core is offered anyway.
#[test]
fn the_core_is_offered_between_any_two_turns_of_bulk() {
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

#[test]
fn a_task_waits_for_another_thread() {
    let (told, tell) = oneshot::channel();
    let thread = thread::spawn(move || told.send(7));
    let got = run(|reactor| async move {
        // Nothing else would wake it.
        reactor.within(NEVER, tell).await
    });
    assert_eq!(got, Ok(Ok(7)));
    thread.join().unwrap().unwrap();
}

#[test]
fn a_sleeping_reactor_is_woken_for_each_message_of_another_thread() {
    const MESSAGES: u32 = 100;
    let (mut there, mut here) = channel::channel(0);
    let (mut answer, mut answers) = channel::channel(0);
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            for number in 0..MESSAGES {
                there.send(number).await.unwrap();
                assert_eq!(answers.next().await, Some(number));
            }
        });
    });
    let sum = run(|_| async move {
        let mut sum = 0;
        while let Some(number) = here.next().await {
            sum += number;
            answer.send(number).await.unwrap();
        }
        sum
    });
    assert_eq!(sum, (0..MESSAGES).sum::<u32>());
    thread.join().unwrap();
}

#[test]
fn tasks_of_one_reactor_wake_each_other() {
    let order = run(|reactor| async move {
        let (mut to, mut from) = channel::unbounded();
        reactor.spawn(async move {
            for word in ["a", "b", "c"] {
                to.send(word).await.unwrap();
                // Lets the other run in between.
                let mut polled = false;
                poll_fn(|context| match std::mem::replace(&mut polled, true) {
                    true => Poll::Ready(()),
                    false => {
                        context.waker().wake_by_ref();
                        Poll::Pending
                    }
                })
                .await;
            }
        });
        let mut words = String::new();
        while let Some(word) = from.next().await {
            words.push_str(word);
        }
        words
    });
    assert_eq!(order, "abc");
}

#[test]
fn the_waker_of_a_task_that_has_ended_wakes_nobody() {
    run(|reactor| async move {
        let (keep, kept) = mpsc::channel();
        reactor.spawn(poll_fn(move |context| {
            keep.send(context.waker().clone()).unwrap();
            Poll::Ready(())
        }));
        let short = Duration::from_millis(40);
        assert_eq!(reactor.within(short, pending::<()>()).await, Err(Interrupted::Elapsed));
        let waker = kept.recv().unwrap();
        // This one has the place of the other.
        let polls = Rc::new(Cell::new(0));
        let counter = Rc::clone(&polls);
        reactor.spawn(poll_fn(move |_| {
            counter.set(counter.get() + 1);
            Poll::<()>::Pending
        }));
        waker.wake();
        assert_eq!(reactor.within(short, pending::<()>()).await, Err(Interrupted::Elapsed));
        assert_eq!(polls.get(), 1);
    });
}
