//! Routes, Services and EndpointSlices from the API server.
//!
//! Each kind is listed in pages and then watched by kube's runtime, which starts anew after errors,
//! with growing pauses, and after the server has forgotten where a watch was. What comes goes into a
//! [`Builder`]; bursts are settled together, after a short quiet or at the latest after a bounded
//! time. Nothing is published before every kind has been listed once.

mod health;
mod listing;
mod request;

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures::stream::SelectAll;
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

pub use self::health::Notice;
use self::health::{ListingHealth, SourceHealth};
use self::listing::{Listing, Todo};
pub use self::request::tuned;
use self::request::{Pauses, WATCH_SECONDS, noting};
use super::api::SniRoute;
use super::build::{Builder, Installation, Settled};
use super::burst::take_burst;

/// How many objects a page of a list has.
const PAGE: u32 = 500;

/// What is to be served and reported differently from now on.
#[derive(Clone, Debug)]
pub struct Update {
    /// The changes, and the statuses of the routes that were looked at again.
    pub settled: Settled,
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

/// Follows the API server for good; drop it to end it. `told` learns how the lists and watches fare.
pub async fn watch(
    source: Source,
    installation: Installation,
    mut publish: impl FnMut(Update),
    told: impl Fn(Notice) + Send + Sync + 'static,
) -> Infallible {
    let (mut streams, listings) = source.streams(&SourceHealth::new(told));
    let mut state = State { builder: Builder::new(installation), listings };
    loop {
        let noticed = take_burst(&mut streams, |Told { listing, what }| match what {
            Ok(what) => state.take(listing, what),
            Err(error) => state.fail(listing, &error),
        })
        .await;
        if state.is_complete() {
            publish(Update { settled: state.builder.settle(), noticed });
        }
    }
}

/// What the API server said in answer to one of the lists and watches.
struct Told {
    /// Which: an index of [`State::listings`].
    listing: usize,
    what: Result<What, watcher::Error>,
}

enum What {
    Route(Box<watcher::Event<DynamicObject>>),
    Service(Box<watcher::Event<Service>>),
    Slice(Box<watcher::Event<EndpointSlice>>),
}

type Streams = SelectAll<Pin<Box<dyn Stream<Item = Told> + Send>>>;

impl Source {
    /// A stream for each kind in each namespace, and what is known of each.
    fn streams(&self, health: &Arc<SourceHealth>) -> (Streams, Vec<Listing>) {
        let resource = ApiResource::erase::<SniRoute>(&());
        let scopes: Vec<Option<&str>> = match self.namespaces.as_slice() {
            [] => vec![None],
            some => some.iter().map(|namespace| Some(namespace.as_str())).collect(),
        };
        let mut streams = SelectAll::new();
        let mut listings = Vec::new();
        for scope in scopes {
            let mut begin = |kind| {
                let health = health.listing(kind, scope);
                listings.push(Listing::new(health.clone()));
                (listings.len() - 1, noting(&self.client, health.clone()), health)
            };
            let (at, client, health) = begin("sniroutes.sluice.dev");
            let routes = match scope {
                Some(namespace) => Api::namespaced_with(client, namespace, &resource),
                None => Api::all_with(client, &resource),
            };
            streams.push(stream(at, health, routes, What::Route));
            let (at, client, health) = begin("services");
            streams.push(stream(at, health, api(client, scope), What::Service));
            let (at, client, health) = begin("endpointslices.discovery.k8s.io");
            streams.push(stream(at, health, api(client, scope), What::Slice));
        }
        (streams, listings)
    }
}

fn api<K>(client: Client, scope: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match scope {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

fn stream<K>(
    listing: usize,
    health: ListingHealth,
    api: Api<K>,
    what: fn(Box<watcher::Event<K>>) -> What,
) -> Pin<Box<dyn Stream<Item = Told> + Send>>
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    let config = watcher::Config::default().page_size(PAGE).timeout(WATCH_SECONDS);
    let events = watcher(api, config).backoff(Pauses::new(health));
    events
        .map(move |event| Told { listing, what: event.map(|event| what(Box::new(event))) })
        .boxed()
}

struct State {
    builder: Builder,
    listings: Vec<Listing>,
}

impl State {
    /// Whether every kind was listed as a whole.
    fn is_complete(&self) -> bool {
        self.listings.iter().all(|listing| listing.done)
    }

    fn fail(&self, listing: usize, error: &watcher::Error) {
        if let Some(listing) = self.listings.get(listing) {
            listing.health.failed(error);
        }
    }

    fn take(&mut self, listing: usize, what: What) {
        let Some(listing) = self.listings.get_mut(listing) else { return };
        let builder = &mut self.builder;
        match what {
            What::Route(event) => match listing.follow(*event) {
                Todo::Nothing => {}
                Todo::Put(object) => put_route(builder, object),
                Todo::Remove(gone) => gone.iter().for_each(|key| builder.remove_route(key)),
            },
            What::Service(event) => match listing.follow(*event) {
                Todo::Nothing => {}
                Todo::Put(service) => builder.put_service(&service),
                Todo::Remove(gone) => gone.iter().for_each(|key| builder.remove_service(key)),
            },
            What::Slice(event) => match listing.follow(*event) {
                Todo::Nothing => {}
                Todo::Put(slice) => builder.put_slice(&slice),
                Todo::Remove(gone) => gone.iter().for_each(|key| builder.remove_slice(key)),
            },
        }
    }
}

/// One object that is not what it should be must not keep the others from being read, so routes
/// are read one by one.
fn put_route(builder: &mut Builder, object: DynamicObject) {
    let metadata = object.metadata.clone();
    let class = object.data.pointer("/spec/className").and_then(|class| class.as_str());
    let class = class.map(str::to_owned);
    match object.try_parse::<SniRoute>() {
        Ok(route) => builder.put_route(&route),
        Err(error) => builder.put_invalid_route(&metadata, class.as_deref(), &error.to_string()),
    }
}
