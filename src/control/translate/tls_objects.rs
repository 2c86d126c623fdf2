//! The Secrets and ConfigMaps that routes name to serve TLS, and what is in them.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;

use ahash::{AHashMap as HashMap, AHashSet as HashSet};

use super::named_objects::NamedObjects;
use super::names::Rank;
use super::shared_identities::SharedIdentities;
use super::tls_object::{IdentityContent, TlsContent, TlsEntry, TlsFault, TlsObject, UsedEntries};
use crate::control::api::SecretData;
use crate::routing::{Interned, ObjectRef, RouteKey};
use crate::termination::{CertificateFacts, Identity, Roots, RootsFault};

/// Changes of the Secrets and ConfigMaps that are to be read: those that routes name and may refer to. Without the
/// permission by a grant, an object of another namespace is never read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferenceChanges {
    /// New ones, in no order, and those that are to be read anew. Their content is awaited: [`Builder::put_secret`](super::Builder::put_secret) and its
    /// kind.
    pub wanted: Vec<ObjectRef>,
    /// Those that are no longer used, in no order, and those that are to be read anew. They come before `wanted`.
    pub unwanted: Vec<ObjectRef>,
}

/// The objects to which a route may refer, each with what it uses of them.
pub(super) type PermittedObjects = BTreeSet<(ObjectRef, UsedEntries)>;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct TlsObjects {
    known: HashMap<ObjectRef, TlsObject>,
    /// What routes name, by their namespace.
    named: HashMap<Arc<str>, NamedObjects>,
    /// Objects whose permitted users, or whose content, have changed.
    touched: HashSet<ObjectRef>,
    /// Objects with new content.
    news: HashSet<ObjectRef>,
    /// Objects that are beyond the most of a namespace and were not, or the reverse.
    crossed: BTreeSet<(Arc<str>, ObjectRef)>,
    /// Whether an object that was not put does not exist.
    complete: bool,
    /// Equal ones are the same, whatever objects they are in and however often these are put.
    identities: SharedIdentities,
    roots: Interned<Roots>,
    /// The time in seconds since 1970.
    now: i64,
}

impl TlsObjects {
    pub(super) fn new(complete: bool) -> Self {
        TlsObjects { complete, ..TlsObjects::default() }
    }

    /// Adds a route that names an object.
    pub(super) fn add_user(&mut self, object: &ObjectRef, rank: &Rank) {
        self.change_users(object, rank.route.namespace(), |users| _ = users.insert(rank.clone()));
    }

    /// Removes a route that named an object.
    pub(super) fn remove_user(&mut self, object: &ObjectRef, rank: &Rank) {
        self.touched.insert(object.clone());
        self.change_users(object, rank.route.namespace(), |users| _ = users.remove(rank));
    }

    /// Changes the routes of a namespace that name an object, and with that its place among those of the namespace.
    fn change_users(
        &mut self,
        object: &ObjectRef,
        namespace: &str,
        change: impl FnOnce(&mut BTreeSet<Rank>),
    ) {
        let known = self.known.entry(object.clone()).or_default();
        let (namespace, mut users) = known
            .users
            .remove_entry(namespace)
            .unwrap_or_else(|| (namespace.into(), BTreeSet::new()));
        let before = users.first().cloned();
        change(&mut users);
        let now = users.first().cloned();
        if !users.is_empty() {
            known.users.insert(Arc::clone(&namespace), users);
        }
        let named = self.named.entry(Arc::clone(&namespace)).or_default();
        named.move_object(object, before, now, |crossed| {
            let crossed = (Arc::clone(&namespace), crossed.clone());
            // There and back is no change.
            if !self.crossed.remove(&crossed) {
                self.crossed.insert(crossed);
            }
        });
        if named.is_nothing() {
            self.named.remove(&namespace);
        }
    }

