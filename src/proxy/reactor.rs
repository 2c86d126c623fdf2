//! The runtime of a worker: one thread, one epoll, one future for each connection.
//!
//! It knows what a general runtime cannot: a task waits for its own sockets and its own deadline
//! and for nothing else, and never leaves its thread. So there are no wakers, no locks and no
//! atomics; a socket's event names its task directly, a connection costs one allocation for its
//! future, and nothing is deregistered, for closing a socket does that.

mod alarm;
mod ready;
mod sources;
mod stint;
mod task;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use rustix::event::epoll;
use rustix::fd::AsFd;
use slab::Slab;

pub(super) use self::ready::Ready;
pub(super) use self::sources::SourceId;
use self::sources::Sources;
use self::stint::Stint;
use self::task::Task;
pub(super) use self::task::{Place, TaskId};
use super::wheel::Wheel;

/// How many events one call of `epoll_wait` may bring.
const EVENTS: usize = 256;
/// How many waits may fail in a row. What has failed once may have been a moment's trouble; one
/// that goes on would only burn the core.
const MOST_FAILED_WAITS: usize = 8;

/// The runtime of a worker.
pub(super) struct Reactor {
    sources: Sources,
    tasks: RefCell<Slab<Task>>,
    /// Tasks to poll in this turn.
    runnable: RefCell<VecDeque<TaskId>>,
    /// Tasks of which one is polled in each turn, after those.
    background: RefCell<VecDeque<TaskId>>,
    /// Whether a task of those is being polled.
    in_background: Cell<bool>,
    /// The task that is being polled.
    current: Cell<TaskId>,
    wheel: RefCell<Wheel<TaskId>>,
    /// Milliseconds since the start, as of this turn.
    now: Cell<u64>,
    start: Instant,
    stint: Stint,
    /// Tells a task from those that had the same index before.
    serial: Cell<u32>,
    cancelled: Cell<bool>,
    panics: IntCounter,
}

/// Why [`Reactor::within`] gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupted {
    /// The time was up.
    Elapsed,
    /// Every connection is being ended.
    Cancelled,
}

impl Reactor {
    /// `panics` counts the tasks that ended in one.
    pub(super) fn new(panics: IntCounter) -> io::Result<Rc<Self>> {
        let start = Instant::now();
        Ok(Rc::new(Reactor {
            sources: Sources::new()?,
            tasks: RefCell::default(),
            runnable: RefCell::default(),
            background: RefCell::default(),
            in_background: Cell::new(false),
            current: Cell::new(TaskId::NONE),
            wheel: RefCell::new(Wheel::new()),
            now: Cell::new(0),
            start,
            stint: Stint::new(start),
            serial: Cell::new(0),
            cancelled: Cell::new(false),
            panics,
        }))
    }

