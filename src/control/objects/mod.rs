//! Objects as the API server sends them: text, one at a time.
//!
//! A list or a watch is never parsed as a whole, because then one object that cannot be parsed would
//! take all the others with it. The scanner finds where an object ends, whatever is in it and however
//! deep it is nested, and each object is parsed by itself, as far as something uses it. What nothing
//! uses (`metadata.managedFields`, above all) is passed over unread, and so is never at fault.
//!
//! * `scan` finds values and fields in JSON, without parsing them;
//! * `head` has what is used of an object's metadata;
//! * `page` takes a list apart while it comes;
//! * `pages` asks for the lists.

mod head;
mod page;
mod pages;
mod scan;

pub use self::head::Head;
pub use self::page::NoList;
use self::page::PageReader;
pub(super) use self::pages::{Pages, fetch, open, send};
#[cfg(test)]
pub(super) use self::scan::tests::any_json;
pub(super) use self::scan::{FieldScanner, field};

use serde::de::DeserializeOwned;

use crate::control::api::{self, FieldFault};

/// One object in JSON, unparsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectText(Box<[u8]>);

impl ObjectText {
    /// An object that is written like this. It need not be JSON.
    pub fn new(text: &[u8]) -> Self {
        ObjectText(text.into())
    }

    /// What is used of its metadata.
    pub fn head(&self) -> Head {
        Head::of(&self.0)
    }

    /// The text of the field at this path, if there is one.
    pub(super) fn field(&self, path: &[&str]) -> Option<&[u8]> {
        path.iter().try_fold(&*self.0, |object, name| field(object, name))
    }

    /// Parses it as `T`, which is to have no field but those that are used.
    ///
    /// # Errors
    /// The field that cannot be read, and why.
    pub(super) fn parse<T: DeserializeOwned>(&self) -> Result<T, FieldFault> {
        api::parse(&mut serde_json::Deserializer::from_slice(&self.0))
    }
}

/// The items of a list that comes in pieces of so many bytes, as far as it comes.
///
/// # Errors
/// When it is no list.
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
    fn what_is_not_asked_for_is_not_parsed() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let text = format!(
            "{{\"metadata\": {{\"managedFields\": {deep}, \"large\": 1e999999}}, \
             \"spec\": {{\"other\": {deep}, \"weight\": 7, \"odd\": \"\\ud800\"}}}}"
        );
        let narrow: Narrow = ObjectText::new(text.as_bytes()).parse().unwrap();
        assert_eq!(narrow, Narrow { spec: Some(Spec { weight: 7 }) });
    }

    #[test]
    fn an_error_names_the_field_and_not_its_place_in_the_text() {
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
