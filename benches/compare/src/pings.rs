//! Requests and answers on connections that stay open: how many, how soon, and what each costs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio::time::sleep;

use crate::Target;
use crate::bulk::{self, Streams};
use crate::client::Dialer;
use crate::meter::{Figures, Latencies, Tally, WARM_UP, Window};

/// `stream_from`: the way to the server `get`, where a stream is to run beside the pings; of at most
/// `gbit_s`.
pub(crate) async fn run(
    target: &Target,
    at_once: usize,
    stream_from: Option<SocketAddr>,
    gbit_s: Option<f64>,
) -> anyhow::Result<Figures> {
    let limit = gbit_s.map(|gbit_s| gbit_s / 8e-9);
    let stream = stream_from
        .map(|to| Target { to, server: "get".to_owned(), ..target.clone() })
        .map(|target| Streams::open(&target, 1, false, limit))
        .transpose()?;
    if stream.is_some() {
        sleep(bulk::WARM_UP).await;
    }
    let dialer = Dialer::new(target)?;
    let tally = Arc::new(Tally::default());
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for _ in 0..at_once {
        let mut client = dialer.connect().await?;
        let (tally, stop) = (Arc::clone(&tally), Arc::clone(&stop));
        tasks.push(tokio::spawn(async move {
            let mut latencies = Latencies::default();
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                client.ask().await?;
                if tally.is_measured() {
                    latencies.push(begun.elapsed());
                }
                tally.add(1);
            }
            std::io::Result::Ok(latencies)
        }));
    }
    let beside = stream.as_ref().map(|stream| {
        let (target, bytes) = (target.clone(), Arc::clone(&stream.bytes));
        tokio::spawn(async move { Window::of(&target, WARM_UP, &bytes).await })
    });
    let window = Window::of(target, WARM_UP, &tally).await?;
    stop.store(true, Ordering::Relaxed);
    let beside = match beside {
        Some(window) => Some(window.await??),
        None => None,
    };
    let mut latencies = Latencies::default();
    for task in tasks {
        latencies.append(task.await??);
    }
    Ok(Figures::default()
        .with("done", tally.done() as f64)
        .with("rt_s", window.rate())
        .with_some("cpu_us_per_rt", window.cpu_each().map(|cpu| cpu * 1e6))
        .with_some("core_us_per_rt", window.core_each().map(|core| core * 1e6))
        .with("p50_us", latencies.percentile(50.0))
        .with("p99_us", latencies.percentile(99.0))
        .with_some("stream_gbit_s", beside.map(|window| window.rate() * 8e-9)))
}
