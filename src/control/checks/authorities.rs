//! The certificates of authorities, in ConfigMaps that routes name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use ahash::AHashMap as HashMap;
use arc_swap::ArcSwap;

use super::verdicts::ChainVerdicts;
use crate::routing::{CheckMethod, Interned, ObjectKey, Table};
use crate::termination::{Roots, RootsFault};

/// The key of a ConfigMap that has the certificates, in PEM.
pub const CA_KEY: &str = "ca.crt";
/// The most ConfigMaps that the routes of one namespace may name. Each is read again and again.
const MOST_OF_A_NAMESPACE: usize = 32;

/// The authorities of a ConfigMap, or why there are none.
pub type Authority = Result<Arc<Roots>, AuthorityFault>;

/// Why a ConfigMap has no authorities.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthorityFault {
    /// It does not exist.
    #[error("there is no such ConfigMap")]
    Missing,
    /// It lacks the key with the certificates.
    #[error("its key {CA_KEY} is missing")]
    NoKey,
    /// It has no certificates.
    #[error("its key {CA_KEY} {0}")]
    Invalid(#[from] RootsFault),
    /// It could not be read. The text is the cause, for people.
    #[error("it cannot be read: {0}")]
    NotRead(Arc<str>),
    /// The routes of its namespace name too many.
    #[error(
        "it is not read, because the routes of its namespace name more than {MOST_OF_A_NAMESPACE} ConfigMaps"
    )]
    TooMany,
}

/// The authorities of all ConfigMaps that are known, and their verdicts. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Authorities {
    known: Arc<ArcSwap<KnownAuthorities>>,
    /// Equal ones are the same, whatever ConfigMaps they are in and however often these are read.
    roots: Arc<Mutex<Interned<Roots>>>,
    verdicts: Arc<ChainVerdicts>,
}

/// The authorities of ConfigMaps.
#[derive(Clone, Debug, Default)]
pub struct KnownAuthorities {
    /// By ConfigMap.
    pub by_config_map: HashMap<ObjectKey, Authority>,
    /// Whether there are no other ConfigMaps.
    pub complete: bool,
}

impl Authorities {
    /// Those of a ConfigMap; `None` if it was not read yet.
    pub(in crate::control) fn get(&self, config_map: &ObjectKey) -> Option<Authority> {
        let known = self.known.load();
        let absent = || known.complete.then_some(Err(AuthorityFault::Missing));
        known.by_config_map.get(config_map).cloned().or_else(absent)
    }

    /// Replaces all.
    pub fn set(&self, mut known: KnownAuthorities) {
        let former = self.known.load();
        for (config_map, authority) in &mut known.by_config_map {
            let Ok(roots) = authority else { continue };
            let is_former =
                |former: &Authority| former.as_ref().is_ok_and(|one| Arc::ptr_eq(one, roots));
            if !former.by_config_map.get(config_map).is_some_and(is_former) {
                *roots = self.shared(Arc::clone(roots));
            }
        }
        self.known.store(Arc::new(known));
    }

    /// Those that equal these.
    pub fn shared(&self, roots: Arc<Roots>) -> Arc<Roots> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner).shared(roots)
    }

    /// What they have said about chains.
    pub(super) fn verdicts(&self) -> &ChainVerdicts {
        &self.verdicts
    }
}

/// The authorities in the data of a ConfigMap.
pub fn authority(data: Option<&BTreeMap<String, String>>) -> Authority {
    let text = data.and_then(|data| data.get(CA_KEY)).ok_or(AuthorityFault::NoKey)?;
    Ok(Roots::from_pem(text.as_bytes())?)
}

