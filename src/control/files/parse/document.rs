//! From one document to its objects.

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use zeroize::Zeroizing;

use super::secret::{self, DataFiles, may_hold_secret};
use super::type_meta::{TypeMeta, is_list};
use super::{ManifestObject, Origin, ParsedObject};
use crate::control::api::{FieldFault, not_read, parse_strictly};
use crate::control::files::ManifestFault;
use crate::control::files::snapshot::FileBytes;
use crate::control::translate::key;
use crate::policy::is_subdomain;
use crate::routing::{Kind, ObjectKey};
use crate::yaml::{Content, FieldPath, Node, Step};

/// How many faults are reported of one document. Who mends those sees the next.
pub(super) const MAX_FAULTS: usize = 20;

/// Adds the objects of a document to `objects`, and what is wrong with it to `faults`.
pub(super) fn parse(
    file: &Path,
    first_line: usize,
    text: Arc<Zeroizing<String>>,
    data_files: Option<&DataFiles>,
    objects: &mut Vec<ParsedObject>,
    faults: &mut Vec<ManifestFault>,
) {
    let mut document = Document { file, first_line, text, data_files, faults: Vec::new() };
    match Node::parse(&document.text) {
        Ok(root) => document.read(root, objects),
        Err(error) if may_hold_secret(&document.text) => {
            let message = "is no YAML; the document may hold a Secret, and is not quoted";
            document.fault(error.line, None, FieldPath::default(), message.to_owned());
        }
        Err(error) => document.fault(error.line, None, FieldPath::default(), error.message),
    }
    document.report(faults);
}

/// A document with its place.
struct Document<'f> {
    file: &'f Path,
    first_line: usize,
    text: Arc<Zeroizing<String>>,
    data_files: Option<&'f DataFiles>,
    faults: Vec<ManifestFault>,
}

impl Document<'_> {
    fn read(&mut self, root: Node, objects: &mut Vec<ParsedObject>) {
        if root.content == Content::Null {
            return;
        }
        if !is_list(&root) {
            return objects.extend(self.object(None, root));
        }
        let Content::Object(fields) = root.content else { return };
        for (key, value) in fields {
            match (key.as_str(), value.content) {
                ("items", Content::List(items)) => {
                    for (index, item) in items.into_iter().enumerate() {
                        objects.extend(self.object(Some(index), item));
                    }
                }
                ("items", Content::Null) | ("apiVersion" | "kind" | "metadata", _) => {}
                ("items", _) => self.list_fault(value.line, "items is not a list".to_owned()),
                (key, _) => self.list_fault(value.line, format!("a List has no field {key}")),
            }
        }
    }

    /// The object, if nothing is wrong with it.
    fn object(&mut self, item: Option<usize>, mut node: Node) -> Option<ParsedObject> {
        let duplicates = node.take_duplicates();
        let is_good = duplicates.is_empty();
        let type_meta = TypeMeta::of(&node);
        let shown = type_meta.as_ref().ok().map(|type_meta| type_meta.shown.as_str());
        for duplicate in duplicates {
            let message = format!("is given twice, first in line {}", self.line(duplicate.first));
            self.fault(duplicate.line, shown, duplicate.field, message);
        }
        let kind = match &type_meta {
            Ok(type_meta) => type_meta.kind,
            Err(message) => {
                self.fault(node.line, None, FieldPath::default(), message.clone());
                return None;
            }
        };
        match object(kind, &node, self.data_files) {
            Ok((object, key, data)) if is_good => {
                let text = Arc::clone(&self.text);
                let (first_line, line) = (self.first_line, self.line(node.line));
                let origin = Origin { text, first_line, item, line, data: data.into() };
                return Some(ParsedObject { object, key, origin });
            }
            Ok(_) => {}
            Err(faults) => {
                for FieldFault { field, message } in faults {
                    self.fault(node.line_of(&field), shown, field, message);
                }
            }
        }
        None
    }

    /// The line of the file, of one of the document.
    fn line(&self, line: usize) -> usize {
        self.first_line.saturating_add(line).saturating_sub(1)
    }

    fn list_fault(&mut self, line: usize, message: String) {
        self.fault(line, None, FieldPath::default(), message);
    }

    fn fault(&mut self, line: usize, object: Option<&str>, field: FieldPath, message: String) {
        self.faults.push(ManifestFault {
            file: self.file.to_owned(),
            line: Some(self.line(line)),
            object: object.map(str::to_owned),
            field: Some(field.to_string()).filter(|_| !field.is_empty()),
            message,
        });
    }

    /// Passes on what is wrong, as far as anybody reads that many.
    fn report(mut self, faults: &mut Vec<ManifestFault>) {
        let more = self.faults.len().saturating_sub(MAX_FAULTS);
        self.faults.truncate(MAX_FAULTS);
        if more > 0 {
            let message = format!("and {more} more in the document that begins here");
            self.fault(1, None, FieldPath::default(), message);
        }
        faults.append(&mut self.faults);
    }
}

/// The object of this kind, its key, and the contents of other files that are in it.
fn object(
    kind: Kind,
    node: &Node,
    data_files: Option<&DataFiles>,
) -> Result<(ManifestObject, ObjectKey, Vec<FileBytes>), Vec<FieldFault>> {
    let mut data = Vec::new();
    let object = match kind {
        Kind::SniRoute => ManifestObject::SniRoute(parse_strictly(kind, node)?),
        Kind::Service => ManifestObject::Service(parse_strictly(kind, node)?),
        Kind::EndpointSlice => ManifestObject::EndpointSlice(parse_strictly(kind, node)?),
        Kind::ReferenceGrant => ManifestObject::ReferenceGrant(parse_strictly(kind, node)?),
        Kind::ConfigMap => ManifestObject::ConfigMap(parse_strictly(kind, node)?),
        Kind::Secret => {
            let secret;
            (secret, data) = secret::secret(node, data_files)?;
            ManifestObject::Secret(Box::new(secret))
        }
        Kind::TlsRoute => return Err(vec![not_read()]),
    };
    let key = checked_key(object.metadata()).map_err(|fault| vec![fault])?;
    Ok((object, key, data))
}

/// The key of an object, or the field that makes none and why.
fn checked_key(metadata: &ObjectMeta) -> Result<ObjectKey, FieldFault> {
    let fault = |field: &str, message: String| {
        let steps = ["metadata", field].into_iter().map(|key| Step::Key(key.to_owned()));
        FieldFault { field: steps.fold(FieldPath::default(), FieldPath::then), message }
    };
    let key = key(metadata).ok_or_else(|| fault("name", "is missing".to_owned()))?;
    for (field, name) in [("name", key.name()), ("namespace", key.namespace())] {
        if !is_subdomain(name) {
            let rule = "lower-case letters, digits, '-' and '.', at most 253, beginning and \
                        ending with a letter or digit";
            return Err(fault(field, format!("{name:?} is not a name; write {rule}")));
        }
    }
    Ok(key)
}
