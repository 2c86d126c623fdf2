//! From the bytes of a file to its objects, without I/O.

mod document;
mod head;
mod split;
mod suggest;
mod weight;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::split::documents;
use super::Fault;
use super::locate::{FieldPath, Origin, lines_of};
use crate::control::api::{Kind, ReferenceGrant, SniRoute};
use crate::control::build::{Builder, Resources};
use crate::routing::RouteKey;

/// How many faults are reported of one document. Who mends those sees the next.
const MAX_FAULTS: usize = 20;

/// An object of a file.
#[derive(Clone, Debug)]
pub(super) struct Parsed {
    pub(super) object: Object,
    pub(super) key: RouteKey,
    pub(super) origin: Origin,
}

/// An object of one of the supported kinds.
#[derive(Clone, Debug)]
pub(super) enum Object {
    SniRoute(Box<SniRoute>),
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
    ReferenceGrant(Box<ReferenceGrant>),
}

impl Object {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Object::SniRoute(_) => Kind::SniRoute,
            Object::Service(_) => Kind::Service,
            Object::EndpointSlice(_) => Kind::EndpointSlice,
            Object::ReferenceGrant(_) => Kind::ReferenceGrant,
        }
    }

    fn metadata(&self) -> &ObjectMeta {
        match self {
            Object::SniRoute(route) => &route.metadata,
            Object::Service(service) => &service.metadata,
            Object::EndpointSlice(slice) => &slice.metadata,
            Object::ReferenceGrant(grant) => &grant.metadata,
        }
    }

    /// Adds it to those of its kind.
    pub(super) fn add_to(self, resources: &mut Resources) {
        match self {
            Object::SniRoute(route) => resources.routes.push(*route),
            Object::Service(service) => resources.services.push(*service),
            Object::EndpointSlice(slice) => resources.slices.push(*slice),
            Object::ReferenceGrant(grant) => resources.grants.push(*grant),
        }
    }

    /// Gives it to a builder.
    pub(super) fn put_into(&self, builder: &mut Builder) {
        match self {
            Object::SniRoute(route) => builder.put_route(route),
            Object::Service(service) => builder.put_service(service),
            Object::EndpointSlice(slice) => builder.put_slice(slice),
            Object::ReferenceGrant(grant) => builder.put_grant(grant),
        }
    }
}

/// All objects of a file, or all that is wrong with it.
pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Vec<Parsed>, Vec<Fault>> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
        Err(error) => return Err(vec![not_text(file, bytes, error.valid_up_to())]),
    };
    let mut objects = Vec::new();
    let mut faults = Vec::new();
    for (first_line, text) in documents(text) {
        document::parse(file, first_line, Arc::from(text), &mut objects, &mut faults);
    }
    faults.extend(twice(file, &objects));
    if faults.is_empty() { Ok(objects) } else { Err(faults) }
}

fn not_text(file: &Path, bytes: &[u8], valid: usize) -> Fault {
    let line = 1 + bytes.iter().take(valid).filter(|&&byte| byte == b'\n').count();
    Fault {
        file: file.to_owned(),
        line: Some(line),
        object: None,
        field: None,
        message: "is not UTF-8 text".to_owned(),
    }
}

/// Objects that the file holds more than once.
fn twice(file: &Path, objects: &[Parsed]) -> Vec<Fault> {
    let mut seen: HashMap<_, &Parsed> = HashMap::new();
    let mut pairs = Vec::new();
    for parsed in objects {
        match seen.entry((parsed.object.kind(), &parsed.key)) {
            Entry::Vacant(entry) => _ = entry.insert(parsed),
            Entry::Occupied(entry) => pairs.push((*entry.get(), parsed)),
        }
    }
    pairs.truncate(MAX_FAULTS);
    let whole = FieldPath::default();
    let origins = pairs.iter().flat_map(|(first, second)| [&first.origin, &second.origin]);
    let lines = lines_of(&origins.map(|origin| (origin, &whole)).collect::<Vec<_>>());
    let fault = |((_, second), lines): (&(&Parsed, &Parsed), &[usize])| {
        let &[first, line] = lines else { return None };
        Some(Fault {
            file: file.to_owned(),
            line: Some(line),
            object: Some(format!("{} {}", second.object.kind(), second.key)),
            field: None,
            message: format!("is in this file twice, first in line {first}"),
        })
    };
    pairs.iter().zip(lines.chunks(2)).filter_map(fault).collect()
}
