//! The registered descriptors, their readiness, and their tasks.

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

/// The tokens of the alarm and the inbox. No source has such an index.
const ALARM: u64 = u64::MAX;
const INBOX: u64 = u64::MAX - 1;

/// The descriptors of a reactor. They are registered edge-triggered: the kernel reports readiness once, and
/// it stays set until it is cleared.
pub(super) struct Sources {
    epoll: OwnedFd,
    alarm: Alarm,
    slab: RefCell<Slab<Source>>,
    /// Distinguishes an entry from earlier ones with the same index.
    serial: Cell<u32>,
}

/// A registered descriptor of a task.
struct Source {
    serial: u32,
    task: TaskId,
    ready: Ready,
}

/// The target of an event.
pub(super) enum EventTarget {
    /// The task of a descriptor.
    Task(TaskId),
    /// The inbox: tasks that were woken by wakers.
    Inbox,
}

/// The id of a registered descriptor.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct SourceId {
    pub(super) index: u32,
    serial: u32,
}

impl Sources {
    /// An epoll with the alarm and `inbox`.
    pub(super) fn new(inbox: impl AsFd) -> io::Result<Self> {
        let (epoll, alarm) = (epoll::create(epoll::CreateFlags::CLOEXEC)?, Alarm::new()?);
        let interest = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &alarm, epoll::EventData::new_u64(ALARM), interest)?;
        epoll::add(&epoll, inbox, epoll::EventData::new_u64(INBOX), interest)?;
        Ok(Sources { epoll, alarm, slab: RefCell::default(), serial: Cell::new(0) })
    }

    /// Registers `fd` for `task`, with `ready` as its initial readiness.
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

    /// Changes the interest of `fd`.
    pub(super) fn change(
        &self,
        id: SourceId,
        fd: impl AsFd,
        interest: epoll::EventFlags,
    ) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, id.token(), interest | epoll::EventFlags::ET)?)
    }

    pub(super) fn remove(&self, id: SourceId, fd: impl AsFd) {
        // Fails only if the descriptor is not registered.
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

    /// Waits for events until `until`; the current time is `now`. If `until` has passed, returns the
    /// available events at once.
    pub(super) fn wait(
        &self,
        events: &mut Vec<epoll::Event>,
        now: u64,
        until: u64,
    ) -> io::Result<()> {
        let millis = until.saturating_sub(now);
        // If the alarm cannot be set, the wait has its own timeout.
        let alarmed = millis > 0 && self.alarm.set(now, until).is_ok();
        let end = timespec(millis);
        let timeout = (!alarmed).then_some(&end);
        match epoll::wait(&self.epoll, spare_capacity(events), timeout) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Applies an event. Returns its target; `None` for the alarm, or for a descriptor that was removed.
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
