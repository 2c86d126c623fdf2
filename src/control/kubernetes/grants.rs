//! ReferenceGrants, whose definition may be installed or not, and may come and go.

use std::mem;
use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher;
use tokio::time::sleep;
use tracing::{debug, info};

use crate::control::api::GATEWAY_GROUP;

/// How often to look whether the definition is there by now.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long to wait when the server names a definition that it has just denied, as it does for a
/// moment while one goes.
const DOUBT: Duration = Duration::from_secs(1);
/// The versions of the definition that say the same, the newest first.
const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// What there is to be told of grants.
pub(super) enum Grants {
    /// There are none, for nobody can make any.
    Undefined,
    Event(Box<watcher::Event<DynamicObject>>),
}

/// What a list and watch brings.
pub(super) type Events<K> = Pin<Box<dyn Stream<Item = watcher::Result<watcher::Event<K>>> + Send>>;

/// Follows the grants; where they are not defined, looks again now and then, by `finding`. `watch`
/// begins to list and watch them, by `client`.
pub(super) fn follow(
    finding: Client,
    client: Client,
    watch: impl Fn(Api<DynamicObject>) -> Events<DynamicObject> + Send + Sync + 'static,
    namespace: Option<String>,
) -> impl Stream<Item = watcher::Result<Grants>> + Send {
    let state =
        Follow { finding, client, watch, namespace, events: None, denied: false, said: false };
    stream::unfold(state, |mut state| async {
        let told = state.next().await;
        Some((told, state))
    })
}

struct Follow<W> {
    finding: Client,
    client: Client,
    watch: W,
    namespace: Option<String>,
    /// As long as they are defined.
    events: Option<Events<DynamicObject>>,
    /// Whether the server has just denied that they are.
    denied: bool,
    /// Whether it was told that they are not defined.
    said: bool,
}

impl<W: Fn(Api<DynamicObject>) -> Events<DynamicObject>> Follow<W> {
    async fn next(&mut self) -> watcher::Result<Grants> {
        loop {
            let Some(events) = &mut self.events else {
                match find(&self.finding).await {
                    Ok(Some(_)) if mem::take(&mut self.denied) => {
                        sleep(DOUBT).await;
                        continue;
                    }
                    Ok(Some(resource)) => {
                        info!(version = resource.api_version, "ReferenceGrants are honoured");
                        self.events = Some((self.watch)(self.api(&resource)));
                        self.said = false;
                        continue;
                    }
                    Ok(None) if !self.said => {
                        self.denied = false;
                        self.said = true;
                        return Ok(Grants::Undefined);
                    }
                    Ok(None) => {}
                    // The other watches tell of the server's trouble.
                    Err(error) => debug!(%error, "cannot look for ReferenceGrants"),
                }
                sleep(LOOK_EVERY).await;
                continue;
            };
            match events.next().await {
                Some(Err(error)) if is_undefined(&error) => {
                    info!("ReferenceGrants are no longer defined");
                    self.events = None;
                    self.denied = true;
                }
                Some(event) => return event.map(|event| Grants::Event(Box::new(event))),
                None => self.events = None,
            }
        }
    }

    fn api(&self, resource: &ApiResource) -> Api<DynamicObject> {
        let client = self.client.clone();
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, resource),
            None => Api::all_with(client, resource),
        }
    }
}

/// The definition of grants that the server has.
async fn find(client: &Client) -> kube::Result<Option<ApiResource>> {
    for version in VERSIONS {
        let group_version = format!("{GATEWAY_GROUP}/{version}");
        let resources = match client.list_api_group_resources(&group_version).await {
            Ok(list) => list.resources,
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => return Err(error),
        };
        if resources.iter().any(|resource| resource.name == "referencegrants") {
            let kind = GroupVersionKind::gvk(GATEWAY_GROUP, version, "ReferenceGrant");
            return Ok(Some(ApiResource::from_gvk_with_plural(&kind, "referencegrants")));
        }
    }
    Ok(None)
}

/// Whether the definition has gone.
fn is_undefined(error: &watcher::Error) -> bool {
    matches!(
        error,
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 404
    )
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
        let watch = move |_| -> Events<DynamicObject> {
            // However hasty, it comes to an end.
            if count.fetch_add(1, Ordering::Relaxed) == 100 {
                return stream::pending().boxed();
            }
            let denied = Status { code: 404, ..Status::default() };
            let error = watcher::Error::InitialListFailed(kube::Error::Api(Box::new(denied)));
            stream::iter([Err(error)]).boxed()
        };
        let client = Client::new(service_fn(name), "default");
        let mut grants = pin!(follow(client.clone(), client, watch, None));
        assert!(timeout(DOUBT * 10, grants.next()).await.is_err(), "there is nothing to tell");
        let begun = begun.load(Ordering::Relaxed);
        assert!((5..=11).contains(&begun), "{begun} watches in {:?}", DOUBT * 10);
    }
}
