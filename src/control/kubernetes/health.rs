//! The health of the lists and watches, and notices about it.
//!
//! A watch that is started again causes no event if nothing has changed. So the responses to the requests
//! are observed as well ([`super::request`]).

use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::list_watch::WatchFailure;

/// During an outage, another cause than the first is only logged if it lasts: an API server that
/// starts refuses for a moment what it does not know yet.
const LASTING: Duration = Duration::from_secs(10);

/// A notice about the health of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A list or watch has failed.
    Failed,
    /// A kind cannot be watched. Sent again when it fails in another way.
    Down {
        /// What, and why: `services: 403 Forbidden`.
        what: String,
    },
    /// Everything is watched.
    Up,
}

/// The health of all lists and watches.
pub(super) struct SourceHealth {
    state: Mutex<HealthState>,
    tell: Box<dyn Fn(Notice) + Send + Sync>,
}

/// The health of one list and watch.
#[derive(Clone)]
pub(super) struct WatchHealth {
    of: Arc<SourceHealth>,
    watch: usize,
}

#[derive(Default)]
struct HealthState {
    watches: Vec<WatchStatus>,
    /// Whether [`Notice::Up`] was the last notice of whether everything is watched.
    up: bool,
    outage: Option<Outage>,
}

struct WatchStatus {
    kind: &'static str,
    namespace: Option<String>,
    /// Whether it is watched, as far as is known.
    on: bool,
    /// Whether watches have brought nothing, so that one that begins proves little.
    doubtful: bool,
    /// The cause for which it fails, and since when.
    failing: Option<(Cause, Instant)>,
    /// How long the server has asked to be left alone.
    retry_after: Option<Duration>,
    /// Whether a watch was on since that was last asked.
    succeeded: bool,
}

struct Outage {
    since: Instant,
    /// What has been logged.
    logged: HashSet<Cause>,
    /// The watch that the last [`Notice::Down`] was about, and how it fails.
    told: Option<(usize, String)>,
}

/// What makes a failure the same as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cause {
    /// The server is away, or in trouble.
    Server,
    /// The server does not allow it, or does not know it: this concerns one watch.
    Refused { watch: usize, code: u16 },
}

impl SourceHealth {
    pub(super) fn new(tell: impl Fn(Notice) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(SourceHealth { state: Mutex::default(), tell: Box::new(tell) })
    }

    /// Counts one more list and watch among those that must be on. To be called for all of them
    /// before the first of them begins.
    pub(super) fn watch(
        self: &Arc<Self>,
        kind: &'static str,
        namespace: Option<&str>,
    ) -> WatchHealth {
        let mut state = self.lock();
        state.watches.push(WatchStatus {
            kind,
            namespace: namespace.map(str::to_owned),
            on: false,
            doubtful: false,
            failing: None,
            retry_after: None,
            succeeded: false,
        });
        WatchHealth { of: Arc::clone(self), watch: state.watches.len() - 1 }
    }

    fn lock(&self) -> MutexGuard<'_, HealthState> {
        // Every change of it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchHealth {
    /// Its watch is on. That says little after watches that have brought nothing.
    pub(super) fn watching(&self) {
        self.on(false);
    }

    /// Its watch has brought something, or there is nothing to watch.
    pub(super) fn following(&self) {
        self.on(true);
    }

    fn on(&self, proven: bool) {
        let mut state = self.of.lock();
        let Some(watch) = state.watches.get_mut(self.watch) else { return };
        if watch.doubtful && !proven {
            return;
        }
        watch.doubtful = false;
        watch.on = true;
        watch.succeeded = true;
        watch.failing = None;
        if state.up || !state.watches.iter().all(|watch| watch.on) {
            return;
        }
        state.up = true;
        if let Some(outage) = state.outage.take() {
            let away = outage.since.elapsed().as_secs_f64();
            info!(away_seconds = away, "the API server is followed again");
        }
        drop(state);
        (self.of.tell)(Notice::Up);
    }

    /// The server has asked to be left alone for so long.
    pub(super) fn set_retry_after(&self, pause: Duration) {
        if let Some(watch) = self.of.lock().watches.get_mut(self.watch) {
            watch.retry_after = Some(pause);
        }
    }

