//! Streams in one direction: how many bytes, and what they cost.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};

use crate::Target;
use crate::client::hello;
use crate::meter::{Figures, Tally, Window};

/// What a sender hands to the kernel at once.
pub(crate) const PIECE: usize = 256 * 1024;
/// How long streams run before they are measured.
pub(crate) const WARM_UP: Duration = Duration::from_millis(500);

pub(crate) async fn run(target: &Target, streams: usize, up: bool) -> anyhow::Result<Figures> {
    let streams = Streams::open(target.to, &target.server, streams, up, None)?;
    let window = Window::of(target, WARM_UP, &streams.bytes).await?;
    Ok(Figures::default()
        .with("gbit_s", window.rate() * 8e-9)
        .with_some("cpu_s_per_gb", window.cpu_each().map(|cpu| cpu * 1e9))
        .with_some("core_s_per_gb", window.core_each().map(|core| core * 1e9)))
}

/// Streams that go on until this is dropped. Each has a thread.
pub(crate) struct Streams {
    /// What has come through.
    pub(crate) bytes: Arc<Tally>,
    stop: Arc<AtomicBool>,
    open: Vec<TcpStream>,
}

impl Streams {
    /// Those that come down are taken in no faster than `limit`, in bytes a second for all of them.
    pub(crate) fn open(
        to: SocketAddr,
        server: &str,
        count: usize,
        up: bool,
        limit: Option<f64>,
    ) -> io::Result<Self> {
        let (bytes, stop) = Default::default();
        let mut streams = Streams { bytes, stop, open: Vec::new() };
        for _ in 0..count {
            let mut stream = TcpStream::connect(to)?;
            stream.write_all(&hello(server))?;
            streams.open.push(stream.try_clone()?);
            let (bytes, stop) = (Arc::clone(&streams.bytes), Arc::clone(&streams.stop));
            thread::spawn(move || match up {
                true => fill(stream, &bytes, &stop),
                false => drain(&stream, &bytes, &stop, limit),
            });
        }
        Ok(streams)
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for stream in &self.open {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Receives, and has the kernel drop the bytes: the receiver copies nothing. What is counted does
/// not grow faster than `limit`, in bytes a second.
pub(crate) fn drain(stream: &TcpStream, count: &Tally, stop: &AtomicBool, limit: Option<f64>) {
    let begun = Instant::now();
    let mut buffer = vec![0; 1 << 20];
    while !stop.load(Ordering::Relaxed) {
        match recv(stream, &mut buffer[..], RecvFlags::TRUNC) {
            Ok((_, received)) if received > 0 => {
                let before = count.add(received as u64);
                if let Some(limit) = limit {
                    let due = Duration::from_secs_f64((before + received as u64) as f64 / limit);
                    thread::sleep(due.saturating_sub(begun.elapsed()));
                }
            }
            _ => return,
        }
    }
}

fn fill(mut stream: TcpStream, count: &Tally, stop: &AtomicBool) {
    let piece = vec![6; PIECE];
    while !stop.load(Ordering::Relaxed) {
        match stream.write(&piece) {
            Ok(sent) if sent > 0 => count.add(sent as u64),
            _ => return,
        };
    }
}
