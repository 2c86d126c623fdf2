//! Which clients are admitted, by their addresses.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use ahash::AHashMap as HashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cidr::Cidr;

/// The most networks that one list may have.
pub const MOST_NETWORKS: usize = 10_000;

/// The clients that are admitted, by their addresses: each list has networks, such as `10.0.0.0/8`, or single
/// addresses. An IPv4 address in the form of IPv6 counts as IPv4.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", expecting = "an object")]
pub struct Access {
    /// The networks of the clients that are admitted. If it is empty, all are.
    #[serde(default, with = "networks", skip_serializing_if = "is_empty")]
    #[schemars(with = "Vec<Cidr>", length(max = MOST_NETWORKS), extend("x-kubernetes-list-type" = "atomic"))]
    pub allow: Arc<[Cidr]>,

    /// The networks of the clients that are refused, even if `allow` has them.
    #[serde(default, with = "networks", skip_serializing_if = "is_empty")]
    #[schemars(with = "Vec<Cidr>", length(max = MOST_NETWORKS), extend("x-kubernetes-list-type" = "atomic"))]
    pub deny: Arc<[Cidr]>,
}

impl fmt::Display for Access {
    /// The first networks of each list, and how many there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        let mut separator = "";
        for (word, list) in [("allow", &self.allow), ("deny", &self.deny)] {
            if list.is_empty() {
                continue;
            }
            let first: Vec<_> = list.iter().take(SHOWN).map(ToString::to_string).collect();
            write!(f, "{separator}{word} {}", first.join(", "))?;
            if list.len() > SHOWN {
                write!(f, " and {} more", list.len() - SHOWN)?;
            }
            separator = "; ";
        }
        Ok(())
    }
}

/// A list of networks as serde's list.
mod networks {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Arc, Cidr, MOST_NETWORKS};

    pub(super) fn serialize<S: Serializer>(
        networks: &Arc<[Cidr]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(networks.iter())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<[Cidr]>, D::Error> {
        let networks: Vec<Cidr> = Option::deserialize(deserializer)?.unwrap_or_default();
        match networks.len() {
            0..=MOST_NETWORKS => Ok(networks.into()),
            count => Err(D::Error::custom(format!(
                "has {count} items; at most {MOST_NETWORKS} are allowed"
            ))),
        }
    }
}

fn is_empty(networks: &Arc<[Cidr]>) -> bool {
    networks.is_empty()
}

/// What an [`Access`] and its ceiling admit, for fast decisions: one binary search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessList {
    /// Whether everybody is admitted.
    is_open: bool,
    /// The admitted addresses: ranges in order, which do not touch.
    ipv4: Box<[(u32, u32)]>,
    ipv6: Box<[(u128, u128)]>,
}

impl AccessList {
    /// The list of what all of these admit.
    pub fn of<'a>(all: impl IntoIterator<Item = &'a Access>) -> Self {
        let mut ranges = [vec![(0, u128::from(u32::MAX))], vec![(0, u128::MAX)]];
        let mut is_open = true;
        for Access { allow, deny } in all {
            is_open &= allow.is_empty() && deny.is_empty();
            for (family, ranges) in ranges.iter_mut().enumerate() {
                let of_family = |networks: &[Cidr]| {
                    merged(networks.iter().filter(|one| usize::from(one.is_ipv6()) == family))
                };
                if !allow.is_empty() {
                    *ranges = common(ranges, &of_family(allow));
                }
                *ranges = common(ranges, &others(&of_family(deny)));
            }
        }
        let [ipv4, ipv6] = ranges;
        let narrow = |bits: u128| u32::try_from(bits).unwrap_or(u32::MAX);
        let ipv4 = ipv4.into_iter().map(|(first, last)| (narrow(first), narrow(last))).collect();
        AccessList { is_open, ipv4, ipv6: ipv6.into() }
    }

    /// Whether a client of this address is admitted.
    pub fn admits(&self, client: IpAddr) -> bool {
        self.is_open
            || match client.to_canonical() {
                IpAddr::V4(ip) => contains(&self.ipv4, ip.to_bits()),
                IpAddr::V6(ip) => contains(&self.ipv6, ip.to_bits()),
            }
    }

    /// Whether everybody is admitted.
    pub fn is_open(&self) -> bool {
        self.is_open
    }
}

/// Access lists that are shared: the policies of many routes have the same networks.
#[derive(Debug, Default)]
pub struct AccessLists(HashMap<(Option<Access>, Option<Access>), Weak<AccessList>>);

impl AccessLists {
    /// The list of what both admit, and the first of them with the networks of an earlier call, if they are the
    /// same.
    pub fn shared(
        &mut self,
        access: Option<Access>,
        ceiling: Option<Access>,
    ) -> (Option<Access>, Arc<AccessList>) {
        let key = (access, ceiling);
        if let Some(((access, _), list)) = self.0.get_key_value(&key)
            && let Some(list) = list.upgrade()
        {
            return (access.clone(), list);
        }
        let list = Arc::new(AccessList::of(key.0.iter().chain(&key.1)));
        let access = key.0.clone();
        self.0.insert(key, Arc::downgrade(&list));
        (access, list)
    }

    /// Removes the lists that nobody uses.
    pub fn clean(&mut self) {
        self.0.retain(|_, list| list.strong_count() > 0);
    }
}

