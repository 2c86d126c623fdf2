//! The syntax of each kind of value. Errors are the rest of a sentence that begins with the
//! setting's place; they quote what was given and say what to write.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde::de::DeserializeOwned;

use super::fault::{Value, ValueFault};
use super::types::{AccessLogMode, OwnObjectName, OwnService, RouteSource, WhenFull};
use crate::cidr::{Cidr, InvalidCidr};
use crate::duration;
use crate::logging::{self, LogFormat};
use crate::policy::{InvalidValue, Policy, Timeout};
use crate::routing::HostnamesBelow;
use crate::yaml::{Content, Node, Step, read_strictly, unknown_field};

/// Reads the value of a setting that takes one.
pub(super) fn store<T>(
    slot: &mut T,
    given: &[Value],
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<(), ValueFault> {
    for value in given {
        *slot = parse(value.text()?)?;
    }
    Ok(())
}

/// Reads the values of a setting that takes a list.
pub(super) fn store_each<T>(
    slot: &mut Vec<T>,
    given: &[Value],
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<(), ValueFault> {
    slot.clear();
    for (index, value) in given.iter().enumerate() {
        let item = value.text().and_then(|text| Ok(parse(text)?));
        slot.push(item.map_err(|fault| fault.within(Step::Index(index)))?);
    }
    Ok(())
}

/// Reads a policy.
pub(super) fn store_policy(slot: &mut Policy, given: &[Value]) -> Result<(), ValueFault> {
    for value in given {
        let Value::Object(node) = value else { return Err("takes an object".to_owned().into()) };
        *slot = object(node)?;
    }
    Ok(())
}

/// Reads an object of known fields.
pub(super) fn object<T: DeserializeOwned + JsonSchema>(node: &Node) -> Result<T, ValueFault> {
    let schema = SchemaGenerator::new(SchemaSettings::default().with(|settings| {
        settings.inline_subschemas = true;
    }));
    let schema = schema.into_root_schema_for::<T>().to_value();
    let unknown = |field| Some(unknown_field(Some(&schema), field));
    read_strictly(node, unknown).map_err(|faults| match faults.into_iter().next() {
        Some(fault) => fault.into(),
        None => "cannot be read".to_owned().into(),
    })
}

/// The text of one value.
pub(super) fn scalar(value: &Node) -> Result<String, String> {
    match &value.content {
        Content::Text(text) => Ok(text.to_string()),
        Content::Bool(truth) => Ok(truth.to_string()),
        // A float is not what was written any more: 1.10 has become 1.1.
        Content::Number(number) if !number.is_f64() => Ok(number.to_string()),
        Content::Number(number) => Err(format!("{number} is a number, not text or a whole number")),
        Content::Null => Err("has no value".to_owned()),
        Content::List(_) => Err("takes one value, not a list".to_owned()),
        Content::Object(_) => Err("takes one value, not an object".to_owned()),
    }
}

/// A deadline of routes.
pub(super) fn timeout(text: &str) -> Result<Option<Timeout>, String> {
    duration(text)?;
    text.parse().map(Some).map_err(|error: InvalidValue| error.to_string())
}

pub(super) fn source(text: &str) -> Result<RouteSource, String> {
    word(text, &["kubernetes", "files"], [RouteSource::Kubernetes, RouteSource::Files])
}

pub(super) fn namespace(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 63 || !text.chars().all(fits) {
        return Err(format!(
            "{text:?} is not a namespace; write lower-case letters, digits and - (at most 63)"
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn existing_path(text: &str) -> Result<PathBuf, String> {
    match fs::metadata(text) {
        Ok(_) => Ok(PathBuf::from(text)),
        Err(error) => Err(format!("{text:?}: {error}")),
    }
}

/// A folder that may not be there yet.
pub(super) fn folder(text: &str) -> Result<PathBuf, String> {
    match fs::metadata(text) {
        Ok(found) if !found.is_dir() => Err(format!("{text:?} is not a folder")),
        _ if text.is_empty() => Err("an empty path names no folder".to_owned()),
        _ => Ok(PathBuf::from(text)),
    }
}

pub(super) fn class(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._/".contains(c);
    if text.is_empty() || text.len() > 253 || !text.chars().all(fits) {
        return Err(format!(
            "{text:?} is not a class; write letters, digits and - . _ / (at most 253)"
        ));
    }
    Ok(text.to_owned())
}

/// An IP address, with the port of DNS unless another is given.
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    let address: Result<SocketAddr, _> = text.parse();
    let address = address.or_else(|_| {
        let ip = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        ip.parse().map(|ip: IpAddr| SocketAddr::new(ip, 53))
    });
    address.ok().filter(|address| address.port() != 0).ok_or_else(|| {
        format!(
            "{text:?} is not the address of a DNS server; write an IP address, as in 10.96.0.10 or \
             [2001:db8::53]:5353"
        )
    })
}

pub(super) fn network(text: &str) -> Result<Cidr, String> {
    text.parse().map_err(|error: InvalidCidr| error.to_string())
}

pub(super) fn own_service(text: &str) -> Result<OwnService, String> {
    let wrong = || {
        format!(
            "{text:?} is not the name of a Service; write NAMESPACE/NAME, in lower-case letters, \
             digits and -"
        )
    };
    let (namespace, name) = text.split_once('/').ok_or_else(wrong)?;
    let namespace = self::namespace(namespace).map_err(|_| wrong())?;
    let name = self::namespace(name).map_err(|_| wrong())?;
    Ok(OwnService { namespace, name })
}

/// The name of a node or a zone.
pub(super) fn place(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    if text.is_empty() || text.len() > 253 || !text.chars().all(fits) {
        return Err(format!(
            "{text:?} is not the name of a node or a zone; write letters, digits and - . _ (at most 253)"
        ));
    }
    Ok(text.to_owned())
}

pub(super) fn lease(text: &str) -> Result<OwnObjectName, String> {
    own_object(text, "a Lease")
}

/// No name at all is none.
pub(super) fn ticket_keys(text: &str) -> Result<Option<OwnObjectName>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    own_object(text, "a Secret").map(Some)
}

fn own_object(text: &str, what: &str) -> Result<OwnObjectName, String> {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(self::namespace(namespace)?), name),
        None => (None, text),
    };
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |label: &str| {
        label.starts_with(fits)
            && label.ends_with(fits)
            && label.chars().all(|c| fits(c) || c == '-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(format!(
            "{text:?} is not the name of {what}; write NAME or NAMESPACE/NAME, in lower-case \
             letters, digits, - and ."
        ));
    }
    Ok(OwnObjectName { namespace, name: name.to_owned() })
}

pub(super) fn lease_duration(text: &str) -> Result<Duration, String> {
    let duration = zero_or_duration(text)?;
    let fits = (Duration::from_secs(1)..=Duration::from_hours(1)).contains(&duration);
    fits.then_some(duration).ok_or_else(|| format!("{text:?} is not from 1s to 1h"))
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    word(text, &["true", "false"], [true, false])
}

pub(super) fn workers(text: &str) -> Result<NonZeroUsize, String> {
    let number = number(text, 1..=1024)?;
    // Never zero, by its range.
    Ok(NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN))
}