    /// The routes that name the next object that is beyond the most of their namespace and was not, or the reverse.
    pub(super) fn settle_crossed(&mut self) -> Option<impl Iterator<Item = &RouteKey>> {
        let (namespace, object) = self.crossed.pop_first()?;
        let users = self.known.get(&object).and_then(|known| known.users.get(&namespace));
        Some(users.into_iter().flatten().map(|rank| &rank.route))
    }

    /// Whether an object is beyond the most that the routes of a namespace may name.
    pub(super) fn is_beyond(&self, namespace: &str, object: &ObjectRef) -> bool {
        self.named.get(namespace).is_some_and(|named| named.is_beyond(object))
    }

    /// Replaces the objects to which a route may refer: `before` by `now`.
    pub(super) fn set_permitted(&mut self, before: &PermittedObjects, now: &PermittedObjects) {
        for (object, entries) in before.difference(now) {
            if let Some(known) = self.known.get_mut(object) {
                let count = known.permitted.of(*entries);
                *count = count.saturating_sub(1);
                self.touched.insert(object.clone());
            }
        }
        for (object, entries) in now.difference(before) {
            *self.known.entry(object.clone()).or_default().permitted.of(*entries) += 1;
            self.touched.insert(object.clone());
        }
    }

    /// Whether the content of an object is stored. No key is, that no route may use. One that is reported as wanted is
    /// read once only: until [`TlsObjects::settle`] says otherwise, no route may be known to use it for a moment.
    pub(super) fn stores(&self, object: &ObjectRef) -> bool {
        let is_used = |known: &TlsObject| known.permitted.any() || known.wanted;
        self.complete || self.known.get(object).is_some_and(is_used)
    }

    /// Whether the key of a Secret is stored, likewise.
    fn stores_key(&self, secret: &ObjectRef) -> bool {
        let is_used = |known: &TlsObject| known.permitted.identity > 0 || known.key_wanted;
        self.complete || self.known.get(secret).is_some_and(is_used)
    }

    /// Stores what a Secret has.
    pub(super) fn put_secret(&mut self, secret: ObjectRef, data: &SecretData) {
        let [chain, key, authorities] = SecretData::KEYS.map(|key| data.get(key));
        let identity = match (chain, key) {
            _ if !self.stores_key(&secret) => IdentityContent::NotKept,
            (Some(chain), Some(key)) => {
                let read = Identity::from_pem(chain, key);
                IdentityContent::Read(read.map(|one| self.identities.shared(one)))
            }
            _ => IdentityContent::Missing,
        };
        let content =
            TlsContent::Read { identity, roots: authorities.map(|text| self.roots(text)) };
        self.set(secret, content);
    }

    /// Stores what a ConfigMap has.
    pub(super) fn put_config_map(&mut self, config_map: ObjectRef, authorities: Option<&str>) {
        let roots = authorities.map(|text| self.roots(text.as_bytes()));
        self.set(config_map, TlsContent::Read { identity: IdentityContent::NotKept, roots });
    }

    fn roots(&mut self, text: &[u8]) -> Result<Arc<Roots>, RootsFault> {
        Roots::from_pem(text).map(|roots| self.roots.shared(roots))
    }

    /// Stores that an object does not exist.
    pub(super) fn remove(&mut self, object: ObjectRef) {
        self.set(object, TlsContent::Missing);
    }

    fn set(&mut self, object: ObjectRef, content: TlsContent) {
        if !self.stores(&object) {
            return;
        }
        let known = self.known.entry(object.clone()).or_default();
        let was_unread = known.unread.take().is_some();
        if known.content != content || was_unread {
            known.content = content;
            self.touched.insert(object.clone());
            self.news.insert(object);
        }
    }

    /// Stores that an object cannot be read now.
    pub(super) fn set_unread(&mut self, object: &ObjectRef, cause: &str) {
        if self.stores(object) {
            let known = self.known.entry(object.clone()).or_default();
            if known.unread.as_deref() != Some(cause) {
                known.unread = Some(cause.into());
                self.news.insert(object.clone());
            }
        }
    }

