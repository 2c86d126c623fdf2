//! The readiness of a descriptor.

use rustix::event::epoll;

/// The known readiness of a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Ready(u8);

impl Ready {
    pub(in crate::proxy) const NONE: Ready = Ready(0);
    pub(in crate::proxy) const READ: Ready = Ready(1);
    pub(in crate::proxy) const WRITE: Ready = Ready(2);
    /// The peer has closed its sending side. A read returns the end, even after a short read.
    pub(in crate::proxy) const READ_CLOSED: Ready = Ready(4);
    pub(in crate::proxy) const ERROR: Ready = Ready(8);
    /// The peer has marked a byte as urgent (RFC 6093).
    pub(in crate::proxy) const URGENT: Ready = Ready(16);

    pub(super) fn insert(&mut self, other: Ready) {
        self.0 |= other.0;
    }

    pub(super) fn remove(&mut self, other: Ready) {
        self.0 &= !other.0;
    }

    pub(in crate::proxy) fn has(self, other: Ready) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) fn of(flags: epoll::EventFlags) -> Self {
        use epoll::EventFlags as E;
        let mut ready = 0;
        if flags.intersects(E::IN | E::PRI | E::RDHUP | E::HUP | E::ERR) {
            ready |= Ready::READ.0;
        }
        if flags.intersects(E::OUT | E::HUP | E::ERR) {
            ready |= Ready::WRITE.0;
        }
        if flags.intersects(E::RDHUP | E::HUP) {
            ready |= Ready::READ_CLOSED.0;
        }
        if flags.contains(E::ERR) {
            ready |= Ready::ERROR.0;
        }
        if flags.contains(E::PRI) {
            ready |= Ready::URGENT.0;
        }
        Ready(ready)
    }
}
