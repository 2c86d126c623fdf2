//! All routes of the builder, and those that must be processed again.

use std::mem;
use std::vec::IntoIter;

use ahash::AHashMap as HashMap;

use super::resolved_route::ResolvedRoute;
use crate::routing::RouteKey;

/// The routes of an installation, and those that were deleted since the last round.
#[derive(Debug, Default)]
pub(super) struct Routes {
    routes: HashMap<RouteKey, TrackedRoute>,
    /// The routes to process again.
    dirty: Vec<RouteKey>,
}

#[derive(Debug, Default)]
struct TrackedRoute {
    state: RoutePresence,
    /// Whether it is in [`Routes::dirty`].
    dirty: bool,
}

/// Whether a route exists.
#[derive(Debug, Default)]
pub(super) enum RoutePresence {
    #[default]
    Gone,
    Present(Box<ResolvedRoute>),
}

impl Routes {
    /// Sets a route, and marks it.
    pub(super) fn set(&mut self, key: RouteKey, state: RoutePresence) {
        let route = self.routes.entry(key.clone()).or_default();
        route.state = state;
        route.mark(&key, &mut self.dirty);
    }

    /// Removes a route, and marks it. Returns its former state.
    pub(super) fn remove(&mut self, key: &RouteKey) -> RoutePresence {
        let Some(route) = self.routes.get_mut(key) else { return RoutePresence::Gone };
        route.mark(key, &mut self.dirty);
        mem::take(&mut route.state)
    }

    /// Marks a route to be processed again.
    pub(super) fn mark(&mut self, key: &RouteKey) {
        if let Some(route) = self.routes.get_mut(key) {
            route.mark(key, &mut self.dirty);
        }
    }

    /// Marks all routes.
    pub(super) fn mark_all(&mut self) {
        for (key, route) in &mut self.routes {
            route.mark(key, &mut self.dirty);
        }
    }

    /// Changes a route, and marks it if `is_news` returns true.
    pub(super) fn tell(
        &mut self,
        key: &RouteKey,
        is_news: impl FnOnce(&mut ResolvedRoute) -> bool,
    ) {
        if let Some(route) = self.routes.get_mut(key)
            && route.state.resolved_mut().is_some_and(is_news)
        {
            route.mark(key, &mut self.dirty);
        }
    }

    /// Takes the routes to process.
    pub(super) fn take_dirty(&mut self) -> Vec<RouteKey> {
        mem::take(&mut self.dirty)
    }

    /// Returns a route to process, and unmarks it.
    pub(super) fn look_at(&mut self, key: &RouteKey) -> Option<&mut RoutePresence> {
        let route = self.routes.get_mut(key)?;
        route.dirty = false;
        Some(&mut route.state)
    }

    /// Drops a deleted route after it was processed.
    pub(super) fn forget(&mut self, key: &RouteKey) {
        self.routes.remove(key);
    }

    pub(super) fn resolved(&self, key: &RouteKey) -> Option<&ResolvedRoute> {
        self.routes.get(key)?.state.resolved()
    }

    pub(super) fn resolved_mut(&mut self, key: &RouteKey) -> Option<&mut ResolvedRoute> {
        self.routes.get_mut(key)?.state.resolved_mut()
    }

    /// The keys of all, in no order.
    pub(super) fn keys(&self) -> IntoIter<RouteKey> {
        self.routes.keys().cloned().collect::<Vec<_>>().into_iter()
    }

    /// All, in no order.
    pub(super) fn all_resolved(&self) -> impl Iterator<Item = &ResolvedRoute> {
        self.routes.values().filter_map(|route| route.state.resolved())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

impl TrackedRoute {
    fn mark(&mut self, key: &RouteKey, dirty: &mut Vec<RouteKey>) {
        if !mem::replace(&mut self.dirty, true) {
            dirty.push(key.clone());
        }
    }
}

impl RoutePresence {
    fn resolved(&self) -> Option<&ResolvedRoute> {
        match self {
            RoutePresence::Present(resolved) => Some(resolved),
            RoutePresence::Gone => None,
        }
    }

    fn resolved_mut(&mut self) -> Option<&mut ResolvedRoute> {
        match self {
            RoutePresence::Present(resolved) => Some(resolved),
            RoutePresence::Gone => None,
        }
    }
}
