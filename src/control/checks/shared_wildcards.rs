//! The certificates whose wildcards stand for hostnames of several routes with different backends. A browser that
//! speaks h2 with one of them may send the requests for the others over the same connection (RFC 9113 §9.1.1). Pure.

use ahash::AHashMap as HashMap;

use super::reports::{RouteCertificate, RouteView};
use crate::routing::{Backend, RouteKey};

/// The first routes with each certificate, of each namespace and of all (`None`).
pub(super) struct SharedWildcards<'v>(HashMap<([u64; 2], Option<&'v str>), FirstTwo<'v>>);

/// The first route with a certificate, and the first with other backends than that: whatever backends a route has, the
/// first one with others is one of these two.
#[derive(Clone, Copy)]
struct FirstTwo<'v>(SharingRoute<'v>, Option<SharingRoute<'v>>);

#[derive(Clone, Copy)]
struct SharingRoute<'v> {
    key: &'v RouteKey,
    backends: &'v [*const Backend],
}

impl<'v> SharedWildcards<'v> {
    /// Those of routes, which are in the order of their keys.
    pub(super) fn of(views: &'v [RouteView<'_>]) -> Self {
        let mut firsts: HashMap<_, FirstTwo<'_>> = HashMap::new();
        for view in views {
            let key = &view.route.spec.key;
            let sharing = SharingRoute { key, backends: &view.backends };
            for (id, _) in view.certificates.iter().filter(|(_, one)| shares(view, one)) {
                for namespace in [Some(key.namespace()), None] {
                    let new = FirstTwo(sharing, None);
                    firsts.entry((*id, namespace)).or_insert(new).add(sharing);
                }
            }
        }
        SharedWildcards(firsts)
    }

    /// The first other route, with other backends, that has a certificate as well. Of another namespace, nothing is
    /// told.
    pub(super) fn other(&self, view: &RouteView<'_>, id: [u64; 2]) -> Option<String> {
        view.certificates.get(&id).filter(|certificate| shares(view, certificate))?;
        let first = |namespace| self.0.get(&(id, namespace))?.other_than(&view.backends);
        let own = first(Some(view.route.spec.key.namespace()));
        own.map(|key| format!("route {}", key.object()))
            .or_else(|| first(None).map(|_| "a route of another namespace".to_owned()))
    }
}

/// Whether a browser may take a connection of this route for those of others with the certificate. It is known to get
/// the certificate only for the checked name, and only a hostname of the route is the name of a client.
fn shares(view: &RouteView<'_>, shown: &RouteCertificate<'_>) -> bool {
    let Some(name) = view.checked_name() else { return false };
    let mut hostnames = view.route.spec.hostnames();
    shown.h2
        && shown.certificate.has_wildcard_for(name)
        && hostnames.any(|hostname| hostname.matches(Some(name)))
}

impl<'v> FirstTwo<'v> {
    fn add(&mut self, sharing: SharingRoute<'v>) {
        if self.1.is_none() && sharing.backends != self.0.backends {
            self.1 = Some(sharing);
        }
    }

    fn other_than(&self, backends: &[*const Backend]) -> Option<&'v RouteKey> {
        let all = std::iter::once(self.0).chain(self.1);
        all.into_iter().find(|one| one.backends != backends).map(|one| one.key)
    }
}
