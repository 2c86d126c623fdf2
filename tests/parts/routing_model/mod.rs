//! The routing table, compared with a slow and simple model.

mod lookup;
mod strategies;
mod verdicts;

use std::cmp::Reverse;

use sluice::routing::{
    Age, AnyOn, ClaimConflict, Claimant, Demand, Hostname, Hostnames, Referrer, RouteKey,
    RouteSpec, judge, judge_any,
};

/// Few, so that routes conflict: exact names, wildcards at three depths, and `*`.
const HOSTNAMES: [&str; 10] =
    ["*", "*.a", "*.b.a", "*.a.b.a", "*.b", "a", "b.a", "a.b.a", "c.a.b.a", "b"];
const LISTENERS: [&str; 3] = ["one", "two", "three"];

const PROTOCOLS: [&str; 3] = ["h2", "http/1.1", "x"];

/// A connection.
#[derive(Clone, Debug)]
struct Ask {
    name: Option<String>,
    listener: &'static str,
    offers: Vec<&'static str>,
}

impl Ask {
    fn offers(&self, protocol: &str) -> bool {
        self.offers.contains(&protocol)
    }
}

/// Whether a hostname covers a name, according to their texts.
fn covers(hostname: &str, name: Option<&str>) -> bool {
    match (hostname.strip_prefix('*'), name) {
        (Some(""), _) => true,
        (_, None) => false,
        (None, Some(name)) => name == hostname,
        (Some(dot_suffix), Some(name)) => name.ends_with(dot_suffix) && name != dot_suffix,
    }
}

fn admits(route: &RouteSpec, ask: &Ask) -> bool {
    let listener = is_on(route, ask.listener);
    let protocol = route.alpn.is_empty() || route.alpn.iter().any(|one| ask.offers(one));
    listener && protocol
}

/// The listeners of a route, which has one attachment.
fn listeners(route: &RouteSpec) -> &[Box<str>] {
    &route.attachments[0].listeners
}

fn is_on(route: &RouteSpec, listener: &str) -> bool {
    listeners(route).is_empty() || listeners(route).contains(&listener.into())
}

fn claims(route: &RouteSpec, hostname: Hostname<&str>) -> bool {
    route.hostnames().any(|one| one == hostname)
}

/// The precedence between claims to one hostname: ALPN, age, then the key. The greatest wins.
fn rank(route: &RouteSpec) -> impl Ord + use<'_> {
    (!route.alpn.is_empty(), Reverse(age(route)))
}

/// The age of a route. The least owns its hostnames, for its namespace.
fn age(route: &RouteSpec) -> impl Ord + use<'_> {
    (route.created.unwrap_or(i64::MAX), route.key.namespace(), route.key.name())
}

/// Pairs of namespaces: the first shares its hostnames with the second.
type Grants = Vec<(&'static str, &'static str)>;

fn may(grants: &Grants, owner: &str, namespace: &str) -> bool {
    owner == namespace || grants.contains(&(owner, namespace))
}

/// The route for a connection, found by checking every claim of every route.
fn model<'r>(
    routes: &'r [RouteSpec],
    grants: &Grants,
    ask: &Ask,
) -> Option<(&'r RouteKey, Hostname<&'r str>)> {
    let mut claimed: Vec<Hostname<&str>> = routes.iter().flat_map(RouteSpec::hostnames).collect();
    claimed.retain(|hostname| covers(&hostname.to_string(), ask.name.as_deref()));
    claimed.sort_unstable();
    claimed.dedup();
    let mut only = None;
    // From the most specific to the least.
    for hostname in claimed.into_iter().rev() {
        let claims: Vec<&RouteSpec> =
            routes.iter().filter(|route| claims(route, hostname)).collect();
        // `*` has an owner for each listener, other hostnames have one for all listeners.
        let here = |route: &&&RouteSpec| hostname != Hostname::Any || is_on(route, ask.listener);
        let oldest = claims.iter().filter(here).min_by(|a, b| age(a).cmp(&age(b)));
        let Some(owner) = oldest.map(|oldest| oldest.key.namespace()) else { continue };
        let best = claims
            .iter()
            .filter(|route| admits(route, ask) && may(grants, owner, route.key.namespace()))
            .filter(|route| only.is_none_or(|only| only == route.key.namespace()))
            .max_by(|a, b| rank(a).cmp(&rank(b)));
        if let Some(best) = best {
            return Some((&best.key, hostname));
        }
        only = only.or(Some(owner));
    }
    None
}

/// The conflict of each claim to a hostname.
fn judged<'r>(
    routes: &'r [RouteSpec],
    grants: &Grants,
    hostname: Hostname<&str>,
) -> Vec<(&'r RouteSpec, Option<ClaimConflict>)> {
    let mut claims: Vec<(Age, Demand, &RouteSpec)> = routes
        .iter()
        .filter(|route| claims(route, hostname))
        .map(|route| {
            let (listeners, alpn) = (listeners(route).into(), route.alpn.clone().into());
            (
                Age::new(route.created, route.key.clone()),
                Demand { listeners, alpn, reserved: false },
                route,
            )
        })
        .collect();
    claims.sort_by(|a, b| a.0.cmp(&b.0));
    let claimants: Vec<Claimant<'_>> =
        claims.iter().map(|(age, demand, _)| Claimant { age, demand }).collect();
    let shares = |owner: &str, from: Referrer<'_>| may(grants, owner, from.namespace);
    let conflicts = match hostname {
        Hostname::Any => judge_any(&claimants, shares),
        _ => judge(&claimants, shares),
    };
    assert_eq!(conflicts.len(), claims.len());
    claims.iter().map(|(_, _, route)| *route).zip(conflicts).collect()
}

/// The routes as the control plane serves them: without hostnames of other namespaces.
fn served(routes: &[RouteSpec], grants: &Grants) -> Vec<RouteSpec> {
    let narrow = |route: &RouteSpec| {
        let mut any_on = AnyOn::All;
        let left = route.hostnames().filter(|hostname| {
            let conflicts = judged(routes, grants, *hostname);
            let own = conflicts.into_iter().find(|(other, _)| other.key == route.key);
            match own.unwrap().1 {
                Some(ClaimConflict::ForeignOn { served, .. }) => any_on = served,
                Some(conflict) => return !conflict.is_left_out(),
                None => {}
            }
            true
        });
        let hostnames: Hostnames = left.collect();
        let mut narrow = route.clone();
        narrow.attachments[0].hostnames = hostnames.with_any_on(any_on);
        narrow
    };
    routes.iter().map(narrow).filter(|route| route.hostnames().next().is_some()).collect()
}
