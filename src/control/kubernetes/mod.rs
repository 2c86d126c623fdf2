//! Routes, Services, EndpointSlices and ReferenceGrants from the API server.
//!
//! Each kind is listed in pages and then watched, object by object, which starts anew after errors,
//! with growing pauses, and after the server has forgotten where a watch was. What comes goes into
//! a [`Builder`](super::translate::Builder); bursts are settled together, after a short quiet or at the
//! latest after a bounded time. Nothing is published before every kind has been listed once, and the
//! names that routes lead to have been looked up, or that has taken too long.
//!
//! * `kinds` has all that is special about a kind when it is followed;
//! * `list_watch` lists and watches one kind, by `request` and `lines`, and `optional` one that may be undefined;
//! * `health` knows how that fares;
//! * `references` reads the Secrets and ConfigMaps that routes and their health checks name;
//! * `watch_state` knows what is there, [`Objects`] what it says, and `faults` what cannot be read.

mod faults;
mod health;
mod kinds;
mod lines;
mod list_watch;
mod objects;
mod optional;
mod references;
mod request;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests;
mod watch_state;

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::SelectAll;
use futures::{FutureExt, Stream, StreamExt, stream};
use jiff::Timestamp;
use kube::Client;
use tokio::sync::Notify;

pub use self::health::Notice;
use self::health::SourceHealth;
use self::kinds::WATCHED_KINDS;
use self::list_watch::{WatchEvent, WatchFailure, events};
pub use self::objects::Objects;
use self::optional::OptionalEvent;
pub use self::references::CheckedReferences;
use self::references::{ReferenceFollower, ReferenceNews, SecretWatch};
use self::request::observed;
pub use self::request::tuned;
use self::watch_state::{IndexOp, WatchState};
use super::api::{Definition, DnsName, READ_KINDS};
use super::debounce::take_debounced;
use super::dns::{self, DnsAnswers, DnsFollower};
use super::objects::Extent;
use super::translate::{Delta, DnsAnswer, Installation};
use super::{slices, warn_of_missing_services};
use crate::routing::{Kind, ObjectKey};

/// How often the validity of certificates is looked at.
const TICK: Duration = Duration::from_secs(60);

/// A change of the table and the statuses.
#[derive(Clone, Debug)]
pub struct KubernetesUpdate {
    /// The changes.
    pub delta: Delta,
    /// How many objects of each kind cannot be read now.
    pub faults: [(Kind, usize); READ_KINDS.len()],
    /// When the first of the changes arrived.
    pub noticed: Instant,
}

/// The API server, and the namespaces to watch.
#[derive(Clone)]
pub struct KubernetesSource {
    /// The client.
    pub client: Client,
    /// Empty means all.
    pub namespaces: Vec<String>,
    /// Whether the Secrets that routes name may be read.
    pub secrets: bool,
}

impl fmt::Debug for KubernetesSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesSource")
            .field("namespaces", &self.namespaces)
            .finish_non_exhaustive()
    }
}

/// Watches the API server until it is dropped. `names` resolves DNS names of backends; what health checks name is read
/// for `checked`; `notify` receives notices about the health of the watches.
pub async fn watch(
    source: KubernetesSource,
    installation: Installation,
    (mut names, answers): (DnsFollower, DnsAnswers),
    checked: CheckedReferences,
    mut publish: impl FnMut(KubernetesUpdate),
    notify: impl Fn(Notice) + Send + Sync + 'static,
) -> Infallible {
    let health = SourceHealth::new(notify);
    // All watches are known before the first of them begins.
    let secrets = source.secret_watches(&health);
    let (mut streams, watches) = source.streams(&health);
    if source.secrets {
        streams.push(ticks().boxed());
    }
    let (mut references, news) = ReferenceFollower::start(source.client, secrets, checked);
    streams.push(answers.map(|(name, answer)| SourceEvent::Name(name, answer)).boxed());
    streams.push(news.map(SourceEvent::Reference).boxed());
    let mut state = Follower::new(installation, watches);
    let mut start = FirstTable::Listing;
    loop {
        let noticed = take_debounced(&mut streams, |event| state.take(event)).await;
        state.remove_gone().await;
        if !state.is_complete() {
            continue;
        }
        if start == FirstTable::Resolving {
            // Of what is read, nothing more is to be read. It is translated once, when all of it is there.
            if !std::mem::take(&mut state.has_changed) && state.waits() {
                continue;
            }
            state.objects.builder.tell_all();
        }
        let mut delta = slices::settle(&mut state.objects.builder).await;
        names.change(std::mem::take(&mut delta.names));
        references.change(std::mem::take(&mut delta.references));
        if start != FirstTable::Published && state.waits() {
            if start == FirstTable::Listing {
                streams.extend(state.impatience());
                start = FirstTable::Resolving;
            }
            continue;
        }
        if std::mem::replace(&mut start, FirstTable::Published) != FirstTable::Published {
            warn_of_missing_services(&state.objects.builder);
            references.published();
        }
        publish(KubernetesUpdate { delta, faults: state.objects.faults(), noticed });
    }
}

