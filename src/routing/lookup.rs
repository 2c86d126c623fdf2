//! One lookup in the table, from the most specific hostname to the least.

use std::sync::Arc;

use super::claim::{Claim, Hasher, older};
use super::claims::{ScopeClaims, split};
use super::protocol_index::{ClaimFilter, NO_PROTOCOL, ProtocolIndex};
use super::{Hostname, Route};

/// How many of the protocols that a client offers are used to choose a route. Clients offer two or three.
pub const MOST_OFFERS: usize = 32;
/// How many claimed hostnames that cover a name are considered. This limits the time of a lookup, whatever
/// routes there are.
pub const MOST_CLAIMED_HOSTNAMES: usize = 8;

/// The result of a lookup.
#[derive(Clone, Copy, Debug)]
pub struct Match<'t> {
    /// The route that wins.
    pub route: &'t Arc<Route>,
    /// The kind of the claim that won.
    pub kind: MatchKind<'t>,
}

/// The kind of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchKind<'t> {
    /// An exact name.
    Exact,
    /// A wildcard with this suffix.
    Wildcard(&'t str),
    /// `*`.
    Any,
}

/// A claim that takes the connection.
pub(super) struct FoundClaim<'t> {
    pub(super) route: &'t Arc<Route>,
    /// The name, or a wildcard's suffix.
    pub(super) text: &'t str,
}

/// The state of a lookup.
pub(super) struct LookupState<'t, 'l, 'o, I> {
    claims: &'t ScopeClaims,
    hasher: &'t Hasher,
    listener: &'l str,
    offers: Offers<'o, I>,
    /// The only namespace that may still get the connection, if a claimed hostname did not take it.
    owner: Option<&'t str>,
    /// How many claimed hostnames were considered.
    claimed: usize,
}

/// The protocols that a client offers. They are hashed once, when the first route asks for ALPN.
#[expect(clippy::large_enum_variant, reason = "it is on the stack, for a lookup allocates nothing")]
enum Offers<'o, I> {
    Unread(I),
    Read([Offer<'o>; MOST_OFFERS], usize),
}

#[derive(Clone, Copy, Default)]
struct Offer<'o> {
    protocol: &'o [u8],
    hash: u32,
}

impl<'o, I: Iterator<Item = &'o [u8]>> Offers<'o, I> {
    fn read(&mut self, hasher: &Hasher) -> &[Offer<'o>] {
        if let Offers::Unread(unread) = self {
            let mut read = [Offer::default(); MOST_OFFERS];
            let mut count = 0;
            for (offer, protocol) in read.iter_mut().zip(unread) {
                *offer = Offer { protocol, hash: hasher.protocol(protocol) };
                count += 1;
            }
            *self = Offers::Read(read, count);
        }
        match self {
            Offers::Read(read, count) => read.get(..*count).unwrap_or_default(),
            Offers::Unread(_) => &[],
        }
    }
}

