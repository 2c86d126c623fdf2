//! Clients and backends, with blocking sockets that lose patience.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::{Domain, SockRef, Socket, Type};

use super::{PATIENCE, hello, millis};

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// In good order.
    Eof,
    /// By a reset.
    Reset,
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect_timeout(&address, PATIENCE).unwrap())
}

/// A client that has sent `bytes`.
pub(crate) fn open(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut client = connect(address);
    client.write_all(bytes).unwrap();
    client
}

/// A client that has sent `bytes`, and whose buffers take little, so that it stalls soon.
pub(crate) fn open_narrow(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    narrow(&SockRef::from(&socket));
    socket.connect(&address.into()).unwrap();
    let mut client = patient(socket.into());
    client.write_all(bytes).unwrap();
    client
}

/// A client at an address of this machine that has sent `bytes`.
pub(crate) fn open_from(source: SocketAddr, address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let socket = Socket::new(Domain::for_address(source), Type::STREAM, None).unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut client = patient(socket.into());
    client.write_all(bytes).unwrap();
    client
}

fn narrow(socket: &SockRef<'_>) {
    socket.set_recv_buffer_size(128 * 1024).unwrap();
    socket.set_send_buffer_size(64 * 1024).unwrap();
}

fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// What is left to read, and how it ends.
#[track_caller]
pub(crate) fn rest(stream: &mut TcpStream) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (bytes, End::Eof),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return (bytes, End::Reset);
            }
            Err(error) => panic!("neither end nor reset after {} bytes: {error}", bytes.len()),
        }
    }
}

/// The next bytes are these.
#[track_caller]
pub(crate) fn expect(stream: &mut TcpStream, bytes: &[u8]) {
    let mut received = vec![0; bytes.len()];
    let mut filled = 0;
    while filled < bytes.len() {
        match stream.read(&mut received[filled..]) {
            Ok(0) => panic!("the end after {filled} of {} bytes", bytes.len()),
            Ok(read) => filled += read,
            Err(error) => panic!("{error} after {filled} of {} bytes", bytes.len()),
        }
    }
    let differs = received.iter().zip(bytes).position(|(a, b)| a != b);
    assert_eq!(differs, None, "of {} bytes, the first that differs", bytes.len());
}

/// The connection was reset; what came before does not matter.
#[track_caller]
pub(crate) fn expect_reset(mut stream: TcpStream) {
    assert_eq!(rest(&mut stream).1, End::Reset);
}

