//! From one document to its objects.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_yaml::Value;

use super::head::{Head, heads};
use super::{MAX_FAULTS, Object, Parsed, suggest, weight};
use crate::control::api::Kind;
use crate::control::build::key;
use crate::control::files::Fault;
use crate::control::files::locate::{FieldPath, Origin, lines_of};
use crate::routing::RouteKey;

/// How many brackets may be open at once. The parser refuses a depth of 128, but only after it has
/// read all of it, in time that grows with the square of the depth.
const MAX_UNCLOSED: usize = 512;

/// How much of what the parser says is passed on, in characters.
const MAX_MESSAGE: usize = 500;

/// Adds the objects of a document to `objects`, and what is wrong with it to `faults`.
///
/// The text is parsed twice: first as it is, which tells what it claims to be and finds keys that
/// are given twice, then as what it claims to be, which finds all the rest with its line.
pub(super) fn parse(
    file: &Path,
    first_line: usize,
    text: Arc<str>,
    objects: &mut Vec<Parsed>,
    faults: &mut Vec<Fault>,
) {
    let mut document = Document { file, first_line, text, faults: Vec::new() };
    document.parse(objects);
    document.report(faults);
}

/// Deserializes a document as what its heads say, and notes the fields that do not exist.
struct Objects<'a> {
    heads: &'a [Head],
    unknown: &'a mut Vec<(usize, FieldPath)>,
}

impl<'de> DeserializeSeed<'de> for Objects<'_> {
    type Value = Vec<Object>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Object>, D::Error> {
        match self.heads {
            [head] if head.within == FieldPath::default() => {
                Ok(vec![object(head.kind, 0, self.unknown, deserializer)?])
            }
            _ => deserializer.deserialize_map(self),
        }
    }
}

/// The `List` itself.
impl<'de> Visitor<'de> for Objects<'_> {
    type Value = Vec<Object>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a List")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Object>, A::Error> {
        let Objects { heads, unknown } = self;
        let mut objects = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "items" => {
                    objects = map.next_value_seed(Items { heads, unknown: &mut *unknown })?
                }
                "apiVersion" | "kind" | "metadata" => {
                    map.next_value::<IgnoredAny>()?;
                }
                _ => return Err(de::Error::custom(format!("a List has no field {key}"))),
            }
        }
        Ok(objects)
    }
}

struct Items<'a> {
    heads: &'a [Head],
    unknown: &'a mut Vec<(usize, FieldPath)>,
}

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = Vec<Object>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Object>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = Vec<Object>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Object>, A::Error> {
        let mut objects = Vec::new();
        for (index, head) in self.heads.iter().enumerate() {
            let item = Item { kind: head.kind, index, unknown: &mut *self.unknown };
            objects.extend(seq.next_element_seed(item)?);
        }
        Ok(objects)
    }
}

struct Item<'a> {
    kind: Kind,
    index: usize,
    unknown: &'a mut Vec<(usize, FieldPath)>,
}

impl<'de> DeserializeSeed<'de> for Item<'_> {
    type Value = Object;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Object, D::Error> {
        object(self.kind, self.index, self.unknown, deserializer)
    }
}

fn object<'de, D: Deserializer<'de>>(
    kind: Kind,
    index: usize,
    unknown: &mut Vec<(usize, FieldPath)>,
    deserializer: D,
) -> Result<Object, D::Error> {
    fn strict<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        index: usize,
        unknown: &mut Vec<(usize, FieldPath)>,
        deserializer: D,
    ) -> Result<Box<T>, D::Error> {
        serde_ignored::deserialize(deserializer, |path| {
            let field = FieldPath::from_ignored(&path);
            // The type of a route stands for these two; they were looked at before.
            if !matches!(field.to_string().as_str(), "apiVersion" | "kind") {
                unknown.push((index, field));
            }
        })
        .map(Box::new)
    }
    Ok(match kind {
        Kind::SniRoute => Object::SniRoute(strict(index, unknown, deserializer)?),
        Kind::Service => Object::Service(strict(index, unknown, deserializer)?),
        Kind::EndpointSlice => Object::EndpointSlice(strict(index, unknown, deserializer)?),
        Kind::ReferenceGrant => Object::ReferenceGrant(strict(index, unknown, deserializer)?),
    })
}

