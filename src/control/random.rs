//! Randomness that is good enough to keep replicas apart.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// A number that no other call, and no other process, is likely to get.
pub(super) fn random() -> u64 {
    // Its keys come from the system.
    RandomState::new().hash_one(())
}

/// Between half of a time and the whole.
pub(super) fn jitter(whole: Duration) -> Duration {
    let fraction = f64::from((random() >> 32) as u32) / f64::from(u32::MAX);
    whole.mul_f64(0.5 + fraction / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_between_half_and_whole_and_differs() {
        let whole = Duration::from_secs(2);
        let some: Vec<Duration> = (0..100).map(|_| jitter(whole)).collect();
        assert!(some.iter().all(|one| *one >= whole / 2 && *one <= whole), "{some:?}");
        assert!(some.iter().any(|one| *one < whole * 2 / 3), "{some:?}");
        assert!(some.iter().any(|one| *one > whole * 5 / 6), "{some:?}");
    }
}