/// Whether a socket of this network listens at an IPv4 address; found out without a connection.
pub(crate) fn is_listened_on(address: SocketAddr) -> bool {
    let port = format!(":{:04X} ", address.port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let listens = |line: &str| {
        // The number, the local address, the remote address, the state.
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        format!("{local} ").contains(&port) && fields.nth(1) == Some("0A")
    };
    sockets.lines().any(listens)
}

/// Whether the other side has ended it by now.
pub(crate) fn is_over(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let over = matches!(stream.peek(&mut [0]), Ok(0));
    stream.set_nonblocking(false).unwrap();
    over
}

/// Closes with a reset.
pub(crate) fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// One message each way shows that the relay works.
#[track_caller]
pub(crate) fn exchange(client: &mut TcpStream, server: &mut TcpStream) {
    client.write_all(b"ping").unwrap();
    expect(server, b"ping");
    server.write_all(b"pong").unwrap();
    expect(client, b"pong");
}

/// A backend whose connections the test itself accepts.
pub(crate) struct Backend {
    listener: TcpListener,
}

impl Backend {
    pub(crate) fn new() -> Self {
        Backend::at([127, 0, 0, 1])
    }

    pub(crate) fn at(ip: [u8; 4]) -> Self {
        let listener = TcpListener::bind(SocketAddr::from((ip, 0))).unwrap();
        // accept(2) heeds it too.
        SockRef::from(&listener).set_read_timeout(Some(PATIENCE)).unwrap();
        Backend { listener }
    }

    /// One whose connections have buffers that take little.
    pub(crate) fn narrow() -> Self {
        Backend::narrow_at([127, 0, 0, 1])
    }

    pub(crate) fn narrow_at(ip: [u8; 4]) -> Self {
        let backend = Backend::at(ip);
        narrow(&SockRef::from(&backend.listener));
        backend
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    /// The next connection.
    #[track_caller]
    pub(crate) fn accept(&self) -> TcpStream {
        patient(self.listener.accept().expect("no connection").0)
    }

    /// The next connection, which begins with `bytes`.
    #[track_caller]
    pub(crate) fn accept_with(&self, bytes: &[u8]) -> TcpStream {
        let mut server = self.accept();
        expect(&mut server, bytes);
        server
    }

    /// Whether a connection waits to be accepted. It goes on waiting.
    pub(crate) fn is_tried(&self) -> bool {
        let listener = std::os::fd::AsFd::as_fd(&self.listener);
        let mut polled = [PollFd::from_borrowed_fd(listener, PollFlags::IN)];
        rustix::event::poll(&mut polled, Some(&Timespec::default())).unwrap() > 0
    }

    /// Whether a connection waits to be accepted. It is closed.
    pub(crate) fn is_wanted(&self) -> bool {
        self.accept_waiting().is_some()
    }

    /// The connection that waits to be accepted, if there is one.
    pub(crate) fn accept_waiting(&self) -> Option<TcpStream> {
        self.listener.set_nonblocking(true).unwrap();
        let accepted = self.listener.accept();
        self.listener.set_nonblocking(false).unwrap();
        let (stream, _) = accepted.ok()?;
        stream.set_nonblocking(false).unwrap();
        Some(patient(stream))
    }
}

/// A backend that answers every client's first bytes with `tag`, then ends.
pub(crate) fn answering(tag: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer = move |mut stream: TcpStream| -> io::Result<()> {
        let _some = stream.read(&mut [0; 4096])?;
        stream.write_all(tag.as_bytes())?;
        stream.shutdown(Shutdown::Write)?;
        io::copy(&mut stream, &mut io::sink()).map(drop)
    };
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let stream = patient(stream);
            thread::spawn(move || answer(stream));
        }
    });
    address
}

/// What a whole connection for `name` to an [`answering`] backend is told.
#[track_caller]
pub(crate) fn ask(address: SocketAddr, name: &str) -> String {
    let mut client = open(address, &hello(name));
    let (answer, end) = rest(&mut client);
    assert_eq!(end, End::Eof);
    String::from_utf8(answer).unwrap()
}

/// An address that refuses connections for as long as the socket lives: bound, not listening.
pub(crate) fn refusing() -> (SocketAddr, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    (socket.local_addr().unwrap().as_socket().unwrap(), socket)
}

/// An address that answers nothing: its accept queue is full.
pub(crate) struct Blackhole {
    listener: Socket,
    fill: Vec<TcpStream>,
}

impl Blackhole {
    pub(crate) fn new() -> Self {
        let (address, listener) = refusing();
        listener.listen(0).unwrap();
        let fill: Vec<_> =
            std::iter::from_fn(|| TcpStream::connect_timeout(&address, millis(200)).ok())
                .take(100)
                .collect();
        assert!(fill.len() < 100, "the queue never fills");
        Blackhole { listener, fill }
    }

    /// How many connections come to pass once there is room for them.
    pub(crate) fn late(mut self) -> usize {
        let filled = self.fill.len();
        self.fill.clear();
        // A client that still wants in tries again within a second or two.
        self.listener.set_read_timeout(Some(millis(1500))).unwrap();
        std::iter::from_fn(|| self.listener.accept().ok()).count() - filled
    }

    /// Answers from now on: the next connection that comes to pass.
    #[track_caller]
    pub(crate) fn accept_late(mut self) -> TcpStream {
        let filled = std::mem::take(&mut self.fill).len();
        self.listener.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut accepted = (0..=filled).map(|_| self.listener.accept().expect("no connection").0);
        patient(accepted.nth(filled).unwrap().into())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap().as_socket().unwrap()
    }
}
