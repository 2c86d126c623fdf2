//! From the text of a document to its values.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_yaml::options::MergeKeyPolicy;
use serde_yaml::{DuplicateKeyPolicy, Options, Spanned};
use zeroize::Zeroizing;

use super::{Content, Node, SyntaxError};

/// How deep values may be nested: twice as deep as anything in Kubernetes. Without optimisation, a level
/// takes 50 KiB of stack, of which a thread has 2 MiB.
pub(super) const MAX_DEPTH: usize = 32;
/// How much any document may stand for: in events of the parser, in nodes, in bytes of texts.
const FREE: usize = 1000;
/// How much more it may stand for, for each of its bytes. Without aliases it is always less: `?:,` is
/// two texts in an object, and an escape sequence in a text may be one byte shorter than what it is.
const PER_BYTE: usize = 4;

impl Node {
    /// Reads one document. Where there is none, that is null.
    ///
    /// # Errors
    /// When it is no YAML, is more than one document, or stands for far more than is written in it.
    pub fn parse(text: &str) -> Result<Node, SyntaxError> {
        let root = serde_yaml::from_str_with_options::<Spanned<Content>>(text, options(text));
        root.map(Node::from).map_err(|error| SyntaxError::of(text, &error))
    }
}

/// YAML 1.2, of which no merge keys are part.
fn options(text: &str) -> Options {
    let written = FREE.saturating_add(text.len());
    let bound = written.saturating_mul(PER_BYTE);
    serde_yaml::options! {
        budget: serde_yaml::budget! {
            max_depth: MAX_DEPTH,
            max_events: bound,
            max_nodes: bound,
            max_total_scalar_bytes: bound,
            max_aliases: bound,
            max_anchors: bound,
            max_recorded_anchor_events: bound,
            max_recorded_anchor_bytes: bound,
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: written },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        strict_booleans: true,
        reject_unsupported_tags: true,
        // Only as many as a few lines could be kept.
        emit_comments: false,
        with_snippet: false,
    }
}

impl From<Spanned<Content>> for Node {
    fn from(spanned: Spanned<Content>) -> Self {
        let line = usize::try_from(spanned.referenced.line()).unwrap_or(usize::MAX).max(1);
        Node { line, content: spanned.value }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Content, E> {
        Ok(Content::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Content, E> {
        Ok(Content::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Content, E> {
        Ok(Content::Number(number.into()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Content, E> {
        let number = Number::from_f64(number).ok_or_else(|| E::custom("is no finite number"))?;
        Ok(Content::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(Zeroizing::new(text.to_owned())))
    }

    fn visit_string<E>(self, text: String) -> Result<Content, E> {
        Ok(Content::Text(Zeroizing::new(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Content>>()? {
            items.push(item.into());
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let Node { line, .. } = Spanned::new(Content::Null, key.referenced, key.defined).into();
            fields.push((key.value, Node { line, content: map.next_value()? }));
        }
        Ok(Content::Object(fields))
    }
}