impl<'t, 'l, 'o, I: Iterator<Item = &'o [u8]>> LookupState<'t, 'l, 'o, I> {
    pub(super) fn new(
        claims: &'t ScopeClaims,
        hasher: &'t Hasher,
        listener: &'l str,
        offers: I,
    ) -> Self {
        LookupState {
            claims,
            hasher,
            listener,
            offers: Offers::Unread(offers),
            owner: None,
            claimed: 0,
        }
    }

    /// The claim to this hostname that takes the connection. If there are claims and none takes it, only
    /// routes of the owner's namespace may take the connection from now on.
    pub(super) fn level(&mut self, hostname: Hostname<&str>) -> Option<FoundClaim<'t>> {
        if self.claimed >= MOST_CLAIMED_HOSTNAMES {
            return None;
        }
        let (among, hash) = (self.claims.of(hostname), self.hasher.hash(hostname.text()));
        let claims = among.of(hash, hostname.text());
        if claims.is_empty() {
            return None;
        }
        self.claimed += 1;
        let found = match among.protocol_index(hash, hostname.text()) {
            Some(protocol_index) => self.in_index(hostname, claims, protocol_index),
            None => self.among_few(hostname, claims),
        };
        if let Some(claim) = found {
            return Some(FoundClaim { route: &claim.route, text: claim.name() });
        }
        if self.owner.is_none() {
            let (asking, others) = split(claims);
            let first = |claims: &'t [Claim]| claims.first().map(|claim| &*claim.route);
            self.owner = older(first(asking), first(others)).map(|key| key.namespace());
        }
        None
    }

    /// The first of a few claims that takes the connection.
    fn among_few(&mut self, hostname: Hostname<&str>, claims: &'t [Claim]) -> Option<&'t Claim> {
        let hasher = self.hasher;
        claims.iter().find(|claim| {
            let alpn = &claim.route.spec.alpn;
            suits(hostname, claim, self.listener, self.owner)
                && (alpn.is_empty() || {
                    let offers = self.offers.read(hasher);
                    alpn.iter().any(|protocol| {
                        let protocol = protocol.as_bytes();
                        let hash = hasher.protocol(protocol);
                        offers.iter().any(|offer| offer.hash == hash && offer.protocol == protocol)
                    })
                })
        })
    }

    /// The first of many claims that takes the connection.
    fn in_index(
        &mut self,
        hostname: Hostname<&str>,
        claims: &'t [Claim],
        protocol_index: &ProtocolIndex,
    ) -> Option<&'t Claim> {
        let (hasher, on, owner) = (self.hasher, self.listener, self.owner);
        let filter = ClaimFilter::new(hasher, on, owner);
        let first_of = |hash: u32, offered: Option<&[u8]>| {
            protocol_index.asking(hash, &filter).find(|place| {
                claims
                    .get(*place)
                    .is_some_and(|claim| suits(hostname, claim, on, owner) && asks(claim, offered))
            })
        };
        let offers = self.offers.read(hasher).iter();
        // Claims that ask for ALPN come before the others.
        let place = offers.filter_map(|offer| first_of(offer.hash, Some(offer.protocol))).min();
        claims.get(place.or_else(|| first_of(hasher.protocol(NO_PROTOCOL), None))?)
    }
}

/// Whether the claim's route asks for this protocol, or for none.
fn asks(claim: &Claim, protocol: Option<&[u8]>) -> bool {
    let alpn = &claim.route.spec.alpn;
    match protocol {
        Some(protocol) => alpn.iter().any(|asked| asked.as_bytes() == protocol),
        None => alpn.is_empty(),
    }
}

