//! The reactor: the executor of a worker, with one thread, one epoll, and one task for each connection.
//!
//! A task nearly always waits for its own sockets and its own deadline, and never leaves its thread. So a
//! socket's event names the task directly, without a waker, a lock or an atomic operation. Sockets are not
//! deregistered, because closing a socket does that. Each task also has an ordinary waker, so futures that
//! wait for other things, such as a channel from another thread, work as on any executor.
//!
//! A socket belongs to the task that registered it: its events wake only that task.

mod alarm;
mod bulk;
mod deadlines;
mod inbox;
mod ready;
mod sources;
mod steps;
mod task;
mod wheel;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::Instant;

use rustix::event::epoll;
use rustix::fd::AsFd;
use slab::Slab;

use self::bulk::{BulkQueue, QueueEnd, TimeSlice};
pub(super) use self::bulk::{QUANTUM, Quanta};
pub(super) use self::deadlines::Interrupted;
pub(super) use self::inbox::Inbox;
use self::inbox::TaskWaker;
pub(super) use self::ready::Ready;
pub(super) use self::sources::SourceId;
use self::sources::{EventTarget, Sources};
use self::steps::StepQueue;
pub(super) use self::steps::{StepOf, StepOwner};
use self::task::Task;
pub(super) use self::task::TaskId;
use self::wheel::Wheel;

/// How many events one call of `epoll_wait` may return.
const EVENTS: usize = 256;
/// How many waits may fail in a row before the reactor ends. A permanent failure would only burn CPU.
const MOST_FAILED_WAITS: usize = 8;

/// The runtime of a worker.
pub(super) struct Reactor {
    sources: Sources,
    tasks: RefCell<Slab<Task>>,
    /// Tasks to poll in this turn.
    runnable: RefCell<VecDeque<TaskId>>,
    steps: StepQueue,
    bulk: BulkQueue,
    inbox: Arc<Inbox>,
    /// The task that is being polled.
    current: Cell<TaskId>,
    /// Whether the waits of the current task are interrupted.
    is_current_cancelled: Cell<bool>,
    wheel: RefCell<Wheel<TaskId>>,
    /// Milliseconds since the start, as of this turn.
    now: Cell<u64>,
    start: Instant,
    time_slice: TimeSlice,
    /// Distinguishes a task from earlier ones with the same index.
    serial: Cell<u32>,
    cancelled: Cell<bool>,
    on_panic: Box<dyn Fn()>,
}