/// The progress of the first table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstTable {
    /// Not everything is listed.
    Listing,
    /// DNS names are being resolved, and what routes name is being read.
    Resolving,
    /// It is published.
    Published,
}

/// What the first table waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Names,
    References,
}

impl Awaited {
    const ALL: [Awaited; 2] = [Awaited::Names, Awaited::References];
}

/// An event of one of the streams.
enum SourceEvent {
    /// In answer to a list and watch, an index of [`Follower::watches`].
    WatchEvent(usize, WatchEvent),
    /// The kind is not defined, so there are no objects of it.
    Undefined(usize),
    WatchFailure(usize, WatchFailure),
    /// A DNS name has new addresses.
    Name(DnsName, DnsAnswer),
    /// A Secret or ConfigMap that routes name was read, or could not be.
    Reference(ReferenceNews),
    /// The first table has waited long enough for this.
    Impatience(Awaited),
    /// Time has passed.
    Tick,
}

impl SourceEvent {
    fn is_of_watch(&self) -> bool {
        matches!(
            self,
            SourceEvent::WatchEvent(..) | SourceEvent::Undefined(_) | SourceEvent::WatchFailure(..)
        )
    }
}

type Streams = SelectAll<Pin<Box<dyn Stream<Item = SourceEvent> + Send>>>;

impl KubernetesSource {
    /// The namespaces to watch; `None` is all.
    fn scopes(&self) -> Vec<Option<&str>> {
        match self.namespaces.as_slice() {
            [] => vec![None],
            some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
        }
    }

    /// The watches of the Secrets' metadata, if Secrets may be read.
    fn secret_watches(&self, health: &Arc<SourceHealth>) -> Vec<SecretWatch> {
        let definition = Definition::of(Kind::Secret);
        let scopes = self.scopes().into_iter().filter(|_| self.secrets);
        scopes
            .map(|scope| {
                let health = health.watch(definition.resource, scope);
                let client = observed(&self.client, health.clone());
                let path = Definition::path(&definition.newest(), scope);
                SecretWatch {
                    namespace: scope.map(str::to_owned),
                    events: events(client, path, Extent::Metadata, health.clone()),
                    health,
                }
            })
            .collect()
    }

    /// A stream for each kind in each namespace, and what is known of each.
    fn streams(&self, health: &Arc<SourceHealth>) -> (Streams, Vec<WatchState>) {
        let mut streams: Streams = SelectAll::new();
        let mut watches = Vec::new();
        for scope in self.scopes() {
            for watched_kind in WATCHED_KINDS {
                let definition = Definition::of(watched_kind.kind());
                let health = health.watch(definition.resource, scope);
                let watched = WatchState::new(definition, health.clone());
                let client = observed(&self.client, health.clone());
                let watch = move |path| events(client.clone(), path, Extent::Whole, health.clone());
                let at = watches.len();
                streams.push(match definition.optional {
                    false => {
                        let events = watch(Definition::path(&definition.newest(), scope));
                        events
                            .map(move |event| {
                                source_event(at, event.map(OptionalEvent::WatchEvent))
                            })
                            .boxed()
                    }
                    true => {
                        let (client, scope) = (self.client.clone(), scope.map(str::to_owned));
                        let events = optional::follow(definition, client, watch, scope);
                        events.map(move |event| source_event(at, event)).boxed()
                    }
                });
                watches.push(watched);
            }
        }
        (streams, watches)
    }
}

/// A tick now, and then one after the other.
fn ticks() -> impl Stream<Item = SourceEvent> + Send {
    stream::unfold(Duration::ZERO, |pause| async move {
        tokio::time::sleep(pause).await;
        Some((SourceEvent::Tick, TICK))
    })
}

