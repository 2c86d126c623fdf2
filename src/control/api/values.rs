//! The single values in a route: what is written as one word, and checked while it is parsed.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Address, schema};
use crate::duration;
use crate::routing::{Balancing, Hostname};

/// Why a value is refused, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(String);

impl InvalidValue {
    pub(super) fn new(message: impl Into<String>) -> Self {
        InvalidValue(message.into())
    }
}

/// The class of an installation: 1 to 253 letters, digits and `-`, `.`, `_`, `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassName(Box<str>);

/// The name of a listener, as the configuration has it (an RFC 1123 label).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerName(Box<str>);

/// An ALPN protocol identifier: 1 to 255 bytes (RFC 7301 §3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlpnProtocol(Box<str>);

/// The name of a Service (an RFC 1123 label).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName(Box<str>);

/// The name of a namespace (an RFC 1123 label).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(Box<str>);

/// A deadline: above zero and at most 30 days, written as in Gateway API (GEP-2257): one to four
/// numbers of at most five digits, each with its unit `h`, `m`, `s` or `ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeout(Duration);

macro_rules! word {
    ($($name:ident),*) => {$(
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

word!(ClassName, ListenerName, AlpnProtocol, ServiceName, Namespace);

impl FromStr for ClassName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
        if !(1..=253).contains(&text.len()) || !text.chars().all(fits) {
            return Err(InvalidValue::new(format!(
                "{text:?} is not a class; write letters, digits, and any of - . _ / (1 to 253)"
            )));
        }
        Ok(ClassName(text.into()))
    }
}

impl FromStr for ListenerName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if !is_label(text) {
            return Err(InvalidValue::new(format!(
                "{text:?} is not a listener's name; it has 1 to 63 of a-z, 0-9 and '-', and begins \
                 and ends with a letter or digit"
            )));
        }
        Ok(ListenerName(text.into()))
    }
}

/// RFC 1123, in lower case as Kubernetes has it.
fn is_label(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let hyphens = text.starts_with('-') || text.ends_with('-');
    (1..=63).contains(&text.len()) && !hyphens && text.chars().all(fits)
}

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

impl FromStr for ServiceName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if !is_label(text) {
            return Err(InvalidValue::new(format!(
                "{text:?} is not the name of a Service; it has 1 to 63 of a-z, 0-9 and '-', and \
                 its namespace goes into a field of its own"
            )));
        }
        Ok(ServiceName(text.into()))
    }
}

impl FromStr for Namespace {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if !is_label(text) {
            return Err(InvalidValue::new(format!(
                "{text:?} is not the name of a namespace; it has 1 to 63 of a-z, 0-9 and '-'"
            )));
        }
        Ok(Namespace(text.into()))
    }
}

impl Timeout {
    /// The longest that is accepted.
    pub const MAX: Duration = Duration::from_secs(30 * 24 * 3600);

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
        let duration = duration::parse(text)
            .map_err(|error| InvalidValue::new(format!("{text:?} {error}")))?;
        if duration.is_zero() {
            return Err(InvalidValue::new(format!(
                "{text:?} is no time at all; leave the field out to have the installation's own"
            )));
        }
        if duration > Timeout::MAX {
            return Err(InvalidValue::new(format!(
                "{text:?} is over the maximum of 720h (30 days)"
            )));
        }
        Ok(Timeout(duration))
    }
}

/// A value that is one string in a manifest.
pub(super) trait TextValue: FromStr<Err: fmt::Display> + fmt::Display {
    /// What is expected where something else than a string is found.
    const EXPECTED: &'static str;

    /// What the API server checks.
    fn schema() -> Schema;
}

macro_rules! text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextValueVisitor(std::marker::PhantomData))
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                <$type as TextValue>::schema()
            }
        }
    )*};
}

text!(
    Hostname,
    ClassName,
    ListenerName,
    AlpnProtocol,
    ServiceName,
    Namespace,
    Address,
    Timeout,
    Balancing
);

/// Says what the text is for where something else is found.
struct TextValueVisitor<T>(std::marker::PhantomData<T>);

impl<T: TextValue> Visitor<'_> for TextValueVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

impl TextValue for Hostname {
    const EXPECTED: &'static str = "a hostname";

    fn schema() -> Schema {
        schema::hostname()
    }
}

impl TextValue for ClassName {
    const EXPECTED: &'static str = "the name of a class";

    fn schema() -> Schema {
        schema::class()
    }
}

impl TextValue for ListenerName {
    const EXPECTED: &'static str = "the name of a listener";

    fn schema() -> Schema {
        schema::listener()
    }
}

impl TextValue for AlpnProtocol {
    const EXPECTED: &'static str = "an ALPN protocol";

    fn schema() -> Schema {
        schema::alpn()
    }
}

impl TextValue for ServiceName {
    const EXPECTED: &'static str = "the name of a Service";

    fn schema() -> Schema {
        schema::service()
    }
}

impl TextValue for Namespace {
    const EXPECTED: &'static str = "the name of a namespace";

    fn schema() -> Schema {
        schema::namespace()
    }
}

impl TextValue for Timeout {
    const EXPECTED: &'static str = "a duration such as 5s";

    fn schema() -> Schema {
        schema::timeout()
    }
}

impl TextValue for Balancing {
    const EXPECTED: &'static str = "a balancing policy";

    fn schema() -> Schema {
        schema::policy()
    }
}
