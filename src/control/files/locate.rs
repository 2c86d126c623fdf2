//! Fields of a document, and the lines where they are.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The way from an object to one of its fields, shown as `spec.backends[0].weight`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
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
        line_of(self, &FieldPath::default())
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

/// The line of the file where a field of an object is; if the field is not there, that of the
/// nearest thing around it.
pub(super) fn line_of(origin: &Origin, field: &FieldPath) -> usize {
    let steps: Vec<Step> = origin.within.0.iter().chain(&field.0).cloned().collect();
    let found = Seek(&steps).deserialize(serde_yaml::Deserializer::from_str(&origin.text));
    let line = found.err().and_then(|error| error.location()).map_or(1, |place| place.line());
    origin.first_line + line.saturating_sub(1)
}

/// Walks to a field and fails there: the parser says where that was.
struct Seek<'s>(&'s [Step]);

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seek<'_> {
    type Value = ();

    // Anything that has no visit method of its own is the end of the way too.
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("here")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.0.split_first() else {
            return Err(A::Error::custom("here"));
        };
        let last = rest.is_empty();
        while let Some(found) = map.next_key_seed(SeekKey { wanted, last })? {
            if found {
                return map.next_value_seed(Seek(rest));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Err(A::Error::custom("here"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), rest)) = self.0.split_first() else {
            return Err(A::Error::custom("here"));
        };
        for _ in 0..*wanted {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        match seq.next_element_seed(Seek(rest))? {
            Some(()) => Ok(()),
            None => Err(A::Error::custom("here")),
        }
    }
}

/// Tells whether a key is the wanted one; fails on it when the way ends there.
struct SeekKey<'s> {
    wanted: &'s str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for SeekKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for SeekKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        match (key == self.wanted, self.last) {
            (true, true) => Err(E::custom("here")),
            (found, _) => Ok(found),
        }
    }
}
