//! Routes, Services, EndpointSlices and ReferenceGrants from the API server.
//!
//! Each kind is listed in pages and then watched, object by object, which starts anew after errors,
//! with growing pauses, and after the server has forgotten where a watch was. What comes goes into
//! a [`Builder`](super::translate::Builder); bursts are settled together, after a short quiet or at the
//! latest after a bounded time. Nothing is published before every kind has been listed once, and the
//! names that routes lead to have been looked up, or that has taken too long.
//!
//! * `kinds` has all that is special about a kind: a new one is an implementation and a line there;
//! * `list_watch` lists and watches one kind, by `request`, and `optional` one that may be undefined;
//! * `health` knows how that fares;
//! * `listing` knows what is there, [`Objects`] what it says, and `faults` what cannot be read.

mod faults;
mod health;
mod kinds;
mod list_watch;
mod listing;
mod objects;
mod optional;
mod request;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
mod tests;

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures::stream::SelectAll;
use futures::{FutureExt, Stream, StreamExt};
use kube::Client;

pub use self::health::Notice;
use self::health::SourceHealth;
use self::kinds::FOLLOWED;
use self::list_watch::{Event, Failure, events};
use self::listing::{Listing, Todo};
pub use self::objects::Objects;
use self::optional::Optional;
use self::request::noting;
pub use self::request::tuned;
use super::api::{Definition, DnsName, READ_KINDS};
use super::burst::take_burst;
use super::dns::{self, DnsAnswers, DnsFollower};
use super::translate::{Delta, DnsAnswer, Installation};
use super::{slices, warn_of_missing_services};
use crate::routing::{Kind, ObjectKey};

/// What is to be served and reported differently from now on.
#[derive(Clone, Debug)]
pub struct Update {
    /// The changes, and the statuses of the routes that were looked at again.
    pub delta: Delta,
    /// How many objects of each kind cannot be read now.
    pub faults: [(Kind, usize); READ_KINDS.len()],
    /// When the first of the changes came.
    pub noticed: Instant,
}

/// Where the objects come from: all namespaces, or those that are given.
#[derive(Clone)]
pub struct Source {
    /// Speaks to the API server.
    pub client: Client,
    /// Empty means all.
    pub namespaces: Vec<String>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("namespaces", &self.namespaces).finish_non_exhaustive()
    }
}

/// Follows the API server for good; drop it to end it. `names` resolves the names that routes lead
/// to; `told` learns how the lists and watches fare.
pub async fn watch(
    source: Source,
    installation: Installation,
    (mut names, answers): (DnsFollower, DnsAnswers),
    mut publish: impl FnMut(Update),
    told: impl Fn(Notice) + Send + Sync + 'static,
) -> Infallible {
    let (mut streams, listings) = source.streams(&SourceHealth::new(told));
    streams.push(answers.map(|(name, answer)| Told::Name(name, answer)).boxed());
    let mut state = State::new(installation, listings);
    let mut start = Start::Listing;
    loop {
        let noticed = take_burst(&mut streams, |told| state.take(told)).await;
        state.remove_gone().await;
        if !state.is_complete() {
            continue;
        }
        if start == Start::Naming {
            state.objects.builder.tell_all();
        }
        let mut delta = slices::settle(&mut state.objects.builder).await;
        names.change(std::mem::take(&mut delta.names));
        if start != Start::Over && state.patient && state.objects.builder.awaits_names() {
            if start == Start::Listing {
                let patience = tokio::time::sleep(dns::PATIENCE);
                streams.push(patience.map(|()| Told::Impatience).into_stream().boxed());
                start = Start::Naming;
            }
            continue;
        }
        if std::mem::replace(&mut start, Start::Over) != Start::Over {
            warn_of_missing_services(&state.objects.builder);
        }
        publish(Update { delta, faults: state.objects.faults(), noticed });
    }
}

/// How far the first table is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// Not everything is listed.
    Listing,
    /// Names are looked up that it leads to.
    Naming,
    /// It is published.
    Over,
}

/// What has come.
enum Told {
    /// In answer to a list and watch, an index of [`State::listings`].
    Event(usize, Event),
    /// There can be no objects of that kind.
    Undefined(usize),
    Failure(usize, Failure),
    /// The resolver has said something of a name.
    Name(DnsName, DnsAnswer),
    /// The first table has waited long enough for names.
    Impatience,
}

