//! The keys of session tickets, for the routes that serve TLS.

use std::convert::Infallible;
use std::future::{Future, pending};

use anyhow::Context;
use kube::Client;
use tokio::sync::watch;

use crate::config::{Config, OwnObjectName, RouteSource};
use crate::control::tickets::{self, TicketSecret};
use crate::termination::TicketKeys;

/// The first keys, which are those of this process; `None` if no route serves TLS.
///
/// # Errors
/// When the system has no random bytes.
pub(super) fn first(config: &Config) -> anyhow::Result<Option<TicketKeys>> {
    match (config.terminate, config.resumption) {
        (false, _) => Ok(None),
        (true, false) => Ok(Some(TicketKeys::default())),
        (true, true) => tickets::local().context("cannot make keys of session tickets").map(Some),
    }
}

/// Keeps the keys up to date, on the calling thread. `client` is awaited only if a Secret has the keys, and `leads` says
/// whether this replica writes them.
pub(super) async fn follow(
    config: &Config,
    keys: Option<&TicketKeys>,
    client: impl Future<Output = Client>,
    mut leads: watch::Receiver<bool>,
) -> Infallible {
    let Some(keys) = keys.filter(|_| config.resumption) else { return pending().await };
    let shared = config.ticket_keys.clone().filter(|_| config.source == RouteSource::Kubernetes);
    let Some(OwnObjectName { namespace, name }) = shared else {
        return tickets::keep_local(keys).await;
    };
    let client = tokio::select! {
        never = tickets::keep_local(keys) => match never {},
        client = client => client,
    };
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let secret = TicketSecret { namespace, name };
    tickets::keep_shared(&client, &secret, keys, &mut leads).await
}
