//! Objects as the API server sends them: each is kept as text and parsed separately.
//!
//! A list or a watch is never parsed as a whole, because one object that cannot be parsed would make all
//! others unreadable. The scanner finds the end of each object, whatever its content or nesting depth. Of
//! each object, only the fields that sluice uses are parsed; unused fields, above all
//! `metadata.managedFields`, cannot cause an error.
//!
//! * `scan` finds values and fields in JSON, without parsing them.
//! * `head` is the metadata of an object.
//! * `page` splits a list into objects while it arrives.
//! * `pages` requests lists.
//! * `wiped` requests one object, and leaves nothing of it in memory, as the readers of lists and watches do.

mod head;
mod page;
mod pages;
mod scan;
mod wiped;

pub use self::head::Head;
pub use self::page::NoList;
use self::page::PageReader;
pub(super) use self::pages::{Pages, fetch, open, send};
#[cfg(test)]
pub(super) use self::scan::tests::any_json;
pub(super) use self::scan::{FieldScanner, field};
pub(super) use self::wiped::{extend_wiped, fetch_wiped};

use serde::de::DeserializeOwned;
use serde_json::json;
use zeroize::Zeroize;

use crate::control::api::{self, FieldFault};
use crate::routing::Kind;

/// How much of each object is requested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    #[default]
    Whole,
    /// The metadata. Even that may hold what a Secret holds, in an annotation of `kubectl apply`, so only what
    /// [`ObjectText::reduce`] leaves is kept.
    Metadata,
}

/// One object as JSON text, not parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectText(Box<[u8]>);

impl ObjectText {
    /// An object with this text, which may be invalid JSON.
    pub fn new(text: &[u8]) -> Self {
        ObjectText(text.into())
    }

    /// The metadata.
    pub fn head(&self) -> Head {
        Head::of(&self.0)
    }

    /// The object with its name and version alone. All else is wiped.
    pub(super) fn reduce(mut self) -> Self {
        let head = self.head();
        self.0.zeroize();
        let metadata = json!({
            "name": head.name, "namespace": head.namespace, "resourceVersion": head.resource_version,
        });
        ObjectText::new(json!({ "metadata": metadata }).to_string().as_bytes())
    }

    /// The text of the field at this path, if there is one.
    pub(super) fn field(&self, path: &[&str]) -> Option<&[u8]> {
        path.iter().try_fold(&*self.0, |object, name| field(object, name))
    }

    /// Parses the object as `T`. `T` should contain only fields that sluice uses.
    ///
    /// # Errors
    /// The field that cannot be read, and the reason.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, FieldFault> {
        api::parse(&mut serde_json::Deserializer::from_slice(&self.0))
    }

    /// Like [`ObjectText::parse`]; also refuses fields directly in `spec` that do not exist.
    pub(super) fn parse_with_known_spec<T: DeserializeOwned>(
        &self,
        kind: Kind,
    ) -> Result<T, FieldFault> {
        api::parse_with_known_spec(kind, &mut serde_json::Deserializer::from_slice(&self.0))
    }
}

/// The items of `list`, read in pieces of `piece` bytes. An incomplete list gives its complete items.
///
/// # Errors
/// When the text is no list.
pub fn read_list(list: &[u8], piece: usize) -> Result<Vec<ObjectText>, NoList> {
    let (mut reader, mut items) = (PageReader::default(), Vec::new());
    for bytes in list.chunks(piece.max(1)) {
        reader.push(bytes);
        while let Some(item) = reader.next_item()? {
            items.push(item);
        }
    }
    Ok(items)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Narrow {
        spec: Option<Spec>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Spec {
        weight: u32,
    }

    #[test]
    fn unused_fields_are_not_parsed() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let text = format!(
            "{{\"metadata\": {{\"managedFields\": {deep}, \"large\": 1e999999}}, \
             \"spec\": {{\"other\": {deep}, \"weight\": 7, \"odd\": \"\\ud800\"}}}}"
        );
        let narrow: Narrow = ObjectText::new(text.as_bytes()).parse().unwrap();
        assert_eq!(narrow, Narrow { spec: Some(Spec { weight: 7 }) });
    }

    #[test]
    fn only_the_name_and_the_version_are_left_of_a_reduced_object() {
        let text = br#"{"kind": "PartialObjectMetadata", "metadata": {"name": "a", "namespace": "b",
            "resourceVersion": "7", "annotations": {"x": "secret"}, "uid": "u"}, "data": {"y": "secret"}}"#;
        let reduced = ObjectText::new(text).reduce();
        assert_eq!(reduced.head().key(), crate::routing::ObjectKey::new("b", "a"));
        assert_eq!(reduced.head().resource_version.as_deref(), Some("7"));
        assert!(!String::from_utf8_lossy(&reduced.0).contains("secret"));
    }

    #[test]
    fn an_error_contains_the_field_and_no_position() {
        for before in ["", "{\"more\": 1}, \"x\": "] {
            let text = format!("{{\"a\": {before} 1, \"spec\": {{\"weight\": -1}}}}");
            let error = ObjectText::new(text.as_bytes()).parse::<Narrow>().unwrap_err();
            let expected = "spec.weight: invalid value: integer `-1`, expected a whole number from 0 to \
                            4294967295";
            assert_eq!(error.to_string(), expected);
        }
        let error = ObjectText::new(b"{\"spec\": ").parse::<Narrow>().unwrap_err();
        assert_eq!(error.to_string(), "spec: EOF while parsing a value");
    }
}
