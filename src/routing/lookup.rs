//! One lookup in the table, from the most specific hostname to the least.

use std::sync::Arc;

use super::claim::{Claim, Hasher, older};
use super::claims::{ScopeClaims, split};
use super::protocol_index::{ClaimFilter, FEW, ProtocolIndex};
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
        let (asking, others) = split(claims);
        let found = match among.protocol_index(hash, hostname.text()).filter(|_| asking.len() > FEW)
        {
            Some(protocol_index) => self.in_index(hostname, asking, protocol_index),
            None => self.among_few(hostname, asking),
        };
        if let Some(claim) = found {
            return Some(FoundClaim { route: &claim.route, text: claim.name() });
        }
        if let Some(claim) = others.iter().find(|claim| self.suits(hostname, claim)) {
            return Some(FoundClaim { route: &claim.route, text: claim.name() });
        }
        if self.owner.is_none() {
            let first = |claims: &'t [Claim]| claims.first().map(|claim| &*claim.route);
            self.owner = older(first(asking), first(others)).map(|key| key.namespace());
        }
        None
    }

    /// The first of a few claims for which the client offers a protocol.
    fn among_few(&mut self, hostname: Hostname<&str>, asking: &'t [Claim]) -> Option<&'t Claim> {
        let hasher = self.hasher;
        asking.iter().find(|claim| {
            suits(hostname, claim, self.listener, self.owner) && {
                let offers = self.offers.read(hasher);
                claim.route.spec.alpn.iter().any(|protocol| {
                    let protocol = protocol.as_bytes();
                    let hash = hasher.protocol(protocol);
                    offers.iter().any(|offer| offer.hash == hash && offer.protocol == protocol)
                })
            }
        })
    }

    /// The first of many claims for which the client offers a protocol.
    fn in_index(
        &mut self,
        hostname: Hostname<&str>,
        asking: &'t [Claim],
        protocol_index: &ProtocolIndex,
    ) -> Option<&'t Claim> {
        let hasher = self.hasher;
        let filter = ClaimFilter::new(hasher, self.listener, self.owner);
        let (on, owner) = (self.listener, self.owner);
        let first_of = |offer: &Offer<'_>| {
            let takes = |place: &usize| {
                asking.get(*place).is_some_and(|claim| {
                    let mut asked = claim.route.spec.alpn.iter();
                    suits(hostname, claim, on, owner)
                        && asked.any(|asked| asked.as_bytes() == offer.protocol)
                })
            };
            let places = protocol_index.asking(offer.hash, &filter).into_iter();
            places.filter_map(|mut places| places.find(takes)).min()
        };
        let place = self.offers.read(hasher).iter().filter_map(first_of).min()?;
        asking.get(place)
    }

    fn suits(&self, hostname: Hostname<&str>, claim: &Claim) -> bool {
        suits(hostname, claim, self.listener, self.owner)
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
        BackendKey, MOST_ROUTES_A_HOSTNAME, RouteKey, RouteSpec, Scope, Snapshot, channel,
    };

    fn route(name: String, listener: &str, alpn: impl Iterator<Item = String>) -> RouteSpec {
        let suffixes = (1..=MOST_CLAIMED_HOSTNAMES + 2).map(|labels| vec!["a"; labels].join("."));
        RouteSpec {
            alpn: alpn.map(Into::into).collect(),
            backends: vec![(BackendKey::Address("one".into()), 1)],
            ..RouteSpec::new(
                RouteKey::sni_route("ns", &name),
                suffixes.map(Hostname::Wildcard).collect(),
            )
            .on(&[listener])
        }
    }

    /// The worst case of routes and a hello, counted: the offers are read once and only in part, and few
    /// claims are checked for them.
    #[test]
    fn the_worst_hello_and_the_worst_table_cost_little() {
        let protocol = |number: usize| format!("offer-{number}");
        let routes = (0..MOST_ROUTES_A_HOSTNAME).flat_map(|n| {
            let offered = (0..16).map(move |m| protocol((n + 2 * m) % MOST_OFFERS));
            let own = (0..16).map(move |m| format!("own-{n}-{m}"));
            [route(format!("own-{n}"), "https", own), route(format!("other-{n}"), "other", offered)]
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

        // All claims that are checked for these offers at one hostname.
        let hasher = table.hasher();
        let claims = table.hosts(&Scope::Config).unwrap().claims().of(Hostname::Wildcard("a.a"));
        let hash = hasher.hash("a.a");
        assert_eq!(claims.of(hash, "a.a").len(), 2 * MOST_ROUTES_A_HOSTNAME);
        let protocol_index = claims.protocol_index(hash, "a.a").expect("an index");
        let filter = ClaimFilter::new(hasher, "https", None);
        let looked_at = offers.iter().take(MOST_OFFERS).map(|offer| {
            let offer = hasher.protocol(offer.as_bytes());
            protocol_index.asking(offer, &filter).map(Iterator::count).iter().sum::<usize>()
        });
        assert_eq!(looked_at.sum::<usize>(), 0, "those of the other listener are not looked at");

        // An offered protocol is found among many that no route asks for.
        let mut offers: Vec<&[u8]> = offers.iter().map(|offer| offer.as_bytes()).collect();
        offers[MOST_OFFERS - 1] = b"own-63-15";
        let found = table.lookup(Some(&name), "https", offers.iter().copied()).unwrap();
        assert_eq!(found.route.spec.key.name(), "own-63");
        offers.swap(MOST_OFFERS - 1, MOST_OFFERS);
        assert!(table.lookup(Some(&name), "https", offers).is_none(), "it comes too late");
    }
}
