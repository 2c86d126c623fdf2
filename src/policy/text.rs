//! Values that are one string in a manifest, and are checked while they are parsed.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::Schema;
use serde::de::{Error, Visitor};

/// Why a value is refused, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(String);

impl InvalidValue {
    /// With this message.
    pub fn new(message: impl Into<String>) -> Self {
        InvalidValue(message.into())
    }
}

/// A value that is one string in a manifest. [`text_value!`] derives the rest from it.
pub trait TextValue: FromStr<Err: fmt::Display> + fmt::Display {
    /// What is expected where something else than a string is found.
    const EXPECTED: &'static str;

    /// What the API server checks.
    fn schema() -> Schema;
}

/// Says what the text is for where something else is found.
pub struct TextValueVisitor<T>(PhantomData<T>);

impl<T> Default for TextValueVisitor<T> {
    fn default() -> Self {
        TextValueVisitor(PhantomData)
    }
}

impl<T: TextValue> Visitor<'_> for TextValueVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// Reads and writes types that are a [`TextValue`] as a string.
#[macro_export]
#[doc(hidden)]
macro_rules! text_value {
    ($($type:ty),* $(,)?) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                deserializer.deserialize_str($crate::policy::TextValueVisitor::default())
            }
        }

        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                <$type as $crate::policy::TextValue>::schema()
            }
        }
    )*};
}

pub use text_value;

/// Derives what words have in common, which are checked while they are parsed: types around a `Box<str>`.
#[macro_export]
#[doc(hidden)]
macro_rules! word {
    ($($name:ident),*) => {$(
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
pub use word;
