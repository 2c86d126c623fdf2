//! Whole numbers with a maximum.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A whole number from 0 to `MOST`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Number<const MOST: u8>(u8);

impl<const MOST: u8> Number<MOST> {
    /// This number, or the maximum if it is more.
    pub const fn new(number: u8) -> Self {
        Number(if number < MOST { number } else { MOST })
    }

    /// The number.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl<'de, const MOST: u8> Deserialize<'de> for Number<MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor::<MOST>)
    }
}

struct NumberVisitor<const MOST: u8>;

impl<const MOST: u8> Visitor<'_> for NumberVisitor<MOST> {
    type Value = Number<MOST>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {MOST}")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Number<MOST>, E> {
        let fits = u8::try_from(number).ok().filter(|number| *number <= MOST);
        let refusal = || E::custom(format_args!("{number} is over the maximum of {MOST}"));
        fits.map(Number).ok_or_else(refusal)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Number<MOST>, E> {
        match u64::try_from(number) {
            Ok(number) => self.visit_u64(number),
            Err(_) => Err(E::custom(format_args!("{number} is less than 0"))),
        }
    }
}

impl<const MOST: u8> JsonSchema for Number<MOST> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Number{MOST}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "format": "int32", "minimum": 0, "maximum": MOST })
    }
}
