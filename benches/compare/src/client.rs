//! A client, as all loads have it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use crate::Target;
use crate::tls::{Handshake, Tls};

/// What a server answers to a hello: about as much as a certificate.
pub(crate) const FLIGHT: usize = 4096;
pub(crate) const REQUEST: usize = 512;
pub(crate) const ANSWER: usize = 1024;

/// A hello of Go's crypto/tls, with a post-quantum key share.
const HELLO: &[u8] = include_bytes!("../../../tests/corpus/hello/go-alpn.bin");
const CAPTURED_NAME: &str = "www.example.com";
/// What a client says first inside TLS: a record without content is all that a server waits for.
pub(crate) const EMPTY_RECORD: [u8; 5] = [22, 3, 1, 0, 0];

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

/// Makes clients of one target.
pub(crate) struct Dialer {
    to: SocketAddr,
    hello: Vec<u8>,
    /// Absent where the proxy passes TLS through.
    tls: Option<Tls>,
}

impl Dialer {
    pub(crate) fn new(target: &Target) -> anyhow::Result<Dialer> {
        Dialer::of_sessions(target, false)
    }

    /// One whose clients continue the sessions of those before, with `resumes`.
    pub(crate) fn of_sessions(target: &Target, resumes: bool) -> anyhow::Result<Dialer> {
        let tls = target.tls.map(|wanted| Tls::new(target, wanted, resumes)).transpose()?;
        Ok(Dialer { to: target.to, hello: hello(&target.server), tls })
    }

    pub(crate) async fn connect(&self) -> io::Result<Client> {
        self.greet(TcpSocket::new_v4()?).await
    }

    /// A client from another address of the loopback, so that one who comes often does not run out
    /// of ports.
    pub(crate) async fn connect_from(&self, source: Ipv4Addr) -> io::Result<Client> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((source, 0)))?;
        self.greet(socket).await
    }

    async fn greet(&self, socket: TcpSocket) -> io::Result<Client> {
        socket.set_nodelay(true)?;
        let stream = socket.connect(self.to).await?;
        let Some(tls) = &self.tls else {
            return Client::answered(Box::new(stream), &fresh(&self.hello), None).await;
        };
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        let stream = connector.connect(tls.name.clone(), stream).await?;
        let handshake = tls.outcome(stream.get_ref().1);
        Client::answered(Box::new(stream), &EMPTY_RECORD, Some(handshake)).await
    }
}

/// A connection in the clear or within TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl Stream for TcpStream {}
impl Stream for tokio_rustls::client::TlsStream<TcpStream> {}

/// A connection on which the hello has been answered.
pub(crate) struct Client {
    pub(crate) stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    /// The client's handshake, where the proxy serves TLS.
    pub(crate) handshake: Option<Handshake>,
}

impl Client {
    async fn answered(
        mut stream: Box<dyn Stream>,
        hello: &[u8],
        handshake: Option<Handshake>,
    ) -> io::Result<Client> {
        let mut buffer = vec![0; FLIGHT];
        stream.write_all(hello).await?;
        stream.flush().await?;
        stream.read_exact(&mut buffer).await?;
        Ok(Client { stream, buffer, handshake })
    }

    /// A request and its answer.
    pub(crate) async fn ask(&mut self) -> io::Result<()> {
        self.stream.write_all(&[3; REQUEST]).await?;
        self.stream.flush().await?;
        self.stream.read_exact(&mut self.buffer[..ANSWER]).await?;
        Ok(())
    }

    /// Ends its own side first, and waits for the end of the other.
    pub(crate) async fn end(mut self) -> io::Result<()> {
        self.stream.shutdown().await?;
        match self.stream.read(&mut self.buffer).await {
            Ok(0) => Ok(()),
            Ok(_) => Err(io::Error::other("more than the answer")),
            // Not every proxy sends the alert that ends TLS to a client that has sent its own.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(error),
        }
    }
}
