//! Claims of routes of different kinds to the same hostnames.

use std::sync::Arc;

use super::super::claims::{ClaimChanges, Claims};
use super::super::grants::Grants;
use super::*;
use crate::routing::{Age, ClaimConflict, Demand};

/// A grant of the owner, for the routes of one kind in `guest`.
fn grant(from: Kind, to: Kind) -> ReferenceGrant {
    yaml(&format!(
        "{{metadata: {{name: g, namespace: owner}}, spec: {{\
         from: [{{group: {}, kind: {from}, namespace: guest}}], \
         to: [{{group: {}, kind: {to}}}]}}}}",
        from.group(),
        to.group()
    ))
}

/// The kinds whose guest route gets `a.b.test`. The namespace `owner` claims `owned` with a route of kind
/// `owner`; a guest route of each kind claims the name on a listener of its own.
fn let_in(
    hostnames_below: HostnamesBelow,
    owner: Kind,
    owned: &str,
    grant: &ReferenceGrant,
) -> Vec<Kind> {
    let mut grants = Grants::default();
    grants.put(&ObjectKey::new("owner", "g"), grant);
    let mut claims = Claims::new(hostnames_below);
    let mut add = |hostname: &str, second, key, listener: &str| {
        let demand = Demand { listeners: [listener.into()].into(), ..Demand::default() };
        let age = Age::new(Some(second), key);
        claims.add(hostname.parse().expect("a hostname"), &age, &Arc::new(demand));
    };
    add(owned, 1, RouteKey::new(owner, "owner", "r"), "own");
    let kinds = [Kind::SniRoute, Kind::TlsRoute];
    for (kind, second) in kinds.into_iter().zip(2..) {
        add("a.b.test", second, RouteKey::new(kind, "guest", "r"), kind.as_str());
    }
    let mut news = ClaimChanges::default();
    while claims.step(&grants, &mut news).is_some() {}
    let refused = |kind: &Kind| {
        news.conflicts.iter().any(|(key, _, conflict)| {
            let conflict = conflict.as_deref();
            *key == RouteKey::new(*kind, "guest", "r")
                && conflict.is_some_and(ClaimConflict::is_left_out)
        })
    };
    kinds.into_iter().filter(|kind| !refused(kind)).collect()
}

#[test]
fn a_grant_shares_a_hostname_with_routes_of_its_kind_alone() {
    use Kind::{SniRoute, TlsRoute};
    for (hostnames_below, owned) in
        [(HostnamesBelow::Anyone, "a.b.test"), (HostnamesBelow::Owner, "*.b.test")]
    {
        for (from, to) in [SniRoute, TlsRoute].iter().flat_map(|f| [(*f, SniRoute), (*f, TlsRoute)])
        {
            let grant = grant(from, to);
            let guests = let_in(hostnames_below, to, owned, &grant);
            assert_eq!(guests, [from], "{from} to {to}, {owned}");
            let other = if to == SniRoute { TlsRoute } else { SniRoute };
            let guests = let_in(hostnames_below, other, owned, &grant);
            assert!(guests.is_empty(), "{guests:?} by a grant for a {to}, which claims nothing");
        }
    }
}
