//! Routes that cannot be read, as far as they can.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::builder::Builder;
use super::resolved_route::ResolvedRoute;
use super::sni_route_key;
use crate::control::api::RouteClaims;

/// A route that cannot be read.
#[derive(Clone, Debug, Default)]
pub struct UnreadableRoute {
    /// Its metadata, which can.
    pub metadata: ObjectMeta,
    /// The class that it names; `None` if that cannot be read.
    pub class: Option<Option<String>>,
    /// What it claims, if that can be read.
    pub claims: Option<RouteClaims>,
    /// What is at fault and why, for people.
    pub why: String,
}

/// What becomes of an object that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnreadableOutcome {
    /// It is as it was when it was read last.
    Kept,
    /// It was never read, and is as good as none, but for hostnames that it claims.
    Unused,
    /// It is another installation's.
    Elsewhere,
}

impl Builder {
    /// A route is there that cannot be read. It is served as it was when it was read last. One that
    /// never was gets no connection; what it claims, as far as that can be read, goes to no other
    /// namespace meanwhile.
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
