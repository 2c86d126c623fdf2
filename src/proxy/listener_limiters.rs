//! The limiters of listeners, which outlive changes of their settings.

use std::sync::{Arc, Mutex, PoisonError};

use super::listener::Listener;
use crate::limiter::{Limiter, SourceTable};
use crate::routing::Scope;

/// The owner of the limits of listeners. No namespace has this name.
const INSTALLATION: &str = "";

/// The limiter of each listener, by its scope and name: all its binds share one.
#[derive(Debug, Default)]
pub(super) struct ListenerLimiters(Mutex<Vec<(Scope, String, Arc<Limiter>)>>);

impl ListenerLimiters {
    /// The limiter of a listener. It is kept as long as a bind or a connection uses it.
    pub(super) fn of(&self, listener: &Listener, table: &Arc<SourceTable>) -> Arc<Limiter> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |(scope, name, _): &&(Scope, String, Arc<Limiter>)| {
            (scope, name) == (&listener.scope, &listener.name)
        };
        if let Some((_, _, limiter)) = known.iter().find(is_same) {
            return Arc::clone(limiter);
        }
        known.retain(|(_, _, limiter)| Arc::strong_count(limiter) > 1);
        let limiter = Arc::new(Limiter::new(table, INSTALLATION));
        known.push((listener.scope.clone(), listener.name.clone(), Arc::clone(&limiter)));
        limiter
    }
}
