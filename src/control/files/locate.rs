//! Fields of a document, and the lines where they are.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// The way from an object to one of its fields, shown as `spec.backends[0].weight`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Key(String),
    Index(usize),
}

/// Where an object was written down.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The document that it is in.
    pub(super) text: Arc<str>,
    /// The line of the file, from 1, on which that document begins.
    pub(super) first_line: usize,
    /// Where in the document: nowhere deeper, or an item of a `List`.
    pub(super) within: FieldPath,
}

impl Origin {
    /// The line of the file, from 1, on which the object begins.
    pub(super) fn line(&self) -> usize {
        lines_of(&[(self, &FieldPath::default())]).pop().unwrap_or(self.first_line)
    }

    /// Whether the same object is written there in the same words, wherever that is.
    pub(super) fn says_the_same(&self, other: &Origin) -> bool {
        self.words() == other.words() && self.within == other.within
    }

    /// The document without what sets it apart from others.
    fn words(&self) -> &str {
        let text = self.text.strip_prefix("---").unwrap_or(&self.text);
        text.trim_start_matches(['\r', '\n']).trim_end()
    }
}

impl FieldPath {
    /// The item of a list.
    pub(super) fn item(list: &str, index: usize) -> Self {
        FieldPath(vec![Step::Key(list.to_owned()), Step::Index(index)])
    }

    /// Reads what [`FieldPath`] displays. Keys that have dots or brackets do not survive this: it
    /// is for paths through the fields of known types.
    pub(super) fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        for part in text.split('.') {
            let mut pieces = part.split('[');
            steps.extend(
                pieces.next().filter(|key| !key.is_empty()).map(|key| Step::Key(key.into())),
            );
            let indexes = pieces.filter_map(|piece| piece.strip_suffix(']')?.parse().ok());
            steps.extend(indexes.map(Step::Index));
        }
        FieldPath(steps)
    }

    /// The path that `serde_ignored` gives.
    pub(super) fn from_ignored(path: &serde_ignored::Path<'_>) -> Self {
        use serde_ignored::Path;
        let (parent, step) = match path {
            Path::Root => return FieldPath::default(),
            Path::Seq { parent, index } => (parent, Some(Step::Index(*index))),
            Path::Map { parent, key } => (parent, Some(Step::Key(key.clone()))),
            Path::Some { parent }
            | Path::NewtypeStruct { parent }
            | Path::NewtypeVariant { parent } => (parent, None),
        };
        let mut whole = FieldPath::from_ignored(parent);
        whole.0.extend(step);
        whole
    }

    /// The name of the field, and the path of the object that it is in.
    pub(super) fn split_last(&self) -> Option<(&str, FieldPath)> {
        match self.0.split_last()? {
            (Step::Key(key), parent) => Some((key, FieldPath(parent.to_vec()))),
            (Step::Index(_), _) => None,
        }
    }

    /// The names along the way, without the indexes.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        })
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The lines of their files where fields of objects are; where a field is not there, that of the
/// nearest thing around it. Each document is parsed once, however many fields of it are asked for.
pub(super) fn lines_of(fields: &[(&Origin, &FieldPath)]) -> Vec<usize> {
    let mut lines: Vec<usize> = fields.iter().map(|(origin, _)| origin.first_line).collect();
    let mut documents: HashMap<*const u8, (&Origin, Vec<Wanted<'_>>)> = HashMap::new();
    for (index, (origin, field)) in fields.iter().enumerate() {
        let steps = origin.within.0.iter().chain(&field.0).collect();
        let (_, wanted) =
            documents.entry(origin.text.as_ptr()).or_insert_with(|| (origin, Vec::new()));
        wanted.push(Wanted { index, steps, depth: 0 });
    }
    for (origin, wanted) in documents.into_values() {
        let first = origin.first_line;
        let mut note = |index: usize, line: usize| {
            if let Some(known) = lines.get_mut(index) {
                *known = first + line.saturating_sub(1);
            }
        };
        let walk = Walk { wanted, note: &mut note };
        // Where it fails, the lines found so far stand.
        let _ = walk.deserialize(serde_yaml::Deserializer::from_str(&origin.text));
    }
    lines
}

/// A field that is looked for.
struct Wanted<'p> {
    /// Which of those that were asked for.
    index: usize,
    /// The way to it from the root of the document.
    steps: Vec<&'p Step>,
    /// How many of the steps are taken.
    depth: usize,
}

