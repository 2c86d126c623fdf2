//! Streams in one direction: how many bytes, and what they cost.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::net::{RecvFlags, recv};

use crate::Target;
use crate::client::hello;
use crate::meter::{Figures, Window};

/// What a sender hands to the kernel at once.
pub(crate) const PIECE: usize = 256 * 1024;
const WARM_UP: Duration = Duration::from_millis(500);

pub(crate) async fn run(target: &Target, streams: usize, up: bool) -> anyhow::Result<Figures> {
    let bytes = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut open = Vec::new();
    for _ in 0..streams {
        let mut stream = TcpStream::connect(target.to)?;
        stream.write_all(&hello(&target.server))?;
        open.push(stream.try_clone()?);
        let (bytes, stop) = (Arc::clone(&bytes), Arc::clone(&stop));
        thread::spawn(move || match up {
            true => fill(stream, &bytes, &stop),
            false => drain(&stream, &bytes, &stop),
        });
    }
    let window = Window::of(target, WARM_UP, &bytes).await?;
    stop.store(true, Ordering::Relaxed);
    for stream in open {
        let _ = stream.shutdown(Shutdown::Both);
    }
    Ok(Figures::default()
        .with("gbit_s", window.rate() * 8e-9)
        .with_some("cpu_s_per_gb", window.cpu_each().map(|cpu| cpu * 1e9)))
}

/// Receives, and has the kernel drop the bytes: the receiver copies nothing.
pub(crate) fn drain(stream: &TcpStream, count: &AtomicU64, stop: &AtomicBool) {
    let mut buffer = vec![0; 1 << 20];
    while !stop.load(Ordering::Relaxed) {
        match recv(stream, &mut buffer[..], RecvFlags::TRUNC) {
            Ok((_, received)) if received > 0 => {
                count.fetch_add(received as u64, Ordering::Relaxed);
            }
            _ => return,
        }
    }
}

fn fill(mut stream: TcpStream, count: &AtomicU64, stop: &AtomicBool) {
    let piece = vec![6; PIECE];
    while !stop.load(Ordering::Relaxed) {
        match stream.write(&piece) {
            Ok(sent) if sent > 0 => count.fetch_add(sent as u64, Ordering::Relaxed),
            _ => return,
        };
    }
}
