//! Clients that are refused more often than anybody reads.

use std::collections::HashMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Serialize;

use super::word;
use crate::outcome::Outcome;

/// Lines of their own that refusals of one source and outcome have in a second.
const LINES: u64 = 100;
/// Sources and outcomes that are told apart in a second. Those that come after them have lines of
/// their own.
const MOST_KINDS: usize = 4096;

/// The refusals of one second.
#[derive(Debug, Default)]
pub(super) struct Flood {
    second: i64,
    kinds: HashMap<(IpAddr, Outcome), Kind>,
    /// How many of these have refusals without a line of their own.
    counted: usize,
}

#[derive(Debug)]
struct Kind {
    refused: u64,
    /// Of the first without a line of its own, and of the last.
    times: Option<(Timestamp, Timestamp)>,
}

/// The line about refusals that have none of their own.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counted {
    /// The address of the clients.
    source: IpAddr,
    #[serde(serialize_with = "word")]
    outcome: Outcome,
    /// How many.
    count: u64,
    first_time: Timestamp,
    last_time: Timestamp,
}

impl Flood {
    /// Whether no line is due.
    pub(super) fn is_empty(&self) -> bool {
        self.counted == 0
    }

    /// Whether a refusal has a line of its own; else it is counted. The second before is over.
    pub(super) fn admits(&mut self, now: Timestamp, source: IpAddr, outcome: Outcome) -> bool {
        self.second = now.as_second();
        let full = self.kinds.len() >= MOST_KINDS;
        if full && !self.kinds.contains_key(&(source, outcome)) {
            return true;
        }
        let new = Kind { refused: 0, times: None };
        let kind = self.kinds.entry((source, outcome)).or_insert(new);
        kind.refused += 1;
        if kind.refused <= LINES {
            return true;
        }
        self.counted += usize::from(kind.times.is_none());
        kind.times = Some((kind.times.map_or(now, |(first, _)| first), now));
        false
    }

    /// What was counted, if its second is over; `now` may be of any later one.
    pub(super) fn end_second(&mut self, now: Timestamp) -> Vec<Counted> {
        if self.second == now.as_second() || self.kinds.is_empty() {
            return Vec::new();
        }
        self.counted = 0;
        let counted = self.kinds.drain().filter_map(|((source, outcome), kind)| {
            let ((first_time, last_time), count) = (kind.times?, kind.refused - LINES);
            Some(Counted { source, outcome, count, first_time, last_time })
        });
        counted.collect()
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(1_800_000_000_000 + millis).expect("a time")
    }

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn beyond_a_hundred_a_second_refusals_of_one_kind_are_counted() {
        let mut flood = Flood::default();
        let mut shown = 0;
        for n in 0..350 {
            assert_eq!(flood.end_second(at(n)), vec![]);
            shown += u64::from(flood.admits(at(n), ip(1), Outcome::NoRoute));
        }
        assert_eq!(shown, LINES);
        assert!(!flood.is_empty());
        // Another source, and another outcome.
        assert!(flood.admits(at(400), ip(2), Outcome::NoRoute));
        assert!(flood.admits(at(400), ip(1), Outcome::NotTls));
        assert_eq!(flood.end_second(at(999)), vec![]);
        let line = Counted {
            source: ip(1),
            outcome: Outcome::NoRoute,
            count: 250,
            first_time: at(100),
            last_time: at(349),
        };
        assert_eq!(flood.end_second(at(1000)), vec![line]);
        assert!(flood.is_empty());
        assert!(flood.admits(at(1001), ip(1), Outcome::NoRoute), "another second");
    }

    #[test]
    fn sources_beyond_the_bound_are_not_remembered() {
        let mut flood = Flood::default();
        let source = |n: usize| IpAddr::from((n as u128).to_be_bytes());
        for n in 0..2 * MOST_KINDS {
            assert!(flood.admits(at(0), source(n), Outcome::NoSni));
        }
        assert_eq!(flood.kinds.len(), MOST_KINDS);
        for _ in 0..2 * LINES {
            flood.admits(at(1), source(0), Outcome::NoSni);
            assert!(flood.admits(at(1), source(MOST_KINDS), Outcome::NoSni));
        }
        assert_eq!(flood.end_second(at(5000)).len(), 1);
    }
}
