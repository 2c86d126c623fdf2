//! The lists of a route, and the rules over a whole list.
//!
//! The definition has the same limits: see the fields of [`super::SniRouteSpec`].

use std::fmt::{self, Display};
use std::marker::PhantomData;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::{Alpn, Backend, Invalid, ListenerName};
use crate::routing::Hostname;

pub(super) const MAX_HOSTNAMES: usize = 64;
pub(super) const MAX_LISTENERS: usize = 16;
pub(super) const MAX_ALPN: usize = 16;
pub(super) const MAX_BACKENDS: usize = 16;

/// At least one hostname, and not so many that one route could fill the table.
pub(super) fn hostnames<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Hostname>, D::Error> {
    list(d, "a list of hostnames", |hostnames: &[Hostname]| {
        if hostnames.is_empty() {
            return Err(Invalid::new(
                "is empty; a route needs at least one hostname (* takes any)",
            ));
        }
        at_most(MAX_HOSTNAMES, hostnames, "hostnames")
    })
}

/// Not too many listeners, and none twice.
pub(super) fn listeners<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<ListenerName>, D::Error> {
    list(d, "a list of listeners", |listeners: &[ListenerName]| {
        at_most(MAX_LISTENERS, listeners, "listeners")?;
        each_once(listeners)
    })
}

/// Not too many protocols, and none twice.
pub(super) fn alpn<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Alpn>, D::Error> {
    list(d, "a list of ALPN protocols", |protocols: &[Alpn]| {
        at_most(MAX_ALPN, protocols, "protocols")?;
        each_once(protocols)
    })
}

/// One to sixteen backends, at least one of which gets connections.
pub(super) fn backends<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Backend>, D::Error> {
    list(d, "a list of backends", |backends: &[Backend]| {
        if backends.is_empty() {
            return Err(Invalid::new("is empty; a route needs at least one backend"));
        }
        at_most(MAX_BACKENDS, backends, "backends")?;
        if backends.iter().all(|backend| backend.weight == 0) {
            return Err(Invalid::new("all have weight 0; at least one needs a weight above 0"));
        }
        Ok(())
    })
}

fn at_most<T>(max: usize, items: &[T], what: &str) -> Result<(), Invalid> {
    match items.len() {
        count if count > max => {
            Err(Invalid::new(format!("has {count} {what}; at most {max} are allowed")))
        }
        _ => Ok(()),
    }
}

fn each_once<T: PartialEq + Display>(items: &[T]) -> Result<(), Invalid> {
    for (index, item) in items.iter().enumerate() {
        if items.iter().take(index).any(|before| before == item) {
            return Err(Invalid::new(format!("has {:?} twice", item.to_string())));
        }
    }
    Ok(())
}

/// Parses a list and checks it while the parser still knows where it is.
fn list<'de, D, T>(
    deserializer: D,
    expected: &'static str,
    check: impl Fn(&[T]) -> Result<(), Invalid>,
) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct ListVisitor<T, F> {
        expected: &'static str,
        check: F,
        item: PhantomData<T>,
    }

    impl<'de, T, F> Visitor<'de> for ListVisitor<T, F>
    where
        T: Deserialize<'de>,
        F: Fn(&[T]) -> Result<(), Invalid>,
    {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expected)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<T>, A::Error> {
            let items = Vec::deserialize(SeqAccessDeserializer::new(seq))?;
            (self.check)(&items).map_err(A::Error::custom)?;
            Ok(items)
        }
    }

    deserializer.deserialize_seq(ListVisitor { expected, check, item: PhantomData })
}
