//! What is known of a name.

use std::net::IpAddr;
use std::time::Duration;

use crate::control::translate::{ADDRESSES_OF_A_NAME, DnsAnswer, NameFault};

/// A name is not looked up again sooner than this, whatever its records say.
pub(super) const SHORTEST: Duration = Duration::from_secs(5);
/// A name is looked up again after this at the latest.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);
/// The first pause after an attempt that brings nothing; each further one is twice as long.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause while there is no good answer of either family.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause of a family while the other one has a good answer: many a server never
/// answers about one of them.
pub(super) const LONGEST_PAUSE_BESIDE: Duration = Duration::from_secs(300);

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Family; 2] = [Family::V4, Family::V6];
}

/// What a lookup of one address family brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LookupResult {
    /// Addresses, and for how long they hold.
    Found(Vec<IpAddr>, Duration),
    /// The servers say that there are none, or that there is no such name at all.
    Nothing { no_such_name: bool },
    /// No answer.
    Failed(String),
}

/// The addresses that are held of a name.
#[derive(Debug, Default)]
pub(super) struct KnownAddresses {
    families: [FamilyAddresses; 2],
}

#[derive(Debug, Default)]
struct FamilyAddresses {
    addresses: Vec<IpAddr>,
    /// How the last lookup ended.
    last: Option<LastLookup>,
    /// The last pause after one that brought nothing.
    pause: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LastLookup {
    Found,
    Nothing { no_such_name: bool },
    Failed(String),
}

impl KnownAddresses {
    /// Takes an outcome over. Returns how long to wait before that family is looked up again.
    pub(super) fn take(&mut self, family: Family, result: LookupResult) -> Duration {
        let [v4, v6] = &mut self.families;
        let (known, other) = match family {
            Family::V4 => (v4, v6),
            Family::V6 => (v6, v4),
        };
        let last = match result {
            LookupResult::Found(addresses, holds) => {
                known.addresses = addresses;
                known.last = Some(LastLookup::Found);
                known.pause = Duration::ZERO;
                return holds.clamp(SHORTEST, LONGEST);
            }
            LookupResult::Nothing { no_such_name } => {
                known.addresses.clear();
                LastLookup::Nothing { no_such_name }
            }
            LookupResult::Failed(why) => LastLookup::Failed(why),
        };
        let beside = other.last == Some(LastLookup::Found);
        let known_to_be_empty = beside && matches!(last, LastLookup::Nothing { .. });
        known.last = Some(last);
        let longest = if beside { LONGEST_PAUSE_BESIDE } else { LONGEST_PAUSE };
        known.pause = match known.pause {
            // It has one family alone, as most names do.
            _ if known_to_be_empty => LONGEST_PAUSE,
            pause if pause.is_zero() => FIRST_PAUSE,
            pause => (pause * 2).min(longest),
        };
        known.pause
    }

    /// Whether the last lookup of a family brought no answer.
    pub(super) fn is_failing(&self, family: Family) -> bool {
        matches!(self.of(family).last, Some(LastLookup::Failed(_)))
    }

    /// Whether nothing has come of a family yet.
    pub(super) fn is_new(&self, family: Family) -> bool {
        self.of(family).last.is_none()
    }

