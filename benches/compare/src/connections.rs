//! Connections one after another: how many, and what each costs.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::Target;
use crate::client::{Client, hello};
use crate::meter::{Figures, Latencies, Tally, WARM_UP, Window};

const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) async fn run(target: &Target, at_once: usize) -> anyhow::Result<Figures> {
    let shared = Arc::new(Shared {
        target: target.clone(),
        hello: hello(&target.server),
        tally: Tally::default(),
        failed: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let clients: Vec<_> =
        (0..at_once).map(|number| tokio::spawn(come_and_go(Arc::clone(&shared), number))).collect();
    let window = Window::of(target, WARM_UP, &shared.tally).await?;
    shared.stop.store(true, Ordering::Relaxed);
    let mut latencies = Latencies::default();
    for client in clients {
        latencies.append(client.await?);
    }
    Ok(Figures::default()
        .with("done", shared.tally.done() as f64)
        .with("conn_s", window.rate())
        .with_some("cpu_us_per_conn", window.cpu_each().map(|cpu| cpu * 1e6))
        .with_some("core_us_per_conn", window.core_each().map(|core| core * 1e6))
        .with("p50_us", latencies.percentile(50.0))
        .with("p99_us", latencies.percentile(99.0))
        .with("failed", shared.failed.load(Ordering::Relaxed) as f64))
}

struct Shared {
    target: Target,
    hello: Vec<u8>,
    tally: Tally,
    failed: AtomicU64,
    stop: AtomicBool,
}

/// One connection after the other, from addresses that take turns.
async fn come_and_go(shared: Arc<Shared>, number: usize) -> Latencies {
    let mut latencies = Latencies::default();
    let host = (number % 200 + 1) as u8;
    for net in (2..6).cycle() {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        let visit = visit(&shared, Ipv4Addr::new(127, 0, net, host));
        if let Ok(Ok(())) = timeout(PATIENCE, visit).await {
            shared.tally.add(1);
            if shared.tally.is_measured() {
                latencies.push(begun.elapsed());
            }
        } else {
            shared.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
    latencies
}

async fn visit(shared: &Shared, source: Ipv4Addr) -> std::io::Result<()> {
    let mut client = Client::connect_from(source, &shared.target, &shared.hello).await?;
    client.ask().await?;
    client.end().await
}