pub(super) fn max_hello(text: &str) -> Result<usize, String> {
    number(text, 512..=65_536)
}

/// `None` is 0.
pub(super) fn max_hellos(text: &str) -> Result<Option<usize>, String> {
    Ok(Some(number(text, 0..=10_000_000)?).filter(|number| *number > 0))
}

pub(super) fn checks_per_second(text: &str) -> Result<NonZeroU32, String> {
    let number = number(text, 1..=10_000)?;
    // Never zero, by its range.
    Ok(u32::try_from(number).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN))
}

pub(super) fn when_full(text: &str) -> Result<WhenFull, String> {
    word(text, &WhenFull::ALL.map(WhenFull::as_str), WhenFull::ALL)
}

pub(super) fn zero_or_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|error| format!("{text:?} {error}"))
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration = zero_or_duration(text)?;
    if duration.is_zero() {
        return Err(format!("{text:?} is no time at all; write more, e.g. 5s"));
    }
    Ok(duration)
}

/// Zero stands for none.
pub(super) fn duration_unless_zero(text: &str) -> Result<Option<Duration>, String> {
    Ok(Some(zero_or_duration(text)?).filter(|duration| !duration.is_zero()))
}

pub(super) fn access_log(text: &str) -> Result<AccessLogMode, String> {
    let all = [AccessLogMode::Off, AccessLogMode::Errors, AccessLogMode::All];
    word(text, &all.map(AccessLogMode::as_str), all)
}

/// Reads the word of the setting `hostnamesBelow`.
///
/// # Errors
/// When it is another word.
pub fn hostnames_below(text: &str) -> Result<HostnamesBelow, String> {
    let all = HostnamesBelow::ALL;
    word(text, &all.map(HostnamesBelow::as_str), all)
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    let all = [LogFormat::Auto, LogFormat::Json, LogFormat::Text];
    word(text, &all.map(LogFormat::as_str), all)
}

pub(super) fn log_level(text: &str) -> Result<String, String> {
    logging::check_filter(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// One of a few words, each with its meaning.
pub(super) fn word<T, const N: usize>(
    text: &str,
    words: &[&str; N],
    meanings: [T; N],
) -> Result<T, String> {
    let found = words.iter().zip(meanings).find(|(word, _)| **word == text);
    found
        .map(|(_, meaning)| meaning)
        .ok_or_else(|| format!("{text:?} is not one of {}", words.join(", ")))
}

fn number(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    let (low, high) = range.into_inner();
    number.ok_or_else(|| format!("{text:?} is not a number from {low} to {high}"))
}
