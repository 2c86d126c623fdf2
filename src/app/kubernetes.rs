//! The table as an API server has it, and as it was saved while there is none.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use super::publish::Publisher;
use super::saving::Saver;
use super::{Parts, installation, publisher};
use crate::config::{self, Config};
use crate::control::dns::Names;
use crate::control::kubernetes::{self, Notice, Update};
use crate::control::lease;
use crate::control::saved::SavedTable;
use crate::control::status::{self, Reporter, Reporting, Statuses};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::routing::Writer;

/// How long an API server may take for the first list before a saved table is served, if it does
/// not fail before: some seconds for many thousand objects.
const GRACE: Duration = Duration::from_secs(5);
/// Between two attempts to make a client.
const CLIENT_PAUSE: Duration = Duration::from_secs(5);

/// Keeps the table as the API server has it. `first` is told of the first table.
///
/// # Errors
/// When there is no way to the API server, and nothing that was saved.
pub(super) async fn follow(
    config: &Config,
    writer: Writer,
    parts: &Parts,
    first: oneshot::Sender<()>,
) -> anyhow::Result<impl Future<Output = Infallible> + use<>> {
    let config = config.clone();
    let made = match client(&config).await {
        Err(error) if parts.saver.as_ref().is_none_or(|saver| !saver.path().exists()) => {
            return Err(error);
        }
        made => made,
    };
    let decided = Arc::new(Notify::new());
    let told = notices(parts, Arc::clone(&decided));
    let serving = Serving {
        publisher: publisher(writer, parts),
        statuses: parts.statuses.clone(),
        metrics: parts.metrics.clone(),
        health: Arc::clone(&parts.health),
        saver: parts.saver.clone(),
        decided,
        first: Some(first),
        saved: false,
    };
    let (statuses, metrics) = (parts.statuses.clone(), parts.metrics.clone());
    let reporter = Rc::clone(&parts.reporter);
    let installation = installation(&config, parts);
    Ok(async move {
        let serving = RefCell::new(serving);
        let (saver, decided) = {
            let serving = serving.borrow();
            (serving.saver.clone(), Arc::clone(&serving.decided))
        };
        let watch = async {
            let client = patient_client(&config, made, &told).await;
            if config.write_status {
                let reporting = reporting(client.clone(), &config, &statuses, &metrics);
                reporter.replace(Some(Reporter::start(reporting)));
            }
            let source = kubernetes::Source { client, namespaces: config.namespaces.clone() };
            let publish = |update| serving.borrow_mut().publish(update);
            let names = Names::new(&config.dns_servers);
            kubernetes::watch(source, installation, names, publish, told).await
        };
        let saved = async {
            let Some(saver) = &saver else { return future::pending().await };
            let _ = timeout(GRACE, decided.notified()).await;
            if !serving.borrow().publisher.is_live()
                && let Some(saved) = saver.saved_table().await
            {
                serving.borrow_mut().serve_saved(saved);
            }
            saver.run().await
        };
        tokio::select! {
            never = watch => never,
            never = saved => never,
        }
    })
}

/// What speaks to the API server.
async fn client(config: &Config) -> anyhow::Result<kube::Client> {
    let kube_config = match &config.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot use the kubeconfig {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("cannot use the kubeconfig {}", path.display()))?
        }
        None => kube::Config::incluster().context(
            "no access to the API server: this is no pod with a service account; give --kubeconfig",
        )?,
    };
    tracing::info!(server = %kube_config.cluster_url, "the API server");
    Ok(kube::Client::try_from(kubernetes::tuned(kube_config))?)
}

/// The client that was made, or else one that can be made later: a program that gets credentials
/// may need what is away now.
async fn patient_client(
    config: &Config,
    mut made: anyhow::Result<kube::Client>,
    told: &impl Fn(Notice),
) -> kube::Client {
    let mut said = String::new();
    loop {
        let error = match made {
            Ok(client) => return client,
            Err(error) => format!("{error:#}"),
        };
        told(Notice::Failed);
        if error != said {
            tracing::warn!(error, "no way to the API server; trying again");
            told(Notice::Down { what: error.clone() });
            said = error;
        }
        sleep(CLIENT_PAUSE).await;
        made = client(config).await;
    }
}

