//! Streams in one direction: how many bytes, and what they cost.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};

use crate::Target;
use crate::client::{EMPTY_RECORD, hello};
use crate::meter::{Figures, Tally, Window};
use crate::tls::Tls;

/// What a sender hands to the kernel at once.
pub(crate) const PIECE: usize = 256 * 1024;
/// What a receiver takes out of TLS at once: more than a record has.
const TLS_PIECE: usize = 64 * 1024;
/// How long streams run before they are measured.
pub(crate) const WARM_UP: Duration = Duration::from_millis(500);

pub(crate) async fn run(target: &Target, streams: usize, up: bool) -> anyhow::Result<Figures> {
    let streams = Streams::open(target, streams, up, None)?;
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
        target: &Target,
        count: usize,
        up: bool,
        limit: Option<f64>,
    ) -> anyhow::Result<Self> {
        let (bytes, stop) = Default::default();
        let mut streams = Streams { bytes, stop, open: Vec::new() };
        let tls = target.tls.map(|wanted| Tls::new(target, wanted, false)).transpose()?;
        for _ in 0..count {
            let mut stream = TcpStream::connect(target.to)?;
            streams.open.push(stream.try_clone()?);
            let Some(tls) = &tls else {
                stream.write_all(&hello(&target.server))?;
                streams.run(stream, up, limit, discard);
                continue;
            };
            let mut stream = tls.blocking(stream)?;
            stream.write_all(&EMPTY_RECORD)?;
            streams.run(stream, up, limit, |stream, buffer| stream.read(&mut buffer[..TLS_PIECE]));
        }
        Ok(streams)
    }

    /// Has a thread send on `stream`, or `receive` from it.
    fn run<S: Write + Send + 'static>(
        &self,
        mut stream: S,
        up: bool,
        limit: Option<f64>,
        receive: fn(&mut S, &mut [u8]) -> io::Result<usize>,
    ) {
        let (bytes, stop) = (Arc::clone(&self.bytes), Arc::clone(&self.stop));
        thread::spawn(move || match up {
            true => fill(stream, &bytes, &stop),
            false => drain(|buffer| receive(&mut stream, buffer), &bytes, &stop, limit),
        });
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

/// Has the kernel drop the bytes that have come: the receiver copies nothing.
pub(crate) fn discard(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(recv(stream, buffer, RecvFlags::TRUNC)?.1)
}

/// Receives, no faster than `limit`, in bytes a second.
pub(crate) fn drain(
    mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
    count: &Tally,
    stop: &AtomicBool,
    limit: Option<f64>,
) {
    let begun = Instant::now();
    let mut buffer = vec![0; 1 << 20];
    while !stop.load(Ordering::Relaxed) {
        match receive(&mut buffer) {
            Ok(received) if received > 0 => {
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

fn fill(mut stream: impl Write, count: &Tally, stop: &AtomicBool) {
    let piece = vec![6; PIECE];
    while !stop.load(Ordering::Relaxed) {
        match stream.write(&piece) {
            Ok(sent) if sent > 0 => count.add(sent as u64),
            _ => return,
        };
    }
}
