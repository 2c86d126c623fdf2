//! An order of hostnames in which all names below a suffix are neighbours.

use std::cmp::Ordering;

use crate::routing::Hostname;

/// A hostname, ordered by its reversed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Domain(pub(super) Hostname);

impl Domain {
    /// The lower bound of all names below `suffix`.
    pub(super) fn below(suffix: &str) -> Self {
        Domain(Hostname::Exact(format!(".{suffix}").into()))
    }

    /// Whether the hostname is below `suffix`.
    pub(super) fn is_below(&self, suffix: &str) -> bool {
        text(&self.0).strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
    }
}

impl Ord for Domain {
    fn cmp(&self, other: &Self) -> Ordering {
        let backwards = from_the_end(text(&self.0).as_bytes(), text(&other.0).as_bytes());
        // A name and a wildcard may have the same text.
        backwards.then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for Domain {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The name, or a wildcard's suffix; empty for `*`.
pub(super) fn text(hostname: &Hostname) -> &str {
    match hostname {
        Hostname::Any => "",
        Hostname::Wildcard(text) | Hostname::Exact(text) => text,
    }
}

/// The suffixes of the wildcards above `hostname`, the longest first.
pub(super) fn suffixes(hostname: &Hostname) -> impl Iterator<Item = &str> {
    let text = text(hostname);
    text.match_indices('.').filter_map(|(dot, _)| text.get(dot + 1..))
}

/// The number of labels of a name.
pub(super) fn labels(name: &str) -> usize {
    name.split('.').count()
}

/// Compares the reversed texts, eight bytes at a time: a million names may have the same end.
fn from_the_end(one: &[u8], other: &[u8]) -> Ordering {
    let (mut one, mut other) = (one, other);
    while let (Some((rest, last)), Some((other_rest, other_last))) =
        (one.split_last_chunk::<8>(), other.split_last_chunk::<8>())
    {
        // The last byte is the most significant.
        match u64::from_le_bytes(*last).cmp(&u64::from_le_bytes(*other_last)) {
            Ordering::Equal => (one, other) = (rest, other_rest),
            unequal => return unequal,
        }
    }
    one.iter().rev().cmp(other.iter().rev())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_order_is_that_of_reversed_text(one in "[ab.]{0,20}", other in "[ab.]{0,20}") {
            let backwards = |text: &str| text.bytes().rev().collect::<Vec<_>>();
            prop_assert_eq!(
                from_the_end(one.as_bytes(), other.as_bytes()),
                backwards(&one).cmp(&backwards(&other))
            );
        }

        #[test]
        fn all_names_below_a_suffix_are_neighbours(names in prop::collection::vec("([ab]\\.){0,3}[ab]", 0..20)) {
            let domains = names.iter().map(|name| Domain(name.parse().unwrap()));
            let domains: BTreeSet<Domain> = domains.collect();
            for name in &names {
                let below: Vec<_> = domains
                    .range(Domain::below(name)..)
                    .take_while(|domain| domain.is_below(name))
                    .collect();
                let expected = domains.iter().filter(|domain| domain.is_below(name));
                prop_assert_eq!(below, expected.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn the_suffixes_above_a_name_start_with_the_nearest() {
        let of =
            |text: &str| suffixes(&text.parse().unwrap()).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(of("a.b.c"), ["b.c", "c"]);
        assert_eq!(of("*.b.c"), ["c"]);
        assert!(of("*").is_empty() && of("c").is_empty());
    }
}
