//! From the bytes of a file to its objects, without I/O.

mod document;
mod secret;
mod split;
mod type_meta;

use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

use ahash::AHashMap as HashMap;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use zeroize::Zeroizing;

use self::document::MAX_FAULTS;
pub(super) use self::secret::{DataFiles, data_file_names};
use self::split::documents;
use super::ManifestFault;
use super::snapshot::FileBytes;
use crate::control::api::{ReferenceGrant, Secret, SniRoute};
use crate::control::checks::{Authority, authority};
use crate::control::translate::{Builder, Resources, key};
use crate::routing::{Kind, ObjectKey};
use crate::yaml::{FieldPath, Node};

/// An object of a file.
#[derive(Clone, Debug)]
pub(super) struct ParsedObject {
    pub(super) object: ManifestObject,
    pub(super) key: ObjectKey,
    pub(super) origin: Origin,
}

/// Where an object was written down.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The document that it is in. It may hold private keys, and is wiped when it is dropped.
    text: Arc<Zeroizing<String>>,
    /// The line of the file, from 1, on which that document begins.
    first_line: usize,
    /// Which item it is, if the document is a list.
    item: Option<usize>,
    /// The line of the file on which it begins.
    pub(super) line: usize,
    /// The contents of other files that are in the object.
    data: Arc<[FileBytes]>,
}

impl Origin {
    /// Whether the same object is written there in the same words, wherever that is.
    pub(super) fn says_the_same(&self, other: &Origin) -> bool {
        self.words() == other.words() && self.item == other.item && self.data == other.data
    }

    /// The document without what sets it apart from others.
    fn words(&self) -> &str {
        let text: &str = &self.text;
        let text = text.strip_prefix("---").unwrap_or(text);
        text.trim_start_matches(['\r', '\n']).trim_end()
    }
}

/// The lines of fields, of which each document is read once more.
#[derive(Default)]
pub(super) struct FieldLines(HashMap<*const u8, Option<Node>>);

impl FieldLines {
    /// The line of the file where a field of an object is; where it is missing, that of the nearest thing
    /// around it.
    pub(super) fn of(&mut self, origin: &Origin, field: &FieldPath) -> usize {
        let text: &str = &origin.text;
        let document = self.0.entry(text.as_ptr()).or_insert_with(|| Node::parse(text).ok());
        let object = document.as_ref().and_then(|document| match origin.item {
            None => Some(document),
            Some(index) => document.get("items")?.item(index),
        });
        object.map_or(origin.line, |object| origin.first_line + object.line_of(field) - 1)
    }
}

/// An object of one of the supported kinds.
#[derive(Clone, Debug)]
pub(super) enum ManifestObject {
    SniRoute(Box<SniRoute>),
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    ReferenceGrant(Box<ReferenceGrant>),
    ConfigMap(Box<ConfigMap>),
    Secret(Box<Secret>),
}

impl ManifestObject {
    pub(super) fn kind(&self) -> Kind {
        match self {
            ManifestObject::SniRoute(_) => Kind::SniRoute,
            ManifestObject::Service(_) => Kind::Service,
            ManifestObject::EndpointSlice(_) => Kind::EndpointSlice,
            ManifestObject::ReferenceGrant(_) => Kind::ReferenceGrant,
            ManifestObject::ConfigMap(_) => Kind::ConfigMap,
            ManifestObject::Secret(_) => Kind::Secret,
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        match self {
            ManifestObject::SniRoute(route) => &route.metadata,
            ManifestObject::Service(service) => &service.metadata,
            ManifestObject::EndpointSlice(slice) => &slice.metadata,
            ManifestObject::ReferenceGrant(grant) => &grant.metadata,
            ManifestObject::ConfigMap(config_map) => &config_map.metadata,
            ManifestObject::Secret(secret) => &secret.metadata,
        }
    }

    /// Adds it to those of its kind.
    pub(super) fn add_to(self, resources: &mut Resources) {
        match self {
            ManifestObject::SniRoute(route) => resources.routes.push(*route),
            ManifestObject::Service(service) => resources.services.push(*service),
            ManifestObject::EndpointSlice(slice) => resources.slices.push(*slice),
            ManifestObject::ReferenceGrant(grant) => resources.grants.push(*grant),
            ManifestObject::ConfigMap(config_map) => resources.config_maps.push(*config_map),
            ManifestObject::Secret(secret) => resources.secrets.push(*secret),
        }
    }

    /// Gives it to a builder, or to the authorities of checks.
    pub(super) fn put_into(
        &self,
        builder: &mut Builder,
        authorities: &mut HashMap<ObjectKey, Authority>,
    ) {
        match self {
            ManifestObject::SniRoute(route) => builder.put_route(route),
            ManifestObject::Service(service) => builder.put_service(service),
            ManifestObject::EndpointSlice(slice) => builder.put_slice(slice),
            ManifestObject::ReferenceGrant(grant) => builder.put_grant(grant),
            ManifestObject::ConfigMap(config_map) => {
                let Some(key) = key(&config_map.metadata) else { return };
                builder.put_config_map(&key, config_map.data.as_ref());
                authorities.insert(key, authority(config_map.data.as_ref()));
            }
            ManifestObject::Secret(secret) => {
                if let Some(key) = key(&secret.metadata) {
                    builder.put_secret(&key, &secret.data);
                }
            }
        }
    }
}

/// All objects of a file, or all that is wrong with it. `data_files` are the contents of the files that its Secrets name;
/// without them, nothing of what its Secrets hold is kept.
pub(super) fn parse(
    file: &Path,
    bytes: &[u8],
    data_files: Option<&DataFiles>,
) -> Result<Vec<ParsedObject>, Vec<ManifestFault>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => return Err(vec![not_text(file, bytes, error.valid_up_to())]),
    };
    let mut objects = Vec::new();
    let mut faults = Vec::new();
    for (first_line, text) in documents(text) {
        let text = Arc::new(Zeroizing::new(text.to_owned()));
        document::parse(file, first_line, text, data_files, &mut objects, &mut faults);
    }
    faults.extend(twice(file, &objects));
    if faults.is_empty() { Ok(objects) } else { Err(faults) }
}

fn not_text(file: &Path, bytes: &[u8], valid: usize) -> ManifestFault {
    let line = 1 + bytes.iter().take(valid).filter(|&&byte| byte == b'\n').count();
    ManifestFault {
        file: file.to_owned(),
        line: Some(line),
        object: None,
        field: None,
        message: "is not UTF-8 text".to_owned(),
    }
}

/// Objects that the file holds more than once.
fn twice(file: &Path, objects: &[ParsedObject]) -> Vec<ManifestFault> {
    let mut seen: HashMap<_, &ParsedObject> = HashMap::new();
    let mut pairs = Vec::new();
    for parsed in objects {
        match seen.entry((parsed.object.kind(), &parsed.key)) {
            Entry::Vacant(entry) => _ = entry.insert(parsed),
            Entry::Occupied(entry) => pairs.push((*entry.get(), parsed)),
        }
    }
    pairs.truncate(MAX_FAULTS);
    let fault = |(first, second): (&ParsedObject, &ParsedObject)| ManifestFault {
        file: file.to_owned(),
        line: Some(second.origin.line),
        object: Some(format!("{} {}", second.object.kind(), second.key)),
        field: None,
        message: format!("is in this file twice, first in line {}", first.origin.line),
    };
    pairs.into_iter().map(fault).collect()
}
