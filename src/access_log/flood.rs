//! Limits the lines about refused clients.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::word;
use crate::cidr::Cidr;
use crate::outcome::Outcome;

/// The maximum number of lines per second about refusals of one source and outcome, over all workers.
const LINES: u64 = 100;
/// The maximum number of distinct sources and outcomes per second. Beyond it, refusals are distinguished
/// only by their outcome.
const MOST_KINDS: usize = 4096;
/// The prefix length of an IPv6 network; a client can choose the rest of its address (RFC 4291 §2.5.4).
const IPV6_PREFIX: u8 = 64;

/// The refusals of one second, in one worker.
#[derive(Debug)]
pub(super) struct Flood {
    second: i64,
    /// The maximum number of lines for each source and outcome in this worker.
    lines: u64,
    kinds: HashMap<(ClientNetwork, Outcome), RefusalGroup>,
    /// How many sources and outcomes have counted refusals.
    counted: usize,
}

/// The source of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ClientNetwork {
    Address(Ipv4Addr),
    Network(Cidr),
    /// Any source, after the maximum number of sources.
    Anywhere,
}

#[derive(Debug)]
struct RefusalGroup {
    refused: u64,
    /// The times of the first and last refusal that was only counted.
    times: Option<(Timestamp, Timestamp)>,
}

/// A line about refusals that were only counted.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CountedRefusals {
    /// The address or network of the clients.
    #[serde(skip_serializing_if = "ClientNetwork::is_anywhere")]
    source: ClientNetwork,
    #[serde(serialize_with = "word")]
    outcome: Outcome,
    /// The number of refusals.
    count: u64,
    first_time: Timestamp,
    last_time: Timestamp,
}

impl Flood {
    /// The limits for one of this number of workers.
    pub(super) fn of_one_of(workers: usize) -> Self {
        let lines = (LINES / workers.max(1) as u64).max(1);
        Flood { second: 0, lines, kinds: HashMap::new(), counted: 0 }
    }

    /// Whether no refusal was only counted.
    pub(super) fn is_empty(&self) -> bool {
        self.counted == 0
    }

    /// Returns whether a refusal gets its own line; if not, counts it. [`Flood::end_second`] must have been
    /// called since the previous second.
    pub(super) fn admits(&mut self, now: Timestamp, source: IpAddr, outcome: Outcome) -> bool {
        self.second = now.as_second();
        let mut key = (ClientNetwork::of(source), outcome);
        if self.kinds.len() >= MOST_KINDS && !self.kinds.contains_key(&key) {
            key = (ClientNetwork::Anywhere, outcome);
        }
        let kind = self.kinds.entry(key).or_insert(RefusalGroup { refused: 0, times: None });
        kind.refused += 1;
        if kind.refused <= self.lines {
            return true;
        }
        self.counted += usize::from(kind.times.is_none());
        kind.times = Some((kind.times.map_or(now, |(first, _)| first), now));
        false
    }

    /// The counted refusals, if `now` is after their second.
    pub(super) fn end_second(&mut self, now: Timestamp) -> Vec<CountedRefusals> {
        if self.second == now.as_second() || self.kinds.is_empty() {
            return Vec::new();
        }
        self.counted = 0;
        let lines = self.lines;
        let counted = self.kinds.drain().filter_map(|((source, outcome), kind)| {
            let ((first_time, last_time), count) = (kind.times?, kind.refused - lines);
            Some(CountedRefusals { source, outcome, count, first_time, last_time })
        });
        counted.collect()
    }
}

impl ClientNetwork {
    fn of(ip: IpAddr) -> Self {
        let network = |ip| Cidr::new(ip, IPV6_PREFIX).map(ClientNetwork::Network);
        match ip.to_canonical() {
            IpAddr::V4(ip) => ClientNetwork::Address(ip),
            ip => network(ip).unwrap_or(ClientNetwork::Anywhere),
        }
    }

    fn is_anywhere(&self) -> bool {
        *self == ClientNetwork::Anywhere
    }
}

impl Serialize for ClientNetwork {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ClientNetwork::Address(ip) => serializer.collect_str(ip),
            ClientNetwork::Network(network) => serializer.collect_str(network),
            ClientNetwork::Anywhere => serializer.serialize_none(),
        }
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
    fn more_than_a_hundred_similar_refusals_a_second_are_only_counted() {
        let mut flood = Flood::of_one_of(1);
        let mut shown = 0;
        for n in 0..350 {
            assert_eq!(flood.end_second(at(n)), vec![]);
            shown += u64::from(flood.admits(at(n), ip(1), Outcome::NoRoute));
        }
        assert_eq!(shown, LINES);
        assert!(!flood.is_empty());
        // Another source, and another outcome, have their own limits.
        assert!(flood.admits(at(400), ip(2), Outcome::NoRoute));
        assert!(flood.admits(at(400), ip(1), Outcome::NotTls));
        assert_eq!(flood.end_second(at(999)), vec![]);
        let line = CountedRefusals {
            source: ClientNetwork::of(ip(1)),
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
    fn workers_share_the_limit_on_lines() {
        for (workers, lines) in [(1, 100), (2, 50), (3, 33), (64, 1), (1000, 1)] {
            let mut flood = Flood::of_one_of(workers);
            let shown = (0..200).filter(|_| flood.admits(at(0), ip(1), Outcome::NoRoute)).count();
            assert_eq!(shown, lines, "{workers}");
        }
    }

    /// A client can choose among 2⁶⁴ IPv6 addresses.
    #[test]
    fn an_ipv6_network_counts_as_one_source() {
        let mut flood = Flood::of_one_of(1);
        let source = |net: u128, host: u128| {
            IpAddr::from((0x2001_0db8 << 96 | net << 64 | host).to_be_bytes())
        };
        let shown = |flood: &mut Flood, net| {
            let admitted =
                (0..300).filter(|host| flood.admits(at(0), source(net, *host), Outcome::NoRoute));
            admitted.count() as u64
        };
        assert_eq!((shown(&mut flood, 1), shown(&mut flood, 2)), (LINES, LINES));
        let mut told: Vec<String> = flood
            .end_second(at(1000))
            .iter()
            .map(|line| serde_json::to_value(line).expect("JSON")["source"].to_string())
            .collect();
        told.sort();
        assert_eq!(told, ["\"2001:db8:0:1::/64\"", "\"2001:db8:0:2::/64\""]);
    }

    #[test]
    fn sources_beyond_the_maximum_count_as_one() {
        let mut flood = Flood::of_one_of(1);
        let source = |n: usize| IpAddr::from((n as u32).to_be_bytes());
        let mut shown = 0;
        for n in 0..3 * MOST_KINDS {
            shown += usize::from(flood.admits(at(0), source(n), Outcome::NoSni));
        }
        assert_eq!(shown, MOST_KINDS + LINES as usize);
        assert!(flood.admits(at(0), source(0), Outcome::NoSni), "one that is known");
        assert!(flood.admits(at(0), source(9 * MOST_KINDS), Outcome::NotTls), "another outcome");
        let lines = flood.end_second(at(5000));
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(line.count, 2 * MOST_KINDS as u64 - LINES);
        let line = serde_json::to_value(line).expect("JSON");
        assert_eq!((&line["outcome"], line.get("source")), (&"no_sni".into(), None));
    }
}
