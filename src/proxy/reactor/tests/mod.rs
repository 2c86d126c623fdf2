mod bulk;
mod deadlines;
mod wakers;

use std::future::{pending, poll_fn};
use std::sync::mpsc;
use std::time::Duration;

use futures::channel::mpsc as channel;
use futures::{SinkExt, StreamExt};
use tokio::sync::oneshot;

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;

const NEVER: Duration = Duration::from_secs(600);

/// A reactor, and the number of its tasks that have panicked.
fn reactor() -> (Rc<Reactor>, Rc<Cell<u64>>) {
    let panics = Rc::new(Cell::new(0));
    let counter = Rc::clone(&panics);
    let inbox = Arc::new(Inbox::new().unwrap());
    (Reactor::new(inbox, move || counter.set(counter.get() + 1)).unwrap(), panics)
}

/// Runs the future of `main` on a reactor in its own thread: a reactor that is never woken would block the
/// test for ever.
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
    // A reactor that does not end would block the test for ever.
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(run()));
    let end = end.recv_timeout(Duration::from_secs(60));
    assert_eq!(end, Ok(("the main task has panicked".to_owned(), 1, 1)));
}

#[test]
fn cancel_ends_every_wait_and_remaining_tasks_are_dropped() {
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
        // The same index, while the earlier descriptor is still watched.
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
fn a_task_that_wakes_itself_runs_after_the_others() {
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