type Streams = SelectAll<Pin<Box<dyn Stream<Item = Told> + Send>>>;

impl Source {
    /// A stream for each kind in each namespace, and what is known of each.
    fn streams(&self, health: &Arc<SourceHealth>) -> (Streams, Vec<Listing>) {
        let scopes: Vec<Option<&str>> = match self.namespaces.as_slice() {
            [] => vec![None],
            some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
        };
        let mut streams: Streams = SelectAll::new();
        let mut listings = Vec::new();
        for scope in scopes {
            for followed in FOLLOWED {
                let definition = Definition::of(followed.kind());
                let health = health.listing(definition.resource, scope);
                let listing = Listing::new(definition, health.clone());
                let client = noting(&self.client, health.clone());
                let watch = move |path| events(client.clone(), path, health.clone());
                let at = listings.len();
                streams.push(match definition.optional {
                    false => {
                        let events = watch(Definition::path(&definition.newest(), scope));
                        events.map(move |event| told(at, event.map(Optional::Event))).boxed()
                    }
                    true => {
                        let (client, scope) = (self.client.clone(), scope.map(str::to_owned));
                        let events = optional::follow(definition, client, watch, scope);
                        events.map(move |event| told(at, event)).boxed()
                    }
                });
                listings.push(listing);
            }
        }
        (streams, listings)
    }
}

fn told(listing: usize, event: Result<Optional, Failure>) -> Told {
    match event {
        Ok(Optional::Undefined) => Told::Undefined(listing),
        Ok(Optional::Event(event)) => Told::Event(listing, event),
        Err(failure) => Told::Failure(listing, failure),
    }
}

struct State {
    objects: Objects,
    listings: Vec<Listing>,
    /// Whether the first table may still wait for names.
    patient: bool,
    /// What was found to be gone when everything had been listed anew, and is to be removed.
    gone: HashSet<(Kind, ObjectKey)>,
}

impl State {
    fn new(installation: Installation, listings: Vec<Listing>) -> Self {
        State { objects: Objects::new(installation), listings, patient: true, gone: HashSet::new() }
    }

    /// Whether every kind was listed as a whole.
    fn is_complete(&self) -> bool {
        self.listings.iter().all(|listing| listing.done)
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Event(listing, event) => self.follow(listing, event),
            Told::Undefined(listing) => self.clear(listing),
            Told::Failure(listing, failure) => self.fail(listing, &failure),
            Told::Name(name, answer) => self.objects.builder.put_answer(&name, answer),
            Told::Impatience => self.patient = false,
        }
    }

    fn fail(&mut self, listing: usize, failure: &Failure) {
        let Some(listing) = self.listings.get_mut(listing) else { return };
        listing.health.failed(failure);
        // Without grants, what needs one is not served; all else is.
        if listing.optional && health::is_forbidden(failure) {
            listing.done = true;
        }
    }

    fn follow(&mut self, listing: usize, event: Event) {
        let Some(listing) = self.listings.get_mut(listing) else { return };
        let kind = listing.kind;
        match listing.follow(event) {
            Todo::Nothing => {}
            Todo::Put(text) => {
                if !self.gone.is_empty() && self.gone.remove(&(kind, text.head().key())) {
                    // One that has come anew is not the one that is gone.
                    self.objects.remove(kind, &text.head().key());
                }
                self.objects.put(kind, &text);
            }
            Todo::Remove(key) => self.objects.remove(kind, &key),
            Todo::RemoveAll(gone) => self.gone.extend(gone.into_iter().map(|key| (kind, key))),
        }
    }

    fn clear(&mut self, listing: usize) {
        let Some(listing) = self.listings.get_mut(listing) else { return };
        listing.health.following();
        let kind = listing.kind;
        self.gone.extend(listing.clear().into_iter().map(|key| (kind, key)));
    }

    /// Removes what is gone, which may be much.
    async fn remove_gone(&mut self) {
        let gone = std::mem::take(&mut self.gone);
        slices::each(gone, |(kind, key)| self.objects.remove(kind, &key)).await;
    }
}