    fn of(&self, family: Family) -> &FamilyAddresses {
        let [v4, v6] = &self.families;
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// What is known; nothing as long as only one family has been looked up, and has no address.
    ///
    /// One family that has addresses is enough: servers that know no AAAA records often fail to say
    /// so.
    pub(super) fn answer(&self) -> Option<DnsAnswer> {
        let mut addresses: Vec<IpAddr> =
            self.families.iter().flat_map(|family| &family.addresses).copied().collect();
        addresses.sort_unstable();
        addresses.dedup();
        let lasts = || self.families.iter().filter_map(|family| family.last.as_ref());
        if addresses.is_empty() && lasts().count() < self.families.len() {
            return None;
        }
        let mut fault = None;
        for last in lasts() {
            match last {
                LastLookup::Found => {}
                LastLookup::Failed(why) => fault = Some(why.as_str()),
                LastLookup::Nothing { no_such_name: true } => {
                    fault = fault.or(Some("there is no such name"));
                }
                LastLookup::Nothing { no_such_name: false } => {
                    fault = fault.or(Some("it has no address"));
                }
            }
        }
        let well = lasts().any(|last| *last == LastLookup::Found);
        let fault = match fault.filter(|_| !well) {
            Some(why) => Some(NameFault::NotResolved(why.into())),
            None if addresses.len() > ADDRESSES_OF_A_NAME => Some(NameFault::TooManyAddresses),
            None => None,
        };
        addresses.truncate(ADDRESSES_OF_A_NAME);
        Some(DnsAnswer { addresses, fault })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Family::{V4, V6};
    use super::*;

    const NONE: LookupResult = LookupResult::Nothing { no_such_name: false };
    const NO_NAME: LookupResult = LookupResult::Nothing { no_such_name: true };

    fn found(address: &str, seconds: u64) -> LookupResult {
        LookupResult::Found(vec![address.parse().unwrap()], Duration::from_secs(seconds))
    }

    fn failed() -> LookupResult {
        LookupResult::Failed("away".to_owned())
    }

    /// A lookup, the seconds until the next one, and what is known then: the addresses and what is
    /// wrong.
    type Step<'s> = (Family, LookupResult, u64, Option<(&'s [&'s str], Option<&'s str>)>);

    #[track_caller]
    fn goes(steps: &[Step<'_>]) {
        let mut known = KnownAddresses::default();
        for (family, result, seconds, expected) in steps {
            let again = known.take(*family, result.clone());
            assert_eq!(again, Duration::from_secs(*seconds), "{family:?} {result:?}");
            let expected = expected.map(|(addresses, fault)| DnsAnswer {
                addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
                fault: fault.map(Into::into),
            });
            assert_eq!(known.answer(), expected, "{family:?} {result:?}");
        }
    }

    #[test]
    fn the_family_that_answers_is_used_at_once() {
        goes(&[
            (V4, found("10.0.0.1", 60), 60, Some((&["10.0.0.1"], None))),
            (V6, failed(), 1, Some((&["10.0.0.1"], None))),
            (V6, failed(), 2, Some((&["10.0.0.1"], None))),
            (V6, found("fd00::1", 30), 30, Some((&["10.0.0.1", "fd00::1"], None))),
            // Held, as long as there is no answer.
            (V6, failed(), 1, Some((&["10.0.0.1", "fd00::1"], None))),
            (V4, found("10.0.0.2", 60), 60, Some((&["10.0.0.2", "fd00::1"], None))),
            (V6, NONE, 60, Some((&["10.0.0.2"], None))),
        ]);
        goes(&[
            (V6, NONE, 1, None),
            (V4, found("10.0.0.1", 60), 60, Some((&["10.0.0.1"], None))),
            (V6, NONE, 60, Some((&["10.0.0.1"], None))),
        ]);
    }

    #[test]
    fn a_failure_keeps_what_was_there() {
        goes(&[
            (V4, failed(), 1, None),
            (V6, failed(), 1, Some((&[], Some("away")))),
            (V4, found("10.0.0.1", 60), 60, Some((&["10.0.0.1"], None))),
            (V6, found("fd00::1", 60), 60, Some((&["10.0.0.1", "fd00::1"], None))),
            (V4, failed(), 1, Some((&["10.0.0.1", "fd00::1"], None))),
            (V6, failed(), 1, Some((&["10.0.0.1", "fd00::1"], Some("away")))),
            (V4, NONE, 2, Some((&["fd00::1"], Some("away")))),
        ]);
    }

    #[test]
    fn an_answer_that_there_is_nothing_takes_it_away() {
        goes(&[
            (V4, found("10.0.0.1", 60), 60, Some((&["10.0.0.1"], None))),
            (V6, NONE, 60, Some((&["10.0.0.1"], None))),
            (V4, NONE, 1, Some((&[], Some("it has no address")))),
            (V4, NO_NAME, 2, Some((&[], Some("there is no such name")))),
        ]);
    }

    #[test]
    fn times_and_pauses_are_bounded() {
        let mut known = KnownAddresses::default();
        assert_eq!(known.take(V4, found("10.0.0.1", 0)), SHORTEST);
        assert_eq!(known.take(V4, found("10.0.0.1", 1_000_000)), LONGEST);
        let mut pauses = |family| (0..12).map(|_| known.take(family, failed()).as_secs()).max();
        assert_eq!(pauses(V6), Some(300));
        assert_eq!(pauses(V4), Some(60));
    }

    #[test]
    fn more_addresses_than_a_name_may_have_are_told() {
        let many: Vec<IpAddr> = (0..300_u32).rev().map(|n| IpAddr::from(n.to_be_bytes())).collect();
        let mut known = KnownAddresses::default();
        known.take(V4, LookupResult::Found(many, Duration::from_secs(60)));
        let answer = known.answer().unwrap();
        assert_eq!(answer.fault, Some(NameFault::TooManyAddresses));
        let first: Vec<IpAddr> = (0..256_u32).map(|n| IpAddr::from(n.to_be_bytes())).collect();
        assert_eq!(answer.addresses, first);
    }
}