/// Walks through a value to all that is wanted in it. The parser tells lines only in errors: so
/// each key and each text that matters is refused, and goes on from there.
struct Walk<'w, 'p> {
    wanted: Vec<Wanted<'p>>,
    note: &'w mut dyn FnMut(usize, usize),
}

impl<'p> Walk<'_, 'p> {
    fn note(&mut self, line: usize) {
        self.wanted.iter().for_each(|wanted| (self.note)(wanted.index, line));
    }

    /// Those wanted by the next step of their way.
    fn branches(&mut self) -> HashMap<&'p Step, Vec<Wanted<'p>>> {
        let mut branches: HashMap<_, Vec<_>> = HashMap::new();
        for mut wanted in self.wanted.drain(..) {
            if let Some(&step) = wanted.steps.get(wanted.depth) {
                wanted.depth += 1;
                branches.entry(step).or_default().push(wanted);
            }
        }
        branches
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<(), D::Error> {
        let mut inside = false;
        let walk = Walk { wanted: std::mem::take(&mut self.wanted), note: &mut *self.note };
        let indexes: Vec<usize> = walk.wanted.iter().map(|wanted| wanted.index).collect();
        match deserializer.deserialize_any(Value { walk, inside: &mut inside }) {
            // A text or a number, which is parsed now.
            Err(error) if !inside => {
                let line = line_of(&error);
                indexes.into_iter().for_each(|index| (self.note)(index, line));
                Ok(())
            }
            other => other,
        }
    }
}

/// A value that a [`Walk`] has come to.
struct Value<'w, 'p> {
    walk: Walk<'w, 'p>,
    /// Whether it holds other values.
    inside: &'w mut bool,
}

impl<'de> Visitor<'de> for Value<'_, '_> {
    type Value = ();

    // Anything that has no visit method of its own is refused.
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("here")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        *self.inside = true;
        let mut branches = None;
        while let Some((key, line)) = map.next_key_seed(Key)? {
            let branches = branches.get_or_insert_with(|| {
                self.walk.note(line);
                self.walk.branches()
            });
            let Some(wanted) = branches.remove(&Step::Key(key)) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let mut walk = Walk { wanted, note: &mut *self.walk.note };
            walk.note(line);
            walk.wanted.retain(|wanted| wanted.depth < wanted.steps.len());
            match walk.wanted.is_empty() {
                true => _ = map.next_value::<IgnoredAny>()?,
                false => map.next_value_seed(walk)?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        *self.inside = true;
        let mut branches = self.walk.branches();
        for index in 0.. {
            let more = match branches.remove(&Step::Index(index)) {
                Some(wanted) => {
                    seq.next_element_seed(Walk { wanted, note: &mut *self.walk.note })?.is_some()
                }
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// A value with a tag, which is not parsed until it is asked for.
    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<(), A::Error> {
        *self.inside = true;
        let (_, value) = data.variant::<IgnoredAny>()?;
        value.newtype_variant_seed(self.walk)
    }
}

/// A key and its line.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = (String, usize);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let mut key = None;
        match deserializer.deserialize_str(Refused(&mut key)) {
            Err(error) => match key {
                Some(key) => Ok((key, line_of(&error))),
                None => Err(error),
            },
            Ok(()) => Err(D::Error::custom("a key was not refused")),
        }
    }
}

/// Takes a text and refuses it.
struct Refused<'k>(&'k mut Option<String>);

impl Visitor<'_> for Refused<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        *self.0 = Some(key.to_owned());
        Err(E::custom("here"))
    }
}

/// The line, from 1, at which the parser says that it was: it is silent of the very beginning.
fn line_of(error: &impl fmt::Display) -> usize {
    let message = error.to_string();
    let place = message.rsplit_once(" at line ").and_then(|(_, place)| place.split_once(' '));
    place.and_then(|(line, _)| line.parse().ok()).unwrap_or(1)
}