fn source_event(watched: usize, event: Result<OptionalEvent, WatchFailure>) -> SourceEvent {
    match event {
        Ok(OptionalEvent::Undefined) => SourceEvent::Undefined(watched),
        Ok(OptionalEvent::WatchEvent(event)) => SourceEvent::WatchEvent(watched, event),
        Err(failure) => SourceEvent::WatchFailure(watched, failure),
    }
}

struct Follower {
    objects: Objects,
    watches: Vec<WatchState>,
    /// Whether what is listed and watched has changed.
    has_changed: bool,
    /// What the first table no longer waits for.
    impatient: Vec<Awaited>,
    /// Notified when something was read that routes name.
    read: Arc<Notify>,
    /// What was found to be gone when everything had been listed anew, and is to be removed.
    gone: HashSet<(Kind, ObjectKey)>,
}

impl Follower {
    fn new(installation: Installation, watches: Vec<WatchState>) -> Self {
        Follower {
            objects: Objects::new(installation),
            watches,
            has_changed: false,
            impatient: Vec::new(),
            read: Arc::default(),
            gone: HashSet::new(),
        }
    }

    /// Whether every kind was listed as a whole.
    fn is_complete(&self) -> bool {
        self.watches.iter().all(|watched| watched.done)
    }

    /// Whether the first table waits for anything.
    fn waits(&self) -> bool {
        let builder = &self.objects.builder;
        Awaited::ALL.iter().any(|awaited| {
            let is_missing = match awaited {
                Awaited::Names => builder.awaits_names(),
                Awaited::References => builder.awaits_references(),
            };
            is_missing && !self.impatient.contains(awaited)
        })
    }

    /// Tells when the first table has waited long enough.
    fn impatience(&self) -> [Pin<Box<dyn Stream<Item = SourceEvent> + Send>>; 2] {
        let names = tokio::time::sleep(dns::PATIENCE);
        let references = references::impatience(Arc::clone(&self.read));
        let told = |awaited| move |()| SourceEvent::Impatience(awaited);
        [
            names.map(told(Awaited::Names)).into_stream().boxed(),
            references.map(told(Awaited::References)).into_stream().boxed(),
        ]
    }

    fn take(&mut self, source_event: SourceEvent) {
        self.has_changed |= source_event.is_of_watch();
        match source_event {
            SourceEvent::WatchEvent(watched, event) => self.follow(watched, event),
            SourceEvent::Undefined(watched) => self.clear(watched),
            SourceEvent::WatchFailure(watched, failure) => self.fail(watched, &failure),
            SourceEvent::Name(name, answer) => self.objects.builder.put_answer(&name, answer),
            SourceEvent::Reference(news) => {
                if news.is_read() {
                    self.read.notify_one();
                }
                news.tell(&mut self.objects.builder);
            }
            SourceEvent::Impatience(awaited) => self.impatient.push(awaited),
            SourceEvent::Tick => {
                self.objects.builder.set_time(Timestamp::now().as_second());
            }
        }
    }

    fn fail(&mut self, watched: usize, failure: &WatchFailure) {
        let Some(watched) = self.watches.get_mut(watched) else { return };
        watched.health.failed(failure);
        // Without grants, what needs one is not served; all else is.
        if watched.optional && health::is_forbidden(failure) {
            watched.done = true;
        }
    }

    fn follow(&mut self, watched: usize, event: WatchEvent) {
        let Some(watched) = self.watches.get_mut(watched) else { return };
        let kind = watched.kind;
        match watched.follow(event) {
            IndexOp::Nothing => {}
            IndexOp::Put(text) => {
                if !self.gone.is_empty() && self.gone.remove(&(kind, text.head().key())) {
                    // One that has come anew is not the one that is gone.
                    self.objects.remove(kind, &text.head().key());
                }
                self.objects.put(kind, &text);
            }
            IndexOp::Remove(key) => self.objects.remove(kind, &key),
            IndexOp::RemoveAll(gone) => self.gone.extend(gone.into_iter().map(|key| (kind, key))),
        }
    }

    fn clear(&mut self, watched: usize) {
        let Some(watched) = self.watches.get_mut(watched) else { return };
        watched.health.following();
        let kind = watched.kind;
        self.gone.extend(watched.clear().into_iter().map(|key| (kind, key)));
    }

    /// Removes what is gone, which may be much.
    async fn remove_gone(&mut self) {
        let gone = std::mem::take(&mut self.gone);
        slices::each(gone, |(kind, key)| self.objects.remove(kind, &key)).await;
    }
}
