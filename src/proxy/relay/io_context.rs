//! What a direction needs of its worker.

use crate::proxy::context::Context;
use crate::proxy::fast_slots::FastSlots;
use crate::proxy::pipes::Pipes;

/// The worker's resources for one poll.
pub(in crate::proxy) struct IoContext<'a> {
    pub(in crate::proxy) buffer: &'a mut [u8],
    pub(in crate::proxy) pipes: &'a Pipes,
    pub(in crate::proxy) fast: &'a FastSlots,
    /// Milliseconds of a monotonic clock.
    pub(in crate::proxy) now: u64,
    /// Whether this is bulk's turn, which comes after all other work.
    pub(in crate::proxy) bulk: bool,
}

impl<'a> IoContext<'a> {
    /// Those of a worker.
    pub(super) fn of(context: &'a Context, buffer: &'a mut [u8], bulk: bool) -> Self {
        let Context { pipes, fast, .. } = context;
        IoContext { buffer, pipes, fast, now: context.reactor.now(), bulk }
    }
}