/// A document with its place.
struct Document<'f> {
    file: &'f Path,
    first_line: usize,
    text: Arc<str>,
    /// What is wrong with it, and where that is if it has no line yet.
    faults: Vec<(Fault, Option<(Origin, FieldPath)>)>,
}

impl Document<'_> {
    fn parse(&mut self, objects: &mut Vec<Parsed>) {
        if unclosed(&self.text) > MAX_UNCLOSED {
            return self.too_deep();
        }
        if !weight::is_bounded(&self.text) {
            return self.too_heavy();
        }
        let value = match serde_yaml::from_str::<Value>(&self.text) {
            Ok(Value::Null) => return,
            Ok(value) => value,
            Err(error) => return self.refused(&error, &[]),
        };
        let heads = match heads(&value) {
            Ok(heads) => heads,
            Err((within, wrong)) => return self.fault(&within, None, None, wrong),
        };
        let mut unknown = Vec::new();
        let outcome = {
            let deserializer = serde_yaml::Deserializer::from_str(&self.text);
            Objects { heads: &heads, unknown: &mut unknown }.deserialize(deserializer)
        };
        for (index, field) in unknown {
            self.unknown_field(&heads, index, &field);
        }
        match outcome {
            Ok(found) => {
                for (head, object) in heads.iter().zip(found) {
                    objects.extend(self.parsed(head, object));
                }
            }
            Err(error) => self.refused(&error, &heads),
        }
    }

    /// Passes on what is wrong, with the lines, as far as anybody reads that many.
    fn report(self, faults: &mut Vec<Fault>) {
        let more = self.faults.len().saturating_sub(MAX_FAULTS);
        let mut found: Vec<_> = self.faults.into_iter().take(MAX_FAULTS).collect();
        let places: Vec<_> = found.iter().filter_map(|(_, place)| place.as_ref()).collect();
        let places: Vec<_> = places.into_iter().map(|(origin, field)| (origin, field)).collect();
        let mut lines = lines_of(&places).into_iter();
        for (fault, _) in found.iter_mut().filter(|(_, place)| place.is_some()) {
            fault.line = lines.next();
        }
        faults.extend(found.into_iter().map(|(fault, _)| fault));
        if more > 0 {
            faults.push(Fault {
                file: self.file.to_owned(),
                line: Some(self.first_line),
                object: None,
                field: None,
                message: format!("and {more} more in the document that begins here"),
            });
        }
    }

    fn origin(&self, within: &FieldPath) -> Origin {
        let text = Arc::clone(&self.text);
        Origin { text, first_line: self.first_line, within: within.clone() }
    }

    fn fault(
        &mut self,
        within: &FieldPath,
        object: Option<&str>,
        field: Option<&FieldPath>,
        message: String,
    ) {
        let place = (self.origin(within), field.cloned().unwrap_or_default());
        let fault = Fault {
            file: self.file.to_owned(),
            line: None,
            object: object.map(str::to_owned),
            field: field.map(FieldPath::to_string),
            message,
        };
        self.faults.push((fault, Some(place)));
    }

    fn too_deep(&mut self) {
        self.whole(format!("has over {MAX_UNCLOSED} brackets open at once"));
    }

    fn too_heavy(&mut self) {
        let message = "stands for far more than is written in it, by its aliases (*); write out \
                       what they stand for";
        self.whole(message.to_owned());
    }

    /// What is wrong with the document as a whole.
    fn whole(&mut self, message: String) {
        let fault = Fault {
            file: self.file.to_owned(),
            line: Some(self.first_line),
            object: None,
            field: None,
            message,
        };
        self.faults.push((fault, None));
    }

    fn unknown_field(&mut self, heads: &[Head], index: usize, field: &FieldPath) {
        let head = heads.get(index);
        let hint = match head {
            Some(Head { kind: Kind::SniRoute, .. }) => suggest::field_of_route(field),
            _ => None,
        };
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        let within = head.map(|head| head.within.clone()).unwrap_or_default();
        let shown = head.map(|head| head.shown.as_str());
        self.fault(&within, shown, Some(field), format!("unknown field{hint}"));
    }

    /// Says what the parser says, with the line in the file and the field in the object.
    fn refused(&mut self, error: &serde_yaml::Error, heads: &[Head]) {
        // At the end of a file that is cut, the parser is past the last line.
        let last = self.text.lines().count().max(1);
        let line = error.location().map_or(1, |place| place.line().clamp(1, last));
        let message = without_places(&error.to_string());
        // The parser puts the path first, unless it is at the root.
        let (path, message) = match message.split_once(": ") {
            Some((path, rest)) if !path.contains(char::is_whitespace) => (path, rest.to_owned()),
            _ => ("", message),
        };
        let head = heads.iter().find(|head| is_within(path, &head.within));
        let prefix = head.map(|head| head.within.to_string()).unwrap_or_default();
        let field = path.strip_prefix(&prefix).unwrap_or(path).trim_start_matches('.');
        let fault = Fault {
            file: self.file.to_owned(),
            line: Some(self.first_line + line - 1),
            object: head.map(|head| head.shown.clone()),
            field: Some(field.to_owned()).filter(|field| !field.is_empty()),
            message,
        };
        self.faults.push((fault, None));
    }

    /// The object with its key, if its name is one.
    fn parsed(&mut self, head: &Head, object: Object) -> Option<Parsed> {
        match checked_key(object.metadata()) {
            Ok(key) => Some(Parsed { object, key, origin: self.origin(&head.within) }),
            Err((field, message)) => {
                let field = FieldPath::parse(field);
                self.fault(&head.within, Some(&head.shown), Some(&field), message);
                None
            }
        }
    }
}

