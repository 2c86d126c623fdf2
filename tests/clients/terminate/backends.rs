//! Servers that get what sluice has decrypted.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;

use aws_lc_rs::digest::{Context, SHA256};
use testkit::{PATIENCE, Random};

use crate::server::reversed;

/// Serves each connection on a thread of its own, for as long as the process runs.
pub(super) fn serve(
    serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, serve) = (client.unwrap(), Arc::clone(&serve));
            client.set_nodelay(true).unwrap();
            client.set_read_timeout(Some(10 * PATIENCE)).unwrap();
            // How a client ends is its own affair.
            thread::spawn(move || serve(client));
        }
    });
    address
}

/// Answers a line with the same line backwards, and an HTTP request with its path backwards.
pub(super) fn lines() -> SocketAddr {
    serve(|client| {
        let mut reader = BufReader::new(client);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 0 {
            let answer = match line.strip_prefix("GET /") {
                Some(request) => {
                    let body = reversed(request.split(' ').next().unwrap_or_default());
                    skip_header(&mut reader)?;
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                }
                None => reversed(line.trim_end()) + "\n",
            };
            reader.get_mut().write_all(answer.as_bytes())?;
            line.clear();
        }
        reader.get_ref().shutdown(Shutdown::Write)
    })
}

fn skip_header(reader: &mut impl BufRead) -> io::Result<()> {
    let mut line = String::new();
    while reader.by_ref().take(16 * 1024).read_line(&mut line)? > 0 && !line.trim_end().is_empty() {
        line.clear();
    }
    Ok(())
}

/// What a server has received, and how that ended.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Vec<u8>,
    pub(super) end: Result<(), ErrorKind>,
}

/// A server that says nothing but `greeting`, and reports of each connection how it ended.
pub(super) fn recorder(greeting: &'static str) -> (SocketAddr, Receiver<Received>) {
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    let address = serve(move |mut client| {
        let sender: Sender<Received> = sender.lock().unwrap().clone();
        client.write_all(greeting.as_bytes())?;
        let mut bytes = Vec::new();
        let end = client.read_to_end(&mut bytes).map(drop).map_err(|error| error.kind());
        let _ = sender.send(Received { bytes, end });
        Ok(())
    });
    (address, receiver)
}

/// The digests of what went each way, as hexadecimal digits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exchanged {
    pub(super) sent: String,
    pub(super) received: String,
}

/// A server that sends so many bytes while it receives as many, and then ends its direction: OpenSSL's client sends no
/// more after that end.
pub(super) fn exchange(length: usize) -> (SocketAddr, Receiver<io::Result<Exchanged>>) {
    let (sender, receiver) = mpsc::channel();
    let sender = Mutex::new(sender);
    let address = serve(move |mut client| {
        let sender: Sender<io::Result<Exchanged>> = sender.lock().unwrap().clone();
        let _ = sender.send(exchanged(&client, length));
        client.shutdown(Shutdown::Write)?;
        io::copy(&mut client, &mut io::sink()).map(drop)
    });
    (address, receiver)
}

fn exchanged(client: &TcpStream, length: usize) -> io::Result<Exchanged> {
    let (mut from, mut to) = (client.try_clone()?, client.try_clone()?);
    let sending = thread::spawn(move || send(&mut to, length));
    let received = receive(&mut from, length)?;
    let sent = sending.join().expect("it does not panic")?;
    Ok(Exchanged { sent, received })
}

fn send(to: &mut TcpStream, length: usize) -> io::Result<String> {
    let mut digest = Context::new(&SHA256);
    let mut left = length;
    let mut random = Random(7);
    let mut chunk: Vec<u8> = (0..64 * 1024).map(|_| random.below(256) as u8).collect();
    while left > 0 {
        let part = &chunk[..left.min(chunk.len())];
        digest.update(part);
        to.write_all(part)?;
        left -= part.len();
        // No part is like another.
        let last = chunk.len() - 1;
        chunk.rotate_left(random.below(last));
    }
    Ok(hex(digest.finish().as_ref()))
}

/// The digest of exactly so many bytes.
fn receive(from: &mut TcpStream, length: usize) -> io::Result<String> {
    let mut digest = Context::new(&SHA256);
    let mut chunk = vec![0; 64 * 1024];
    let mut left = length;
    while left > 0 {
        let most = left.min(chunk.len());
        match from.read(&mut chunk[..most])? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => {
                digest.update(&chunk[..read]);
                left -= read;
            }
        }
    }
    Ok(hex(digest.finish().as_ref()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
