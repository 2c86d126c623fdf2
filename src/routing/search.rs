//! One lookup on its way from the most specific hostname to the least.

use std::sync::Arc;

use super::claim::{Claim, Hasher, older};
use super::{Hostname, Route, Table};

/// How many of the protocols that a client offers count for the choice of a route: the first.
/// Clients offer two or three.
pub const MOST_OFFERS: usize = 32;
/// How many claimed hostnames that cover a name a lookup considers. One that none of them takes has
/// no route. So whatever routes there are, a lookup ends soon.
pub const MOST_CLAIMED_HOSTNAMES: usize = 8;

/// What a lookup has found.
pub(super) struct Found<'t> {
    pub(super) route: &'t Arc<Route>,
    /// The name, or a wildcard's suffix.
    pub(super) text: &'t str,
}

/// The state of a lookup.
pub(super) struct Search<'t, 'l, 'o, I> {
    table: &'t Table,
    listener: &'l str,
    offers: Offers<'o, I>,
    /// The namespace to which alone the connection may still go.
    owner: Option<&'t str>,
    /// How many claimed hostnames were considered.
    claimed: usize,
}

/// What a client offers. It is hashed when the first route asks for ALPN, and then once.
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

impl<'t, 'l, 'o, I: Iterator<Item = &'o [u8]>> Search<'t, 'l, 'o, I> {
    pub(super) fn new(table: &'t Table, listener: &'l str, offers: I) -> Self {
        Search { table, listener, offers: Offers::Unread(offers), owner: None, claimed: 0 }
    }

    /// The claim to this hostname that takes the connection. If there are claims and none does, the
    /// connection is left to their owner's namespace.
    pub(super) fn level(&mut self, hostname: Hostname<&str>) -> Option<Found<'t>> {
        if self.claimed >= MOST_CLAIMED_HOSTNAMES {
            return None;
        }
        let (claims, hash) = self.table.claims(hostname);
        if claims.is_empty() {
            return None;
        }
        self.claimed += 1;
        // Those with ALPN come first.
        let asking = claims.partition_point(|claim| !claim.route.spec.alpn.is_empty());
        let (asking, others) = claims.split_at_checked(asking).unwrap_or_default();
        if !asking.is_empty()
            && let Some(found) = self.by_protocol(hostname, hash)
        {
            return Some(found);
        }
        if let Some(claim) = others.iter().find(|claim| self.suits(hostname, &claim.route)) {
            return Some(Found { route: &claim.route, text: claim.name() });
        }
        if self.owner.is_none() {
            let first = |claims: &'t [Claim]| claims.first().map(|claim| &*claim.route);
            self.owner = older(first(asking), first(others)).map(|key| key.namespace());
        }
        None
    }

    /// The claim that wins by one of the protocols that are offered.
    fn by_protocol(&mut self, hostname: Hostname<&str>, text: u32) -> Option<Found<'t>> {
        let hasher = self.table.hasher();
        let listener = Some(hasher.hash(self.listener));
        let namespace = self.owner.map(|owner| hasher.namespace(owner));
        let (table, owner, on) = (self.table, self.owner, self.listener);
        let offers = self.offers.read(hasher).iter();
        let best_of = |offer: &Offer<'_>| {
            // Those of this listener, and those of all.
            [listener, None].map(|listener| {
                let hash = Hasher::with_protocol(hostname, text, offer.hash, listener);
                table.asking(hash).iter().find(|claim| {
                    claim.may_be_of(namespace)
                        && suits(hostname, &claim.route, on, owner)
                        && claim.is_of(hostname, offer.protocol)
                })
            })
        };
        let best = offers.flat_map(best_of).flatten().max_by(|a, b| {
            let (a, b) = (&a.route.spec, &b.route.spec);
            a.precedence().cmp(&b.precedence())
        })?;
        Some(Found { route: &best.route, text: best.text() })
    }

    fn suits(&self, hostname: Hostname<&str>, route: &Route) -> bool {
        suits(hostname, route, self.listener, self.owner)
    }
}

/// Whether a route has a hostname on this listener, and may have the connection.
fn suits(hostname: Hostname<&str>, route: &Route, listener: &str, owner: Option<&str>) -> bool {
    let spec = &route.spec;
    spec.serves(listener)
        && owner.is_none_or(|owner| owner == spec.key.namespace())
        && (hostname != Hostname::Any || spec.hostnames.any_on().has(listener))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::routing::{
        BackendKey, MOST_ROUTES_A_HOSTNAME, Policy, RouteKey, RouteSpec, Snapshot, Timeouts,
        channel,
    };

    fn route(name: String, listener: &str, alpn: impl Iterator<Item = String>) -> RouteSpec {
        let suffixes = (1..=MOST_CLAIMED_HOSTNAMES + 2).map(|labels| vec!["a"; labels].join("."));
        RouteSpec {
            key: RouteKey::new("ns", &name),
            created: None,
            hostnames: suffixes.map(Hostname::Wildcard).collect(),
            listeners: vec![listener.into()],
            alpn: alpn.map(Into::into).collect(),
            backends: vec![(BackendKey::Address("one".into()), 1)],
            policy: Policy::default(),
            timeouts: Timeouts::default(),
        }
    }

    /// The worst that routes and a hello can do together, counted: what is offered is read once and
    /// in part, and few claims are looked at for it.
    #[test]
    fn the_worst_hello_costs_little_with_the_worst_table() {
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

        // All claims that are looked at for these offers, at one hostname.
        let hasher = table.hasher();
        let (claims, text) = table.claims(Hostname::Wildcard("a.a"));
        assert_eq!(claims.len(), 2 * MOST_ROUTES_A_HOSTNAME);
        let looked_at = offers.iter().take(MOST_OFFERS).flat_map(|offer| {
            let offer = hasher.protocol(offer.as_bytes());
            [Some(hasher.hash("https")), None].map(|listener| {
                let hash = Hasher::with_protocol(Hostname::Wildcard("a.a"), text, offer, listener);
                table.asking(hash).len()
            })
        });
        assert_eq!(looked_at.sum::<usize>(), 0, "those of the other listener are not looked at");

        // And one that is offered is found, though many are not.
        let mut offers: Vec<&[u8]> = offers.iter().map(|offer| offer.as_bytes()).collect();
        offers[MOST_OFFERS - 1] = b"own-63-15";
        let found = table.lookup(Some(&name), "https", offers.iter().copied()).unwrap();
        assert_eq!(found.route.spec.key.name(), "own-63");
        offers.swap(MOST_OFFERS - 1, MOST_OFFERS);
        assert!(table.lookup(Some(&name), "https", offers).is_none(), "it comes too late");
    }
}
