//! The configuration file: strict YAML, with the line of whatever is wrong.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Mapping, Value as Yaml};

use super::ConfigError;
use super::layers::{Given, Layer, Origin, Step, Value};
use super::settings::{SETTINGS, Setting, Takes};

/// How alike two names are that may be meant for one another, from 0 to 1.
const ALIKE: f64 = 0.6;

/// The file as it was read.
pub(super) struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    pub(super) fn read(path: &Path) -> io::Result<Document> {
        Ok(Document { path: path.to_owned(), text: fs::read_to_string(path)? })
    }

    /// What the file has. A setting without a value (`listen:`) is as good as none, as everywhere
    /// in Kubernetes.
    pub(super) fn layer(&self) -> Result<Layer<'_>, ConfigError> {
        let top: Yaml = serde_yaml::from_str(&self.text).map_err(|error| self.not_yaml(&error))?;
        let mut layer = Layer::new();
        match &top {
            Yaml::Null => {}
            Yaml::Mapping(mapping) => self.collect(mapping, &mut Vec::new(), &mut layer)?,
            _ => return Err(self.error(&[], "write settings by name, e.g. class: sluice".into())),
        }
        Ok(layer)
    }

    /// What is wrong, with the line and the name of where it is.
    pub(super) fn error(&self, path: &[Step], message: String) -> ConfigError {
        let file = self.path.display();
        let line = line_of(&self.text, path).map_or_else(String::new, |line| format!(":{line}"));
        let name = if path.is_empty() { String::new() } else { format!(": {}", name_of(path)) };
        ConfigError::invalid(format!("{file}{line}{name}"), message)
    }

    fn not_yaml(&self, error: &serde_yaml::Error) -> ConfigError {
        let file = self.path.display();
        let place = match error.location() {
            Some(location) => format!("{file}:{}", location.line()),
            None => file.to_string(),
        };
        ConfigError::invalid(place, error.to_string())
    }

    fn collect<'a>(
        &'a self,
        mapping: &Mapping,
        path: &mut Vec<Step>,
        layer: &mut Layer<'a>,
    ) -> Result<(), ConfigError> {
        for (key, value) in mapping {
            let Yaml::String(key) = key else {
                let key = scalar(key).unwrap_or_default();
                return Err(self.error(path, format!("{key:?} is not the name of a setting")));
            };
            path.push(Step::key(key));
            let name = name_of(path);
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) {
                let values = self.values(setting, value, path)?;
                if !values.is_empty() {
                    layer.insert(setting.name, Given { values, origin: Origin::File(self) });
                }
            } else if groups().any(|group| group == name) {
                match value {
                    Yaml::Null => {}
                    Yaml::Mapping(group) => self.collect(group, path, layer)?,
                    _ => return Err(self.error(path, group_needs_names(&name))),
                }
            } else {
                return Err(self.error(path, unknown_setting(&name)));
            }
            path.pop();
        }
        Ok(())
    }

    /// The values of one setting; none if it is empty.
    fn values(
        &self,
        setting: &Setting,
        value: &Yaml,
        path: &[Step],
    ) -> Result<Vec<Value>, ConfigError> {
        let fault = |message| self.error(path, message);
        match (value, setting.takes) {
            (Yaml::Null, _) => Ok(Vec::new()),
            (Yaml::Sequence(items), Takes::Many) => {
                let items = items.iter().enumerate().map(|(index, item)| {
                    let at = || [path, &[Step::Index(index)]].concat();
                    self.item(item).map_err(|message| self.error(&at(), message))
                });
                items.collect()
            }
            (_, Takes::Many) => Err(fault("takes a list; write each item after a -".to_owned())),
            _ => Ok(vec![Value::Text(scalar(value).map_err(fault)?)]),
        }
    }

    fn item(&self, item: &Yaml) -> Result<Value, String> {
        let Yaml::Mapping(entries) = item else { return scalar(item).map(Value::Text) };
        let entries = entries.iter().map(|(key, value)| match scalar(value) {
            Ok(text) => Ok((scalar(key)?, text)),
            Err(message) => Err(format!("{}: {message}", scalar(key)?)),
        });
        Ok(Value::Object(entries.collect::<Result<_, String>>()?))
    }
}

