//! A client whose requests may block on a program or a disk.

use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::{Request, Response};
use kube::Client;
use kube::client::Body;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tower_service::Service;

/// The maximum number of concurrent requests that occupy a thread. A streaming answer, such as a watch,
/// occupies none after its start.
const MOST: usize = 32;

/// The same client, but each request has its own thread until it is answered, because it may have to get
/// credentials again. A request continues when nobody waits for it any more, so that a blocked program is
/// not started again by each request. Needs a runtime.
pub(super) fn apart(client: &Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let room = Arc::new(Semaphore::new(MOST));
    Client::new(IsolatedClient { client: client.clone(), room }, namespace)
}

struct IsolatedClient {
    client: Client,
    room: Arc<Semaphore>,
}

impl Service<Request<Body>> for IsolatedClient {
    type Response = Response<Body>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (client, room) = (self.client.clone(), Arc::clone(&self.room));
        async move {
            let place = room.acquire_owned().await?;
            let answer = spawn_blocking(move || {
                let _place = place;
                Handle::current().block_on(client.send(request))
            });
            Ok(answer.await??)
        }
        .boxed()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::time::timeout;
    use tower::service_fn;

    use super::*;

    #[tokio::test]
    async fn blocking_requests_do_not_block_others_and_are_limited() {
        let (go, gone) = mpsc::channel::<()>();
        let (begun, gone) = (Arc::<AtomicUsize>::default(), Arc::new(Mutex::new(gone)));
        let counted = Arc::clone(&begun);
        let client = Client::new(
            service_fn(move |_: Request<Body>| {
                let (counted, gone) = (Arc::clone(&counted), Arc::clone(&gone));
                async move {
                    counted.fetch_add(1, Ordering::Relaxed);
                    // Like a file on a disk that does not answer, until the other side is dropped.
                    let _ = gone.lock().unwrap().recv();
                    kube::Result::<_>::Ok(Response::new(Body::empty()))
                }
            }),
            "ns",
        );
        let client = apart(&client);
        assert_eq!(client.default_namespace(), "ns");
        let ask = || client.send(Request::new(Body::empty()));
        // Each caller gives up.
        for _ in 0..MOST + 10 {
            assert!(timeout(Duration::from_millis(5), ask()).await.is_err());
        }
        assert!(begun.load(Ordering::Relaxed) <= MOST);
        drop(go);
        assert!(timeout(Duration::from_secs(10), ask()).await.unwrap().is_ok());
    }
}
