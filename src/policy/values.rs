//! Single values of a policy.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::Schema;

use super::{Balancing, InvalidValue, TextValue, schema, text_value};
use crate::cidr::Cidr;
use crate::duration;

/// A deadline: above zero and at most 30 days, written as in Gateway API (GEP-2257): one to four
/// numbers of at most five digits, each with its unit `h`, `m`, `s` or `ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeout(Duration);

impl Timeout {
    /// The longest that is accepted.
    pub const MAX: Duration = Duration::from_secs(30 * 24 * 3600);

    /// This duration, if it is above zero; the longest, if it is longer.
    pub fn new(duration: Duration) -> Option<Self> {
        (!duration.is_zero()).then_some(Timeout(duration.min(Timeout::MAX)))
    }

    /// How long.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        duration::display(self.0).fmt(f)
    }
}

impl FromStr for Timeout {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let duration = at_most_30_days(text)?;
        if duration.is_zero() {
            return Err(InvalidValue::new(format!(
                "{text:?} is no time at all; leave the field out to have the installation's own"
            )));
        }
        Ok(Timeout(duration))
    }
}

/// A time over which something is spread: like a [`Timeout`], but it may be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spread(Duration);

impl Spread {
    /// This duration; the longest, if it is longer.
    pub fn new(duration: Duration) -> Self {
        Spread(duration.min(Timeout::MAX))
    }

    /// How long.
    pub fn get(self) -> Duration {
        self.0
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        duration::display(self.0).fmt(f)
    }
}

impl FromStr for Spread {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        at_most_30_days(text).map(Spread)
    }
}

/// Reads a duration, which may be zero.
fn at_most_30_days(text: &str) -> Result<Duration, InvalidValue> {
    let duration =
        duration::parse(text).map_err(|error| InvalidValue::new(format!("{text:?} {error}")))?;
    if duration > Timeout::MAX {
        return Err(InvalidValue::new(format!("{text:?} is over the maximum of 720h (30 days)")));
    }
    Ok(duration)
}

impl TextValue for Timeout {
    const EXPECTED: &'static str = "a duration such as 5s";

    fn schema() -> Schema {
        schema::timeout()
    }
}

impl TextValue for Spread {
    const EXPECTED: &'static str = "a duration such as 30s";

    fn schema() -> Schema {
        schema::spread()
    }
}

impl TextValue for Balancing {
    const EXPECTED: &'static str = "a balancing policy";

    fn schema() -> Schema {
        schema::balancing()
    }
}

impl TextValue for Cidr {
    const EXPECTED: &'static str = "a network such as 10.0.0.0/8";

    fn schema() -> Schema {
        schema::network()
    }
}

text_value!(Timeout, Spread, Balancing, Cidr);
