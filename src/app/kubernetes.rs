//! Follows the API server, or serves the saved table while there is no API server.

mod apart;
mod client;
mod proxy;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

use self::client::{Connector, NoAnswer};
use super::publish::Publisher;
use super::saving::Saver;
use super::{SharedParts, installation, tickets};
use crate::config::{self, Config, RouteSource};
use crate::control::dns::DnsFollower;
use crate::control::kubernetes::{self, KubernetesUpdate, Notice};
use crate::control::lease;
use crate::control::saved::SavedTable;
use crate::control::status::{self, Reporter, ReporterArgs, Statuses};
use crate::control::supervise::supervise;
use crate::metrics::Metrics;
use crate::readiness::Readiness;

/// How long the first list may take before the saved table is served, if listing does not fail earlier. Many
/// thousand objects take some seconds.
const GRACE: Duration = Duration::from_secs(5);

/// Follows the API server, and publishes its changes. Sends an error to `failed`, at most once, if no client
/// can be created and there is no saved table.
pub(super) async fn follow(
    config: &Config,
    parts: &SharedParts,
    output: &RefCell<SourceOutput>,
    failed: &Cell<Option<oneshot::Sender<anyhow::Error>>>,
) -> Infallible {
    let saved = || parts.saver.as_ref().is_some_and(|saver| saver.path().exists());
    let clients = Connector::new(config);
    let made = match (clients.client().await, failed.take()) {
        // An API server that has not answered may answer later.
        (Err(error), Some(failed)) if !saved() && !error.is::<NoAnswer>() => {
            // Fails only while sluice is ending.
            let _ = failed.send(error);
            return future::pending().await;
        }
        (made, _) => Cell::new(Some(made)),
    };
    supervise("kubernetes", parts.supervised(), || async {
        output.borrow_mut().begin();
        // The client's tasks may have caused the fault, so a restart uses a new client.
        let made = match made.take() {
            Some(made) => made,
            None => clients.client().await,
        };
        let source = follow_source(config, parts, output, &clients, made);
        tokio::select! {
            never = source => never,
            never = save(parts, output) => never,
        }
    })
    .await
}

async fn follow_source(
    config: &Config,
    parts: &SharedParts,
    output: &RefCell<SourceOutput>,
    clients: &Connector,
    made: anyhow::Result<kube::Client>,
) -> Infallible {
    let told = notices(parts, Arc::clone(&output.borrow().decided));
    let client = patient_client(clients, made, &told).await;
    tracing::info!(namespace = client.default_namespace(), "following the API server");
    let source = kubernetes::KubernetesSource {
        client,
        namespaces: config.namespaces.clone(),
        secrets: config.terminate,
    };
    let publish = |update| output.borrow_mut().publish(update);
    let names = DnsFollower::new(&config.dns_servers);
    let (table, authorities) = (parts.table.clone(), parts.authorities.clone());
    let checked = kubernetes::CheckedReferences { table, authorities };
    kubernetes::watch(source, installation(config, parts), names, checked, publish, told).await
}

/// Serves the saved table if there is no other in time, and saves new tables.
async fn save(parts: &SharedParts, output: &RefCell<SourceOutput>) -> Infallible {
    let Some(saver) = &parts.saver else { return future::pending().await };
    let decided = Arc::clone(&output.borrow().decided);
    let _ = timeout(GRACE, decided.notified()).await;
    if !output.borrow().publisher.has_table()
        && let Some(saved) = saver.saved_table().await
    {
        output.borrow_mut().serve_saved(saved);
    }
    saver.run().await
}

/// Writes the statuses of routes while this replica leads, on the calling thread.
///
/// It has its own client, because the tasks of a client's connections run on the runtime that created it,
/// and the control plane's runtime may be busy for longer than the Lease can wait.
#[derive(Default)]
pub(super) struct StatusTask(RefCell<Option<Reporter>>);

impl StatusTask {
    /// Runs the status writer, if it is configured, and keeps the keys of session tickets, which the leader writes.
    pub(super) async fn run(&self, config: &Config, parts: &SharedParts) -> Infallible {
        let is_kubernetes = config.source == RouteSource::Kubernetes;
        let is_elected = is_kubernetes && config.write_status;
        // Without an election, any replica may write the keys: of several writes one succeeds.
        let (lead, leads) = watch::channel(!is_elected);
        let clients = Connector::new(config);
        // Errors are logged by the source of routes, which has the same ones.
        let client = async { clients.persist(clients.client().await, |_| ()).await };
        let client = client.boxed_local().shared();
        let report = async {
            if is_elected {
                let client = client.clone().await;
                self.0.replace(Some(Reporter::start(reporting(client, lead, config, parts))));
            }
            future::pending().await
        };
        let keys = parts.ticket_keys.as_ref();
        let tickets = supervise("tickets", parts.supervised(), || {
            tickets::follow(config, keys, client.clone(), leads.clone())
        });
        tokio::select! {
            never = report => never,
            never = tickets => never,
        }
    }

    /// Stops writing, and releases the Lease.
    pub(super) fn leave(&self) {
        self.0.borrow().iter().for_each(Reporter::leave);
    }

    /// Waits until the Lease is released, for a short time at most.
    pub(super) async fn left(self) {
        let reporter = self.0.take();
        if let Some(reporter) = reporter {
            reporter.left().await;
        }
    }
}

