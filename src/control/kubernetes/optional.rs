//! A kind whose definition may be installed or not, and may come and go.

use std::mem;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use kube::Client;
use kube::core::ApiResource;
use tokio::time::sleep;
use tracing::{debug, info};

use super::list_watch::{WatchEvent, WatchEvents, WatchFailure};
use crate::control::api::Definition;

/// How often to look whether the definition is there by now.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long to wait when the server names a definition that it has just denied, as it does for a
/// moment while one goes.
const DOUBT: Duration = Duration::from_secs(1);

/// The events of an optional kind.
pub(super) enum OptionalEvent {
    /// The kind is not defined, so there are no objects of it.
    Undefined,
    WatchEvent(WatchEvent),
}

/// Follows a kind; where it is not defined, looks again now and then, by `discovery`. `watch` begins to
/// list and watch its objects at a path.
pub(super) fn follow(
    definition: Definition,
    discovery: Client,
    watch: impl Fn(String) -> WatchEvents + Send + Sync + 'static,
    namespace: Option<String>,
) -> impl Stream<Item = Result<OptionalEvent, WatchFailure>> + Send {
    let events = None;
    let state = OptionalWatch {
        definition,
        discovery,
        watch,
        namespace,
        events,
        denied: false,
        said: false,
    };
    stream::unfold(state, |mut state| async {
        let told = state.next().await;
        Some((told, state))
    })
}

struct OptionalWatch<W> {
    definition: Definition,
    discovery: Client,
    watch: W,
    namespace: Option<String>,
    /// As long as they are defined.
    events: Option<WatchEvents>,
    /// Whether the server has just denied that they are.
    denied: bool,
    /// Whether [`OptionalEvent::Undefined`] was the last event.
    said: bool,
}

impl<W: Fn(String) -> WatchEvents> OptionalWatch<W> {
    async fn next(&mut self) -> Result<OptionalEvent, WatchFailure> {
        let kind = self.definition.kind;
        loop {
            let Some(events) = &mut self.events else {
                match find(self.definition, &self.discovery).await {
                    Ok(Some(_)) if mem::take(&mut self.denied) => {
                        sleep(DOUBT).await;
                        continue;
                    }
                    Ok(Some(resource)) => {
                        info!(version = resource.api_version, "{kind}s are honoured");
                        let path = Definition::path(&resource, self.namespace.as_deref());
                        self.events = Some((self.watch)(path));
                        self.said = false;
                        continue;
                    }
                    Ok(None) if !self.said => {
                        self.denied = false;
                        self.said = true;
                        return Ok(OptionalEvent::Undefined);
                    }
                    Ok(None) => {}
                    // The other watches report the server's trouble.
                    Err(error) => debug!(%error, "cannot look for {kind}s"),
                }
                sleep(LOOK_EVERY).await;
                continue;
            };
            match events.next().await {
                Some(Err(failure)) if failure.code() == Some(404) => {
                    info!("{kind}s are no longer defined");
                    self.events = None;
                    self.denied = true;
                }
                Some(event) => return event.map(OptionalEvent::WatchEvent),
                None => self.events = None,
            }
        }
    }
}

/// The newest version of the definition that the server has.
async fn find(definition: Definition, client: &Client) -> kube::Result<Option<ApiResource>> {
    for version in definition.all_versions() {
        let served = match client.list_api_group_resources(&version.api_version).await {
            Ok(list) => list.resources,
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => return Err(error),
        };
        if served.iter().any(|resource| resource.name == version.plural) {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hyper::{Request, Response};
    use kube::client::Body;
    use kube::core::Status;
    use tokio::time::timeout;
    use tower::service_fn;

    use super::*;
    use crate::routing::Kind;

    /// What a server answers that names the definition to whoever asks.
    async fn name(request: Request<Body>) -> kube::Result<Response<Body>> {
        assert_eq!(request.uri().path(), "/apis/gateway.networking.k8s.io/v1");
        let list = serde_json::json!({
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": "gateway.networking.k8s.io/v1",
            "resources": [{
                "name": "referencegrants",
                "singularName": "referencegrant",
                "namespaced": true,
                "kind": "ReferenceGrant",
                "verbs": ["list", "watch"],
            }],
        });
        Ok(Response::new(Body::from(list.to_string().into_bytes())))
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_names_what_it_denies_is_not_asked_in_haste() {
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        let watch = move |_| -> WatchEvents {
            // However hasty, it comes to an end.
            if count.fetch_add(1, Ordering::Relaxed) == 100 {
                return stream::pending().boxed();
            }
            let denied = Status { code: 404, ..Status::default() };
            let error = WatchFailure::List(kube::Error::Api(Box::new(denied)));
            stream::iter([Err(error)]).boxed()
        };
        let client = Client::new(service_fn(name), "default");
        let definition = Definition::of(Kind::ReferenceGrant);
        let mut grants = pin!(follow(definition, client, watch, None));
        assert!(timeout(DOUBT * 10, grants.next()).await.is_err(), "there is nothing to tell");
        let begun = begun.load(Ordering::Relaxed);
        assert!((5..=11).contains(&begun), "{begun} watches in {:?}", DOUBT * 10);
    }
}
