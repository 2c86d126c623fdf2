//! The known addresses of one DNS name.

use std::net::IpAddr;
use std::time::Duration;

use crate::control::translate::{ADDRESSES_OF_A_NAME, DnsAnswer, NameFault};

/// The shortest time between two lookups of a name, whatever the TTL of its records.
pub(super) const SHORTEST: Duration = Duration::from_secs(5);
/// The longest time between two lookups of a name.
pub(super) const LONGEST: Duration = Duration::from_secs(3600);
/// The pause after the first lookup without addresses. It doubles with each further one.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause while neither family has addresses.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause of a family while the other one has addresses. Many servers never answer queries for
/// one of the families.
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

/// The result of a lookup of one address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LookupResult {
    /// The addresses, and the time for which they are valid.
    Found(Vec<IpAddr>, Duration),
    /// The servers answer that the name has no addresses, or does not exist.
    Nothing { no_such_name: bool },
    /// No answer, with the reason.
    Failed(String),
}

/// The known addresses of a name.
#[derive(Debug, Default)]
pub(super) struct KnownAddresses {
    families: [FamilyAddresses; 2],
}

#[derive(Debug, Default)]
struct FamilyAddresses {
    addresses: Vec<IpAddr>,
    /// The result of the last lookup.
    last: Option<LastLookup>,
    /// The pause after the last lookup, if that found no addresses.
    pause: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum LastLookup {
    Found,
    Nothing { no_such_name: bool },
    Failed(String),
}

impl KnownAddresses {
    /// Stores the result of a lookup. Returns the time to wait before the next lookup of this family.
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
            // Most names have addresses of one family only.
            _ if known_to_be_empty => LONGEST_PAUSE,
            pause if pause.is_zero() => FIRST_PAUSE,
            pause => (pause * 2).min(longest),
        };
        known.pause
    }

    /// Whether the last lookup of a family got no answer.
    pub(super) fn is_failing(&self, family: Family) -> bool {
        matches!(self.of(family).last, Some(LastLookup::Failed(_)))
    }

    /// Whether no lookup of a family has ended yet.
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

    /// The answer. `None` while only one family has been looked up and has no address.
    ///
    /// Addresses of one family are enough: servers without AAAA records often do not answer AAAA queries at
    /// all.
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

    /// A lookup, the seconds until the next one, and then the known addresses with the fault.
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
    fn addresses_of_one_family_are_used_before_the_other_answers() {
        goes(&[
            (V4, found("10.0.0.1", 60), 60, Some((&["10.0.0.1"], None))),
            (V6, failed(), 1, Some((&["10.0.0.1"], None))),
            (V6, failed(), 2, Some((&["10.0.0.1"], None))),
            (V6, found("fd00::1", 30), 30, Some((&["10.0.0.1", "fd00::1"], None))),
            // The addresses stay as long as there is no answer.
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
    fn a_failed_lookup_keeps_the_known_addresses() {
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
    fn an_empty_answer_removes_the_known_addresses() {
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
    fn too_many_addresses_of_a_name_are_reported() {
        let many: Vec<IpAddr> = (0..300_u32).rev().map(|n| IpAddr::from(n.to_be_bytes())).collect();
        let mut known = KnownAddresses::default();
        known.take(V4, LookupResult::Found(many, Duration::from_secs(60)));
        let answer = known.answer().unwrap();
        assert_eq!(answer.fault, Some(NameFault::TooManyAddresses));
        let first: Vec<IpAddr> = (0..256_u32).map(|n| IpAddr::from(n.to_be_bytes())).collect();
        assert_eq!(answer.addresses, first);
    }
}