/// The one of the `known` names that was probably meant by a wrong one.
pub(super) fn nearest<'a>(
    wrong: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let plain = |name: &str| name.replace(['-', '_', '.'], "").to_ascii_lowercase();
    let likeness =
        |known: &str| strsim::normalized_damerau_levenshtein(&plain(known), &plain(wrong));
    let scored = known.into_iter().map(|known| (likeness(known), known));
    let best = scored.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (best.0 >= ALIKE).then_some(best.1)
}

fn unknown_setting(name: &str) -> String {
    match nearest(name, SETTINGS.iter().map(|setting| setting.name).chain(groups())) {
        Some(known) => format!("unknown setting; did you mean {known}?"),
        None => "unknown setting; sluice run --help lists all".to_owned(),
    }
}

fn group_needs_names(group: &str) -> String {
    let inside = SETTINGS.iter().filter_map(|setting| setting.name.strip_prefix(group));
    let names: Vec<_> = inside.filter_map(|name| name.strip_prefix('.')).collect();
    format!("takes settings by name: {}", names.join(", "))
}

/// `drain` of `drain.delay`.
fn groups() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().filter_map(|setting| setting.name.rsplit_once('.')).map(|(group, _)| group)
}

fn scalar(value: &Yaml) -> Result<String, String> {
    match value {
        Yaml::String(text) => Ok(text.clone()),
        Yaml::Bool(truth) => Ok(truth.to_string()),
        // A float is not what was written any more: 1.10 has become 1.1.
        Yaml::Number(number) if !number.is_f64() => Ok(number.to_string()),
        Yaml::Number(number) => Err(format!("{number} is a number, not text or a whole number")),
        Yaml::Null => Err("has no value".to_owned()),
        Yaml::Sequence(_) => Err("takes one value, not a list".to_owned()),
        Yaml::Mapping(_) => Err("takes one value, not an object".to_owned()),
        Yaml::Tagged(_) => Err("takes a value without a YAML tag".to_owned()),
    }
}

/// `listen[1].address`.
fn name_of(path: &[Step]) -> String {
    let mut name = String::new();
    for step in path {
        match step {
            Step::Key(key) if name.is_empty() => name.push_str(key),
            Step::Key(key) => name.extend([".", key]),
            Step::Index(index) => name.push_str(&format!("[{index}]")),
        }
    }
    name
}

/// The line where the key or the item at `path` begins.
///
/// The parser says where something is only when it fails there. So this reads the text once more
/// and fails at the end of the path.
fn line_of(text: &str, path: &[Step]) -> Option<usize> {
    let error = FailAt(path).deserialize(serde_yaml::Deserializer::from_str(text)).err()?;
    error.location().map(|location| location.line())
}

/// Walks along a path and fails at its end: no visitor method takes what is found there.
struct FailAt<'a>(&'a [Step]);

impl<'de> DeserializeSeed<'de> for FailAt<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FailAt<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(key), rest)) = self.0.split_first() else {
            return Err(de::Error::custom("here"));
        };
        while let Some(found) = map.next_key_seed(Key { key, last: rest.is_empty() })? {
            if found {
                return map.next_value_seed(FailAt(rest));
            }
            map.next_value::<de::IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((Step::Index(index), rest)) = self.0.split_first() else {
            return Err(de::Error::custom("here"));
        };
        for _ in 0..*index {
            seq.next_element::<de::IgnoredAny>()?;
        }
        seq.next_element_seed(FailAt(rest)).map(|_| ())
    }
}

/// Whether a key is the one on the path; fails if it is the last one.
struct Key<'a> {
    key: &'a str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, found: &str) -> Result<bool, E> {
        match found == self.key {
            true if self.last => Err(E::custom("here")),
            same => Ok(same),
        }
    }
}
