//! The single values in a route: what is written as one word, and checked while it is parsed.

use std::str::FromStr;

use schemars::Schema;

use super::{Address, schema};
use crate::policy::{InvalidValue, TextValue, is_subdomain, text_value, word};
use crate::routing::Hostname;

/// The class of an installation: 1 to 253 letters, digits and `-`, `.`, `_`, `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassName(Box<str>);

/// The name of a listener, as the configuration has it (an RFC 1123 label).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerName(Box<str>);

/// The name of a Service (an RFC 1123 label).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName(Box<str>);

/// The name of a namespace (an RFC 1123 label).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(Box<str>);

/// The name of a Secret (an RFC 1123 subdomain).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretName(Box<str>);

word!(ClassName, ListenerName, ServiceName, Namespace, SecretName);

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

impl FromStr for SecretName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match is_subdomain(text) {
            true => Ok(SecretName(text.into())),
            false => Err(InvalidValue::new(format!(
                "{text:?} is not the name of a Secret; it has a-z, 0-9, '-' and '.', and begins and ends with a \
                 letter or digit"
            ))),
        }
    }
}

text_value!(Hostname, ClassName, ListenerName, ServiceName, Namespace, SecretName, Address);

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

impl TextValue for SecretName {
    const EXPECTED: &'static str = "the name of a Secret";

    fn schema() -> Schema {
        schema::secret()
    }
}
