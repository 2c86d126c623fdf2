//! The load of the comparison, and the servers behind the proxies.
//!
//! For a proxy that passes TLS through, nothing is encrypted: the ClientHello is a real one and the
//! rest are opaque bytes, so what is measured is the proxy and not TLS. With `--tls` the proxy serves
//! TLS, and the servers behind it have what is within in the clear. `compare.py` runs this and says
//! what the figures mean.

mod backends;
mod bulk;
mod certificate;
mod client;
mod connections;
mod half_close;
mod idle;
mod meter;
mod pings;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::certificate::KeyKind;
use crate::meter::Figures;
use crate::tls::KeyExchange;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Serve until killed; prints the addresses of the servers `ask`, `get` and `put`
    Backends,
    /// Write a certificate for these servers, and its key
    Certificate {
        #[arg(long)]
        key: KeyKind,
        #[arg(long)]
        folder: PathBuf,
    },
    /// Streams in one direction
    Bulk {
        #[command(flatten)]
        target: Target,
        #[arg(long)]
        streams: usize,
        /// From the client to the server
        #[arg(long)]
        up: bool,
    },
    /// Connections one after another: hello, request, answer, and the end from both sides; with
    /// --tls, without the request
    Conn {
        #[command(flatten)]
        target: Target,
        #[arg(long)]
        at_once: usize,
        /// Each continues the TLS session of the client's connection before
        #[arg(long, requires = "tls")]
        resumes: bool,
    },
    /// Requests and answers on connections that stay open
    Ping {
        #[command(flatten)]
        target: Target,
        #[arg(long)]
        at_once: usize,
        /// Beside them, a stream from the server `get`, which is behind this
        #[arg(long)]
        stream_from: Option<SocketAddr>,
        /// How much of that stream is taken in, at most
        #[arg(long, requires = "stream_from")]
        stream_gbit_s: Option<f64>,
    },
    /// Connections that have been used once and stay open
    Idle {
        #[command(flatten)]
        target: Target,
        #[arg(long)]
        connections: usize,
    },
    /// Whether a client that has sent its end still gets its answer
    HalfClose {
        #[command(flatten)]
        target: Target,
    },
}

/// What is measured, and for how long.
#[derive(Args, Clone)]
struct Target {
    /// The proxy, or a server without one
    #[arg(long)]
    to: SocketAddr,
    /// The server that the hello names: ask, get or put
    #[arg(long)]
    server: String,
    /// The proxy serves TLS, with this key exchange
    #[arg(long)]
    tls: Option<KeyExchange>,
    /// How long to measure
    #[arg(long)]
    seconds: f64,
    /// The processes of the proxy, separated by commas
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// The core that the proxy has for itself
    #[arg(long)]
    core: Option<usize>,
}

fn main() -> anyhow::Result<()> {
    let task = Arguments::parse().task;
    raise_descriptors()?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build()?;
    let figures = runtime.block_on(run(task))?;
    println!("{figures}");
    // Tasks that still wait for a proxy are of no interest.
    runtime.shutdown_background();
    Ok(())
}

async fn run(task: Task) -> anyhow::Result<Figures> {
    match task {
        Task::Backends => backends::serve().await,
        Task::Certificate { key, folder } => {
            certificate::write(key, &folder).map(|()| Figures::default())
        }
        Task::Bulk { target, streams, up } => bulk::run(&target, streams, up).await,
        Task::Conn { target, at_once, resumes } => {
            connections::run(&target, at_once, resumes).await
        }
        Task::Ping { target, at_once, stream_from, stream_gbit_s } => {
            pings::run(&target, at_once, stream_from, stream_gbit_s).await
        }
        Task::Idle { target, connections } => idle::run(&target, connections).await,
        Task::HalfClose { target } => half_close::run(&target).await,
    }
}

fn raise_descriptors() -> anyhow::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
