//! Functions that are called when something has happened.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

type Subscriber<T> = Box<dyn Fn(&T) + Send>;

/// Functions that are called with each `T`.
pub(super) struct Subscribers<T>(Mutex<Vec<Subscriber<T>>>);

impl<T> Subscribers<T> {
    pub(super) fn add(&self, subscriber: Subscriber<T>) {
        self.lock().push(subscriber);
    }

    pub(super) fn tell(&self, what: &T) {
        self.lock().iter().for_each(|subscriber| subscriber(what));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Subscriber<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Default for Subscribers<T> {
    fn default() -> Self {
        Subscribers(Mutex::default())
    }
}

impl<T> fmt::Debug for Subscribers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Subscribers").field(&self.lock().len()).finish()
    }
}
