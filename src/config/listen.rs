//! Listeners as people write them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::fault::{Value, ValueFault};
use super::types::{ListenerConfig, Protocol, TrustedPeers};
use super::values::{boolean, object, scalar, word};
use crate::policy::{Access, EndpointLimits, Limits};
use crate::yaml::{Content, Node, Step, nearest};

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
            Value::Object(node) => parse_object(node),
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

const KEYS: [&str; 7] =
    ["name", "address", "protocol", "alerts", "proxyProtocol", "access", "limits"];

/// An object with some of [`KEYS`], of which only the address is needed.
fn parse_object(node: &Node) -> Result<ListenerConfig, ValueFault> {
    let Content::Object(entries) = &node.content else {
        return Err("takes an object".to_owned().into());
    };
    let mut address = None;
    let mut new = listener(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0));
    for (key, value) in entries {
        let read = match key.as_str() {
            "name" => word_of(value, parse_name).map(|name| new.name = name),
            "address" => word_of(value, parse_address).map(|parsed| address = Some(parsed)),
            "protocol" => word_of(value, parse_protocol).map(|protocol| new.protocol = protocol),
            "alerts" => word_of(value, boolean).map(|alerts| new.alerts = alerts),
            "proxyProtocol" | "access" | "limits" if value.content == Content::Null => Ok(()),
            "proxyProtocol" => object(value).map(|from| new.proxy_protocol = Some(from)),
            "access" => object(value).map(|access| new.access = access),
            "limits" => object(value).and_then(|limits| {
                new.limits = limits;
                check_limits(&new.limits)
            }),
            _ => Err(unknown_key(key).into()),
        };
        read.map_err(|fault| fault.within(Step::Key(key.clone())))?;
    }
    new.address =
        address.ok_or_else(|| ValueFault::from("a listener needs an address".to_owned()))?;
    if new.alerts && new.protocol != Protocol::Tls {
        let fault = ValueFault::from("alerts are TLS alerts; they need protocol: tls".to_owned());
        return Err(fault.within(Step::Key("alerts".to_owned())));
    }
    check_proxies(&new).map_err(|fault| fault.within(Step::Key("proxyProtocol".to_owned())))?;
    Ok(new)
}

fn word_of<T>(value: &Node, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, ValueFault> {
    Ok(parse(&scalar(value)?)?)
}

fn check_limits(limits: &Limits) -> Result<(), ValueFault> {
    match limits.per_endpoint == EndpointLimits::default() {
        true => Ok(()),
        false => {
            let fault = "a listener has no endpoints; write it in a route, or under policy";
            Err(ValueFault::from(fault.to_owned()).within(Step::Key("perEndpoint".to_owned())))
        }
    }
}

fn check_proxies(listener: &ListenerConfig) -> Result<(), ValueFault> {
    let Some(proxies) = &listener.proxy_protocol else { return Ok(()) };
    let fault = |field: &str, message: &str| {
        Err(ValueFault::from(message.to_owned()).within(Step::Key(field.to_owned())))
    };
    if proxies.from.is_empty() {
        return fault("from", "names no network; write those of the proxies, such as 10.0.0.0/8");
    }
    if proxies.trusted == TrustedPeers::Accept && listener.protocol == Protocol::Tcp {
        return fault(
            "trusted",
            "Accept needs a protocol whose first byte tells a client from a header; write Require, or \
             protocol: tls",
        );
    }
    Ok(())
}

fn unknown_key(key: &str) -> String {
    match nearest(key, KEYS) {
        Some(known) => format!("unknown key; did you mean {known}?"),
        None => format!("unknown key; a listener has {}", KEYS.join(", ")),
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
    if one.proxy_protocol != other.proxy_protocol {
        return Err(format!("{pair}, but differ in proxyProtocol; rename one").into());
    }
    if one.access != other.access {
        return Err(format!("{pair}, but differ in access; rename one").into());
    }
    if one.limits != other.limits {
        return Err(format!("{pair}, but differ in limits; rename one").into());
    }
    Ok(())
}

fn listener(address: SocketAddr) -> ListenerConfig {
    ListenerConfig::new(DEFAULT_NAME, address)
}

impl fmt::Display for ListenerConfig {
    /// As a flag has it, and the names of the settings that only the file has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            Protocol::Tls => "",
            Protocol::Tcp => "tcp://",
        };
        write!(f, "{}={scheme}{}", self.name, self.address)?;
        for (is_set, name) in [
            (self.alerts, "+alerts"),
            (self.proxy_protocol.is_some(), "+proxyProtocol"),
            (self.access != Access::default(), "+access"),
            (self.limits != Limits::default(), "+limits"),
        ] {
            f.write_str(if is_set { name } else { "" })?;
        }
        Ok(())
    }
}
