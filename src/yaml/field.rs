//! The names of fields.

use std::fmt;

/// The way from an object to one of its fields, shown as `spec.backends[0].weight`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldPath(Vec<Step>);

/// One step of a [`FieldPath`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// To a field of an object.
    Key(String),
    /// To an item of a list.
    Index(usize),
}

impl FieldPath {
    /// The steps, the first one first.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Whether this is the object itself.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same field, seen from one step further out.
    #[must_use]
    pub fn within(mut self, step: Step) -> Self {
        self.0.insert(0, step);
        self
    }

    /// One step further in.
    #[must_use]
    pub fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }

    /// Reads what is displayed of a path. Keys that have dots or brackets do not survive this: it is
    /// for paths through the fields of known types.
    pub fn parse(text: &str) -> Self {
        let mut steps = Vec::new();
        for part in text.split('.') {
            let mut pieces = part.split('[');
            let key = pieces.next().filter(|key| !key.is_empty());
            steps.extend(key.map(|key| Step::Key(key.to_owned())));
            let indexes = pieces.filter_map(|piece| piece.strip_suffix(']')?.parse().ok());
            steps.extend(indexes.map(Step::Index));
        }
        FieldPath(steps)
    }
}

impl From<&serde_path_to_error::Path> for FieldPath {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment;
        let steps = path.iter().filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } | Segment::Enum { variant: key } => Some(Step::Key(key.clone())),
            Segment::Unknown => None,
        });
        FieldPath(steps.collect())
    }
}

impl From<&serde_ignored::Path<'_>> for FieldPath {
    fn from(path: &serde_ignored::Path<'_>) -> Self {
        use serde_ignored::Path;
        match path {
            Path::Root => FieldPath::default(),
            Path::Seq { parent, index } => FieldPath::from(*parent).then(Step::Index(*index)),
            Path::Map { parent, key } => FieldPath::from(*parent).then(Step::Key(key.clone())),
            Path::Some { parent }
            | Path::NewtypeStruct { parent }
            | Path::NewtypeVariant { parent } => FieldPath::from(*parent),
        }
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
