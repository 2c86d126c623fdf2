//! The ends of the handshakes of checks. No check waits for them: its place among the running ones is free as soon as
//! the server has shown whether it serves.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

/// How long a server may take to close after the goodbye.
const PARTING: Duration = Duration::from_millis(500);
/// The most that is read meanwhile, more than greetings and session tickets have.
const MOST_PARTING: u64 = 65_536;

/// The goodbyes that servers have yet to answer.
#[derive(Debug)]
pub(super) struct Goodbyes {
    running: JoinSet<()>,
    most: usize,
}

impl Goodbyes {
    /// At most so many at a time.
    pub(super) fn new(most: usize) -> Self {
        Goodbyes { running: JoinSet::new(), most }
    }

    /// Ends a connection. If too many servers have not answered yet, it ends without a goodbye, which servers may log.
    pub(super) fn say(&mut self, stream: TlsStream<TcpStream>) {
        while self.running.try_join_next().is_some() {}
        if self.running.len() < self.most {
            self.running.spawn(async {
                // However it ends, it shows nothing more.
                let _ = timeout(PARTING, part(stream)).await;
            });
        }
    }
}

/// Says goodbye, and takes what the server still sends: a close with unread data, such as session tickets, would be a
/// reset, which servers log.
async fn part(mut stream: TlsStream<TcpStream>) -> io::Result<()> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(MOST_PARTING), &mut tokio::io::sink()).await?;
    Ok(())
}
