//! Single values of a policy.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::Schema;

use super::{Balancing, InvalidValue, TextValue, schema, text_value, word};
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

word!(AlpnProtocol, CheckServerName, ConfigMapName);

/// An ALPN protocol identifier: 1 to 255 bytes (RFC 7301 §3.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AlpnProtocol(Box<str>);

impl FromStr for AlpnProtocol {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.len() {
            1..=255 => Ok(AlpnProtocol(text.into())),
            n => Err(InvalidValue::new(format!(
                "an ALPN protocol has 1 to 255 bytes, as in h2 or http/1.1; this one has {n}"
            ))),
        }
    }
}

/// A name that a TLS client asks for. It is in lower case, without a trailing dot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckServerName(Box<str>);

impl FromStr for CheckServerName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let name = text.strip_suffix('.').unwrap_or(text);
        let last = name.rsplit('.').next().unwrap_or_default();
        let fits = (1..=253).contains(&name.len()) && !is_number(last);
        if !fits || !name.split('.').all(is_dns_label) {
            return Err(InvalidValue::new(format!(
                "{text:?} is not a server name; write one such as www.example.com, without wildcard and port"
            )));
        }
        Ok(CheckServerName(name.to_ascii_lowercase().into()))
    }
}

/// Whether a label is a number. A name that ends with one may be an address (`127.1`, `0x7f000001`), so no server has
/// it.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(hex) => hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// A label of a name in DNS. It may have underscores, as names that routes claim.
fn is_dns_label(label: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let hyphens = label.starts_with('-') || label.ends_with('-');
    (1..=63).contains(&label.len()) && !hyphens && label.bytes().all(fits)
}

/// The name of a ConfigMap (an RFC 1123 subdomain).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConfigMapName(Box<str>);

impl FromStr for ConfigMapName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if !is_subdomain(text) {
            return Err(InvalidValue::new(format!(
                "{text:?} is not the name of a ConfigMap; it has a-z, 0-9, '-' and '.', and begins and ends \
                 with a letter or digit"
            )));
        }
        Ok(ConfigMapName(text.into()))
    }
}

/// Whether it is an RFC 1123 subdomain, as Kubernetes asks of most names.
pub fn is_subdomain(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let hyphens = |label: &str| label.starts_with('-') || label.ends_with('-');
    let is_label = |label: &str| !label.is_empty() && !hyphens(label) && label.bytes().all(fits);
    text.len() <= 253 && text.split('.').all(is_label)
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

impl TextValue for AlpnProtocol {
    const EXPECTED: &'static str = "an ALPN protocol";

    fn schema() -> Schema {
        schema::alpn()
    }
}

impl TextValue for CheckServerName {
    const EXPECTED: &'static str = "a server name";

    fn schema() -> Schema {
        schema::server_name()
    }
}

impl TextValue for ConfigMapName {
    const EXPECTED: &'static str = "the name of a ConfigMap";

    fn schema() -> Schema {
        schema::config_map()
    }
}

text_value!(Timeout, Spread, Balancing, Cidr, AlpnProtocol, CheckServerName, ConfigMapName);
