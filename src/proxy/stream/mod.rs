//! A stream: a socket of a peer, and its TLS if sluice serves or speaks that.

mod cipher_buffer;
mod engine;
mod handshake_fault;
mod layer;
mod stream_fault;
#[cfg(test)]
pub(super) mod tests;

use std::cell::{OnceCell, RefCell};
use std::io;
use std::task::Poll;

pub(super) use self::cipher_buffer::CipherBuffer;
pub(super) use self::engine::TlsEngine;
pub(super) use self::handshake_fault::HandshakeFault;
pub(super) use self::layer::TlsLayer;
use super::socket::Socket;

/// The bytes of a peer, in both directions: those of its socket, or what TLS carries.
pub(super) struct Stream {
    socket: Socket,
    /// Boxed, so that other streams reserve no space for it.
    tls: OnceCell<Box<RefCell<TlsLayer>>>,
}

impl Stream {
    /// A stream without TLS.
    pub(super) fn new(socket: Socket) -> Self {
        Stream { socket, tls: OnceCell::new() }
    }

    /// Adds TLS, once.
    pub(super) fn begin_tls(&self, layer: TlsLayer) {
        let _ = self.tls.set(Box::new(RefCell::new(layer)));
    }

    /// The socket below.
    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The socket, if there is nothing above it.
    pub(super) fn as_plain(&self) -> Option<&Socket> {
        self.tls.get().is_none().then_some(&self.socket)
    }

    /// Its TLS.
    pub(super) fn tls(&self) -> Option<&RefCell<TlsLayer>> {
        self.tls.get().map(|tls| &**tls)
    }

    /// Reads into `buffer`; 0 is the end. If nothing is read because reading is too much work,
    /// [`Stream::may_read`] stays true.
    pub(super) fn poll_recv(&self, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.tls.get() {
            None => self.socket.poll_recv(buffer),
            Some(tls) => tls.borrow_mut().poll_recv(&self.socket, buffer),
        }
    }

    /// Sends the first of `bytes` that fit. TLS takes many at once, keeps what does not fit, and takes no more until
    /// [`Stream::poll_flush`] has sent it.
    pub(super) fn poll_send(&self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.tls.get() {
            None => self.socket.poll_send(bytes),
            Some(tls) => tls.borrow_mut().poll_send(&self.socket, bytes),
        }
    }

    /// Sends what is kept.
    pub(super) fn poll_flush(&self) -> Poll<io::Result<()>> {
        match self.tls.get() {
            None => Poll::Ready(Ok(())),
            Some(tls) => tls.borrow_mut().poll_flush(&self.socket),
        }
    }

    /// Sends a `close_notify`, if there is TLS. The peer may go on sending.
    pub(super) fn poll_close_notify(&self) -> Poll<io::Result<()>> {
        match self.tls.get() {
            None => Poll::Ready(Ok(())),
            Some(tls) => tls.borrow_mut().poll_close(&self.socket),
        }
    }

    /// Whether bytes are kept that are not sent.
    pub(super) fn has_unsent(&self) -> bool {
        self.tls.get().is_some_and(|tls| tls.borrow().has_output())
    }

    /// Whether a read may succeed, as far as is known.
    pub(super) fn may_read(&self) -> bool {
        self.has_received() || self.socket.may_read()
    }

    /// Whether a read may succeed without more bytes of the peer.
    pub(super) fn has_received(&self) -> bool {
        self.tls.get().is_some_and(|tls| tls.borrow().may_go_on())
    }

    /// Whether the peer has ended without `close_notify`.
    pub(super) fn is_cut(&self) -> bool {
        self.tls.get().is_some_and(|tls| tls.borrow().is_cut())
    }

    /// Whether the peer has ended so before it needed to, so that bytes may be missing.
    pub(super) fn is_truncated(&self) -> bool {
        self.tls.get().is_some_and(|tls| tls.borrow().is_truncated())
    }

    /// Whether the beginning of a record was received.
    pub(super) fn is_amid_record(&self) -> bool {
        self.tls.get().is_some_and(|tls| tls.borrow().has_input())
    }

    /// Takes the work of reads into account, besides their data, as a number of bytes.
    pub(super) fn take_work(&self) -> u64 {
        self.tls.get().map_or(0, |tls| tls.borrow_mut().take_work())
    }

    /// How many bytes the socket has taken, if `data` were sent.
    pub(super) fn sent(&self, data: u64) -> u64 {
        self.tls.get().map_or(data, |tls| tls.borrow().sent())
    }
}
