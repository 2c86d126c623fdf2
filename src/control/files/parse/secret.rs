//! Secrets in files. Besides what the API server has, their entries may be in files of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::split::documents;
use crate::control::api::{FieldFault, PassedText, Secret, SecretData, parse_strictly};
use crate::control::files::snapshot::{FileBytes, FileContent};
use crate::routing::Kind;
use crate::yaml::{Content, FieldPath, Node, Step};

const DATA_FILES: &str = "dataFiles";

/// The contents of the files that Secrets of a manifest name, by their names there.
pub(in crate::control::files) type DataFiles = BTreeMap<PathBuf, FileContent>;

/// A Secret as a file has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SecretManifest {
    metadata: ObjectMeta,
    /// Entries in base64.
    #[serde(default)]
    data: SecretData,
    /// Entries as they are.
    #[serde(default)]
    string_data: Option<BTreeMap<String, SecretString>>,
    /// Entries that are in files.
    #[serde(default)]
    data_files: Option<BTreeMap<String, PathBuf>>,
    #[serde(default, rename = "type")]
    _kind: PassedText,
    #[serde(default, rename = "immutable")]
    _immutable: Option<bool>,
}

/// A text of a Secret.
struct SecretString(Zeroizing<Vec<u8>>);

impl<'de> Deserialize<'de> for SecretString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text =
            <&str>::deserialize(deserializer).map_err(|_| D::Error::custom("is not a text"))?;
        Ok(SecretString(Zeroizing::new(text.as_bytes().to_vec())))
    }
}

/// The Secret that a node is, and the contents of its files. Without `files`, only its form is looked at, and it comes
/// without what it holds.
///
/// # Errors
/// What is wrong, without a word of what the Secret holds.
pub(super) fn secret(
    node: &Node,
    files: Option<&DataFiles>,
) -> Result<(Secret, Vec<FileBytes>), Vec<FieldFault>> {
    let manifest: SecretManifest = parse_strictly(Kind::Secret, node)
        .map_err(|faults| faults.into_iter().map(unquoted).collect::<Vec<_>>())?;
    let SecretManifest { metadata, mut data, string_data, data_files, .. } = manifest;
    for (key, SecretString(text)) in string_data.unwrap_or_default() {
        data.set(&key, text);
    }
    let (mut used, mut faults) = (Vec::new(), Vec::new());
    for (key, name) in data_files.unwrap_or_default() {
        match entry(&key, &name, &data, files) {
            Ok(Some(bytes)) => {
                data.set(&key, Zeroizing::new(bytes.to_vec()));
                used.push(Arc::clone(bytes));
            }
            Ok(None) => {}
            Err(message) => faults.push(fault(&key, message)),
        }
    }
    if files.is_none() {
        data = SecretData::default();
    }
    match faults.is_empty() {
        true => Ok((Secret { metadata, data }, used)),
        false => Err(faults),
    }
}

/// The content of an entry that is in a file, if files are read.
fn entry<'f>(
    key: &str,
    name: &Path,
    data: &SecretData,
    files: Option<&'f DataFiles>,
) -> Result<Option<&'f FileBytes>, String> {
    if !SecretData::KEYS.contains(&key) {
        return Err(format!("is not used; there are {}", SecretData::KEYS.join(", ")));
    }
    if data.get(key).is_some() {
        return Err("is in data or stringData, too; write it once".to_owned());
    }
    let Some(files) = files else { return Ok(None) };
    match files.get(name) {
        Some(Ok(bytes)) => Ok(Some(bytes)),
        Some(Err(error)) => Err(format!("{}: {error}", name.display())),
        None => Err(format!("{} is not read", name.display())),
    }
}

fn fault(key: &str, message: String) -> FieldFault {
    let steps = [DATA_FILES, key].into_iter().map(|key| Step::Key(key.to_owned()));
    FieldFault { field: steps.fold(FieldPath::default(), FieldPath::then), message }
}

/// The fault without what it quotes.
fn unquoted(FieldFault { field, message }: FieldFault) -> FieldFault {
    let is_known = ["unknown field", "missing field"].iter().any(|told| message.starts_with(told));
    let message = match is_known {
        true => message,
        false => "is not what belongs there; data has texts in base64, stringData has texts, and \
                  dataFiles has the names of files"
            .to_owned(),
    };
    FieldFault { field, message }
}

/// The names of files in the Secrets of a manifest.
pub(in crate::control::files) fn data_file_names(bytes: &[u8]) -> BTreeSet<PathBuf> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    if !text.contains(DATA_FILES) {
        return BTreeSet::new();
    }
    let roots = documents(text).filter_map(|(_, document)| Node::parse(document).ok());
    let mut names = BTreeSet::new();
    for root in roots {
        add_names(&root, &mut names);
        if let Some(Node { content: Content::List(items), .. }) = root.get("items") {
            items.iter().for_each(|item| add_names(item, &mut names));
        }
    }
    names
}

fn add_names(object: &Node, names: &mut BTreeSet<PathBuf>) {
    let is_secret = object.get("kind").and_then(Node::text) == Some(Kind::Secret.as_str());
    if let Some(Node { content: Content::Object(entries), .. }) = object.get(DATA_FILES)
        && is_secret
    {
        names.extend(entries.iter().filter_map(|(_, name)| name.text()).map(PathBuf::from));
    }
}

/// Whether the text may hold a Secret, so that no fault may quote it.
pub(super) fn may_hold_secret(text: &str) -> bool {
    text.contains(Kind::Secret.as_str()) || text.contains("PRIVATE KEY")
}
