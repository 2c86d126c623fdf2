//! Listeners as people write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::fault::{Value, ValueFault};
use super::types::{ListenerConfig, Protocol};
use super::values::{boolean, word};
use crate::yaml::{Step, nearest};

const DEFAULT_NAME: &str = "https";
const DEFAULT_PORT: u16 = 8443;

/// Every address of the machine.
pub(super) fn defaults() -> Vec<ListenerConfig> {
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    any.map(|ip| listener(SocketAddr::new(ip, DEFAULT_PORT))).into()
}

/// Reads listeners and checks that they go together.
pub(super) fn parse(given: &[Value]) -> Result<Vec<ListenerConfig>, ValueFault> {
    let mut listeners: Vec<ListenerConfig> = Vec::with_capacity(given.len());
    for (index, value) in given.iter().enumerate() {
        let listener = match value {
            Value::Text(text) => parse_text(text).map_err(ValueFault::from),
            Value::Object(entries) => parse_object(entries),
        };
        let checked = listener.and_then(|new| {
            listeners.iter().try_for_each(|other| agree(other, &new))?;
            Ok(new)
        });
        listeners.push(checked.map_err(|fault| fault.within(Step::Index(index)))?);
    }
    Ok(listeners)
}

/// Reads an address and a port.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = text.strip_prefix(':').unwrap_or(text);
    if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!(
            "{text:?} has no address; write 0.0.0.0:{port} (IPv4) or [::]:{port} (IPv6)"
        ));
    }
    match text.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(ip) => Err(format!("{text:?} has no port; write e.g. {}", SocketAddr::new(ip, 8443))),
        Err(_) => Err(format!(
            "{text:?} is not an IP address and port; write e.g. 127.0.0.1:8443 or [::1]:8443"
        )),
    }
}

/// `[NAME=][tls://|tcp://]ADDRESS:PORT`.
fn parse_text(text: &str) -> Result<ListenerConfig, String> {
    let (name, rest) = text.split_once('=').unwrap_or((DEFAULT_NAME, text));
    let (protocol, address) = match rest.split_once("://") {
        Some((scheme, address)) => (parse_protocol(scheme)?, address),
        None => (Protocol::default(), rest),
    };
    let address = parse_address(address)?;
    Ok(ListenerConfig { name: parse_name(name)?, protocol, ..listener(address) })
}

/// `{name, address, protocol, alerts}`, of which only the address is needed.
fn parse_object(entries: &[(String, String)]) -> Result<ListenerConfig, ValueFault> {
    let mut address = None;
    let mut new = listener(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0));
    for (key, text) in entries {
        let read = match key.as_str() {
            "name" => parse_name(text).map(|name| new.name = name),
            "address" => parse_address(text).map(|parsed| address = Some(parsed)),
            "protocol" => parse_protocol(text).map(|protocol| new.protocol = protocol),
            "alerts" => boolean(text).map(|alerts| new.alerts = alerts),
            _ => Err(unknown_key(key)),
        };
        read.map_err(|message| ValueFault::from(message).within(Step::Key(key.clone())))?;
    }
    new.address =
        address.ok_or_else(|| ValueFault::from("a listener needs an address".to_owned()))?;
    if new.alerts && new.protocol != Protocol::Tls {
        let fault = ValueFault::from("alerts are TLS alerts; they need protocol: tls".to_owned());
        return Err(fault.within(Step::Key("alerts".to_owned())));
    }
    Ok(new)
}

fn unknown_key(key: &str) -> String {
    match nearest(key, ["name", "address", "protocol", "alerts"]) {
        Some(known) => format!("unknown key; did you mean {known}?"),
        None => "unknown key; a listener has name, address, protocol and alerts".to_owned(),
    }
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    word(text, &["tls", "tcp"], [Protocol::Tls, Protocol::Tcp])
}

/// A DNS label, as names of ports and listeners are in Kubernetes.
fn parse_name(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edge = text.starts_with('-') || text.ends_with('-');
    if text.is_empty() || text.len() > 63 || edge || !text.bytes().all(fits) {
        return Err(format!(
            "{text:?} is not a listener's name; write lower-case letters, digits and -"
        ));
    }
    Ok(text.to_owned())
}

/// Several addresses may share a name, as one listener of routes, but then they are alike.
fn agree(one: &ListenerConfig, other: &ListenerConfig) -> Result<(), ValueFault> {
    // Port 0 is another port each time.
    if one.address == other.address && one.address.port() != 0 {
        return Err(format!("{} is given twice", one.address).into());
    }
    if one.name != other.name {
        return Ok(());
    }
    let pair = format!("{} and {} are both named {}", one.address, other.address, one.name);
    if one.protocol != other.protocol {
        return Err(format!("{pair}, but one is tls and the other tcp; rename one").into());
    }
    if one.alerts != other.alerts {
        return Err(format!("{pair}, but differ in alerts; rename one").into());
    }
    Ok(())
}

fn listener(address: SocketAddr) -> ListenerConfig {
    ListenerConfig {
        name: DEFAULT_NAME.to_owned(),
        address,
        protocol: Protocol::default(),
        alerts: false,
    }
}

impl fmt::Display for ListenerConfig {
    /// As a flag has it. Alerts, which only the file has, are added.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            Protocol::Tls => "",
            Protocol::Tcp => "tcp://",
        };
        let alerts = if self.alerts { "+alerts" } else { "" };
        write!(f, "{}={scheme}{}{alerts}", self.name, self.address)
    }
}
