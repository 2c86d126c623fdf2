//! Peers that speak TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use crate::support::{Bulk, connect};

/// How the direction of the other side ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsEnd {
    /// By a `close_notify`.
    Closed,
    /// By the end of the connection alone.
    Cut,
    /// By a reset.
    Reset,
}

/// A peer with its TLS.
pub(super) struct TlsPeer {
    pub(super) socket: TcpStream,
    pub(super) tls: Connection,
}

impl TlsPeer {
    /// A client of `name` whose handshake is complete.
    #[track_caller]
    pub(super) fn open(address: SocketAddr, name: &str, config: &ClientConfig) -> Self {
        TlsPeer::try_open(address, name, config).expect("a handshake")
    }

    pub(super) fn try_open(
        address: SocketAddr,
        name: &str,
        config: &ClientConfig,
    ) -> io::Result<Self> {
        TlsPeer::over(connect(address), name, config)
    }

    /// The same over a connection that is open.
    pub(super) fn over(socket: TcpStream, name: &str, config: &ClientConfig) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let tls = ClientConnection::new(Arc::new(config.clone()), name).unwrap();
        TlsPeer { socket, tls: tls.into() }.shaken()
    }

    /// A server whose handshake is complete.
    pub(super) fn accept(socket: TcpStream, config: &ServerConfig) -> io::Result<Self> {
        let tls = ServerConnection::new(Arc::new(config.clone())).unwrap();
        TlsPeer { socket, tls: tls.into() }.shaken()
    }

    fn shaken(mut self) -> io::Result<Self> {
        while self.tls.is_handshaking() {
            self.tls.complete_io(&mut self.socket)?;
        }
        self.flush()?;
        Ok(self)
    }

    #[track_caller]
    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.write_all(bytes).unwrap();
    }

    /// The next bytes are these.
    #[track_caller]
    pub(super) fn expect(&mut self, bytes: &[u8]) {
        let mut received = vec![0; bytes.len()];
        self.read_exact(&mut received).unwrap();
        assert!(received == bytes, "other bytes");
    }

    /// What is left to read, and how it ends.
    #[track_caller]
    pub(super) fn rest(&mut self) -> (Vec<u8>, TlsEnd) {
        let mut bytes = Vec::new();
        let end = match self.read_to_end(&mut bytes) {
            Ok(_) => TlsEnd::Closed,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => TlsEnd::Cut,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => TlsEnd::Reset,
            Err(error) => panic!("neither end nor reset after {} bytes: {error}", bytes.len()),
        };
        (bytes, end)
    }

    /// Sends no more data.
    #[track_caller]
    pub(super) fn close(&mut self) {
        self.tls.send_close_notify();
        self.flush().unwrap();
    }

    /// Changes the keys.
    #[track_caller]
    pub(super) fn change_keys(&mut self) {
        self.tls.refresh_traffic_keys().unwrap();
        self.flush().unwrap();
    }

    /// Sends the first `total` bytes.
    #[track_caller]
    pub(super) fn send_bulk(&mut self, bulk: &Bulk, total: usize) {
        let mut sent = 0;
        while sent < total {
            let chunk = bulk.at(sent, total - sent);
            self.send(chunk);
            sent += chunk.len();
        }
    }

    /// Receives the first `total` bytes, and compares each.
    #[track_caller]
    pub(super) fn receive_bulk(&mut self, bulk: &Bulk, total: usize) {
        let mut buffer = vec![0; 64 * 1024];
        let mut received = 0;
        while received < total {
            let want = (total - received).min(buffer.len());
            let read = self.read(&mut buffer[..want]).unwrap();
            assert!(read > 0, "the end after {received} of {total} bytes");
            assert!(buffer[..read] == *bulk.at(received, read), "other bytes after {received}");
            received += read;
        }
    }
}

impl Write for TlsPeer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.tls.writer().write(bytes)?;
        self.flush()?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

impl Read for TlsPeer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.tls.read_tls(&mut self.socket)?;
                    let processed = self.tls.process_new_packets();
                    self.flush()?;
                    processed.map_err(io::Error::other)?;
                }
                read => return read,
            }
        }
    }
}

/// A message each way.
#[track_caller]
pub(super) fn exchange(client: &mut TlsPeer, server: &mut TcpStream) {
    client.send(b"ping");
    crate::support::expect(server, b"ping");
    server.write_all(b"pong").unwrap();
    client.expect(b"pong");
}

/// The first records of a client.
pub(super) fn first_flight(name: &str, config: &ClientConfig) -> (Vec<u8>, ClientConnection) {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut tls = ClientConnection::new(Arc::new(config.clone()), name).unwrap();
    let mut bytes = Vec::new();
    tls.write_tls(&mut bytes).unwrap();
    (bytes, tls)
}
