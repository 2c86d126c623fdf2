//! An address outside the cluster, by number or by name.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use schemars::Schema;

use super::schema;
use crate::policy::{InvalidValue, TextValue};
use crate::routing::Hostname;

/// The longest in characters: a DNS name of 253 with its trailing dot, and five digits of a port.
pub(super) const MAX_LENGTH: usize = 260;

/// A place outside the cluster that can be connected to: a host and a port above 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An IP address with its port.
    Socket(SocketAddr),
    /// A DNS name with its port, such as `kafka.example.com:9093`. The name is looked up as it
    /// stands, without search domains.
    Name(DnsName, u16),
}

/// A DNS name in its normalised form: lower case, without a trailing dot.
pub type DnsName = Arc<str>;

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(address) => address.fmt(f),
            Address::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

impl FromStr for Address {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text.len() > MAX_LENGTH {
            return Err(wrong(text, "is too long"));
        }
        let Ok(address) = text.parse::<SocketAddr>() else {
            return name(text);
        };
        if address.port() == 0 {
            return Err(no_port_0(text));
        }
        if address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(InvalidValue::new(format!(
                "{text:?}: nothing can be reached at {}; write the address of one machine",
                address.ip()
            )));
        }
        Ok(Address::Socket(address))
    }
}

/// A text that is no IP address with a port.
fn name(text: &str) -> Result<Address, InvalidValue> {
    if text.parse::<IpAddr>().is_ok() || dns_name(text).is_some() {
        return Err(wrong(text, "has no port"));
    }
    let Some((name, port)) = text.rsplit_once(':') else {
        return Err(wrong(text, "is not an address"));
    };
    let Some(name) = dns_name(name) else {
        return Err(wrong(text, "is not an address"));
    };
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong(text, "has no port number"));
    }
    match port.parse() {
        Ok(0) => Err(no_port_0(text)),
        Ok(port) => Ok(Address::Name(name, port)),
        Err(_) => Err(wrong(text, "has a port over 65535")),
    }
}

/// What a DNS name may be is the same for those that clients ask for and those behind them.
pub(in crate::control) fn dns_name(text: &str) -> Option<DnsName> {
    match text.parse() {
        Ok(Hostname::Exact(name)) => Some(name),
        _ => None,
    }
}

fn no_port_0(text: &str) -> InvalidValue {
    InvalidValue::new(format!("{text:?}: nothing can be reached at port 0"))
}

fn wrong(text: &str, why: &str) -> InvalidValue {
    InvalidValue::new(format!(
        "{text:?} {why}; write an IP address or a DNS name with a port, as in 203.0.113.7:9093, \
         [2001:db8::7]:9093 or kafka.example.com:9093"
    ))
}

impl TextValue for Address {
    const EXPECTED: &'static str = "an address with a port";

    fn schema() -> Schema {
        schema::address()
    }
}
