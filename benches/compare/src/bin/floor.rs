//! `floor`: a bare event loop, which no proxy can be far below in what a connection or a message
//! costs.
//!
//! It accepts, reads once, connects, and from then on receives and sends. It knows no names, limits
//! or timeouts, and holds nothing back beyond spinning: a yardstick, not a proxy.
//!
//!     floor LISTEN BACKEND WORKERS

use std::net::SocketAddr;
use std::{env, thread};

use anyhow::{Context, bail};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, accept_with, bind,
    connect, listen, recv, send, shutdown, socket_with, sockopt,
};
use slab::Slab;

const BACKLOG: i32 = 16384;
const EVENTS: usize = 512;
const BUFFER: usize = 64 * 1024;
const HELLO: usize = 16 * 1024;
const READS: EventFlags = EventFlags::IN.union(EventFlags::RDHUP);
/// The token of the listener; the others are those of the slab.
const LISTENER: u64 = u64::MAX;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [listen, backend, workers] = arguments.as_slice() else {
        bail!("usage: floor LISTEN BACKEND WORKERS");
    };
    let (listen, backend): (SocketAddr, SocketAddr) = (listen.parse()?, backend.parse()?);
    let workers: Vec<_> = (0..workers.parse()?)
        .map(|_| thread::spawn(move || Worker::new(listen, backend)?.run()))
        .collect();
    for worker in workers {
        worker.join().ok().context("a worker panicked")??;
    }
    Ok(())
}

struct Worker {
    epoll: OwnedFd,
    listener: OwnedFd,
    backend: SocketAddr,
    sides: Slab<Side>,
    buffer: Vec<u8>,
    /// Sides that are over. They are forgotten after the events that may still name them.
    over: Vec<usize>,
}

/// One of a connection's two sockets.
struct Side {
    /// `None` once it is closed.
    fd: Option<OwnedFd>,
    peer: Option<usize>,
    /// Whether more can come from it.
    open: bool,
    /// The hello, until the backend is connected.
    held: Vec<u8>,
}

impl Worker {
    fn new(address: SocketAddr, backend: SocketAddr) -> anyhow::Result<Worker> {
        let listener = socket()?;
        sockopt::set_socket_reuseport(&listener, true)?;
        sockopt::set_socket_reuseaddr(&listener, true)?;
        // Inherited by what it accepts.
        sockopt::set_tcp_nodelay(&listener, true)?;
        bind(&listener, &address)?;
        listen(&listener, BACKLOG)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let (sides, buffer) = (Slab::new(), vec![0; BUFFER]);
        Ok(Worker { epoll, listener, backend, sides, buffer, over: Vec::new() })
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    token => {
                        let id = token as usize;
                        if self.serve(id, event.flags).is_err() {
                            self.end(id);
                        }
                    }
                }
            }
            for id in std::mem::take(&mut self.over) {
                self.sides.try_remove(id);
            }
        }
    }

    fn accept(&mut self) {
        while let Ok(fd) = accept_with(&self.listener, SocketFlags::NONBLOCK) {
            let side = Side { fd: Some(fd), peer: None, open: true, held: Vec::new() };
            self.watch(side, READS);
        }
    }

    fn watch(&mut self, side: Side, interest: EventFlags) -> usize {
        let id = self.sides.insert(side);
        let token = EventData::new_u64(id as u64);
        if let Some(fd) = &self.sides[id].fd {
            let _ = epoll::add(&self.epoll, fd, token, interest | EventFlags::ET);
        }
        id
    }

    fn serve(&mut self, id: usize, flags: EventFlags) -> rustix::io::Result<()> {
        let Some(Side { fd: Some(fd), peer, held, .. }) = self.sides.get_mut(id) else {
            return Ok(());
        };
        let Some(peer) = *peer else { return self.begin(id) };
        if flags.contains(EventFlags::OUT) && !held.is_empty() {
            send_all(fd, &std::mem::take(held))?;
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return self.pass_on(id, peer, flags.contains(EventFlags::RDHUP));
        }
        Ok(())
    }

    /// The first bytes of a client.
    fn begin(&mut self, id: usize) -> rustix::io::Result<()> {
        let Some(Side { fd: Some(fd), .. }) = self.sides.get(id) else { return Ok(()) };
        let read = match recv(fd, &mut self.buffer[..HELLO], RecvFlags::empty()) {
            Ok((_, 0)) => return Err(Errno::CONNRESET),
            Ok((_, read)) => read,
            Err(Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(error),
        };
        let upstream = socket()?;
        sockopt::set_tcp_nodelay(&upstream, true)?;
        match connect(&upstream, &self.backend) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let held = self.buffer[..read].to_vec();
        let side = Side { fd: Some(upstream), peer: Some(id), open: true, held };
        self.sides[id].peer = Some(self.watch(side, READS | EventFlags::OUT));
        Ok(())
    }

    /// `ends`: the sender's last byte has come.
    fn pass_on(&mut self, id: usize, peer: usize, ends: bool) -> rustix::io::Result<()> {
        let (Some(from), Some(to)) = (&self.sides[id].fd, &self.sides[peer].fd) else {
            return Ok(());
        };
        loop {
            match recv(from, &mut self.buffer[..], RecvFlags::empty()) {
                Ok((_, 0)) => break,
                Ok((_, read)) => {
                    send_all(to, &self.buffer[..read])?;
                    // A short read has emptied the socket: no second one to be told so.
                    if read < BUFFER && !ends {
                        return Ok(());
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if self.sides[peer].open {
            shutdown(to, Shutdown::Write)?;
            self.sides[id].open = false;
        } else {
            self.end(id);
        }
        Ok(())
    }

    fn end(&mut self, id: usize) {
        let Some(side) = self.sides.get_mut(id) else { return };
        side.fd = None;
        self.over.push(id);
        if let Some(peer) = side.peer {
            self.sides[peer].fd = None;
            self.over.push(peer);
        }
    }
}

fn socket() -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None)
}

fn send_all(to: impl AsFd, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match send(&to, bytes, SendFlags::NOSIGNAL) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno::AGAIN) => thread::yield_now(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
