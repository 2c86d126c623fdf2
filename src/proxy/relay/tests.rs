//! The turns of a direction.

#![allow(clippy::unwrap_used)]

use std::future::poll_fn;
use std::io::Write;
use std::rc::Rc;
use std::task::Poll;

use super::IoContext;
use super::direction::{Direction, Farewell, StopReason};
use crate::metrics::Metrics;
use crate::proxy::fast_slots::FastSlots;
use crate::proxy::pipes::{PipeQuota, Pipes};
use crate::proxy::reactor::{QUANTUM, Reactor};
use crate::proxy::stream::Stream;
use crate::proxy::stream::tests::{Pair, on_reactor, sockets};
use crate::routing::channel;

/// Else each event would have them take a quantum outside of bulk's turn, and other connections would wait for that.
#[test]
fn small_records_of_tls_take_bulks_turn() {
    on_reactor(relay_small_records);
}

async fn relay_small_records(reactor: Rc<Reactor>) {
    const RECORDS: usize = 5000;
    let ((from, sender), (to, _receiver)) = (sockets(&reactor), sockets(&reactor));
    let (from, to) = (Stream::new(from), Stream::new(to));
    let mut pair = Pair::connected(1);
    let mut records = Vec::new();
    for _ in 0..RECORDS {
        pair.client.writer().write_all(b"x").unwrap();
        records.extend(pair.sent());
    }
    assert_eq!(rustix::io::write(&sender, &records), Ok(records.len()));
    from.begin_tls(pair.layer);
    poll_fn(|_| if from.may_read() { Poll::Ready(()) } else { Poll::Pending }).await;
    let pipes = Pipes::new(PipeQuota::of(1), &Metrics::new(channel().1).unwrap());
    let (fast, mut buffer) = (FastSlots::new(), vec![0; 64 * 1024]);
    let mut direction = Direction::new(Vec::new());
    let mut moved = |bulk: bool| {
        let before = direction.bytes;
        let (pipes, fast) = (&pipes, &fast);
        let mut io = IoContext { buffer: &mut buffer, pipes, fast, now: 0, bulk };
        let stopped = direction.poll(&from, &to, &mut io, QUANTUM, Farewell::HalfClose);
        assert!(matches!(stopped, Ok(StopReason::Yielded)));
        direction.bytes - before
    };
    assert!((1..QUANTUM / 1024).contains(&moved(false)));
    assert_eq!(moved(false), 0);
    assert!(moved(true) > 0);
    assert_eq!(moved(false), 0);
}
