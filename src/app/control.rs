//! The thread of the control plane: source, builder, publisher, saver.
//!
//! It has a runtime of its own, so that nothing it does keeps the thread waiting that answers
//! probes, receives signals and keeps the Lease.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread;

use tokio::sync::{Notify, oneshot};

use super::publish::Publisher;
use super::{Parts, installation, kubernetes, single_threaded};
use crate::config::{Config, Source};
use crate::control::dns::Names;
use crate::control::files::{self, Update};
use crate::control::supervise::supervise;
use crate::heartbeat::{Heartbeat, Pulse};
use crate::routing::Writer;

const NAME: &str = "control";
/// That of a main thread: manifests may be nested deeply.
const STACK: usize = 8 << 20;

/// The thread, as the main one knows it. It ends soon after this is dropped, and is not waited for.
pub(super) struct Control {
    beat: Arc<Beat>,
    failed: oneshot::Receiver<anyhow::Error>,
    _stop: oneshot::Sender<Infallible>,
}

/// What the thread tells the main one.
pub(super) struct Reports {
    /// Of the first table.
    pub(super) first: oneshot::Sender<()>,
    /// Of what keeps the process from ever serving.
    pub(super) failed: oneshot::Sender<anyhow::Error>,
}

#[derive(Default)]
struct Beat {
    heartbeat: Heartbeat,
    asked: Notify,
}

impl Control {
    /// Starts the thread. `first` is told of the first table.
    ///
    /// # Errors
    /// When the system has no thread or descriptors for it.
    pub(super) fn start(
        config: Config,
        writer: Writer,
        parts: Parts,
        first: oneshot::Sender<()>,
    ) -> io::Result<Self> {
        let runtime = single_threaded()?;
        let (failed, failure) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        let beat = Arc::<Beat>::default();
        let answering = Arc::clone(&beat);
        thread::Builder::new().name(NAME.into()).stack_size(STACK).spawn(move || {
            runtime.block_on(async {
                let reports = Reports { first, failed };
                tokio::select! {
                    never = follow(&config, writer, &parts, reports) => match never {},
                    never = answering.run() => match never {},
                    _ = stopped => {}
                }
            });
            // A file system that does not answer must not keep the thread from ending.
            runtime.shutdown_background();
        })?;
        Ok(Control { beat, failed: failure, _stop: stop })
    }

    /// What the main thread watches it by.
    pub(super) fn pulse(&self) -> Box<dyn Pulse> {
        Box::new(ControlPulse(Arc::clone(&self.beat)))
    }

    /// Why the process cannot serve. Never returns if it can, be it later.
    pub(super) async fn failure(&mut self) -> anyhow::Error {
        match (&mut self.failed).await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Beat {
    async fn run(&self) -> Infallible {
        loop {
            self.asked.notified().await;
            self.heartbeat.answer();
        }
    }
}

struct ControlPulse(Arc<Beat>);

impl Pulse for ControlPulse {
    fn name(&self) -> String {
        NAME.to_owned()
    }

    fn serves_clients(&self) -> bool {
        false
    }

    fn ask(&self) {
        self.0.heartbeat.ask();
        self.0.asked.notify_one();
    }

    fn is_answered(&self) -> bool {
        self.0.heartbeat.is_answered()
    }
}

/// Keeps the table as the source has it.
async fn follow(config: &Config, writer: Writer, parts: &Parts, reports: Reports) -> Infallible {
    let (statuses, own) = (parts.statuses.clone(), parts.own_endpoints.clone());
    let publisher = Publisher::new(writer, statuses, own, &parts.metrics);
    match config.source {
        Source::Kubernetes => kubernetes::follow(config, publisher, parts, reports).await,
        Source::Auto | Source::Files => follow_files(config, publisher, parts, reports.first).await,
    }
}

/// Keeps the table as the files have it. `first` is told of the first table.
async fn follow_files(
    config: &Config,
    publisher: Publisher,
    parts: &Parts,
    first: oneshot::Sender<()>,
) -> Infallible {
    let serving = RefCell::new((publisher, Some(first)));
    let publish = |update: Update| {
        let (publisher, first) = &mut *serving.borrow_mut();
        let Update { settled, complete, faults, noticed } = update;
        let applied = publisher.publish(settled, noticed);
        parts.metrics.manifest_faults.set(i64::try_from(faults).unwrap_or(i64::MAX));
        tracing::info!(
            routes = parts.table.table().len(),
            faults,
            new_table = applied.table,
            changed_backends = applied.backends,
            "routes are live"
        );
        parts.metrics.source_up.set(i64::from(complete));
        if complete {
            parts.health.set_table_complete();
        }
        if let Some(first) = first.take() {
            // Fails only if sluice is ending already.
            let _ = first.send(());
        }
    };
    let errors = &parts.metrics.source_errors;
    supervise("files", parts.supervised(), || async {
        serving.borrow_mut().0.begin();
        let names = Names::new(&config.dns_servers);
        let (paths, installation) = (config.routes.clone(), installation(config, parts));
        let reread = Arc::clone(&parts.reread);
        files::watch(paths, installation, names, reread, &publish, || errors.inc()).await
    })
    .await
}
