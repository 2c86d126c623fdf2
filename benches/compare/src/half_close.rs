//! Whether a client that has sent its end still gets its answer.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::Target;
use crate::client::{ANSWER, Dialer};
use crate::meter::Figures;

const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) async fn run(target: &Target) -> anyhow::Result<Figures> {
    let mut client = Dialer::new(target)?.connect().await?;
    // The server answers what is less than a request when it sees the client's end.
    client.stream.write_all(&[3]).await?;
    client.stream.shutdown().await?;
    let mut answer = Vec::new();
    let read: io::Result<usize> =
        timeout(PATIENCE, client.stream.read_to_end(&mut answer)).await.unwrap_or(Ok(0));
    let whole = read.is_ok() && answer.len() == ANSWER;
    Ok(Figures::default().with("half_close", f64::from(u8::from(whole))))
}
