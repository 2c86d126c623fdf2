//! Hellos written byte by byte, and servers for them that speak no TLS: for what real clients do
//! not send, and for many connections in a short time.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::PATIENCE;

/// A ClientHello of TLS 1.3 in one record, with a random value that no other has, and with any bytes
/// as its name and its protocols.
pub fn raw_hello(name: &[u8], alpn: &[&[u8]]) -> Vec<u8> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let random = [&NUMBER.fetch_add(1, Ordering::Relaxed).to_be_bytes()[..], &[7; 24]].concat();
    let protocols: Vec<u8> = alpn.iter().flat_map(|protocol| vector8(protocol)).collect();
    let mut extensions = [
        extension(0, &vector16(&[&[0], &vector16(name)[..]].concat())),
        extension(43, &vector8(&[3, 4])),
        extension(13, &vector16(&[4, 3])),
        extension(10, &vector16(&[0, 29])),
        extension(51, &vector16(&[&[0, 29], &vector16(&[9; 32])[..]].concat())),
    ]
    .concat();
    if !alpn.is_empty() {
        extensions.extend(extension(16, &vector16(&protocols)));
    }
    let body = [
        &[3, 3][..],
        &random,
        &vector8(&[8; 32]),
        &vector16(&[0x13, 1]),
        &vector8(&[0]),
        &vector16(&extensions),
    ]
    .concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    let message = [&[1], &length[1..], &body].concat();
    [&[22, 3, 1][..], &vector16(&message)].concat()
}

fn extension(kind: u16, body: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(body)].concat()
}

fn vector8(body: &[u8]) -> Vec<u8> {
    [&[u8::try_from(body.len()).unwrap()], body].concat()
}

fn vector16(body: &[u8]) -> Vec<u8> {
    [&u16::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

/// A server that reads a hello's record, says its own name in a line, and then echoes.
pub fn greeter(name: &'static str) -> SocketAddr {
    greeter_at("127.0.0.1:0", name)
}

/// A [`greeter`] at an address of its own.
pub fn greeter_at(address: impl ToSocketAddrs, name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            // How a client ends is its own affair.
            thread::spawn(move || greet(client.unwrap(), name));
        }
    });
    address
}

fn greet(mut client: TcpStream, name: &str) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut header = [0; 5];
    client.read_exact(&mut header)?;
    let mut body = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    client.read_exact(&mut body)?;
    writeln!(client, "{name}")?;
    std::io::copy(&mut client.try_clone()?, &mut client)?;
    client.shutdown(Shutdown::Write)
}

/// A server that sends back what it receives.
pub fn echo_at(address: impl ToSocketAddrs) -> SocketAddr {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            thread::spawn(move || std::io::copy(&mut &client, &mut &client));
        }
    });
    address
}

/// A connection to a [`greeter`].
pub struct Greeted {
    stream: BufReader<TcpStream>,
    /// The greeter's name.
    pub by: String,
}

impl Greeted {
    /// Asks for a server; fails if the connection ends without a greeting.
    pub fn ask(sluice: SocketAddr, name: &str) -> std::io::Result<Self> {
        Greeted::send(sluice, &raw_hello(name.as_bytes(), &[]))
    }

    /// Sends a hello; fails if the connection ends without a greeting.
    pub fn send(sluice: SocketAddr, hello: &[u8]) -> std::io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&sluice, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(hello)?;
        let mut greeted = Greeted { stream: BufReader::new(stream), by: String::new() };
        greeted.by = greeted.line()?;
        Ok(greeted)
    }

    /// Asks for a server, says something and ends it. Returns the greeter's name.
    pub fn visit(sluice: SocketAddr, name: &str) -> std::io::Result<String> {
        let mut greeted = Greeted::ask(sluice, name)?;
        greeted.echo("hello")?;
        let by = greeted.by.clone();
        greeted.close().map(|()| by)
    }

    /// Sends a line and checks that it comes back.
    pub fn echo(&mut self, line: &str) -> std::io::Result<()> {
        writeln!(self.stream.get_mut(), "{line}")?;
        match self.line()? {
            same if same == line => Ok(()),
            other => Err(std::io::Error::other(format!("{other:?} for {line:?}"))),
        }
    }

    /// Ends it from this side and waits for the other.
    pub fn close(mut self) -> std::io::Result<()> {
        self.stream.get_ref().shutdown(Shutdown::Write)?;
        match self.stream.read_to_end(&mut Vec::new())? {
            0 => Ok(()),
            more => Err(std::io::Error::other(format!("{more} bytes too many"))),
        }
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.pop() {
            Some('\n') => Ok(line),
            _ => Err(std::io::Error::other("closed")),
        }
    }
}
