//! Connections that have been used and stay open: what each keeps.

use std::time::Duration;

use anyhow::ensure;
use tokio::time::{sleep, timeout};

use crate::Target;
use crate::client::Dialer;
use crate::meter::{Figures, descriptors, memory};

const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) async fn run(target: &Target, connections: usize) -> anyhow::Result<Figures> {
    let dialer = Dialer::new(target)?;
    let before = (memory(&target.pids)?, descriptors(&target.pids)?);
    let mut open = Vec::new();
    for _ in 0..connections {
        // One request, so that every buffer that a proxy keeps has been used.
        let used = async {
            let mut client = dialer.connect().await?;
            client.ask().await.map(|()| client)
        };
        match timeout(PATIENCE, used).await {
            Ok(Ok(client)) => open.push(client),
            // It has no descriptors left, and those that are open tell enough.
            _ => break,
        }
    }
    ensure!(!open.is_empty(), "no connection was served");
    // What is freed with a delay is.
    sleep(Duration::from_secs_f64(target.seconds)).await;
    let after = (memory(&target.pids)?, descriptors(&target.pids)?);
    let each = |before: u64, after: u64| (after as f64 - before as f64) / open.len() as f64;
    Ok(Figures::default()
        .with("kib_per_conn", each(before.0, after.0) / 1024.0)
        .with("descriptors_per_conn", each(before.1, after.1))
        .with("failed", (connections - open.len()) as f64))
}
