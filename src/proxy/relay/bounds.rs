//! Bounds on the bytes that a direction holds, in sluice and in the kernel.

use std::time::Duration;

use crate::proxy::fast_slots::{FastSlot, FastSlots};
use crate::proxy::socket::Socket;
use crate::proxy::tcp;

/// The numbers of bytes to move at once, as exponents of 2: at the start; the maximum, after the receiver
/// has repeatedly taken all bytes; the minimum, after it has not.
const FIRST_CHUNK: u8 = 18;
const LARGEST_CHUNK: u8 = 19;
const SMALL_CHUNK: u8 = 17;
/// A sender with at most this round-trip time fills a narrow window 500 times a second, which is enough
/// until the direction counts as fast.
const NEAR: Duration = Duration::from_millis(2);
/// The round-trip time of a sender is read again after this many bytes: at first, the kernel has measured
/// few packets, and on a busy machine each of them late.
const ASK_AGAIN_AFTER: u64 = 1024 * 1024;
/// A direction is fast if it moves this many bytes in this many milliseconds.
const FAST_BYTES: u64 = 32 * 1024 * 1024;
const FAST_MILLIS: u64 = 1000;
/// A receiver that takes less than this between two checks while bytes are waiting needs only a narrow
/// window, even on a path of 200 ms.
const SLOW_BYTES: u64 = 8 * 1024 * 1024;

/// The bounds of a direction that carries bulk, or whose receiver has blocked.
///
/// The kernel sizes buffers for the fastest possible stream: if a receiver does not read, the kernel keeps
/// many MiB at each socket. So such a direction is limited:
///
/// * The receiver's socket takes few bytes beyond those in flight.
/// * The window of a near sender is narrow. A far sender could not fill its path with that, so it keeps
///   its window until the receiver has been slow for a while.
/// * The number of bytes that are moved at once grows only while the receiver takes all of them.
///
/// Bounds cost a fast stream half as much CPU again, because both ends are woken more often. So a fast
/// direction has no bounds. If its receiver stops, the kernel holds as many bytes as it would without
/// sluice, so the number of fast directions is limited.
#[derive(Default)]
pub(super) struct Bounds {
    /// Held while the direction is fast, and then until its bytes have left the kernel.
    slot: Option<FastSlot>,
    fast: bool,
    sending: bool,
    window: Window,
    chunk: ChunkSize,
    /// The totals of bytes at which the round-trip time is read again: while bulk moves, and when the
    /// receiver blocks.
    ask_at: u64,
    ask_blocked_at: u64,
    /// The start of the current speed measurement: total of bytes, and time in milliseconds.
    mark: (u64, u64),
}

/// Bytes to move at once, a power of two.
struct ChunkSize(u8);

/// The sender's window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Window {
    /// Sized by the kernel.
    #[default]
    Open,
    /// Narrow, because the sender is near: until the direction is fast.
    NarrowNear,
    /// Narrow, because the receiver was slow: until the receiver takes all available bytes.
    NarrowSlow,
}

impl Bounds {
    /// Bytes to move at once.
    pub(super) fn chunk(&self) -> usize {
        if self.fast { usize::MAX } else { 1 << self.chunk.0 }
    }

    /// Limits the unsent bytes that the kernel takes for the receiver.
    pub(super) fn bound_unsent(&mut self, to: &Socket) {
        if !self.fast && !std::mem::replace(&mut self.sending, true) {
            // If it fails, the kernel merely holds more.
            let _ = to.bound_unsent();
        }
    }

    /// Applies the bounds to a direction that carries bulk, and has moved `bytes` in total.
    pub(super) fn carry_bulk(&mut self, from: &Socket, to: &Socket, bytes: u64) {
        if self.fast {
            return;
        }
        self.bound_unsent(to);
        if self.window == Window::Open && bytes >= self.ask_at {
            self.ask_at = bytes.saturating_add(ASK_AGAIN_AFTER);
            self.narrow_if_near(from);
        }
    }

    /// Records that the receiver has taken all bytes of one move; `bytes` is the total.
    pub(super) fn flush(
        &mut self,
        (from, to): (&Socket, &Socket),
        bytes: u64,
        now: u64,
        slots: &FastSlots,
    ) {
        if self.fast {
            return;
        }
        if self.chunk.0 < LARGEST_CHUNK {
            self.chunk.0 += 1;
        } else if self.window == Window::NarrowSlow {
            self.widen(from);
        }
        if self.is_fast(bytes, now) && (self.slot.is_some() || self.take(slots)) {
            self.fast = true;
            let _ = to.unbound_unsent();
            self.sending = false;
            if self.window != Window::Open {
                self.widen(from);
            }
        }
    }

    /// Records that the receiver blocks; `bytes` is the total.
    pub(super) fn block(&mut self, from: &Socket, to: &Socket, bytes: u64) {
        if self.fast {
            return;
        }
        self.chunk.0 = SMALL_CHUNK;
        self.bound_unsent(to);
        if self.window == Window::Open && bytes >= self.ask_blocked_at {
            self.ask_blocked_at = bytes.saturating_add(ASK_AGAIN_AFTER);
            self.narrow_if_near(from);
        }
    }

    /// Checks the direction periodically. It has moved `moved` bytes since the last check. `stuck` is
    /// whether its receiver has not taken all bytes.
    pub(super) fn maintain(&mut self, from: &Socket, to: &Socket, moved: u64, stuck: bool) {
        if self.fast && moved < FAST_BYTES {
            self.fast = false;
            self.chunk = ChunkSize::default();
            self.bound_unsent(to);
            self.narrow_if_near(from);
        }
        if !stuck {
            if !self.fast {
                self.slot = None;
            }
            if self.window == Window::NarrowSlow {
                self.widen(from);
            }
        } else if moved < SLOW_BYTES && self.window == Window::Open {
            self.narrow(from, Window::NarrowSlow);
        }
    }

    fn is_fast(&mut self, bytes: u64, now: u64) -> bool {
        let (since, at) = self.mark;
        if bytes.saturating_sub(since) < FAST_BYTES {
            return false;
        }
        self.mark = (bytes, now);
        now.saturating_sub(at) <= FAST_MILLIS
    }

    fn take(&mut self, slots: &FastSlots) -> bool {
        self.slot = slots.take();
        self.slot.is_some()
    }

    fn narrow_if_near(&mut self, from: &Socket) {
        if from.round_trip().is_ok_and(|time| time <= NEAR) {
            self.narrow(from, Window::NarrowNear);
        }
    }

    fn narrow(&mut self, from: &Socket, window: Window) {
        if tcp::may_bound_received() {
            self.window = window;
            let _ = from.bound_received();
        }
    }

    fn widen(&mut self, from: &Socket) {
        self.window = Window::Open;
        let _ = from.unbound_received();
    }
}

impl Default for ChunkSize {
    fn default() -> Self {
        ChunkSize(FIRST_CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn a_direction_with_many_bytes_a_second_is_fast() {
        let steps = |step: u64, every: u64| {
            let mut bounds = Bounds::default();
            (1..200).any(|n| bounds.is_fast(n * step, n * every))
        };
        assert!(steps(MIB / 2, 1));
        assert!(steps(MIB, 31));
        assert!(!steps(MIB, 33));
        assert!(!steps(MIB / 2, 20));
    }

    /// The stream may have been idle before.
    #[test]
    fn a_stream_that_becomes_fast_counts_as_fast() {
        let mut bounds = Bounds::default();
        let later = 3_600_000;
        assert!(!bounds.is_fast(32 * MIB, later));
        assert!(bounds.is_fast(64 * MIB, later + 100));
    }
}
