//! Connections one after another: how many, and what each costs.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::Target;
use crate::client::Dialer;
use crate::meter::{Figures, Latencies, Tally, WARM_UP, Window};

const PATIENCE: Duration = Duration::from_secs(5);

/// `resumes`: a client continues the TLS session of its connection before.
pub(crate) async fn run(target: &Target, at_once: usize, resumes: bool) -> anyhow::Result<Figures> {
    if let Some(handshake) = Dialer::new(target)?.connect().await?.handshake
        && !handshake.as_wanted
    {
        // Its figures would be those of other work.
        return Ok(Figures::default().with("other_key_exchange", 1.0));
    }
    let shared = Arc::new(Shared {
        resumes,
        tally: Tally::default(),
        failed: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    });
    let mut clients = Vec::new();
    for number in 0..at_once {
        let dialer = Dialer::of_sessions(target, resumes)?;
        clients.push(tokio::spawn(come_and_go(Arc::clone(&shared), dialer, number)));
    }
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
    resumes: bool,
    tally: Tally,
    failed: AtomicU64,
    stop: AtomicBool,
}

/// One connection after the other, from addresses that take turns.
async fn come_and_go(shared: Arc<Shared>, dialer: Dialer, number: usize) -> Latencies {
    let mut latencies = Latencies::default();
    if shared.resumes {
        // The one that begins the session. If it fails, so do those after it, which are counted.
        let _ = timeout(PATIENCE, dialer.connect()).await;
    }
    let host = (number % 200 + 1) as u8;
    for net in (2..6).cycle() {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        let begun = Instant::now();
        let visit = visit(&shared, &dialer, Ipv4Addr::new(127, 0, net, host));
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

async fn visit(shared: &Shared, dialer: &Dialer, source: Ipv4Addr) -> io::Result<()> {
    let mut client = dialer.connect_from(source).await?;
    match client.handshake {
        None => client.ask().await?,
        // The handshake is what is measured, and so nothing comes after it but the server's answer.
        Some(handshake) if handshake.resumed == shared.resumes => {}
        Some(_) => return Err(io::Error::other("resumed, or not, unlike what was wanted")),
    }
    client.end().await
}