/// The created client, or one that is created later: a program that gets credentials may need something that
/// is not available yet.
async fn patient_client(
    clients: &Connector,
    made: anyhow::Result<kube::Client>,
    told: &impl Fn(Notice),
) -> kube::Client {
    let mut said = String::new();
    let failed = |error: &anyhow::Error| {
        told(Notice::Failed);
        let error = format!("{error:#}");
        if error != said {
            tracing::warn!(error, "no way to the API server; trying again");
            told(Notice::Down { what: error.clone() });
            said = error;
        }
    };
    clients.persist(made, failed).await
}

/// The arguments of the status writer.
fn reporting(
    client: kube::Client,
    lead: watch::Sender<bool>,
    config: &Config,
    parts: &SharedParts,
) -> ReporterArgs {
    let config::OwnObjectName { namespace, name } = config.lease.clone().unwrap_or_else(|| {
        config::OwnObjectName { namespace: None, name: lease::name_for(&config.class) }
    });
    ReporterArgs {
        lease: lease::LeaseSettings {
            namespace: namespace.unwrap_or_else(|| client.default_namespace().to_owned()),
            name,
            identity: lease::identity(),
            duration: config.lease_duration,
        },
        client,
        namespaces: config.namespaces.clone(),
        lead,
        statuses: parts.statuses.clone(),
        ejections: status::EjectionSource {
            table: parts.table.clone(),
            counts: crate::routing::FailureKind::ALL
                .map(|reason| parts.metrics.endpoint_ejected(reason)),
            unhealthy: parts.metrics.checks.failed.clone(),
        },
        meters: status::Meters {
            leader: parts.metrics.status.leader.clone(),
            written: parts.metrics.status.written.clone(),
            failed: parts.metrics.status.failed.clone(),
            events_dropped: parts.metrics.status.events_dropped.clone(),
        },
        supervised: Box::new(parts.supervised()),
    }
}

/// Reports notices about the API server to metrics and readiness. `decided` is notified of the first
/// failure.
fn notices(parts: &SharedParts, decided: Arc<Notify>) -> impl Fn(Notice) + Send + Sync + use<> {
    let (metrics, readiness) = (parts.metrics.clone(), Arc::clone(&parts.readiness));
    move |notice| match notice {
        Notice::Failed => metrics.source.errors.inc(),
        Notice::Down { what } => {
            metrics.source.up.set(0);
            readiness.set_source_down(what);
            decided.notify_one();
        }
        Notice::Up => {
            metrics.source.up.set(1);
            readiness.set_source_up();
        }
    }
}

/// Receives the updates of the Kubernetes source, and publishes them.
pub(super) struct SourceOutput {
    publisher: Publisher,
    statuses: Statuses,
    metrics: Metrics,
    readiness: Arc<Readiness>,
    saver: Option<Saver>,
    /// Notified of the first complete list or the first failure.
    decided: Arc<Notify>,
    /// Notified of the first table.
    first: Option<oneshot::Sender<()>>,
    /// Whether the current table is a saved one.
    saved: bool,
}

impl SourceOutput {
    /// No table is served yet. `first` is notified of the first table.
    pub(super) fn new(
        publisher: Publisher,
        parts: &SharedParts,
        first: oneshot::Sender<()>,
    ) -> Self {
        SourceOutput {
            publisher,
            statuses: parts.statuses.clone(),
            metrics: parts.metrics.clone(),
            readiness: Arc::clone(&parts.readiness),
            saver: parts.saver.clone(),
            decided: Arc::default(),
            first: Some(first),
            saved: false,
        }
    }

    /// A source starts.
    fn begin(&mut self) {
        self.publisher.begin();
        self.decided = Arc::default();
    }

    fn publish(&mut self, update: KubernetesUpdate) {
        let first = !self.publisher.is_live();
        let applied = self.publisher.publish(update.delta, update.noticed);
        for (kind, faults) in update.faults {
            self.metrics.set_manifest_faults(kind.as_str(), faults);
        }
        tracing::debug!(
            routes = self.statuses.count(),
            new_table = applied.table,
            changed_backends = applied.backends,
            "routes are live"
        );
        // The first table counts even if it is unchanged, because it is now known to be current.
        if (applied.table || applied.backends > 0 || first)
            && let Some(saver) = &self.saver
        {
            saver.table_changed();
        }
        self.have_table();
        if first {
            self.decided.notify_one();
            tracing::info!(routes = self.statuses.count(), "the first table is complete");
            self.leave_saved();
        }
    }

    fn leave_saved(&mut self) {
        if std::mem::take(&mut self.saved) {
            self.metrics.table.from_saved.set(0);
            self.readiness.set_saved_table(None, 0);
            tracing::info!("the table of the API server has replaced the saved one");
        }
    }

    /// Serves a saved table, unless a current one is already served.
    fn serve_saved(&mut self, saved: SavedTable) {
        if self.publisher.has_table() {
            return;
        }
        let SavedTable { snapshot, saved_at, saved_by } = saved;
        let saved_at = format!("{saved_at:.0}");
        let routes = snapshot.routes.len();
        // A saved table has no keys.
        let without_keys =
            snapshot.routes.iter().filter(|route| route.termination.is_some()).count();
        self.publisher.serve_instead(snapshot);
        self.saved = true;
        self.metrics.table.from_saved.set(1);
        self.readiness.set_saved_table(Some(saved_at.clone()), without_keys);
        tracing::warn!(
            routes,
            without_keys,
            saved_at,
            saved_by,
            "serving the saved table until the API server has been listed"
        );
        self.have_table();
    }

    fn have_table(&mut self) {
        self.readiness.set_table_complete();
        if let Some(first) = self.first.take() {
            // Fails only while sluice is ending.
            let _ = first.send(());
        }
    }
}