/// What it takes to write what is said of the routes to them while this replica leads.
fn reporting(
    client: kube::Client,
    config: &Config,
    statuses: &Statuses,
    metrics: &Metrics,
) -> Reporting {
    let config::Lease { namespace, name } = config
        .lease
        .clone()
        .unwrap_or_else(|| config::Lease { namespace: None, name: lease::name_for(&config.class) });
    Reporting {
        lease: lease::Settings {
            namespace: namespace.unwrap_or_else(|| client.default_namespace().to_owned()),
            name,
            identity: lease::identity(),
            duration: config.lease_duration,
        },
        client,
        namespaces: config.namespaces.clone(),
        statuses: statuses.clone(),
        meters: status::Meters {
            leader: metrics.leader.clone(),
            written: metrics.status_written.clone(),
            failed: metrics.status_failed.clone(),
        },
    }
}

/// Passes on what is to be known of the API server; `decided` wakes who waits for
/// the first list or a failure.
fn notices(parts: &Parts, decided: Arc<Notify>) -> impl Fn(Notice) + Send + Sync + use<> {
    let (metrics, health) = (parts.metrics.clone(), Arc::clone(&parts.health));
    move |notice| match notice {
        Notice::Failed => metrics.source_errors.inc(),
        Notice::Down { what } => {
            metrics.source_up.set(0);
            health.set_source_down(what);
            decided.notify_one();
        }
        Notice::Up => {
            metrics.source_up.set(1);
            health.set_source_up();
        }
    }
}

/// What is served and reported.
struct Serving {
    publisher: Publisher,
    statuses: Statuses,
    metrics: Metrics,
    health: Arc<Health>,
    saver: Option<Saver>,
    /// Wakes who waits for the first list or a failure.
    decided: Arc<Notify>,
    /// Waits for the first table.
    first: Option<oneshot::Sender<()>>,
    /// Whether the table is one that was saved.
    saved: bool,
}

impl Serving {
    fn publish(&mut self, update: Update) {
        let first = !self.publisher.is_live();
        let applied = self.publisher.publish(update.settled, update.noticed);
        tracing::debug!(
            routes = self.statuses.count(),
            new_table = applied.table,
            changed_backends = applied.backends,
            "routes are live"
        );
        // The first one counts even if it is the same: now it is known to be true.
        if (applied.table || applied.backends > 0 || first)
            && let Some(saver) = &self.saver
        {
            saver.table_changed();
        }
        if first {
            self.decided.notify_one();
            tracing::info!(routes = self.statuses.count(), "the first table is complete");
            self.leave_saved();
        }
        self.have_table();
    }

    fn leave_saved(&mut self) {
        if std::mem::take(&mut self.saved) {
            self.metrics.table_from_saved.set(0);
            self.health.set_saved_table(None);
            tracing::info!("the table of the API server has replaced the saved one");
        }
    }

    /// Serves what an earlier process has saved, unless there is something better by now.
    fn serve_saved(&mut self, saved: SavedTable) {
        if self.publisher.is_live() {
            return;
        }
        let SavedTable { snapshot, saved_at, saved_by } = saved;
        let saved_at = format!("{saved_at:.0}");
        let routes = snapshot.routes.len();
        self.publisher.serve_instead(snapshot);
        self.saved = true;
        self.metrics.table_from_saved.set(1);
        self.health.set_saved_table(Some(saved_at.clone()));
        tracing::warn!(
            routes,
            saved_at,
            saved_by,
            "serving the saved table until the API server has been listed"
        );
        self.have_table();
    }

    fn have_table(&mut self) {
        self.health.set_table_complete();
        if let Some(first) = self.first.take() {
            // Fails only if sluice is ending already.
            let _ = first.send(());
        }
    }
}