/// The key of an object, or the field that makes none and why.
fn checked_key(metadata: &ObjectMeta) -> Result<RouteKey, (&'static str, String)> {
    let key = key(metadata).ok_or_else(|| ("metadata.name", "is missing".to_owned()))?;
    for (field, name) in [("metadata.name", key.name()), ("metadata.namespace", key.namespace())] {
        if !is_dns_name(name) {
            let rule = "lower-case letters, digits, '-' and '.', at most 253, beginning and \
                        ending with a letter or digit";
            return Err((field, format!("{name:?} is not a name; write {rule}")));
        }
    }
    Ok(key)
}

/// How many brackets are open at most at once, those in quotes and comments included.
fn unclosed(text: &str) -> usize {
    let mut open: usize = 0;
    let mut most = 0;
    for byte in text.bytes() {
        match byte {
            b'[' | b'{' => open += 1,
            b']' | b'}' => open = open.saturating_sub(1),
            _ => {}
        }
        most = most.max(open);
    }
    most
}

/// A message of the parser without its ` at line 3 column 4`: those count from where the document
/// begins, not the file.
fn without_places(message: &str) -> String {
    let digits = |text: &'_ str| text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let mut kept = String::new();
    let mut rest = message;
    while let Some((before, after)) = rest.split_once(" at line ") {
        kept.push_str(before);
        let after_line = &after[after.len() - digits(after)..];
        rest = match after_line.strip_prefix(" column ") {
            Some(column) => &column[column.len() - digits(column)..],
            None => after_line,
        };
    }
    kept.push_str(rest);
    // It may quote a value of any length.
    kept.chars().take(MAX_MESSAGE).collect()
}

/// Whether a path of the parser leads into the object.
fn is_within(path: &str, object: &FieldPath) -> bool {
    path.strip_prefix(&object.to_string()).is_some_and(|rest| {
        *object == FieldPath::default() || rest.is_empty() || rest.starts_with('.')
    })
}

/// RFC 1123 subdomain, as Kubernetes asks of most names.
fn is_dns_name(name: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 253
        && name.split('.').all(|label| {
            label.starts_with(alphanumeric)
                && label.ends_with(alphanumeric)
                && label.chars().all(|c| alphanumeric(c) || c == '-')
        })
}
