//! The ConfigMaps with the authorities of active health checks.

use std::collections::BTreeSet;

use ahash::AHashMap as HashMap;

use super::read::ReferenceContent;
use crate::control::checks::{
    Authorities, Authority, AuthorityFault, KnownAuthorities, authority, named_config_maps,
};
use crate::routing::{ObjectKey, Table};

/// The ConfigMaps that checks need, and what is known of them.
pub(super) struct CheckedConfigMaps {
    authorities: Authorities,
    /// Those that are read.
    named: BTreeSet<ObjectKey>,
    /// Those beyond the most of their namespace, which are not.
    beyond: BTreeSet<ObjectKey>,
    read: HashMap<ObjectKey, Authority>,
    /// What was published last.
    published: Option<HashMap<ObjectKey, Authority>>,
}

/// Changes of the ConfigMaps that checks need.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct CheckedChanges {
    pub(super) wanted: Vec<ObjectKey>,
    pub(super) unwanted: Vec<ObjectKey>,
}

impl CheckedConfigMaps {
    pub(super) fn new(authorities: Authorities) -> Self {
        CheckedConfigMaps {
            authorities,
            named: BTreeSet::new(),
            beyond: BTreeSet::new(),
            read: HashMap::new(),
            published: None,
        }
    }

    /// Takes the names from a table.
    pub(super) fn name(&mut self, table: &Table) -> CheckedChanges {
        let (named, beyond) = named_config_maps(table);
        self.set_named(named, beyond)
    }

    fn set_named(
        &mut self,
        named: BTreeSet<ObjectKey>,
        beyond: BTreeSet<ObjectKey>,
    ) -> CheckedChanges {
        let changes = CheckedChanges {
            wanted: named.difference(&self.named).cloned().collect(),
            unwanted: self.named.difference(&named).cloned().collect(),
        };
        (self.named, self.beyond) = (named, beyond);
        self.read.retain(|key, _| self.named.contains(key));
        changes
    }

    /// Takes what a read has brought. If it failed, what was read before stays.
    pub(super) fn take(&mut self, config_map: &ObjectKey, content: &ReferenceContent) {
        let now = match content {
            ReferenceContent::ConfigMap(data) => {
                authority(data.as_ref()).map(|roots| self.authorities.shared(roots))
            }
            ReferenceContent::Unread { cause, .. } => {
                if self.read.get(config_map).is_some_and(Result::is_ok) {
                    return;
                }
                Err(AuthorityFault::NotRead((*cause).into()))
            }
            ReferenceContent::Missing | ReferenceContent::Secret(_) => Err(AuthorityFault::Missing),
        };
        if self.named.contains(config_map) {
            self.read.insert(config_map.clone(), now);
        }
    }

    /// Publishes what has changed, once each one has been read: until then, what others have read is still in force.
    pub(super) fn publish(&mut self) {
        let is_whole = self.named.iter().all(|key| self.read.contains_key(key));
        if !is_whole && self.published.is_none() {
            return;
        }
        let read = self.read.iter().map(|(key, authority)| (key.clone(), authority.clone()));
        let beyond = self.beyond.iter().map(|key| (key.clone(), Err(AuthorityFault::TooMany)));
        let known: HashMap<_, _> = read.chain(beyond).collect();
        if self.published.as_ref() != Some(&known) {
            self.published = Some(known.clone());
            self.authorities.set(KnownAuthorities { by_config_map: known, complete: false });
        }
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("ns", name)
    }

    /// What is in force.
    fn published(authorities: &Authorities, name: &str) -> Option<Authority> {
        authorities.get(&key(name))
    }

    fn followed() -> (CheckedConfigMaps, Authorities) {
        let authorities = Authorities::default();
        (CheckedConfigMaps::new(authorities.clone()), authorities)
    }

    #[test]
    fn one_that_was_beyond_the_most_is_read_once_there_is_room() {
        let (mut followed, authorities) = followed();
        followed.set_named([key("a")].into(), [key("b")].into());
        followed.take(&key("a"), &ReferenceContent::Missing);
        followed.publish();
        assert_eq!(published(&authorities, "b").expect("b").err(), Some(AuthorityFault::TooMany));
        let changes = followed.set_named([key("b")].into(), [].into());
        assert_eq!((changes.wanted, changes.unwanted), (vec![key("b")], vec![key("a")]));
        followed.publish();
        assert!(published(&authorities, "b").is_none(), "it counts as not read yet");
    }

    #[test]
    fn one_that_falls_beyond_the_most_is_told() {
        let (mut followed, authorities) = followed();
        followed.set_named([key("a")].into(), [].into());
        followed.take(&key("a"), &ReferenceContent::Missing);
        followed.publish();
        followed.set_named([].into(), [key("a")].into());
        followed.publish();
        assert_eq!(published(&authorities, "a").expect("a").err(), Some(AuthorityFault::TooMany));
    }

    /// A source that starts again has read nothing, and what the one before has read is still right.
    #[test]
    fn nothing_is_published_before_each_was_read() {
        let (mut followed, authorities) = followed();
        authorities.set(KnownAuthorities {
            by_config_map: [(key("b"), Err(AuthorityFault::Missing))].into_iter().collect(),
            complete: false,
        });
        followed.set_named([key("a"), key("b")].into(), [].into());
        followed.take(&key("a"), &ReferenceContent::Missing);
        followed.publish();
        assert!(published(&authorities, "b").is_some());
        let unread =
            ReferenceContent::Unread { cause: "x", detail: String::new(), forbidden: true };
        followed.take(&key("b"), &unread);
        followed.publish();
        let fault = published(&authorities, "b").expect("b").err();
        assert_eq!(fault, Some(AuthorityFault::NotRead("x".into())));
    }

    #[test]
    fn what_was_read_stays_if_it_cannot_be_read_again() {
        let (mut followed, authorities) = followed();
        followed.set_named([key("a")].into(), [].into());
        let unread =
            ReferenceContent::Unread { cause: "x", detail: String::new(), forbidden: true };
        followed.take(&key("a"), &unread);
        followed.publish();
        let fault = published(&authorities, "a").expect("a").err();
        assert_eq!(fault, Some(AuthorityFault::NotRead("x".into())));
        let pem = rcgen::CertificateParams::new(Vec::new())
            .and_then(|params| params.self_signed(&rcgen::KeyPair::generate()?))
            .expect("a certificate")
            .pem();
        let data = [("ca.crt".to_owned(), pem)].into();
        followed.take(&key("a"), &ReferenceContent::ConfigMap(Some(data)));
        followed.take(&key("a"), &unread);
        followed.publish();
        assert!(published(&authorities, "a").expect("a").is_ok());
    }
}