    /// Runs `main`, and everything that is spawned meanwhile, until `main` ends.
    ///
    /// # Errors
    /// When the epoll goes on failing, or `main` panics: without it, nobody would end the others.
    pub(super) fn block_on<T: 'static>(
        self: &Rc<Self>,
        main: impl Future<Output = T> + 'static,
    ) -> io::Result<T> {
        let result = Rc::new(Cell::new(None));
        let slot = Rc::clone(&result);
        self.spawn(async move { slot.set(Some(main.await)) });
        let mut events = Vec::with_capacity(EVENTS);
        let mut failed = 0;
        let ended = loop {
            self.run_queued();
            self.run_background();
            let value = result.take();
            if value.is_some() || Rc::strong_count(&result) == 1 {
                break value.ok_or_else(|| io::Error::other("the main task has panicked"));
            }
            match self.wait(&mut events) {
                Ok(()) => failed = 0,
                Err(_) if failed < MOST_FAILED_WAITS => failed += 1,
                Err(error) => break Err(error),
            }
        };
        // What is left goes with it: tasks hold what holds the reactor, and would keep each other
        // alive.
        drop(self.tasks.take());
        ended
    }

    /// Starts a task; it is polled for the first time in the turn that comes.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + 'static) -> TaskId {
        let serial = self.serial.get().wrapping_add(1);
        self.serial.set(serial);
        let index = self.tasks.borrow_mut().insert(Task::new(serial, future));
        let id = TaskId { index: index as u32, serial };
        self.wake(id);
        id
    }

    /// Has `task` polled in this turn, or in the next if it is being polled now.
    pub(super) fn wake(&self, task: TaskId) {
        if let Some(entry) = self.tasks.borrow_mut().get_mut(task.index as usize)
            && entry.serial == task.serial
            && !entry.queued
        {
            entry.queued = true;
            self.runnable.borrow_mut().push_back(task);
        }
    }

    /// Has the current task polled again after all others had their turn.
    pub(super) fn wake_current(&self) {
        self.wake(self.current.get());
    }

    /// Has the current task polled in the background too: after all others, of those like it
    /// [`Place::First`] or [`Place::Last`]. Each turn polls one of them, and then looks for events.
    pub(super) fn continue_in_background(&self, place: Place) {
        let current = self.current.get();
        if let Some(task) = self.tasks.borrow_mut().get_mut(current.index as usize)
            && !std::mem::replace(&mut task.backgrounded, true)
        {
            match place {
                Place::First => self.background.borrow_mut().push_front(current),
                Place::Last => self.background.borrow_mut().push_back(current),
            }
        }
    }

    /// Whether the current task is polled in the background.
    pub(super) fn is_in_background(&self) -> bool {
        self.in_background.get()
    }

    /// The task that is being polled.
    pub(super) fn current(&self) -> TaskId {
        self.current.get()
    }

    /// Milliseconds of a clock that never goes back, as of this turn.
    pub(super) fn now(&self) -> u64 {
        self.now.get()
    }

    /// Has `task` polled once `at` (in the time of [`Reactor::now`]) has come, unless it is polled
    /// before. Of several such times the nearest counts.
    ///
    /// A poll forgets them all, so what still waits then has to name its time again. That is what
    /// lets deadlines nest or stand side by side in one task, and end in any order, without a list
    /// of them.
    pub(super) fn wake_at(&self, task: TaskId, at: u64) {
        let mut tasks = self.tasks.borrow_mut();
        let Some(entry) = tasks.get_mut(task.index as usize) else { return };
        if entry.serial != task.serial || at >= entry.deadline {
            return;
        }
        entry.deadline = at;
        self.schedule(entry, task);
    }

    /// Sees to it that the wheel hands `task` out at its deadline. One that is there for this time
    /// or an earlier one is put back when that comes: a task is told of a new deadline far more
    /// often than it meets one.
    fn schedule(&self, entry: &mut Task, task: TaskId) {
        let mut wheel = self.wheel.borrow_mut();
        if wheel.due(entry.deadline) < entry.scheduled {
            entry.scheduled = wheel.insert(entry.deadline, task);
        }
    }

    /// The time, in that of [`Reactor::now`], after `duration`.
    pub(super) fn after(&self, duration: Duration) -> u64 {
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.now.get().saturating_add(millis)
    }

    /// Ends every wait of [`Reactor::within`], now and from now on.
    pub(super) fn cancel(&self) {
        self.cancelled.set(true);
        let all: Vec<TaskId> = self
            .tasks
            .borrow()
            .iter()
            .map(|(index, task)| TaskId { index: index as u32, serial: task.serial })
            .collect();
        all.into_iter().for_each(|task| self.wake(task));
    }

    /// Whether every connection is being ended.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// Awaits `future`, which belongs to the current task, for at most `limit`. Limits may nest: the
    /// nearest end comes first, and an outer one ends what is inside.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        let mut future = pin!(future);
        let end = self.after(limit);
        poll_fn(|context| {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Ok(value));
            }
            if self.cancelled.get() {
                return Poll::Ready(Err(Interrupted::Cancelled));
            }
            if self.now.get() >= end {
                return Poll::Ready(Err(Interrupted::Elapsed));
            }
            self.wake_at(self.current.get(), end);
            Poll::Pending
        })
        .await
    }

    /// Watches `fd` for the current task. Edge-triggered: what becomes ready is told once.
    pub(super) fn register(
        &self,
        fd: impl AsFd,
        interest: epoll::EventFlags,
        ready: Ready,
    ) -> io::Result<SourceId> {
        self.sources.add(self.current.get(), fd, interest, ready)
    }

    /// Changes what a registered `fd` is watched for. What is ready already is told again.
    pub(super) fn change(
        &self,
        id: SourceId,
        fd: impl AsFd,
        interest: epoll::EventFlags,
    ) -> io::Result<()> {
        self.sources.change(id, fd, interest)
    }

    /// Forgets a descriptor, which its owner closes.
    pub(super) fn forget(&self, id: SourceId) {
        self.sources.forget(id);
    }

    /// Watches a descriptor no longer that is to stay open elsewhere. Where it is not, closing it
    /// does that.
    pub(super) fn unregister(&self, id: SourceId, fd: impl AsFd) {
        self.sources.remove(id, fd);
    }

    pub(super) fn ready(&self, id: SourceId) -> Ready {
        self.sources.ready(id)
    }

    /// Has the descriptor count as ready, though the kernel has not told so.
    pub(super) fn mark(&self, id: SourceId, ready: Ready) {
        self.sources.mark(id, ready);
    }

    /// Takes back that the descriptor is ready: a system call showed that it no longer is.
    pub(super) fn clear(&self, id: SourceId, ready: Ready) {
        self.sources.clear(id, ready);
    }

    /// Polls every task that is queued now; what they queue meanwhile waits for the next turn.
    fn run_queued(&self) {
        let count = self.runnable.borrow().len();
        for _ in 0..count {
            let Some(id) = self.runnable.borrow_mut().pop_front() else { break };
            self.poll_task(id);
        }
    }

    /// Polls the first of the tasks in the background.
    fn run_background(&self) {
        let first = self.background.borrow_mut().pop_front();
        let Some(id) = first else { return };
        if let Some(task) = self.tasks.borrow_mut().get_mut(id.index as usize)
            && task.serial == id.serial
        {
            task.backgrounded = false;
        }
        self.in_background.set(true);
        self.poll_task(id);
        self.in_background.set(false);
    }

    fn poll_task(&self, id: TaskId) {
        let future = match self.tasks.borrow_mut().get_mut(id.index as usize) {
            Some(task) if task.serial == id.serial => {
                task.queued = false;
                // The poll names anew what it waits for.
                task.deadline = u64::MAX;
                task.future.take()
            }
            _ => None,
        };
        let Some(mut future) = future else { return };
        self.current.set(id);
        let mut context = Context::from_waker(Waker::noop());
        // A fault in one connection ends that connection and nothing else.
        let poll = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
        match poll {
            Ok(Poll::Pending) => {
                if let Some(task) = self.tasks.borrow_mut().get_mut(id.index as usize) {
                    task.future = Some(future);
                }
            }
            Ok(Poll::Ready(())) | Err(_) => {
                if poll.is_err() {
                    self.panics.inc();
                }
                // Its own drops may wake others, so the slab must not be borrowed meanwhile.
                drop(future);
                self.tasks.borrow_mut().try_remove(id.index as usize);
            }
        }
    }

    /// Waits for events and queues the tasks that they and the clock concern.
    fn wait(&self, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        let background = !self.background.borrow().is_empty();
        let idle = self.runnable.borrow().is_empty() && !background;
        let now = self.now.get();
        let until = if idle { self.wheel.borrow().next_due() } else { now };
        let begin = Instant::now();
        if self.stint.end_if_over(begin, background) {
            thread::yield_now();
        }
        self.sources.wait(events, now, until)?;
        let end = Instant::now();
        self.stint.waited(begin, end);
        self.now.set(end.saturating_duration_since(self.start).as_millis() as u64);
        for event in events.drain(..) {
            if let Some(task) = self.sources.note(&event) {
                self.wake(task);
            }
        }
        self.expire();
        Ok(())
    }

    /// Queues the tasks whose time has come; puts those back that have more of it by now.
    fn expire(&self) {
        let now = self.now.get();
        let mut early = Vec::new();
        self.wheel.borrow_mut().expire(now, |id| {
            let mut tasks = self.tasks.borrow_mut();
            let task = tasks.get_mut(id.index as usize).filter(|task| task.serial == id.serial);
            let Some(task) = task else { return };
            if task.scheduled > now {
                // It was put in again for an earlier time, and since then for a later one. Without
                // this, such a task would be in the wheel twice for as long as it lives.
                return;
            }
            task.scheduled = u64::MAX;
            if task.deadline <= now {
                task.deadline = u64::MAX;
                if !std::mem::replace(&mut task.queued, true) {
                    self.runnable.borrow_mut().push_back(id);
                }
            } else if task.deadline < u64::MAX {
                early.push(id);
            }
        });
        let mut tasks = self.tasks.borrow_mut();
        for id in early {
            if let Some(task) = tasks.get_mut(id.index as usize) {
                self.schedule(task, id);
            }
        }
    }
}

#[cfg(test)]
impl Reactor {
    /// How often the core was offered to others.
    fn offers(&self) -> usize {
        self.stint.ended.get()
    }

    /// How many deadlines the wheel keeps.
    fn deadlines(&self) -> usize {
        self.wheel.borrow().len()
    }
}

#[cfg(test)]
mod tests;