impl Reactor {
    /// A reactor that other threads wake through `inbox`. `on_panic` is called for each task that ends with
    /// a panic.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub(super) fn new(inbox: Arc<Inbox>, on_panic: impl Fn() + 'static) -> io::Result<Rc<Self>> {
        let start = Instant::now();
        Ok(Rc::new(Reactor {
            sources: Sources::new(&*inbox)?,
            tasks: RefCell::default(),
            runnable: RefCell::default(),
            steps: StepQueue::default(),
            bulk: BulkQueue::default(),
            inbox,
            current: Cell::new(TaskId::NONE),
            is_current_cancelled: Cell::new(false),
            wheel: RefCell::new(Wheel::new()),
            now: Cell::new(0),
            start,
            time_slice: TimeSlice::new(start),
            serial: Cell::new(0),
            cancelled: Cell::new(false),
            on_panic: Box::new(on_panic),
        }))
    }

    /// Runs `main` and all spawned tasks until `main` ends.
    ///
    /// # Errors
    /// When the epoll keeps failing, or `main` panics: without it, nothing would end the other tasks.
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
            self.run_step();
            self.run_bulk();
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
        // Remaining tasks are dropped, because they hold references to the reactor, which would form a
        // cycle.
        drop(self.tasks.take());
        ended
    }

    /// Starts a task. It is first polled in the next turn.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + 'static) -> TaskId {
        let serial = self.serial.get().wrapping_add(1);
        self.serial.set(serial);
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.vacant_entry();
        let id = TaskId { index: entry.key() as u32, serial };
        let waker = Arc::new(TaskWaker { task: id, inbox: Arc::clone(&self.inbox) });
        entry.insert(Task::new(serial, future, waker.into()));
        drop(tasks);
        self.wake(id);
        id
    }

    /// Queues `task` for this turn, or for the next one if it is being polled now.
    pub(super) fn wake(&self, task: TaskId) {
        if let Some(entry) = self.tasks.borrow_mut().get_mut(task.index as usize)
            && entry.serial == task.serial
            && !entry.queued
        {
            entry.queued = true;
            self.runnable.borrow_mut().push_back(task);
        }
    }

    /// Queues the current task again, after all others.
    pub(super) fn wake_current(&self) {
        self.wake(self.current.get());
    }

    /// Queues the current task for bulk's turn, if it has `more` bulk to move. `quanta` counts the quanta of
    /// its connection.
    pub(super) fn wake_for_bulk(&self, quanta: &mut Quanta, more: bool) {
        if let Some(place) = quanta.next(self.is_bulk_turn(), more) {
            self.queue_for_bulk(place);
        }
    }

    fn queue_for_bulk(&self, place: QueueEnd) {
        let current = self.current.get();
        if let Some(task) = self.tasks.borrow_mut().get_mut(current.index as usize)
            && !std::mem::replace(&mut task.awaits_bulk, true)
        {
            self.bulk.push(current, place);
        }
    }

    /// Whether the current task is polled in bulk's turn.
    pub(super) fn is_bulk_turn(&self) -> bool {
        self.bulk.is_running()
    }

    /// The task that is being polled.
    pub(super) fn current(&self) -> TaskId {
        self.current.get()
    }

    /// The time of this turn in milliseconds, from a monotonic clock.
    pub(super) fn now(&self) -> u64 {
        self.now.get()
    }

    /// Interrupts all waits of [`Reactor::within`], current and future.
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

    /// Interrupts all waits of one task, current and future.
    pub(super) fn cancel_task(&self, task: TaskId) {
        if let Some(entry) = self.tasks.borrow_mut().get_mut(task.index as usize)
            && entry.serial == task.serial
        {
            entry.is_cancelled = true;
        }
        if self.current.get() == task {
            self.is_current_cancelled.set(true);
        }
        self.wake(task);
    }

    /// Takes back [`Reactor::cancel_task`] for the current task.
    pub(super) fn spare_current(&self) {
        self.is_current_cancelled.set(false);
        if let Some(entry) = self.tasks.borrow_mut().get_mut(self.current.get().index as usize) {
            entry.is_cancelled = false;
        }
    }

    /// Whether the waits of the current task are interrupted.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.get() || self.is_current_cancelled.get()
    }

    /// Registers `fd` for the current task, edge-triggered.
    pub(super) fn register(
        &self,
        fd: impl AsFd,
        interest: epoll::EventFlags,
        ready: Ready,
    ) -> io::Result<SourceId> {
        self.sources.add(self.current.get(), fd, interest, ready)
    }

    /// Changes the interest of a registered `fd`. Readiness that already exists is reported again.
    pub(super) fn change(
        &self,
        id: SourceId,
        fd: impl AsFd,
        interest: epoll::EventFlags,
    ) -> io::Result<()> {
        self.sources.change(id, fd, interest)
    }

    /// Removes a descriptor that its owner closes.
    pub(super) fn forget(&self, id: SourceId) {
        self.sources.forget(id);
    }

    /// Deregisters a descriptor that stays open elsewhere. For others, closing is enough.
    pub(super) fn unregister(&self, id: SourceId, fd: impl AsFd) {
        self.sources.remove(id, fd);
    }

    pub(super) fn ready(&self, id: SourceId) -> Ready {
        self.sources.ready(id)
    }

    /// Marks a descriptor as ready without an event.
    pub(super) fn mark(&self, id: SourceId, ready: Ready) {
        self.sources.mark(id, ready);
    }

    /// Clears the readiness of a descriptor, after a system call has shown that it is not ready.
    pub(super) fn clear(&self, id: SourceId, ready: Ready) {
        self.sources.clear(id, ready);
    }

    /// Polls all queued tasks. Tasks that are queued meanwhile wait for the next turn.
    fn run_queued(&self) {
        let count = self.runnable.borrow().len();
        for _ in 0..count {
            let Some(id) = self.runnable.borrow_mut().pop_front() else { break };
            self.poll_task(id);
        }
    }

    /// Polls the first task in the bulk queue.
    fn run_bulk(&self) {
        let Some(id) = self.bulk.pop() else { return };
        if let Some(task) = self.tasks.borrow_mut().get_mut(id.index as usize)
            && task.serial == id.serial
        {
            task.awaits_bulk = false;
        }
        self.bulk.run(|| self.poll_task(id));
    }

    fn poll_task(&self, id: TaskId) {
        let taken = match self.tasks.borrow_mut().get_mut(id.index as usize) {
            Some(task) if task.serial == id.serial => {
                task.queued = false;
                self.is_current_cancelled.set(task.is_cancelled);
                // Each poll sets its own deadlines.
                task.deadline = u64::MAX;
                task.polled.take()
            }
            _ => None,
        };
        let Some(mut polled) = taken else { return };
        self.current.set(id);
        let mut context = Context::from_waker(&polled.waker);
        // A panic in one task ends only that task.
        let poll = catch_unwind(AssertUnwindSafe(|| polled.future.as_mut().poll(&mut context)));
        match poll {
            Ok(Poll::Pending) => {
                if let Some(task) = self.tasks.borrow_mut().get_mut(id.index as usize) {
                    task.polled = Some(polled);
                }
            }
            Ok(Poll::Ready(())) | Err(_) => {
                if poll.is_err() {
                    (self.on_panic)();
                }
                // Its drop may wake other tasks, so the slab must not be borrowed meanwhile.
                drop(polled);
                self.tasks.borrow_mut().try_remove(id.index as usize);
            }
        }
    }

    /// Waits for events, and queues the tasks of events and of expired deadlines.
    fn wait(&self, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        let bulk = !self.bulk.is_empty();
        let idle = self.runnable.borrow().is_empty() && self.steps.is_empty() && !bulk;
        let now = self.now.get();
        let until = if idle { self.wheel.borrow().next_due() } else { now };
        let begin = Instant::now();
        if self.time_slice.end_if_over(begin, bulk) {
            thread::yield_now();
        }
        self.sources.wait(events, now, until)?;
        let end = Instant::now();
        self.time_slice.waited(begin, end);
        self.now.set(end.saturating_duration_since(self.start).as_millis() as u64);
        for event in events.drain(..) {
            match self.sources.note(&event) {
                Some(EventTarget::Task(task)) => self.wake(task),
                Some(EventTarget::Inbox) => {
                    self.inbox.take().into_iter().for_each(|task| self.wake(task))
                }
                None => {}
            }
        }
        self.expire();
        Ok(())
    }
}

#[cfg(test)]
impl Reactor {
    /// How often the core was offered to others.
    fn offers(&self) -> usize {
        self.time_slice.ended.get()
    }

    /// How many deadlines the wheel keeps.
    fn deadlines(&self) -> usize {
        self.wheel.borrow().len()
    }
}

#[cfg(test)]
mod tests;
