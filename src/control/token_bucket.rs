//! A bucket of tokens, which bounds how often something happens. Pure: the caller passes the time.

use std::time::{Duration, Instant};

/// A bucket of tokens, kept as the time at which it will be full.
#[derive(Debug)]
pub(in crate::control) struct TokenBucket {
    /// How many tokens it has when it is full.
    burst: u32,
    /// The time in which it gets one.
    per_token: Duration,
    full_at: Instant,
}

impl TokenBucket {
    /// A full one.
    pub(in crate::control) fn full(burst: u32, per_token: Duration, now: Instant) -> Self {
        TokenBucket { burst, per_token, full_at: now }
    }

    /// How long until a token is there.
    pub(in crate::control) fn pause(&self, now: Instant) -> Duration {
        let missing = self.full_at.saturating_duration_since(now);
        missing.saturating_sub(self.per_token * self.burst.saturating_sub(1))
    }

    /// Takes a token, which may be one of later.
    pub(in crate::control) fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.per_token;
    }

    /// Undoes a [`TokenBucket::take`].
    pub(in crate::control) fn give_back(&mut self) {
        self.full_at = self.full_at.checked_sub(self.per_token).unwrap_or(self.full_at);
    }
}
