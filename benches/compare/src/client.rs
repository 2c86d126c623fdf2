//! A client, as all loads have it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::Target;

/// What a server answers to a hello: about as much as a certificate.
pub(crate) const FLIGHT: usize = 4096;
pub(crate) const REQUEST: usize = 512;
pub(crate) const ANSWER: usize = 1024;

/// A hello of Go's crypto/tls, with a post-quantum key share.
const HELLO: &[u8] = include_bytes!("../../../tests/corpus/hello/go-alpn.bin");
const CAPTURED_NAME: &str = "www.example.com";

/// A hello for one of the servers, which have names of three letters.
pub(crate) fn hello(server: &str) -> Vec<u8> {
    let name = format!("{server}.example.com");
    assert_eq!(name.len(), CAPTURED_NAME.len(), "{server:?} has not three letters");
    let at = HELLO.windows(name.len()).position(|window| window == CAPTURED_NAME.as_bytes());
    let at = at.expect("the captured hello has a name");
    let mut hello = HELLO.to_vec();
    hello[at..at + name.len()].copy_from_slice(name.as_bytes());
    fresh(&hello)
}

/// The same hello with a random value of its own, as each client has one (RFC 8446 §4.1.2). It comes
/// after the headers of record and message, and the version.
fn fresh(hello: &[u8]) -> Vec<u8> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut hello = hello.to_vec();
    hello[11..19].copy_from_slice(&NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    hello
}

/// A connection on which the hello has been answered.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) async fn connect(target: &Target, hello: &[u8]) -> io::Result<Client> {
        Client::greet(TcpSocket::new_v4()?, target, hello).await
    }

    /// One from another address of the loopback, so that a client who comes often does not run out
    /// of ports.
    pub(crate) async fn connect_from(
        source: Ipv4Addr,
        target: &Target,
        hello: &[u8],
    ) -> io::Result<Client> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((source, 0)))?;
        Client::greet(socket, target, hello).await
    }

    async fn greet(socket: TcpSocket, target: &Target, hello: &[u8]) -> io::Result<Client> {
        socket.set_nodelay(true)?;
        let mut client =
            Client { stream: socket.connect(target.to).await?, buffer: vec![0; FLIGHT] };
        client.stream.write_all(&fresh(hello)).await?;
        client.stream.read_exact(&mut client.buffer).await?;
        Ok(client)
    }

    /// A request and its answer.
    pub(crate) async fn ask(&mut self) -> io::Result<()> {
        self.stream.write_all(&[3; REQUEST]).await?;
        self.stream.read_exact(&mut self.buffer[..ANSWER]).await?;
        Ok(())
    }

    /// Ends its own side first, and waits for the end of the other.
    pub(crate) async fn end(mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        match self.stream.read(&mut self.buffer).await? {
            0 => Ok(()),
            _ => Err(io::Error::other("more than the answer")),
        }
    }
}
