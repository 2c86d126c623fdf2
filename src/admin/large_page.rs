//! Large pages: created once for all readers that wait for it, and bounded in memory.
//!
//! At most a few copies of each page are in memory, each from its creation until its last reader has all of
//! it. If another copy is needed, the readers of the oldest copy are disconnected, so a slow reader delays
//! nobody.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use hyper::body::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::AdminState;

/// The maximum number of copies of a page in memory. More than one, so that a reader of normal speed is not
/// disconnected for the next one.
const COPIES: usize = 4;
/// How long a new copy waits for readers to finish before those of the oldest copy are disconnected.
const PATIENCE: Duration = Duration::from_millis(200);

/// A connection that reads a page.
#[derive(Debug, Default)]
pub(super) struct PageConsumer {
    /// Notified when the connection is to be closed, because its copy is needed.
    pub(super) give_way: Notify,
}

/// A page that may have many megabytes.
pub(super) struct LargePage {
    pub(super) media_type: &'static str,
    make: fn(&AdminState) -> Result<Vec<u8>, String>,
    state: Arc<AdminState>,
    /// The permit to create a large page, shared by all large pages. With many thousand routes, creating one
    /// takes long.
    turn: Arc<Semaphore>,
    /// The permits to have a copy in memory. Each page has its own, so that a slow reader of the routes does
    /// not delay a scraper.
    copies: Arc<Semaphore>,
    /// The next copy, for all readers that arrive before its creation starts.
    next: Mutex<Option<PageFuture>>,
    /// The copies in memory, the oldest first.
    held: Mutex<VecDeque<Weak<PageCopy>>>,
}

type PageFuture = Shared<BoxFuture<'static, PageResult>>;
type PageResult = Result<Arc<PageCopy>, String>;

/// A copy of a page.
struct PageCopy {
    text: Vec<u8>,
    readers: Mutex<Vec<Weak<PageTransfer>>>,
    _right: OwnedSemaphorePermit,
}

/// A copy while one connection sends it. Dropped when everything is sent.
struct PageTransfer {
    text: Arc<PageCopy>,
    reader: Arc<PageConsumer>,
}

/// The owner of the memory of [`Bytes`].
struct PageBytes(Arc<PageTransfer>);

impl LargePage {
    pub(super) fn new(
        media_type: &'static str,
        make: fn(&AdminState) -> Result<Vec<u8>, String>,
        state: Arc<AdminState>,
        turn: Arc<Semaphore>,
    ) -> Arc<Self> {
        Arc::new(LargePage {
            media_type,
            make,
            state,
            turn,
            copies: Arc::new(Semaphore::new(COPIES)),
            next: Mutex::default(),
            held: Mutex::default(),
        })
    }

    /// The page, created after this call, for `reader`.
    ///
    /// # Errors
    /// When the page cannot be created.
    pub(super) async fn text(
        self: &Arc<Self>,
        reader: &Arc<PageConsumer>,
    ) -> Result<Bytes, String> {
        let making = self.making();
        let reading = Arc::new(PageTransfer { text: making.await?, reader: Arc::clone(reader) });
        lock(&reading.text.readers).push(Arc::downgrade(&reading));
        Ok(Bytes::from_owner(PageBytes(reading)))
    }

    /// The next copy. Its own task creates it and continues if all readers leave, because a permit must not
    /// be given to a future that nobody polls.
    fn making(self: &Arc<Self>) -> PageFuture {
        let mut next = lock(&self.next);
        // A finished copy is not the next one.
        let coming = next.take().filter(|making| making.peek().is_none());
        let making = coming.unwrap_or_else(|| {
            let making = tokio::spawn(Arc::clone(self).make());
            making.map(|made| made.unwrap_or_else(|error| Err(error.to_string()))).boxed().shared()
        });
        next.insert(making).clone()
    }

