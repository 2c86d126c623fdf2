//! How much of a direction is on its way at once, in sluice and in the kernel.

use std::time::Duration;

use crate::proxy::socket::Socket;

/// Bytes that are moved at once, as powers of two: at first, where the receiver takes all of it, and
/// after it did not.
const FIRST_PIECE: u8 = 18;
const LARGEST_PIECE: u8 = 19;
const SMALL_PIECE: u8 = 17;
/// A sender that is no further away than this fills a narrow window 500 times a second or more, which
/// is enough for a receiver that blocks. One in the next rack fills it so often that it never needs more.
const NEAR: Duration = Duration::from_millis(2);
const VERY_NEAR: Duration = Duration::from_micros(500);

/// The bounds of a direction.
///
/// The kernel sizes buffers for the fastest stream that there could be: of one whose receiver does
/// not read, it keeps several MiB at either socket. So a direction that carries bulk, or blocks, is
/// bounded:
///
/// * The receiver's socket takes little beyond what is on its way to the receiver.
/// * The sender's window is narrow. That of one that is not very near is so only until the receiver has
///   shown that it takes what comes, and whenever it blocks. A sender far away could not fill its path
///   then, so it keeps its window until nothing has moved for a while.
/// * What is moved at once grows only while the receiver takes all of it.
pub(super) struct Bounds {
    /// A power of two: each connection has this twice.
    piece: u8,
    sending: bool,
    receiving: Receiving,
}

/// What bounds the sender's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    /// Nothing has, so far.
    Unbounded,
    /// The kernel alone, until the receiver blocks.
    Free,
    /// The kernel alone, because the sender is far away.
    Far,
    Narrow,
    /// Narrow for good, because the sender is very near.
    VeryNear,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { piece: FIRST_PIECE, sending: false, receiving: Receiving::Unbounded }
    }
}

impl Bounds {
    /// Bytes to move at once.
    pub(super) fn piece(&self) -> usize {
        1 << self.piece
    }

    /// The direction carries bulk.
    pub(super) fn carry_bulk(&mut self, from: &Socket, to: &Socket) {
        if !std::mem::replace(&mut self.sending, true) {
            // Without it the kernel merely holds more.
            let _ = to.bound_unsent();
        }
        if self.receiving == Receiving::Unbounded {
            self.narrow_if_near(from);
        }
    }

    /// The receiver took all of a piece.
    pub(super) fn flush(&mut self, from: &Socket) {
        if self.piece < LARGEST_PIECE {
            self.piece += 1;
        } else if self.receiving == Receiving::Narrow {
            self.widen(from);
        }
    }

    /// The receiver takes no more for now.
    pub(super) fn block(&mut self, from: &Socket, to: &Socket) {
        self.piece = SMALL_PIECE;
        self.carry_bulk(from, to);
        if self.receiving == Receiving::Free {
            self.narrow_if_near(from);
        }
    }

    /// Nothing has moved for a while, because of the receiver.
    pub(super) fn stall(&mut self, from: &Socket) {
        if !matches!(self.receiving, Receiving::Narrow | Receiving::VeryNear) {
            self.narrow(from, Receiving::Narrow);
        }
    }

    /// Nothing waits for the receiver.
    pub(super) fn go_on(&mut self, from: &Socket) {
        match self.receiving {
            Receiving::Narrow => self.widen(from),
            // It is asked anew the next time: paths change.
            Receiving::Far => self.receiving = Receiving::Free,
            Receiving::Free | Receiving::Unbounded | Receiving::VeryNear => {}
        }
    }

    fn narrow_if_near(&mut self, from: &Socket) {
        match from.round_trip() {
            Ok(time) if time <= VERY_NEAR => self.narrow(from, Receiving::VeryNear),
            Ok(time) if time <= NEAR => self.narrow(from, Receiving::Narrow),
            _ => self.receiving = Receiving::Far,
        }
    }

    fn narrow(&mut self, from: &Socket, receiving: Receiving) {
        self.receiving = receiving;
        let _ = from.bound_received();
    }

    fn widen(&mut self, from: &Socket) {
        self.receiving = Receiving::Free;
        // A kernel that cannot leaves the window narrow, which is slow only over long paths.
        let _ = from.unbound_received();
    }
}
