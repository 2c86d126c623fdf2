//! The lists of a route, and the rules over a whole list.
//!
//! The definition has the same limits: see the fields of [`super::SniRouteSpec`].

use std::fmt::Display;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::{AlpnProtocol, BackendRef, CertificateRef, ListenerName};
use crate::routing::Hostname;

pub(super) const MAX_HOSTNAMES: usize = 64;
pub(super) const MAX_LISTENERS: usize = 16;
pub(super) const MAX_ALPN: usize = 16;
pub(super) const MAX_BACKENDS: usize = 16;
pub(super) const MAX_CERTIFICATES: usize = 8;

/// At least one hostname, and not so many that one route could fill the table.
pub(super) fn hostnames<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Hostname>, D::Error> {
    let hostnames = at_most(MAX_HOSTNAMES, "hostnames", d)?;
    match hostnames.is_empty() {
        true => {
            Err(D::Error::custom("is empty; a route needs at least one hostname (* takes any)"))
        }
        false => Ok(hostnames),
    }
}

/// Not too many listeners, and none twice.
pub(super) fn listeners<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<ListenerName>, D::Error> {
    each_once(at_most(MAX_LISTENERS, "listeners", d)?)
}

/// Not too many protocols, and none twice.
pub(super) fn alpn<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<AlpnProtocol>, D::Error> {
    each_once(at_most(MAX_ALPN, "protocols", d)?)
}

/// One to sixteen backends, at least one of which gets connections.
pub(super) fn backends<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<BackendRef>, D::Error> {
    let backends: Vec<BackendRef> = at_most(MAX_BACKENDS, "backends", d)?;
    if backends.is_empty() {
        return Err(D::Error::custom("is empty; a route needs at least one backend"));
    }
    if backends.iter().all(|backend| backend.weight == 0) {
        return Err(D::Error::custom("all have weight 0; at least one needs a weight above 0"));
    }
    Ok(backends)
}

/// One to eight certificates.
pub(super) fn certificates<'de, D: Deserializer<'de>>(
    d: D,
) -> Result<Vec<CertificateRef>, D::Error> {
    let certificates = at_most(MAX_CERTIFICATES, "certificates", d)?;
    match certificates.is_empty() {
        true => Err(D::Error::custom("is empty; write at least one, such as { secret: NAME }")),
        false => Ok(certificates),
    }
}

fn at_most<'de, T, D>(max: usize, what: &str, deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    // A list of which nothing is left is often written like this.
    let items = Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default();
    match items.len() {
        count if count > max => {
            let message = format!("has {count} {what}; at most {max} are allowed");
            Err(D::Error::custom(message))
        }
        _ => Ok(items),
    }
}

fn each_once<T: PartialEq + Display, E: Error>(items: Vec<T>) -> Result<Vec<T>, E> {
    for (index, item) in items.iter().enumerate() {
        if items.iter().take(index).any(|before| before == item) {
            return Err(E::custom(format!("has {:?} twice", item.to_string())));
        }
    }
    Ok(items)
}
