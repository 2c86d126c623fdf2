//! Routes, Services, EndpointSlices and ReferenceGrants from the API server.
//!
//! Each kind is listed in pages and then watched by kube's runtime, which starts anew after errors,
//! with growing pauses, and after the server has forgotten where a watch was. What comes goes into
//! a [`Builder`]; bursts are settled together, after a short quiet or at the latest after a bounded
//! time. Nothing is published before every kind has been listed once, and the names that routes
//! lead to have been looked up, or that has taken too long.

mod grants;
mod health;
mod listing;
mod request;

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures::stream::SelectAll;
use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DynamicObject};
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tracing::warn;

use self::grants::{Events, Grants};
pub use self::health::Notice;
use self::health::{ListingHealth, SourceHealth};
use self::listing::{Listing, Todo};
pub use self::request::tuned;
use self::request::{Pauses, WATCH_SECONDS, noting};
use super::api::{DnsName, ReferenceGrant, SniRoute};
use super::build::{Answer, Builder, Installation, Settled, key};
use super::burst::take_burst;
use super::dns::{self, Answers, Names};

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

/// Follows the API server for good; drop it to end it. `names` resolves the names that routes lead
/// to; `told` learns how the lists and watches fare.
pub async fn watch(
    source: Source,
    installation: Installation,
    (mut names, answers): (Names, Answers),
    mut publish: impl FnMut(Update),
    told: impl Fn(Notice) + Send + Sync + 'static,
) -> Infallible {
    let (mut streams, listings) = source.streams(&SourceHealth::new(told));
    streams.push(answers.map(|(name, answer)| Told::Name(name, answer)).boxed());
    let mut state = State { builder: Builder::new(installation), listings, patient: true };
    let mut start = Start::Listing;
    loop {
        let noticed = take_burst(&mut streams, |told| state.take(told)).await;
        if !state.is_complete() {
            continue;
        }
        if start == Start::Naming {
            state.builder.tell_all();
        }
        let mut settled = state.builder.settle();
        names.change(std::mem::take(&mut settled.names));
        if start != Start::Over && state.patient && state.builder.awaits_names() {
            if start == Start::Listing {
                let patience = tokio::time::sleep(dns::PATIENCE);
                streams.push(patience.map(|()| Told::Impatience).into_stream().boxed());
                start = Start::Naming;
            }
            continue;
        }
        start = Start::Over;
        publish(Update { settled, noticed });
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
    Event(usize, What),
    Failure(usize, watcher::Error),
    /// The resolver has said something of a name.
    Name(DnsName, Answer),
    /// The first table has waited long enough for names.
    Impatience,
}

enum What {
    Route(Box<watcher::Event<DynamicObject>>),
    Service(Box<watcher::Event<Service>>),
    Slice(Box<watcher::Event<EndpointSlice>>),
    Grant(Box<watcher::Event<DynamicObject>>),
    /// There can be no grants.
    NoGrants,
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
            streams.push(told(at, events(health, routes), What::Route));
            let (at, client, health) = begin("services");
            streams.push(told(at, events(health, api(client, scope)), What::Service));
            let (at, client, health) = begin("endpointslices.discovery.k8s.io");
            streams.push(told(at, events(health, api(client, scope)), What::Slice));
            let (at, client, health) = begin("referencegrants.gateway.networking.k8s.io");
            listings.iter_mut().last().into_iter().for_each(|listing| listing.optional = true);
            let watch = move |api| events(health.clone(), api);
            let grants =
                grants::follow(self.client.clone(), client, watch, scope.map(str::to_owned));
            let what = |grants| match grants {
                Grants::Undefined => What::NoGrants,
                Grants::Event(event) => What::Grant(event),
            };
            streams.push(grants.map(move |told| heard(at, told, what)).boxed());
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

fn events<K>(health: ListingHealth, api: Api<K>) -> Events<K>
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
{
    let config = watcher::Config::default().page_size(PAGE).timeout(WATCH_SECONDS);
    watcher(api, config).backoff(Pauses::new(health)).boxed()
}

fn told<K: 'static>(
    listing: usize,
    events: Events<K>,
    what: fn(Box<watcher::Event<K>>) -> What,
) -> Pin<Box<dyn Stream<Item = Told> + Send>> {
    events.map(move |event| heard(listing, event, |event| what(Box::new(event)))).boxed()
}

fn heard<T>(listing: usize, heard: watcher::Result<T>, what: impl Fn(T) -> What) -> Told {
    match heard {
        Ok(heard) => Told::Event(listing, what(heard)),
        Err(error) => Told::Failure(listing, error),
    }
}

struct State {
    builder: Builder,
    listings: Vec<Listing>,
    /// Whether the first table may still wait for names.
    patient: bool,
}

impl State {
    /// Whether every kind was listed as a whole.
    fn is_complete(&self) -> bool {
        self.listings.iter().all(|listing| listing.done)
    }

    fn take(&mut self, told: Told) {
        match told {
            Told::Event(listing, what) => self.follow(listing, what),
            Told::Failure(listing, error) => self.fail(listing, &error),
            Told::Name(name, answer) => self.builder.put_answer(&name, answer),
            Told::Impatience => self.patient = false,
        }
    }

    fn fail(&mut self, listing: usize, error: &watcher::Error) {
        let Some(listing) = self.listings.get_mut(listing) else { return };
        listing.health.failed(error);
        // Without grants, what needs one is not served; all else is.
        if listing.optional && health::is_forbidden(error) {
            listing.done = true;
        }
    }

    fn follow(&mut self, listing: usize, what: What) {
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
            What::Grant(event) => match listing.follow(*event) {
                Todo::Nothing => {}
                Todo::Put(object) => put_grant(builder, object),
                Todo::Remove(gone) => gone.iter().for_each(|key| builder.remove_grant(key)),
            },
            What::NoGrants => {
                listing.health.watching();
                listing.clear().iter().for_each(|key| builder.remove_grant(key));
            }
        }
    }
}

/// One object that is not what it should be must not keep the others from being read, so routes
/// are read one by one.
fn put_route(builder: &mut Builder, object: DynamicObject) {
    let metadata = object.metadata.clone();
    let class = object.data.pointer("/spec/className").and_then(|class| class.as_str());
    let class = class.map(str::to_owned);
    match parse_route(object) {
        Ok(route) => builder.put_route(&route),
        Err(why) => builder.put_invalid_route(&metadata, class.as_deref(), &why),
    }
}

/// The route that an object is, or the field that is at fault and why.
fn parse_route(object: DynamicObject) -> Result<SniRoute, String> {
    let value = serde_json::to_value(object).map_err(|error| error.to_string())?;
    serde_path_to_error::deserialize(value).map_err(|error| error.to_string())
}

/// One that cannot be read grants nothing.
fn put_grant(builder: &mut Builder, object: DynamicObject) {
    let Some(key) = key(&object.metadata) else { return };
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    match serde_json::from_value(spec) {
        Ok(spec) => builder.put_grant(&ReferenceGrant { metadata: object.metadata, spec }),
        Err(error) => {
            warn!(grant = %key, %error, "a ReferenceGrant cannot be read, and grants nothing");
            builder.remove_grant(&key);
        }
    }
}
