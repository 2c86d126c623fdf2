//! What is known of each route, and which of them are to be looked at again.

use std::mem;
use std::vec::IntoIter;

use ahash::AHashMap as HashMap;

use super::draft::Draft;
use crate::routing::RouteKey;

/// The routes of an installation, and those that went since the last round.
#[derive(Debug, Default)]
pub(super) struct Routes {
    routes: HashMap<RouteKey, Route>,
    /// Those that are to be looked at again.
    dirty: Vec<RouteKey>,
}

#[derive(Debug, Default)]
struct Route {
    state: State,
    /// Whether it is in [`Routes::dirty`].
    dirty: bool,
}

/// What there is of a route.
#[derive(Debug, Default)]
pub(super) enum State {
    #[default]
    Gone,
    Here(Box<Draft>),
}

impl Routes {
    /// A route has another state.
    pub(super) fn set(&mut self, key: RouteKey, state: State) {
        let route = self.routes.entry(key.clone()).or_default();
        route.state = state;
        route.mark(&key, &mut self.dirty);
    }

    /// A route is gone; returns what was known of it.
    pub(super) fn remove(&mut self, key: &RouteKey) -> State {
        let Some(route) = self.routes.get_mut(key) else { return State::Gone };
        route.mark(key, &mut self.dirty);
        mem::take(&mut route.state)
    }

    /// Has a route looked at again.
    pub(super) fn mark(&mut self, key: &RouteKey) {
        if let Some(route) = self.routes.get_mut(key) {
            route.mark(key, &mut self.dirty);
        }
    }

    /// Has all routes looked at again.
    pub(super) fn mark_all(&mut self) {
        for (key, route) in &mut self.routes {
            route.mark(key, &mut self.dirty);
        }
    }

    /// Tells a route something, and has it looked at again if that is news.
    pub(super) fn tell(&mut self, key: &RouteKey, is_news: impl FnOnce(&mut Draft) -> bool) {
        if let Some(route) = self.routes.get_mut(key)
            && route.state.draft_mut().is_some_and(is_news)
        {
            route.mark(key, &mut self.dirty);
        }
    }

    /// The routes to be looked at.
    pub(super) fn take_dirty(&mut self) -> Vec<RouteKey> {
        mem::take(&mut self.dirty)
    }

    /// Looks at a route.
    pub(super) fn look_at(&mut self, key: &RouteKey) -> Option<&mut State> {
        let route = self.routes.get_mut(key)?;
        route.dirty = false;
        Some(&mut route.state)
    }

    /// Forgets a route that is gone and was looked at.
    pub(super) fn forget(&mut self, key: &RouteKey) {
        self.routes.remove(key);
    }

    pub(super) fn draft(&self, key: &RouteKey) -> Option<&Draft> {
        self.routes.get(key)?.state.draft()
    }

    pub(super) fn draft_mut(&mut self, key: &RouteKey) -> Option<&mut Draft> {
        self.routes.get_mut(key)?.state.draft_mut()
    }

    /// The keys of all, in no order.
    pub(super) fn keys(&self) -> IntoIter<RouteKey> {
        self.routes.keys().cloned().collect::<Vec<_>>().into_iter()
    }

    /// All, in no order.
    pub(super) fn drafts(&self) -> impl Iterator<Item = &Draft> {
        self.routes.values().filter_map(|route| route.state.draft())
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }
}

impl Route {
    fn mark(&mut self, key: &RouteKey, dirty: &mut Vec<RouteKey>) {
        if !mem::replace(&mut self.dirty, true) {
            dirty.push(key.clone());
        }
    }
}

impl State {
    fn draft(&self) -> Option<&Draft> {
        match self {
            State::Here(draft) => Some(draft),
            State::Gone => None,
        }
    }

    fn draft_mut(&mut self) -> Option<&mut Draft> {
        match self {
            State::Here(draft) => Some(draft),
            State::Gone => None,
        }
    }
}