/// Whether a claim holds on this listener, and its route may have the connection.
fn suits(hostname: Hostname<&str>, claim: &Claim, listener: &str, owner: Option<&str>) -> bool {
    owner.is_none_or(|owner| owner == claim.route.spec.key.namespace())
        && claim.attachment().is_some_and(|attachment| attachment.has(hostname, listener))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::routing::{
        BackendKey, MOST_ROUTES_A_HOSTNAME, RouteKey, RouteSpec, Scope, Snapshot, Table, channel,
    };

    /// The suffix of one of the wildcards that routes claim.
    const SUFFIX: &str = "a.a";

    fn route(key: RouteKey, on: &[&str], alpn: impl Iterator<Item = String>) -> RouteSpec {
        let suffixes = (1..=MOST_CLAIMED_HOSTNAMES + 2).map(|labels| vec!["a"; labels].join("."));
        RouteSpec {
            alpn: alpn.map(Into::into).collect(),
            backends: vec![(BackendKey::address("", "one"), 1)],
            ..RouteSpec::new(key, suffixes.map(Hostname::Wildcard).collect()).on(on)
        }
    }

    fn protocol(number: usize) -> String {
        format!("offer-{number}")
    }

    /// Of the protocols that are offered, half: those of the route with this number.
    fn offered(number: usize) -> impl Iterator<Item = String> {
        (0..16).map(move |n| protocol((number + 2 * n) % MOST_OFFERS))
    }

    /// The entries of the index that a lookup reads at one hostname, and those that there are for what is
    /// offered.
    fn entries_read(table: &Table, owner: Option<&str>) -> (usize, usize) {
        let hasher = table.hasher();
        let claims = table.hosts(&Scope::Config).unwrap().claims().of(Hostname::Wildcard(SUFFIX));
        let protocol_index = claims.protocol_index(hasher.hash(SUFFIX), SUFFIX).expect("an index");
        let offers = (0..MOST_OFFERS).map(|n| hasher.protocol(protocol(n).as_bytes()));
        let offers: Vec<u32> = offers.chain([hasher.protocol(NO_PROTOCOL)]).collect();
        let read = |filter: &ClaimFilter| -> usize {
            let read = |offer| protocol_index.asking_anywhere(offer, filter).count();
            offers.iter().map(|offer| read(*offer)).sum()
        };
        let one = read(&ClaimFilter::new(hasher, "https", owner));
        let all = ["other", "a"].map(|listener| read(&ClaimFilter::new(hasher, listener, None)));
        (one, all.into_iter().max().unwrap())
    }

    /// The worst case of routes and a hello, counted: the offers are read once and only in part, and nearly
    /// nothing is read of the routes that cannot take the connection, but ask for what it offers.
    #[test]
    fn the_worst_hello_and_the_worst_table_cost_little() {
        let own = RouteKey::sni_route;
        let routes = (0..MOST_ROUTES_A_HOSTNAME).flat_map(|n| {
            let asked = (0..16).map(move |m| format!("own-{n}-{m}"));
            [
                route(own("ns", &format!("own-{n}")), &["https"], asked),
                route(own("ns", &format!("other-{n}")), &["other"], offered(n)),
                route(own("ns", &format!("two-{n}")), &["a", "b"], offered(n)),
                route(own("ns", &format!("none-{n}")), &["a", "c"], [].into_iter()),
            ]
        });
        let (mut writer, reader) = channel();
        writer.apply(Snapshot { routes: routes.collect(), ..Snapshot::default() });
        let table = reader.table();

        let offers: Vec<String> = (0..4000).map(protocol).collect();
        let read = Cell::new(0);
        let counted = offers.iter().map(|offer| {
            read.set(read.get() + 1);
            offer.as_bytes()
        });
        let name = vec!["a"; 20].join(".");
        assert!(table.lookup(Some(&name), "https", counted).is_none());
        assert!(read.get() <= MOST_OFFERS + 1, "{} offers were read", read.get());

        let (read, all) = entries_read(&table, None);
        assert_eq!(all, (2 * 16 + 1) * MOST_ROUTES_A_HOSTNAME);
        assert!(read < all / 4, "{read} of {all} entries were read");

        // An offered protocol is found among many that no route asks for.
        let mut offers: Vec<&[u8]> = offers.iter().map(|offer| offer.as_bytes()).collect();
        offers[MOST_OFFERS - 1] = b"own-63-15";
        let found = table.lookup(Some(&name), "https", offers.iter().copied()).unwrap();
        assert_eq!(found.route.spec.key.name(), "own-63");
        offers.swap(MOST_OFFERS - 1, MOST_OFFERS);
        assert!(table.lookup(Some(&name), "https", offers).is_none(), "it comes too late");
    }

    /// The same of routes that another namespace has on this listener.
    #[test]
    fn routes_of_another_namespace_than_the_owner_cost_little() {
        let routes = (0..MOST_ROUTES_A_HOSTNAME).map(|n| {
            let key = RouteKey::sni_route("foreign", &format!("route-{n}"));
            route(key, &["other", "https"], offered(n))
        });
        let (mut writer, reader) = channel();
        writer.apply(Snapshot { routes: routes.collect(), ..Snapshot::default() });
        let table = reader.table();
        let (read, all) = entries_read(&table, Some("owner"));
        assert_eq!(all, 16 * MOST_ROUTES_A_HOSTNAME);
        assert!(read < all / 4, "{read} of {all} entries were read");
        assert_eq!(entries_read(&table, Some("foreign")), (all, all));
    }
}
