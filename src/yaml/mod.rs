//! YAML, and with it JSON, with the line of every value; pure.
//!
//! * [`Node::parse`] reads a document: what it stands for, by its aliases, is bounded by its size;
//! * [`FieldPath`] names a field, and [`Node::line_of`] finds its line;
//! * a reference to a [`Node`] is a deserializer, for types that know nothing of YAML;
//! * [`read`] reads such a type, and names the field that is at fault;
//! * [`nearest`] finds the name that was probably meant by a wrong one.

mod deserializer;
mod field;
mod parse;
mod read;
mod suggest;
mod syntax;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use serde_json::Number;
use zeroize::Zeroizing;

pub use self::field::{FieldPath, Step};
pub use self::read::{FieldFault, read, read_strictly, unknown_field};
pub use self::suggest::nearest;
pub use self::syntax::SyntaxError;

/// A value of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its line in the document, from 1: that of its key, if it has one.
    pub line: usize,
    /// What it is.
    pub content: Content,
}

/// What a [`Node`] is.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text. It may be one of a Secret, and is wiped when it is dropped.
    Text(Zeroizing<String>),
    /// A list.
    List(Vec<Node>),
    /// An object: its fields, in the order of the document.
    Object(Vec<(String, Node)>),
}

/// A field that an object has more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The field.
    pub field: FieldPath,
    /// The line on which it is repeated.
    pub line: usize,
    /// The line on which it comes first.
    pub first: usize,
}

impl Node {
    /// The field of an object.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::Object(fields) => {
                fields.iter().find(|(other, _)| other == key).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    /// The item of a list.
    pub fn item(&self, index: usize) -> Option<&Node> {
        match &self.content {
            Content::List(items) => items.get(index),
            _ => None,
        }
    }

    /// The text that it is.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The line of a field; where there is no such field, that of the nearest thing around it.
    pub fn line_of(&self, field: &FieldPath) -> usize {
        let mut node = self;
        for step in field.steps() {
            let inner = match step {
                Step::Key(key) => node.get(key),
                Step::Index(index) => node.item(*index),
            };
            match inner {
                Some(inner) => node = inner,
                None => break,
            }
        }
        node.line
    }

    /// Takes fields away that repeat another one.
    pub fn take_duplicates(&mut self) -> Vec<Duplicate> {
        let mut found = Vec::new();
        match &mut self.content {
            Content::Object(fields) => {
                let mut lines = HashMap::with_capacity(fields.len());
                let repeats: Vec<Option<usize>> = fields
                    .iter()
                    .map(|(key, value)| match lines.entry(key.as_str()) {
                        Entry::Vacant(entry) => {
                            entry.insert(value.line);
                            None
                        }
                        Entry::Occupied(first) => Some(*first.get()),
                    })
                    .collect();
                let mut repeats = repeats.into_iter();
                fields.retain_mut(|(key, value)| {
                    let step = || Step::Key(key.clone());
                    let first = repeats.next().flatten();
                    match first {
                        Some(first) => {
                            let field = FieldPath::default().within(step());
                            found.push(Duplicate { field, line: value.line, first });
                        }
                        None => found.extend(value.duplicates_within(step)),
                    }
                    first.is_none()
                });
            }
            Content::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    found.extend(item.duplicates_within(|| Step::Index(index)));
                }
            }
            _ => {}
        }
        found
    }

    fn duplicates_within(&mut self, step: impl Fn() -> Step) -> Vec<Duplicate> {
        let mut duplicates = self.take_duplicates();
        for duplicate in &mut duplicates {
            duplicate.field = std::mem::take(&mut duplicate.field).within(step());
        }
        duplicates
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