fn contains<T: Copy + Ord>(ranges: &[(T, T)], bits: T) -> bool {
    let after = ranges.partition_point(|(first, _)| *first <= bits);
    let range = after.checked_sub(1).and_then(|place| ranges.get(place));
    range.is_some_and(|(_, last)| bits <= *last)
}

/// The addresses of some networks, as ranges in order that do not touch.
fn merged<'a>(networks: impl Iterator<Item = &'a Cidr>) -> Vec<(u128, u128)> {
    let mut ranges: Vec<_> = networks.map(Cidr::range).collect();
    ranges.sort_unstable();
    let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

/// All other addresses.
fn others(ranges: &[(u128, u128)]) -> Vec<(u128, u128)> {
    let mut others = Vec::with_capacity(ranges.len() + 1);
    let mut next = Some(0);
    for (first, last) in ranges {
        if let Some(start) = next.filter(|start| start < first) {
            others.push((start, first - 1));
        }
        next = last.checked_add(1);
    }
    others.extend(next.map(|start| (start, u128::MAX)));
    others
}

/// The addresses that are in both.
fn common(one: &[(u128, u128)], other: &[(u128, u128)]) -> Vec<(u128, u128)> {
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    let mut both = Vec::new();
    while let (Some((first, last)), Some((start, end))) = (one.peek(), other.peek()) {
        let (from, to) = (first.max(start), last.min(end));
        if from <= to {
            both.push((*from, *to));
        }
        if last < end {
            one.next()
        } else {
            other.next()
        };
    }
    both
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn access(allow: &[&str], deny: &[&str]) -> Access {
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Access { allow: networks(allow), deny: networks(deny) }
    }

    #[track_caller]
    fn check(all: &[Access], admitted: &[&str], refused: &[&str]) {
        let list = AccessList::of(all);
        for (addresses, expected) in [(admitted, true), (refused, false)] {
            for address in addresses {
                assert_eq!(list.admits(address.parse().unwrap()), expected, "{address}");
            }
        }
    }

    #[test]
    fn deny_wins_and_an_empty_allow_admits_all() {
        check(&[], &["10.0.0.1", "::1"], &[]);
        check(&[access(&[], &[])], &["10.0.0.1", "::1"], &[]);
        check(
            &[access(&[], &["10.0.0.0/8"])],
            &["11.0.0.0", "9.255.255.255", "::1"],
            &["10.0.0.0"],
        );
        check(
            &[access(&["10.0.0.0/8"], &["10.9.0.0/16"])],
            &["10.0.0.0", "10.8.255.255", "10.10.0.0", "10.255.255.255"],
            &["10.9.0.0", "10.9.255.255", "11.0.0.0", "::1"],
        );
        check(&[access(&["::/0"], &[])], &["::1", "ffff::"], &["10.0.0.1"]);
    }

    #[test]
    fn an_ipv4_address_in_the_form_of_ipv6_is_ipv4() {
        check(&[access(&["10.0.0.0/8"], &[])], &["::ffff:10.1.2.3"], &["::ffff:11.0.0.1"]);
        check(&[access(&["::ffff:10.0.0.0/104"], &[])], &["10.1.2.3"], &["11.0.0.1"]);
    }

    #[test]
    fn of_two_lists_both_have_to_admit() {
        let all = [access(&["10.0.0.0/8"], &[]), access(&["10.1.0.0/16", "192.0.2.0/24"], &[])];
        check(&all, &["10.1.0.1"], &["10.2.0.1", "192.0.2.1"]);
        check(&[access(&["10.0.0.0/8"], &[]), access(&["192.0.2.0/24"], &[])], &[], &["10.0.0.1"]);
    }

    #[test]
    fn a_list_of_everything_has_both_ends() {
        let everything = access(&["0.0.0.0/0", "::/0"], &[]);
        let ends = ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"];
        check(std::slice::from_ref(&everything), &ends, &[]);
        check(&[access(&[], &["0.0.0.0/0", "::/0"])], &[], &ends);
    }

    fn network() -> impl Strategy<Value = Cidr> {
        // Few bits, so that networks meet.
        prop_oneof![
            (0_u32..8, 27_u8..=32)
                .prop_map(|(ip, prefix)| (IpAddr::from(ip.to_be_bytes()), prefix)),
            (0_u128..8, 123_u8..=128)
                .prop_map(|(ip, prefix)| (Ipv6Addr::from(ip << 120 | ip).into(), prefix)),
        ]
        .prop_map(|(ip, prefix)| Cidr::new(ip, prefix).unwrap())
    }

    proptest! {
        #[test]
        fn it_decides_as_a_search_of_the_networks(
            lists in vec((vec(network(), 0..4), vec(network(), 0..4)), 0..3),
            clients in vec(network(), 1..8),
        ) {
            let all: Vec<_> = lists
                .into_iter()
                .map(|(allow, deny)| Access { allow: allow.into(), deny: deny.into() })
                .collect();
            let list = AccessList::of(&all);
            for client in clients {
                let client = client.first();
                let expected = all.iter().all(|Access { allow, deny }| {
                    (allow.is_empty() || allow.iter().any(|network| network.contains(client)))
                        && !deny.iter().any(|network| network.contains(client))
                });
                prop_assert_eq!(list.admits(client), expected, "{}", client);
            }
        }
    }
}
