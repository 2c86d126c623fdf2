//! Splits a list into objects while it arrives. No I/O.

use zeroize::Zeroizing;

use super::ObjectText;
use super::scan::{ValueScanner, field};
use super::wiped::extend_wiped;

/// Splits a list into items. It returns each item as soon as it is complete, and keeps none.
#[derive(Debug, Default)]
pub(super) struct PageReader {
    /// Received bytes; those before `at` are processed. The items may be secrets.
    buffer: Zeroizing<Vec<u8>>,
    at: usize,
    position: PagePosition,
    /// Scans the current, incomplete value; `scanned` bytes of it are processed.
    scanner: ValueScanner,
    scanned: usize,
    metadata: Vec<u8>,
}

/// The expected next token, after white space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum PagePosition {
    /// The opening brace of the list.
    #[default]
    Start,
    /// The name of a field, or the end of the list.
    Name,
    Colon(ListField),
    Value(ListField),
    /// An item, or the end of the items.
    Item,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListField {
    Items,
    Metadata,
    Other,
}

/// The text is no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no list of objects")]
pub struct NoList;

impl PageReader {
    /// Adds the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        extend_wiped(&mut self.buffer, bytes);
    }

    /// The next complete item.
    ///
    /// # Errors
    /// When the text is no list. The content of an item never causes an error.
    pub(super) fn next_item(&mut self) -> Result<Option<ObjectText>, NoList> {
        while let Some(byte) = self.peek() {
            self.position = match (self.position, byte) {
                (PagePosition::Start, b'{') => self.skip_to(PagePosition::Name),
                (PagePosition::Name, b',') | (PagePosition::Item, b',') => {
                    self.skip_to(self.position)
                }
                (PagePosition::Name, b'}') => self.skip_to(PagePosition::End),
                (PagePosition::Name, b'"') => {
                    let Some(name) = self.value() else { return Ok(None) };
                    PagePosition::Colon(match self.buffer.get(name) {
                        Some(b"\"items\"") => ListField::Items,
                        Some(b"\"metadata\"") => ListField::Metadata,
                        _ => ListField::Other,
                    })
                }
                (PagePosition::Colon(field), b':') => self.skip_to(PagePosition::Value(field)),
                (PagePosition::Value(ListField::Items), b'[') => self.skip_to(PagePosition::Item),
                (PagePosition::Value(field), _) => {
                    let Some(value) = self.value() else { return Ok(None) };
                    if field == ListField::Metadata {
                        self.metadata = self.buffer.get(value).unwrap_or_default().to_vec();
                    }
                    PagePosition::Name
                }
                (PagePosition::Item, b']') => self.skip_to(PagePosition::Name),
                (PagePosition::Item, _) => {
                    let Some(item) = self.value() else { return Ok(None) };
                    return Ok(self.buffer.get(item).map(ObjectText::new));
                }
                _ => return Err(NoList),
            };
        }
        Ok(None)
    }

    /// Whether the whole list has arrived.
    pub(super) fn is_over(&self) -> bool {
        self.position == PagePosition::End
    }

    /// A non-empty string from the list's own metadata.
    pub(super) fn metadata(&self, name: &str) -> Option<String> {
        let text: String = serde_json::from_slice(field(&self.metadata, name)?).ok()?;
        (!text.is_empty()).then_some(text)
    }

    /// The next byte that is not white space; `None` inside an incomplete value.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.buffer.get(self.at)?;
            if self.scanned > 0 || !byte.is_ascii_whitespace() {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn skip_to(&mut self, position: PagePosition) -> PagePosition {
        self.at += 1;
        position
    }

    /// The range of the value that starts here, once it is complete.
    fn value(&mut self) -> Option<std::ops::Range<usize>> {
        let start = self.at;
        let from = start + self.scanned;
        match self.scanner.advance(self.buffer.get(from..).unwrap_or_default()) {
            // An empty word, as between two commas, is skipped like any other value.
            Some(length) => {
                self.at = from + length;
                self.at += usize::from(self.at == start);
                (self.scanner, self.scanned) = (ValueScanner::default(), 0);
                Some(start..self.at)
            }
            None => {
                self.scanned = self.buffer.len() - start;
                None
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::scan::tests::any_json;
    use super::*;

    fn read(list: &[u8], piece: usize) -> Result<(Vec<Value>, PageReader), NoList> {
        let (mut reader, mut items) = (PageReader::default(), Vec::new());
        for bytes in list.chunks(piece) {
            reader.push(bytes);
            while let Some(item) = reader.next_item()? {
                items.push(serde_json::from_slice(&item.0).unwrap());
            }
        }
        Ok((items, reader))
    }

    proptest! {
        #[test]
        fn every_item_is_returned_whatever_the_others_contain(
            items in prop::collection::vec(any_json(), 0..8),
            piece in 1..64_usize,
            other in any_json(),
            pretty in any::<bool>(),
        ) {
            let list = json!({
                "apiVersion": "v1", "before": other, "items": items, "kind": "List",
                "metadata": { "resourceVersion": "7", "continue": "", "zzz": other },
            });
            let list = match pretty {
                true => serde_json::to_vec_pretty(&list).unwrap(),
                false => serde_json::to_vec(&list).unwrap(),
            };
            let (found, reader) = read(&list, piece).unwrap();
            prop_assert_eq!(found, items);
            prop_assert!(reader.is_over());
            prop_assert_eq!(reader.metadata("resourceVersion"), Some("7".to_owned()));
            prop_assert_eq!(reader.metadata("continue"), None);
            // Without its last byte, the list is not over.
            let (_, reader) = read(&list[..list.len() - 1], piece).unwrap();
            prop_assert!(!reader.is_over());
        }

        #[test]
        fn any_input_ends(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let list = [b"{\"items\":[", &bytes[..]].concat();
            let mut reader = PageReader::default();
            reader.push(&list);
            let mut items = 0;
            while let Ok(Some(_)) = reader.next_item() {
                items += 1;
                prop_assert!(items <= list.len());
            }
        }
    }

    #[test]
    fn a_deep_and_large_item_is_returned_like_any_other() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(1 << 16), "]".repeat(1 << 16));
        let list = format!("{{\"metadata\":{{}},\"items\":[1,{deep},2]}}");
        let mut reader = PageReader::default();
        let mut lengths = Vec::new();
        for bytes in list.as_bytes().chunks(1000) {
            reader.push(bytes);
            while let Some(item) = reader.next_item().unwrap() {
                lengths.push(item.0.len());
            }
        }
        assert_eq!(lengths, [1, deep.len(), 1]);
        assert!(reader.is_over());
        reader.push(b"");
        assert!(reader.buffer.is_empty(), "what is done with is not kept");
    }

    #[test]
    fn what_has_arrived_is_wiped_however_the_list_ends() {
        fn is_wiped_when_dropped<T: zeroize::ZeroizeOnDrop>(_: &T) {}
        is_wiped_when_dropped(&PageReader::default().buffer);
    }

    #[test]
    fn items_may_be_null_and_other_answers_are_no_lists() {
        let (items, reader) = read(b"{\"items\": null, \"metadata\": {}}", 3).unwrap();
        assert!(items.is_empty() && reader.is_over());
        for text in ["[]", "<html>", "{]", "{\"items\" []}"] {
            assert_eq!(read(text.as_bytes(), 100).unwrap_err(), NoList, "{text}");
        }
    }
}
