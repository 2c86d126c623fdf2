//! The control plane's thread: source, builder, publisher and saver.
//!
//! It has its own runtime, so that it never delays the thread that answers probes, receives signals and
//! keeps the Lease. After a panic, the source is restarted; if the runtime itself has failed, on a new
//! runtime.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::part_thread::PartThread;
use super::publish::Publisher;
use super::{SharedParts, installation, kubernetes};
use crate::config::{Config, RouteSource};
use crate::control::dns::DnsFollower;
use crate::control::files::{self, FilesUpdate};
use crate::control::supervise::supervise;
use crate::heartbeat::{Duty, Pulse};
use crate::routing::TableWriter;

const NAME: &str = "control";
/// The stack size of a main thread, because manifests may be deeply nested.
const STACK: usize = 8 << 20;

/// The handle of the thread. The thread ends soon after this is dropped; nobody waits for it.
pub(super) struct ControlThread {
    thread: PartThread,
    failed: oneshot::Receiver<anyhow::Error>,
}

impl ControlThread {
    /// Starts the thread. `first` is notified of the first table.
    ///
    /// # Errors
    /// When the system has no thread or descriptors left.
    pub(super) fn start(
        config: Config,
        writer: TableWriter,
        parts: SharedParts,
        first: oneshot::Sender<()>,
    ) -> io::Result<Self> {
        let (failed, failure) = oneshot::channel();
        let thread = PartThread::start(NAME, STACK, move |part| {
            let source = SourceState::new(&config, writer, &parts, first, failed);
            part.run(&parts, || follow(&config, &parts, &source));
        })?;
        Ok(ControlThread { thread, failed: failure })
    }

    /// The pulse by which the watchdog checks the thread.
    pub(super) fn pulse(&self) -> Box<dyn Pulse> {
        self.thread.pulse(Duty::Changes)
    }

    /// The error that keeps the process from ever serving. Never returns if the process can serve, now or
    /// later.
    pub(super) async fn failure(&mut self) -> anyhow::Error {
        match (&mut self.failed).await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }
}

/// The state that is kept across restarts of the source.
enum SourceState {
    Files(Box<RefCell<FilesState>>),
    Kubernetes {
        output: Box<RefCell<kubernetes::SourceOutput>>,
        /// Receives, at most once, the error that keeps the process from ever serving.
        failed: Cell<Option<oneshot::Sender<anyhow::Error>>>,
    },
}

struct FilesState {
    publisher: Publisher,
    first: Option<oneshot::Sender<()>>,
}

impl SourceState {
    fn new(
        config: &Config,
        writer: TableWriter,
        parts: &SharedParts,
        first: oneshot::Sender<()>,
        failed: oneshot::Sender<anyhow::Error>,
    ) -> Self {
        let (statuses, own) = (parts.statuses.clone(), parts.own_endpoints.clone());
        let publisher = Publisher::new(writer, statuses, own, &parts.metrics);
        match config.source {
            RouteSource::Kubernetes => SourceState::Kubernetes {
                output: Box::new(RefCell::new(kubernetes::SourceOutput::new(
                    publisher, parts, first,
                ))),
                failed: Cell::new(Some(failed)),
            },
            RouteSource::Auto | RouteSource::Files => {
                let state = FilesState { publisher, first: Some(first) };
                SourceState::Files(Box::new(RefCell::new(state)))
            }
        }
    }
}

/// Follows the configured source, and publishes its changes.
async fn follow(config: &Config, parts: &SharedParts, source: &SourceState) -> Infallible {
    match source {
        SourceState::Files(state) => follow_files(config, parts, state).await,
        SourceState::Kubernetes { output, failed } => {
            kubernetes::follow(config, parts, output, failed).await
        }
    }
}

/// Follows the manifests in files, and publishes their changes.
async fn follow_files(
    config: &Config,
    parts: &SharedParts,
    state: &RefCell<FilesState>,
) -> Infallible {
    let publish = |update: FilesUpdate| {
        let FilesState { publisher, first } = &mut *state.borrow_mut();
        let FilesUpdate { delta, authorities, complete, faults, noticed } = update;
        authorities.into_iter().for_each(|known| parts.authorities.set(known));
        let applied = publisher.publish(delta, noticed);
        for (kind, faults) in &faults {
            parts.metrics.set_manifest_faults(kind, *faults);
        }
        parts.metrics.source.up.set(i64::from(complete));
        if complete {
            parts.readiness.set_table_complete();
        }
        if let Some(first) = first.take() {
            // Fails only while sluice is ending.
            let _ = first.send(());
        }
        // Logged after the probes already report it.
        tracing::info!(
            routes = parts.table.table().len(),
            faults = faults.iter().map(|(_, faults)| faults).sum::<usize>(),
            new_table = applied.table,
            changed_backends = applied.backends,
            "routes are live"
        );
    };
    let errors = &parts.metrics.source.errors;
    supervise("files", parts.supervised(), || async {
        state.borrow_mut().publisher.begin();
        let names = DnsFollower::new(&config.dns_servers);
        let (paths, installation) = (config.routes.clone(), installation(config, parts));
        let reread = Arc::clone(&parts.reread);
        files::watch(paths, installation, names, reread, &publish, || errors.inc()).await
    })
    .await
}