    /// Sets the time. Certificates that became valid, or expired, since the last time are news.
    /// Returns whether there are any.
    pub(super) fn set_time(&mut self, now: i64) -> bool {
        let before = mem::replace(&mut self.now, now);
        let passed = |time: i64| before < time && time <= now;
        let news = self.known.iter().filter(|(_, known)| match &known.content {
            TlsContent::Read { identity: IdentityContent::Read(Ok(identity)), .. } => {
                let CertificateFacts { not_before, not_after, .. } = **identity.facts();
                passed(not_before) || passed(not_after.saturating_add(1))
            }
            _ => false,
        });
        let news: Vec<_> = news.map(|(object, _)| object.clone()).collect();
        let has_news = !news.is_empty();
        self.news.extend(news);
        has_news
    }

    /// The time in seconds since 1970.
    pub(super) fn now(&self) -> i64 {
        self.now
    }

    /// Whether an object that routes may use was neither read, nor reported as missing or unreadable.
    pub(super) fn is_pending(&self) -> bool {
        !self.complete && self.known.values().any(TlsObject::is_pending)
    }

    /// The certificate and key of a Secret.
    pub(super) fn identity(&self, secret: &ObjectRef) -> TlsEntry<Identity> {
        self.found(secret, |content| match content {
            TlsContent::Read { identity: IdentityContent::Read(identity), .. } => {
                identity.clone().map_err(TlsFault::Identity)
            }
            TlsContent::Read { identity: IdentityContent::NotKept, .. } => Err(TlsFault::NotRead),
            _ => Err(TlsFault::NoIdentity),
        })
    }

    /// The authorities of a Secret or ConfigMap.
    pub(super) fn authorities(&self, object: &ObjectRef) -> TlsEntry<Roots> {
        self.found(object, |content| match content {
            TlsContent::Read { roots: Some(roots), .. } => roots.clone().map_err(TlsFault::Roots),
            _ => Err(TlsFault::NoAuthorities),
        })
    }

    fn found<T>(
        &self,
        object: &ObjectRef,
        read: impl Fn(&TlsContent) -> Result<Arc<T>, TlsFault>,
    ) -> TlsEntry<T> {
        let unknown = TlsObject::default();
        self.known.get(object).unwrap_or(&unknown).entry(self.complete, read)
    }

    /// Takes the objects with new content.
    pub(super) fn take_news(&mut self) -> Vec<ObjectRef> {
        self.news.drain().collect()
    }

    /// The routes that name an object.
    pub(super) fn users(&self, object: &ObjectRef) -> impl Iterator<Item = &RouteKey> {
        let users = self.known.get(object).into_iter().flat_map(|known| known.users.values());
        users.flatten().map(|rank| &rank.route)
    }

    /// The changes since the last call. Drops what no route may use.
    pub(super) fn settle(&mut self) -> ReferenceChanges {
        let mut changes = ReferenceChanges::default();
        for object in self.touched.drain() {
            let Some(known) = self.known.get_mut(&object) else { continue };
            let is_wanted = known.permitted.any();
            if !is_wanted && !self.complete {
                (known.content, known.unread) = (TlsContent::Unknown, None);
            }
            let was_wanted = mem::replace(&mut known.wanted, is_wanted);
            let lacks_key = known.settle_key(self.complete);
            let has_content = matches!(known.content, TlsContent::Read { .. });
            if !is_wanted && known.users.is_empty() && !has_content {
                self.known.remove(&object);
            }
            match (was_wanted, is_wanted) {
                (false, true) => changes.wanted.push(object),
                (true, false) => changes.unwanted.push(object),
                // It is read anew.
                (true, true) if lacks_key => {
                    changes.unwanted.push(object.clone());
                    changes.wanted.push(object);
                }
                _ => {}
            }
        }
        changes
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty() && self.named.is_empty()
    }
}