/// The ConfigMaps that the checks of a table need, and those that are beyond the most of a namespace.
pub fn named_config_maps(table: &Table) -> (BTreeSet<ObjectKey>, BTreeSet<ObjectKey>) {
    let named = table.routes().filter_map(|route| match &route.check.as_ref()?.method {
        CheckMethod::Tls(tls) => tls.ca.clone(),
        CheckMethod::Tcp => None,
    });
    let mut of_namespaces: HashMap<Box<str>, usize> = HashMap::new();
    named.collect::<BTreeSet<_>>().into_iter().partition(|config_map: &ObjectKey| {
        let count = of_namespaces.entry(config_map.namespace().into()).or_default();
        *count += 1;
        *count <= MOST_OF_A_NAMESPACE
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::super::fixture::{route_with, table};
    use super::*;

    fn of(text: &str) -> Authority {
        authority(Some(&[(CA_KEY.to_owned(), text.to_owned())].into()))
    }

    fn fault(text: &str) -> String {
        of(text).unwrap_err().to_string()
    }

    #[test]
    fn certificates_are_read_and_other_texts_are_told() {
        let key = KeyPair::generate().unwrap();
        let pem = CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem();
        assert_eq!(of(&pem).unwrap().store().len(), 1);
        assert_eq!(fault(""), "its key ca.crt has no certificate");
        let other = [("tls.crt".to_owned(), pem)].into();
        assert_eq!(authority(Some(&other)).unwrap_err().to_string(), "its key ca.crt is missing");
        assert_eq!(authority(None), Err(AuthorityFault::NoKey));
    }

    #[test]
    fn a_namespace_names_a_bounded_number_of_config_maps() {
        let active = |ca: &str| serde_json::json!({ "type": "TLS", "verify": "Enforce", "ca": { "configMap": ca } });
        let mut routes: Vec<_> = (0..40)
            .map(|number| {
                route_with(&format!("a/r{number}"), &["x"], active(&format!("ca{number:02}")))
            })
            .collect();
        routes.push(route_with("b/r", &["x"], active("ca00")));
        routes.push(route_with("b/s", &["x"], active("ca00")));
        let (_, reader) = table(routes, &[("x", &[])]);
        let (read, beyond) = named_config_maps(&reader.table());
        assert_eq!((read.len(), beyond.len()), (MOST_OF_A_NAMESPACE + 1, 8));
        assert!(read.contains(&ObjectKey::new("b", "ca00")));
        assert!(beyond.contains(&ObjectKey::new("a", "ca39")));
    }

    #[test]
    fn equal_authorities_are_the_same_in_all_config_maps_and_when_they_are_read_again() {
        let certificate = || {
            let key = KeyPair::generate().unwrap();
            CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem()
        };
        let (authorities, one, other) = (Authorities::default(), certificate(), certificate());
        let set = |texts: &[&str]| {
            let read = texts.iter().enumerate();
            let read =
                read.map(|(index, text)| (ObjectKey::new("a", &index.to_string()), of(text)));
            let by_config_map = read.collect();
            authorities.set(KnownAuthorities { by_config_map, complete: true });
            let roots = |index| authorities.get(&ObjectKey::new("a", &format!("{index}")));
            (0..texts.len()).map(|index| roots(index).unwrap().unwrap()).collect::<Vec<_>>()
        };
        let first = set(&[&one, &other, &one]);
        assert!(Arc::ptr_eq(&first[0], &first[2]) && !Arc::ptr_eq(&first[0], &first[1]));
        let again = set(&[&other, &one]);
        assert!(Arc::ptr_eq(&first[0], &again[1]) && Arc::ptr_eq(&first[1], &again[0]));
    }

    #[test]
    fn a_config_map_that_is_not_there_is_missing_only_if_all_are_known() {
        let (authorities, key) = (Authorities::default(), ObjectKey::new("a", "ca"));
        assert_eq!(authorities.get(&key).map(|known| known.unwrap_err()), None);
        authorities.set(KnownAuthorities { complete: true, ..KnownAuthorities::default() });
        let known = authorities.get(&key).map(|known| known.unwrap_err());
        assert_eq!(known, Some(AuthorityFault::Missing));
    }
}
