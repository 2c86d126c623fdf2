//! Requests and answers on connections that stay open: how many, how soon, and what each costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crate::Target;
use crate::client::{Client, hello};
use crate::meter::{Figures, Latencies, WARM_UP, Window};

pub(crate) async fn run(target: &Target, at_once: usize) -> anyhow::Result<Figures> {
    let hello = hello(&target.server);
    let done = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for _ in 0..at_once {
        let mut client = Client::connect(target, &hello).await?;
        let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
        tasks.push(tokio::spawn(async move {
            let mut latencies = Latencies::default();
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                client.ask().await?;
                latencies.push(begun.elapsed());
                done.fetch_add(1, Ordering::Relaxed);
            }
            std::io::Result::Ok(latencies)
        }));
    }
    let window = Window::of(target, WARM_UP, &done).await?;
    stop.store(true, Ordering::Relaxed);
    let mut latencies = Latencies::default();
    for task in tasks {
        latencies.append(task.await??);
    }
    Ok(Figures::default()
        .with("done", done.load(Ordering::Relaxed) as f64)
        .with("rt_s", window.rate())
        .with_some("cpu_us_per_rt", window.cpu_each().map(|cpu| cpu * 1e6))
        .with("p50_us", latencies.percentile(50.0))
        .with("p99_us", latencies.percentile(99.0)))
}