    /// How long the server has asked to be left alone since this was last called.
    pub(super) fn take_retry_after(&self) -> Option<Duration> {
        self.of.lock().watches.get_mut(self.watch)?.retry_after.take()
    }

    /// Whether its watch was on at some time since this was last called.
    pub(super) fn take_succeeded(&self) -> bool {
        let mut state = self.of.lock();
        let watch = state.watches.get_mut(self.watch);
        watch.is_some_and(|watch| std::mem::take(&mut watch.succeeded))
    }

    /// Notes a failure. Logs it above debug if it is worth that.
    pub(super) fn failed(&self, error: &WatchFailure) {
        (self.of.tell)(Notice::Failed);
        let reasons = reasons(error);
        let mut state = self.of.lock();
        let Some(watch) = state.watches.get_mut(self.watch) else { return };
        let (kind, namespace) = (watch.kind, watch.namespace.clone());
        // A watch that breaks off is no outage; the next request tells whether there is one.
        if error.is_end_of_watch() {
            // During an outage, it is not over before this one is watched again.
            watch.on = false;
            debug!(kind, namespace, error = reasons, "a watch has broken off");
            return;
        }
        watch.doubtful |= matches!(error, WatchFailure::Fruitless(_));
        let code = error.code();
        let news = state.fail(self.watch, code, Instant::now());
        let what = format!("{kind}: {}", brief(error));
        let tells = state.tells(self.watch, &what, news);
        drop(state);
        if tells {
            (self.of.tell)(Notice::Down { what });
        }
        if !news {
            debug!(kind, namespace, error = reasons, "cannot list or watch");
            return;
        }
        let hint = match code {
            Some(401) => "the server does not know the token or certificate of this client",
            Some(403) => "the service account needs the verbs list and watch on this resource",
            Some(404) => "is the CRD installed? `sluice crds | kubectl apply -f -` does that",
            _ => "trying again; what was known before is still served",
        };
        warn!(kind, namespace, error = reasons, hint, "cannot list or watch");
    }
}

impl HealthState {
    /// Notes a failure. Returns whether it is worth a line of the log.
    fn fail(&mut self, watch: usize, code: Option<u16>, now: Instant) -> bool {
        let cause = match code {
            Some(code @ 400..=499) if code != 429 => Cause::Refused { watch, code },
            _ => Cause::Server,
        };
        self.up = false;
        let outage =
            self.outage.get_or_insert(Outage { since: now, logged: HashSet::new(), told: None });
        let Some(watch) = self.watches.get_mut(watch) else { return false };
        watch.on = false;
        let since = match watch.failing {
            Some((same, since)) if same == cause => since,
            _ => now,
        };
        watch.failing = Some((cause, since));
        let worth = outage.logged.is_empty() || now.duration_since(since) >= LASTING;
        worth && outage.logged.insert(cause)
    }

    /// Whether a [`Notice::Down`] is due for a watch that fails in this way: if the failure is logged, or
    /// if the last notice was about this watch and it fails in another way now. Often the first failure
    /// is that of a connection which an API server that goes away has left behind, and says little.
    fn tells(&mut self, watch: usize, what: &str, news: bool) -> bool {
        let Some(outage) = &mut self.outage else { return false };
        let tells = news
            || match &outage.told {
                Some((same, told)) if *same == watch => told != what,
                Some((other, _)) => self.watches.get(*other).is_none_or(|other| other.on),
                None => true,
            };
        if tells {
            outage.told = Some((watch, what.to_owned()));
        }
        tells
    }
}

impl fmt::Debug for WatchHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchHealth").field("watch", &self.watch).finish_non_exhaustive()
    }
}

/// Whether the service account lacks a permission.
pub(super) fn is_forbidden(error: &WatchFailure) -> bool {
    error.code() == Some(403)
}

