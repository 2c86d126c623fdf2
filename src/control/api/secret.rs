//! `Secret`, as far as routes use it.
//!
//! No fault quotes what a Secret holds, and no `Debug` shows it. The texts are wiped when they are dropped.

use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

/// A Secret.
#[derive(Clone, Debug)]
pub struct Secret {
    /// Its name, above all.
    pub metadata: ObjectMeta,
    /// What it holds.
    pub data: SecretData,
}

/// The entries of a Secret that routes use. All others are passed over.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretData([Option<Zeroizing<Vec<u8>>>; SecretData::KEYS.len()]);

impl SecretData {
    /// The entry with a certificate and those that lead to its authority, in PEM.
    pub const CERTIFICATE: &str = "tls.crt";
    /// The entry with the private key of the certificate, in PEM.
    pub const PRIVATE_KEY: &str = "tls.key";
    /// The entry with certificates of authorities, in PEM.
    pub const AUTHORITIES: &str = "ca.crt";
    /// All entries that routes use.
    pub const KEYS: [&str; 3] =
        [SecretData::CERTIFICATE, SecretData::PRIVATE_KEY, SecretData::AUTHORITIES];

    /// The text of an entry.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        let index = SecretData::index(key)?;
        self.0.get(index)?.as_ref().map(|text| text.as_slice())
    }

    /// Sets an entry, if it is one that routes use.
    pub fn set(&mut self, key: &str, text: Zeroizing<Vec<u8>>) {
        if let Some(entry) = SecretData::index(key).and_then(|index| self.0.get_mut(index)) {
            *entry = Some(text);
        }
    }

    fn index(key: &str) -> Option<usize> {
        SecretData::KEYS.iter().position(|known| *known == key)
    }
}

/// Only which entries there are.
impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(SecretData::KEYS.iter().filter(|key| self.get(key).is_some()))
            .finish()
    }
}

/// From the field `data`, whose values are base64.
impl<'de> Deserialize<'de> for SecretData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // What serde says of a value quotes it.
        deserializer
            .deserialize_option(DataVisitor)
            .map_err(|_| D::Error::custom("is not an object of texts in base64"))
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = SecretData;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_none<E>(self) -> Result<SecretData, E> {
        Ok(SecretData::default())
    }

    fn visit_unit<E>(self) -> Result<SecretData, E> {
        Ok(SecretData::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<SecretData, D::Error> {
        deserializer.deserialize_map(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretData, A::Error> {
        let mut data = SecretData::default();
        while let Some(key) = map.next_key::<String>()? {
            match SecretData::index(&key) {
                Some(_) => {
                    let ByteString(bytes) = map.next_value()?;
                    data.set(&key, Zeroizing::new(bytes));
                }
                None => _ = map.next_value::<PassedText>()?,
            }
        }
        Ok(data)
    }
}

/// A text that is passed over.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassedText;

impl<'de> Deserialize<'de> for PassedText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(PassedText).map_err(|_| D::Error::custom("is not a text"))
    }
}

impl Visitor<'_> for PassedText {
    type Value = PassedText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, _: &str) -> Result<PassedText, E> {
        Ok(self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_routes_use_are_read() {
        let text = r#"{ "tls.crt": "YQ==", "other": "%%%", "tls.key": "Yg==" }"#;
        let data: SecretData = serde_json::from_str(text).unwrap();
        assert_eq!(data.get("tls.crt"), Some(&b"a"[..]));
        assert_eq!(data.get("tls.key"), Some(&b"b"[..]));
        assert_eq!((data.get("ca.crt"), data.get("other")), (None, None));
        assert_eq!(serde_json::from_str::<SecretData>("null").unwrap(), SecretData::default());
    }

    #[test]
    fn nothing_that_a_secret_holds_is_shown() {
        for text in [
            r#""PRIVATE""#,
            r#"["PRIVATE"]"#,
            r#"{ "tls.key": "PRIVATE KEY" }"#,
            r#"{ "tls.key": ["PRIVATE"] }"#,
            r#"{ "tls.key": { "PRIVATE": "PRIVATE" } }"#,
        ] {
            let fault = serde_json::from_str::<SecretData>(text).unwrap_err().to_string();
            assert!(!fault.contains("PRIV"), "{fault}");
        }
        let data: SecretData = serde_json::from_str(r#"{ "tls.key": "AQID" }"#).unwrap();
        assert_eq!(format!("{data:?}"), r#"{"tls.key"}"#);
    }
}
