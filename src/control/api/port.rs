//! A Service's port: a number or a name.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::schema;
use crate::routing::ServicePort;

impl Serialize for ServicePort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ServicePort::Number(number) => serializer.serialize_u16(*number),
            ServicePort::Name(name) => serializer.serialize_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for ServicePort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortVisitor)
    }
}

struct PortVisitor;

impl Visitor<'_> for PortVisitor {
    type Value = ServicePort;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port's number or name")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<ServicePort, E> {
        match u16::try_from(number) {
            Ok(number @ 1..) => Ok(ServicePort::Number(number)),
            _ => Err(E::custom(format_args!("{number} is not a port; write 1 to 65535"))),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<ServicePort, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::custom(format_args!("{number} is not a port; write 1 to 65535"))),
        }
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<ServicePort, E> {
        if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) {
            return Err(E::custom(format_args!(
                "{name:?} is a name that looks like a number; write the number without quotes"
            )));
        }
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 63 || !name.chars().all(fits) {
            return Err(E::custom(format_args!(
                "{name:?} is not the name of a port; write 1 to 63 of a-z, 0-9 and '-', or a number"
            )));
        }
        Ok(ServicePort::Name(name.into()))
    }
}

impl JsonSchema for ServicePort {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "ServicePort".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema::port()
    }
}
