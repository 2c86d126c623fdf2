//! The descriptors that the epoll watches, and the task that each of them belongs to.

use std::cell::{Cell, RefCell};
use std::io;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use slab::Slab;

use super::TaskId;
use super::alarm::{Alarm, timespec};
use super::ready::Ready;

/// What the epoll says when the alarm rings, and when something is in the inbox. No source has so
/// high an index.
const ALARM: u64 = u64::MAX;
const INBOX: u64 = u64::MAX - 1;

/// The descriptors of a reactor, and what is known of them. Edge-triggered: what becomes ready is
/// told once, and counts until somebody takes it back.
pub(super) struct Sources {
    epoll: OwnedFd,
    alarm: Alarm,
    slab: RefCell<Slab<Source>>,
    /// Tells an entry of the slab from those that had the same index before.
    serial: Cell<u32>,
}

/// A descriptor that the epoll watches for a task.
struct Source {
    serial: u32,
    task: TaskId,
    ready: Ready,
}

/// What an event concerns.
pub(super) enum EventTarget {
    /// A descriptor of this task.
    Task(TaskId),
    /// Tasks that were woken from outside.
    Inbox,
}

/// Names a registered descriptor.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct SourceId {
    pub(super) index: u32,
    serial: u32,
}

impl Sources {
    /// Sources beside `inbox`, the event of a reactor's own.
    pub(super) fn new(inbox: impl AsFd) -> io::Result<Self> {
        let (epoll, alarm) = (epoll::create(epoll::CreateFlags::CLOEXEC)?, Alarm::new()?);
        let interest = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &alarm, epoll::EventData::new_u64(ALARM), interest)?;
        epoll::add(&epoll, inbox, epoll::EventData::new_u64(INBOX), interest)?;
        Ok(Sources { epoll, alarm, slab: RefCell::default(), serial: Cell::new(0) })
    }

    /// Watches `fd` for `task`; it counts as `ready` at first.
    pub(super) fn add(
        &self,
        task: TaskId,
        fd: impl AsFd,
        interest: epoll::EventFlags,
        ready: Ready,
    ) -> io::Result<SourceId> {
        let serial = self.serial.get().wrapping_add(1);
        self.serial.set(serial);
        let index = self.slab.borrow_mut().insert(Source { serial, task, ready }) as u32;
        let id = SourceId { index, serial };
        match epoll::add(&self.epoll, fd, id.token(), interest | epoll::EventFlags::ET) {
            Ok(()) => Ok(id),
            Err(error) => {
                self.forget(id);
                Err(error.into())
            }
        }
    }

    /// Changes what `fd` is watched for.
    pub(super) fn change(
        &self,
        id: SourceId,
        fd: impl AsFd,
        interest: epoll::EventFlags,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, id.token(), interest | epoll::EventFlags::ET)?)
    }

    pub(super) fn remove(&self, id: SourceId, fd: impl AsFd) {
        // Fails only if it is not watched.
        let _ = epoll::delete(&self.epoll, fd);
        self.forget(id);
    }

    pub(super) fn forget(&self, id: SourceId) {
        let mut slab = self.slab.borrow_mut();
        if slab.get(id.index as usize).is_some_and(|source| source.serial == id.serial) {
            slab.remove(id.index as usize);
        }
    }

    pub(super) fn ready(&self, id: SourceId) -> Ready {
        self.with(id, |source| source.ready).unwrap_or_default()
    }

    pub(super) fn mark(&self, id: SourceId, ready: Ready) {
        self.with(id, |source| source.ready.insert(ready));
    }

    pub(super) fn clear(&self, id: SourceId, ready: Ready) {
        self.with(id, |source| source.ready.remove(ready));
    }

    /// Waits for events until the time `until`, where it is `now`; if that has come, it looks for
    /// what is there.
    pub(super) fn wait(
        &self,
        events: &mut Vec<epoll::Event>,
        now: u64,
        until: u64,
    ) -> io::Result<()> {
        let millis = until.saturating_sub(now);
        // The alarm ends a sleep. If it cannot be set, the sleep has an end of its own.
        let alarmed = millis > 0 && self.alarm.set(now, until).is_ok();
        let end = timespec(millis);
        let timeout = (!alarmed).then_some(&end);
        match epoll::wait(&self.epoll, spare_capacity(events), timeout) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Notes what an event tells. Returns what it concerns, unless that is the alarm, or a descriptor
    /// that was forgotten meanwhile.
    pub(super) fn note(&self, event: &epoll::Event) -> Option<EventTarget> {
        match event.data.u64() {
            ALARM => {
                self.alarm.rang();
                None
            }
            INBOX => Some(EventTarget::Inbox),
            _ => self.with(SourceId::from_token(event.data), |source| {
                source.ready.insert(Ready::of(event.flags));
                EventTarget::Task(source.task)
            }),
        }
    }

    fn with<T>(&self, id: SourceId, act: impl FnOnce(&mut Source) -> T) -> Option<T> {
        let mut slab = self.slab.borrow_mut();
        slab.get_mut(id.index as usize).filter(|source| source.serial == id.serial).map(act)
    }
}

impl SourceId {
    fn token(self) -> epoll::EventData {
        epoll::EventData::new_u64(u64::from(self.serial) << 32 | u64::from(self.index))
    }

    fn from_token(token: epoll::EventData) -> Self {
        let token = token.u64();
        SourceId { index: token as u32, serial: (token >> 32) as u32 }
    }
}
