//! `limit`: a bare splice relay, which no proxy can be far below in what bulk costs.
//!
//! Each connection has two blocking threads, which move bytes from socket to pipe to socket. It
//! knows no names, limits or timeouts.
//!
//!     limit LISTEN BACKEND

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::{env, io, thread};

use anyhow::bail;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

const PIPE: usize = 1 << 20;
const STACK: usize = 64 * 1024;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [listen, backend] = arguments.as_slice() else { bail!("usage: limit LISTEN BACKEND") };
    let backend: SocketAddr = backend.parse()?;
    for client in TcpListener::bind(listen.as_str())?.incoming().flatten() {
        spawn(move || serve(&client, backend))?;
    }
    Ok(())
}

fn spawn(
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<thread::JoinHandle<io::Result<()>>> {
    thread::Builder::new().stack_size(STACK).spawn(work)
}

fn serve(client: &TcpStream, backend: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(backend)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    let up = spawn(move || pump(&from, &to))?;
    let down = pump(&server, client);
    let _ = up.join();
    down
}

/// Moves all that comes, and then the end.
fn pump(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // A user who is over the quota has smaller pipes.
    let _ = fcntl_setpipe_size(&write, PIPE);
    let mut moved = splice(from, None, &write, None, PIPE, SpliceFlags::MOVE);
    while let Ok(mut left @ 1..) = moved {
        while left > 0 {
            left -= splice(&read, None, to, None, left, SpliceFlags::MOVE)?;
        }
        moved = splice(from, None, &write, None, PIPE, SpliceFlags::MOVE);
    }
    to.shutdown(Shutdown::Write)
}
