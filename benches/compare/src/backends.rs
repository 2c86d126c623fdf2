//! The servers: `ask` answers requests, `get` sends without end, `put` takes whatever comes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::{io, thread};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::bulk::{PIECE, discard, drain};
use crate::client::{ANSWER, FLIGHT, REQUEST};
use crate::meter::{Figures, Tally};

/// The names of the servers.
pub(crate) const SERVERS: [&str; 3] = ["ask", "get", "put"];
const BACKLOG: u32 = 16384;

pub(crate) async fn serve() -> anyhow::Result<Figures> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let ask = socket.listen(BACKLOG)?;
    println!("ask {}", ask.local_addr()?);
    serve_bulk("get", send_without_end)?;
    serve_bulk("put", |mut stream| {
        let receive = |buffer: &mut [u8]| discard(&mut stream, buffer);
        drain(receive, &Tally::default(), &AtomicBool::new(false), None);
    })?;
    loop {
        let Ok((stream, _)) = ask.accept().await else { continue };
        // It ends when its client does, or breaks off with it.
        tokio::spawn(answer(stream));
    }
}

/// Answers the hello, then each request. What is begun when the client's end comes is answered too.
async fn answer(mut stream: tokio::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut header = [0; 5];
    stream.read_exact(&mut header).await?;
    let mut record = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    stream.read_exact(&mut record).await?;
    drop(record);
    stream.write_all(&vec![1; FLIGHT]).await?;
    let mut request = [0; REQUEST];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut request[filled..]).await?;
        filled += read;
        if filled == REQUEST || read == 0 && filled > 0 {
            stream.write_all(&[2; ANSWER]).await?;
            filled = 0;
        }
        if read == 0 {
            return Ok(());
        }
    }
}

/// Each connection has a thread: there are few.
fn serve_bulk(name: &str, serve: fn(TcpStream)) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{name} {}", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve(stream));
        }
    });
    Ok(())
}

fn send_without_end(mut stream: TcpStream) {
    if stream.read(&mut [0; 8192]).is_ok() {
        let piece = vec![5; PIECE];
        while stream.write_all(&piece).is_ok() {}
    }
}
