//! Long streams whose every byte is known, so that one lost, doubled or strayed byte is seen.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use super::wait_until;

/// Bytes after which a stream repeats itself: a prime, so that no buffer size divides it.
const PERIOD: usize = 1_048_583;
const CHUNK: usize = 256 * 1024;

/// A stream that is told from others by its seed.
pub(crate) struct Bulk {
    bytes: Vec<u8>,
}

impl Bulk {
    pub(crate) fn new(seed: u64) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut bytes = Vec::with_capacity(PERIOD + CHUNK + 8);
        while bytes.len() < PERIOD {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(PERIOD);
        // So that a chunk from any place lies in one piece.
        bytes.extend_from_within(..CHUNK);
        Bulk { bytes }
    }

    /// Up to `most` bytes of the stream from `offset` on, at least one.
    pub(crate) fn at(&self, offset: usize, most: usize) -> &[u8] {
        let start = offset % PERIOD;
        &self.bytes[start..start + most.min(CHUNK)]
    }
}

/// Sends the first `total` bytes.
#[track_caller]
pub(crate) fn send_bulk(stream: &mut TcpStream, bulk: &Bulk, total: usize) {
    let mut sent = 0;
    while sent < total {
        let chunk = bulk.at(sent, total - sent);
        stream.write_all(chunk).unwrap_or_else(|error| panic!("after {sent} bytes: {error}"));
        sent += chunk.len();
    }
}

/// Receives the first `total` bytes, and compares each.
#[track_caller]
pub(crate) fn receive_bulk(stream: &mut TcpStream, bulk: &Bulk, total: usize) {
    let mut buffer = vec![0; CHUNK];
    let mut received = 0;
    while received < total {
        let want = (total - received).min(CHUNK);
        let read = stream
            .read(&mut buffer[..want])
            .unwrap_or_else(|error| panic!("after {received} of {total} bytes: {error}"));
        assert!(read > 0, "the end after {received} of {total} bytes");
        assert!(buffer[..read] == *bulk.at(received, read), "other bytes after {received}");
        received += read;
    }
}

/// A stream from one socket to another by way of sluice. A test moves many of them in one thread.
pub(crate) struct Flow {
    from: TcpStream,
    to: TcpStream,
    bulk: Arc<Bulk>,
    offset: usize,
    chunk: usize,
    sent: usize,
    received: usize,
}

impl Flow {
    /// The part of `bulk` from `offset` on, sent in chunks from one socket to another.
    pub(crate) fn new(
        from: &TcpStream,
        to: &TcpStream,
        bulk: &Arc<Bulk>,
        offset: usize,
        chunk: usize,
    ) -> Self {
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        from.set_nonblocking(true).unwrap();
        to.set_nonblocking(true).unwrap();
        Flow { from, to, bulk: Arc::clone(bulk), offset, chunk, sent: 0, received: 0 }
    }

    /// Sends a chunk, but no more than `total` in all; returns how much of it fitted.
    fn send(&mut self, total: usize) -> usize {
        let left = self.chunk.min(total - self.sent);
        let bytes = self.bulk.at(self.offset + self.sent, left);
        let sent = unless_blocked(self.from.write(bytes)).unwrap_or(0);
        self.sent += sent;
        sent
    }

    /// Receives what is there, up to `total` in all; returns how much that was.
    fn receive(&mut self, total: usize) -> usize {
        let before = self.received;
        let mut buffer = [0; 16 * 1024];
        while self.received < total {
            let want = (total - self.received).min(buffer.len());
            let Some(read) = unless_blocked(self.to.read(&mut buffer[..want])) else { break };
            assert!(read > 0, "the end after {} bytes", self.received);
            let expected = self.bulk.at(self.offset + self.received, read);
            assert!(buffer[..read] == *expected, "other bytes after {}", self.received);
            self.received += read;
        }
        self.received - before
    }
}

/// Moves all flows on until `received` bytes of each have arrived. No more than `sent` of each are
/// sent.
pub(crate) fn flow(flows: &mut [Flow], received: usize, sent: usize) {
    wait_until("the bytes", || {
        flows.iter_mut().for_each(|flow| {
            flow.send(sent);
            flow.receive(received);
        });
        flows.iter().all(|flow| flow.received == received)
    });
}

/// Goes on sending, up to `sent` of each, until nothing fits any more for a while. Returns how many
/// flows are stuck.
pub(crate) fn stall(flows: &mut [Flow], sent: usize) -> usize {
    let mut quiet = 0;
    wait_until("the stall", || {
        let more: usize = flows.iter_mut().map(|flow| flow.send(sent)).sum();
        quiet = if more == 0 { quiet + 1 } else { 0 };
        quiet > 50
    });
    flows.iter().filter(|flow| flow.sent < sent).count()
}

/// Receives all that was sent.
pub(crate) fn settle(flows: &mut [Flow]) {
    wait_until("what was sent", || {
        flows.iter_mut().for_each(|flow| {
            flow.receive(flow.sent);
        });
        flows.iter().all(|flow| flow.received == flow.sent)
    });
}

fn unless_blocked(result: io::Result<usize>) -> Option<usize> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        other => Some(other.unwrap()),
    }
}
