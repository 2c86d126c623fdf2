//! Slow start: an endpoint that comes back gets a weight that grows over a time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Moment;

/// When an endpoint came back to its backend or from an ejection, if it has not been there from the start.
#[derive(Debug, Default)]
pub(super) struct Arrival {
    /// The moment in milliseconds; 0 if it has been there from the start.
    at: AtomicU64,
}

/// The part of its weight that an endpoint has, in parts of [`WeightPart::WHOLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WeightPart(u64);

impl WeightPart {
    /// All of it.
    pub(super) const WHOLE: WeightPart = WeightPart(1024);

    /// A factor for weights, at least 1.
    pub(super) fn factor(self) -> u64 {
        self.0.max(1)
    }

    /// Whether an endpoint with this part takes a connection that would be its own with all of its weight.
    pub(super) fn takes(self, random: u64) -> bool {
        random % WeightPart::WHOLE.0 < self.0
    }
}

impl Arrival {
    /// An arrival at this moment; `None` is the start.
    pub(super) fn new(at: Option<Moment>) -> Self {
        Arrival { at: AtomicU64::new(at.map_or(0, Moment::millis)) }
    }

    /// Arrives again.
    pub(super) fn begin(&self, now: Moment) {
        self.at.store(now.millis(), Ordering::Relaxed);
    }

    /// The part of the weight at `now`, if that grows over `over`.
    pub(super) fn part(&self, now: Moment, over: Duration) -> WeightPart {
        let at = self.at.load(Ordering::Relaxed);
        let passed = u128::from(now.millis().saturating_sub(at));
        let over = over.as_millis();
        if at == 0 || passed >= over {
            return WeightPart::WHOLE;
        }
        // Below `WHOLE`, because `passed` is below `over`.
        let part = passed.saturating_mul(WeightPart::WHOLE.0.into()).checked_div(over);
        part.and_then(|part| u64::try_from(part).ok()).map_or(WeightPart::WHOLE, WeightPart)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVER: Duration = Duration::from_secs(10);

    #[test]
    fn the_weight_grows_linearly() {
        let start = Moment::now();
        let arrival = Arrival::new(Some(start));
        let part = |millis: u64| arrival.part(start + Duration::from_millis(millis), OVER).0;
        assert_eq!(
            [0, 2500, 5000, 9999, 10_000, 50_000].map(part),
            [0, 256, 512, 1023, 1024, 1024]
        );
        assert_eq!(Arrival::new(None).part(start, OVER), WeightPart::WHOLE);
        assert_eq!(WeightPart(0).factor(), 1);
    }
}