/// The error and what caused it, each once.
fn reasons(error: &WatchFailure) -> String {
    let mut text = error.to_string();
    let mut cause: Option<&dyn Error> = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// In a few words, without names of users or objects: it is shown on the admin port.
fn brief(error: &WatchFailure) -> String {
    match error {
        WatchFailure::List(kube::Error::Api(status))
        | WatchFailure::Watch(kube::Error::Api(status))
        | WatchFailure::Ended(status) => {
            return format!("{} {}", status.code, status.reason).trim_end().to_owned();
        }
        WatchFailure::Fruitless(last) => return brief(last),
        _ => {}
    }
    let mut root: &dyn Error = error;
    while let Some(cause) = root.source() {
        root = cause;
    }
    root.to_string()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn status(code: u16) -> WatchFailure {
        let status = Status { code, reason: "Because".into(), ..Status::default() };
        WatchFailure::List(kube::Error::Api(Box::new(status)))
    }

    fn told() -> (Arc<SourceHealth>, Arc<Mutex<Vec<Notice>>>) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&told);
        (SourceHealth::new(move |notice| kept.lock().expect("told").push(notice)), told)
    }

    fn down(what: &str) -> Notice {
        Notice::Down { what: what.to_owned() }
    }

    #[test]
    fn up_is_when_every_watch_is_on_and_is_told_once() {
        let (health, told) = told();
        let (a, b) = (health.watch("as", None), health.watch("bs", None));
        a.watching();
        assert_eq!(*told.lock().expect("told"), []);
        b.watching();
        a.watching();
        assert_eq!(*told.lock().expect("told"), [Notice::Up]);
        b.failed(&status(500));
        a.watching();
        b.watching();
        assert_eq!(
            *told.lock().expect("told"),
            [Notice::Up, Notice::Failed, down("bs: 500 Because"), Notice::Up]
        );
    }

    #[test]
    fn an_outage_is_told_once_for_each_way_in_which_it_shows() {
        let (health, told) = told();
        let (a, b) = (health.watch("as", None), health.watch("bs", None));
        let since_last = || -> Vec<Notice> {
            let told = std::mem::take(&mut *told.lock().expect("told"));
            told.into_iter().filter(|notice| *notice != Notice::Failed).collect()
        };
        a.failed(&status(503));
        a.failed(&status(503));
        b.failed(&status(500));
        assert_eq!(since_last(), [down("as: 503 Because")]);
        a.failed(&status(500));
        b.failed(&status(403));
        a.failed(&status(500));
        assert_eq!(since_last(), [down("as: 500 Because")]);
        a.watching();
        b.failed(&status(403));
        assert_eq!(since_last(), [down("bs: 403 Because")]);
    }

    #[test]
    fn another_cause_is_worth_a_word_once_it_has_lasted() {
        let (health, _) = told();
        let (_, _) = (health.watch("as", None), health.watch("bs", None));
        let mut state = health.lock();
        let start = Instant::now();
        assert!(state.fail(0, None, start));
        assert!(!state.fail(1, Some(403), start));
        assert!(!state.fail(1, Some(403), start + LASTING / 2));
        assert!(state.fail(1, Some(403), start + LASTING));
        assert!(!state.fail(1, Some(403), start + LASTING * 2));
        assert!(!state.fail(1, Some(429), start + LASTING * 2), "the server's, as the first");
        assert!(!state.fail(1, Some(403), start + LASTING * 4), "anew, and said already");
        assert!(!state.fail(1, Some(404), start + LASTING * 4));
        assert!(state.fail(1, Some(404), start + LASTING * 5));
    }

    #[test]
    fn an_outage_is_over_when_what_broke_off_in_it_is_watched_again() {
        let (health, told) = told();
        let (a, b) = (health.watch("as", None), health.watch("bs", None));
        a.watching();
        b.watching();
        b.failed(&WatchFailure::Silent);
        a.failed(&status(503));
        a.watching();
        let ups = || {
            let told = told.lock().expect("told");
            told.iter().filter(|notice| **notice == Notice::Up).count()
        };
        assert_eq!(ups(), 1, "it may still fail");
        b.watching();
        assert_eq!(ups(), 2);
    }

    #[test]
    fn a_watch_that_breaks_off_is_no_outage() {
        let (health, told) = told();
        let a = health.watch("as", None);
        a.watching();
        a.failed(&WatchFailure::Ended(Box::new(Status { code: 410, ..Status::default() })));
        assert_eq!(*told.lock().expect("told"), [Notice::Up, Notice::Failed]);
    }
}
