//! Routes that cannot be read completely.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::builder::Builder;
use super::resolved_route::ResolvedRoute;
use super::sni_route_key;
use crate::control::api::RouteClaims;

/// A route that cannot be read.
#[derive(Clone, Debug, Default)]
pub struct UnreadableRoute {
    /// Its metadata, which can be read.
    pub metadata: ObjectMeta,
    /// The class that it names; `None` if the class cannot be read.
    pub class: Option<Option<String>>,
    /// The hostnames that it claims, if they can be read.
    pub claims: Option<RouteClaims>,
    /// The field at fault and the reason, for people.
    pub why: String,
}

/// The treatment of an object that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreadableOutcome {
    /// The last version that could be read stays in use.
    Kept,
    /// No version could be read. The route is not served; it only reserves its hostnames.
    Unused,
    /// It belongs to another installation.
    Elsewhere,
}

impl Builder {
    /// Handles a route that cannot be read. The last version that could be read is still served. A route of
    /// which no version could be read gets no connections, but its hostnames, if they can be read, are
    /// reserved for its namespace.
    pub fn put_unreadable_route(&mut self, route: &UnreadableRoute) -> UnreadableOutcome {
        let Some(key) = sni_route_key(&route.metadata) else { return UnreadableOutcome::Unused };
        let known =
            self.routes.resolved_mut(&key).filter(|resolved| resolved.is_of(&route.metadata));
        let is_ours = match &route.class {
            Some(class) => self.installation.serves(class.as_deref()),
            None => known.is_some() || self.installation.serves(None),
        };
        if !is_ours {
            self.remove_route(&key);
            return UnreadableOutcome::Elsewhere;
        }
        if let Some(resolved) = known.filter(|resolved| resolved.was_read()) {
            resolved.keep_as_it_was(route);
            self.routes.mark(&key);
            return UnreadableOutcome::Kept;
        }
        self.put_resolved(ResolvedRoute::unreadable(key, route, &self.installation));
        UnreadableOutcome::Unused
    }
}