    /// Creates a copy on its own thread, one page at a time, so that probes, which share the only thread of
    /// this runtime, do not wait.
    async fn make(self: Arc<Self>) -> PageResult {
        let right = self.right().await;
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|e| e.to_string())?;
        // Readers that arrive from now on need a newer copy.
        lock(&self.next).take();
        let (state, make) = (Arc::clone(&self.state), self.make);
        let made = tokio::task::spawn_blocking(move || {
            // The thread holds both permits, because it continues when the client leaves.
            let _turn = turn;
            let text = make(&state)?;
            Ok::<_, String>(Arc::new(PageCopy { text, readers: Mutex::default(), _right: right }))
        });
        let text = made.await.map_err(|error| error.to_string())??;
        let mut held = lock(&self.held);
        held.retain(|copy| copy.strong_count() > 0);
        held.push_back(Arc::downgrade(&text));
        Ok(text)
    }

    async fn right(&self) -> OwnedSemaphorePermit {
        loop {
            match timeout(PATIENCE, Arc::clone(&self.copies).acquire_owned()).await {
                Ok(Ok(right)) => return right,
                // Unreachable: the semaphore is never closed.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) => self.oldest_gives_way(),
            }
        }
    }

    /// Closes the connections that read the oldest copy that is still being sent.
    fn oldest_gives_way(&self) {
        let mut held = lock(&self.held);
        let readers = held.iter().map(|copy| {
            let copy = copy.upgrade();
            copy.map(|copy| lock(&copy.readers).iter().filter_map(Weak::upgrade).collect())
        });
        let readers: Vec<Vec<Arc<PageTransfer>>> = readers.map(Option::unwrap_or_default).collect();
        if let Some(oldest) = readers.iter().position(|readers| !readers.is_empty()) {
            held.remove(oldest);
            readers.iter().skip(oldest).take(1).flatten().for_each(|reading| {
                reading.reader.give_way.notify_one();
            });
        }
    }
}

impl AsRef<[u8]> for PageBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0.text.text
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;
    use crate::admin::AdminLimits;
    use crate::control::status::Statuses;
    use crate::metrics::Metrics;
    use crate::readiness::Readiness;
    use crate::routing::channel;

    static MADE: AtomicUsize = AtomicUsize::new(0);

    fn make(_: &AdminState) -> Result<Vec<u8>, String> {
        Ok(format!("copy {}", MADE.fetch_add(1, Ordering::Relaxed)).into_bytes())
    }

    fn state() -> Arc<AdminState> {
        let table = channel().1;
        Arc::new(AdminState {
            metrics: Metrics::new(table.clone()).unwrap(),
            readiness: Arc::new(Readiness::new()),
            table,
            statuses: Statuses::default(),
            limits: AdminLimits::default(),
        })
    }

    #[tokio::test]
    async fn waiting_readers_share_a_copy_and_later_readers_get_a_new_one() {
        let turn = Arc::new(Semaphore::new(0));
        let page = LargePage::new("text/plain", make, state(), Arc::clone(&turn));
        let reader = Arc::<PageConsumer>::default();
        let waiting = join_all((0..8).map(|_| page.text(&reader)));
        let begin = async {
            // Not before all readers wait.
            tokio::task::yield_now().await;
            turn.add_permits(1);
        };
        let (copies, ()) = tokio::join!(waiting, begin);
        let copies: Vec<Bytes> = copies.into_iter().map(Result::unwrap).collect();
        assert!(copies.iter().all(|copy| copy.as_ptr() == copies[0].as_ptr()), "{copies:?}");
        assert_eq!(page.text(&reader).await.unwrap(), "copy 1");
        // A copy exists as long as a part of it is not sent.
        assert_eq!(page.copies.available_permits(), COPIES - 1);
        let rest = copies[3].slice(3..);
        drop(copies);
        assert_eq!(page.copies.available_permits(), COPIES - 1);
        drop(rest);
        assert_eq!(page.copies.available_permits(), COPIES);
    }

    #[tokio::test]
    async fn a_reader_that_leaves_while_waiting_does_not_block_others() {
        let (turn, state) = (Arc::new(Semaphore::new(0)), state());
        let page = |text| LargePage::new("text/plain", text, Arc::clone(&state), Arc::clone(&turn));
        let reader = Arc::<PageConsumer>::default();
        let pages = [page(|_| Ok(b"routes".to_vec())), page(|_| Ok(b"metrics".to_vec()))];
        let [routes, _] = &pages;
        let mut left = Box::pin(routes.text(&reader));
        assert!(left.as_mut().now_or_never().is_none(), "it waits for its turn");
        tokio::task::yield_now().await;
        drop(left);
        // The permit is available again.
        turn.add_permits(1);
        let soon = Duration::from_secs(10);
        for (page, text) in pages.iter().zip(["routes", "metrics"]).rev() {
            let answer = timeout(soon, page.text(&reader)).await.expect("an answer");
            assert_eq!(answer.unwrap(), text);
        }
    }
}
