//! The table as an API server has it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::sync::oneshot;

use super::{Parts, installation};
use crate::config::Config;
use crate::control::build::Settled;
use crate::control::dns::Names;
use crate::control::kubernetes::{self, Notice};
use crate::control::status::{RouteStatus, log_changes};
use crate::routing::{RouteKey, Writer};

/// What speaks to the API server.
pub(super) async fn client(config: &Config) -> anyhow::Result<kube::Client> {
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

/// Keeps the table as the API server has it. `first` is told of the first table.
pub(super) fn follow(
    client: kube::Client,
    config: &Config,
    mut writer: Writer,
    parts: &Parts,
    first: oneshot::Sender<()>,
) -> impl Future<Output = Infallible> + use<> {
    let (metrics, health) = (parts.metrics.clone(), Arc::clone(&parts.health));
    let told = notices(parts);
    let shared = Arc::clone(&parts.statuses);
    let mut statuses: BTreeMap<RouteKey, Arc<RouteStatus>> = BTreeMap::new();
    let mut first = Some(first);
    let source = kubernetes::Source { client, namespaces: config.namespaces.clone() };
    let publish = move |update: kubernetes::Update| {
        let Settled { changes, statuses: told, .. } = update.settled;
        let concerned = changes.routes.keys().chain(told.iter().map(|status| &status.key));
        let before: Vec<RouteStatus> =
            concerned.filter_map(|key| Some((*statuses.remove(key)?).clone())).collect();
        log_changes(&before, &told);
        statuses.extend(told.into_iter().map(|one| (one.key.clone(), Arc::new(one))));
        let applied = writer.update(changes);
        shared.store(Arc::new(statuses.values().cloned().collect()));
        metrics.table_swap_duration.observe(update.noticed.elapsed().as_secs_f64());
        tracing::debug!(
            routes = statuses.len(),
            new_table = applied.table,
            changed_backends = applied.backends,
            "routes are live"
        );
        health.set_table_complete();
        if let Some(first) = first.take() {
            tracing::info!(routes = statuses.len(), "the first table is complete");
            // Fails only if sluice is ending already.
            let _ = first.send(());
        }
    };
    let names = Names::new(&config.dns_servers);
    kubernetes::watch(source, installation(config), names, publish, told)
}

/// Passes on what is to be known of the API server.
fn notices(parts: &Parts) -> impl Fn(Notice) + Send + Sync + use<> {
    let (metrics, health) = (parts.metrics.clone(), Arc::clone(&parts.health));
    move |notice| match notice {
        Notice::Failed => metrics.source_errors.inc(),
        Notice::Down { what } => {
            metrics.source_up.set(0);
            health.set_source_down(what);
        }
        Notice::Up => {
            metrics.source_up.set(1);
            health.set_source_up();
        }
    }
}
