//! What is known of one Secret or ConfigMap that routes name to serve TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;

use super::names::Rank;
use crate::termination::{Identity, IdentityFault, Roots, RootsFault};

/// An object, and the routes that name it.
#[derive(Debug, Default)]
pub(super) struct TlsObject {
    /// The routes that name it, by namespace.
    pub(super) users: BTreeMap<Arc<str>, BTreeSet<Rank>>,
    /// How many of them may refer to it, for its certificate and key, and for its authorities.
    pub(super) permitted: Permitted,
    /// Whether it was reported as wanted, and whether its key was.
    pub(super) wanted: bool,
    pub(super) key_wanted: bool,
    pub(super) content: TlsContent,
    /// Why it cannot be read now, if so.
    pub(super) unread: Option<Arc<str>>,
}

/// What is known of an object.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum TlsContent {
    /// Nothing so far.
    #[default]
    Unknown,
    /// It does not exist.
    Missing,
    /// What it has, where it has the entries for it.
    Read { identity: IdentityContent, roots: Option<Result<Arc<Roots>, RootsFault>> },
}

/// The certificate and key of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum IdentityContent {
    /// No route uses it: of an authority, that would be the key that signs. A ConfigMap never has one.
    NotKept,
    /// It lacks the entries.
    Missing,
    Read(Result<Arc<Identity>, IdentityFault>),
}

/// What a route uses of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UsedEntries {
    /// Its certificate and key.
    Identity,
    /// Its authorities.
    Authorities,
}

/// How many routes may use what of an object.
#[derive(Debug, Default)]
pub(super) struct Permitted {
    pub(super) identity: usize,
    pub(super) authorities: usize,
}

impl Permitted {
    pub(super) fn of(&mut self, entries: UsedEntries) -> &mut usize {
        match entries {
            UsedEntries::Identity => &mut self.identity,
            UsedEntries::Authorities => &mut self.authorities,
        }
    }

    pub(super) fn any(&self) -> bool {
        self.identity > 0 || self.authorities > 0
    }
}

/// What an object has for a route.
#[derive(Debug)]
pub(super) struct TlsEntry<T> {
    /// What it has now.
    pub(super) value: Option<Arc<T>>,
    /// What is wrong with it.
    pub(super) fault: Option<TlsFault>,
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TlsFault {
    #[error("was not read yet")]
    NotRead,
    #[error("cannot be read: {0}")]
    Unreadable(Arc<str>),
    #[error("does not exist")]
    Missing,
    #[error("lacks the entry tls.crt or tls.key; a Secret of type kubernetes.io/tls has both")]
    NoIdentity,
    #[error("has no entry ca.crt")]
    NoAuthorities,
    #[error("cannot be used: {0}")]
    Identity(IdentityFault),
    #[error("cannot be used: ca.crt {0}")]
    Roots(RootsFault),
}

impl TlsObject {
    /// Drops the key if no route uses it any more. Returns whether one does that was not kept before.
    pub(super) fn settle_key(&mut self, complete: bool) -> bool {
        let is_wanted = self.permitted.identity > 0;
        let was_wanted = mem::replace(&mut self.key_wanted, is_wanted);
        let TlsContent::Read { identity, .. } = &mut self.content else { return false };
        if !is_wanted && !complete {
            *identity = IdentityContent::NotKept;
        }
        !was_wanted && *identity == IdentityContent::NotKept && is_wanted
    }

    /// What it has for a route, of what `read` takes from its content. If the objects are `complete`, one of which nothing
    /// is known does not exist.
    pub(super) fn entry<T>(
        &self,
        complete: bool,
        read: impl Fn(&TlsContent) -> Result<Arc<T>, TlsFault>,
    ) -> TlsEntry<T> {
        let result = match &self.content {
            TlsContent::Unknown if complete => Err(TlsFault::Missing),
            TlsContent::Unknown => Err(TlsFault::NotRead),
            TlsContent::Missing => Err(TlsFault::Missing),
            content => read(content),
        };
        let (value, fault) = match result {
            Ok(value) => (Some(value), None),
            Err(fault) => (None, Some(fault)),
        };
        let unread = self.unread.clone().map(TlsFault::Unreadable);
        TlsEntry { value, fault: unread.or(fault) }
    }

    /// Whether routes wait for it: what they use was neither read, nor reported as missing or unreadable.
    pub(super) fn is_pending(&self) -> bool {
        let lacks = match &self.content {
            TlsContent::Unknown => self.permitted.any(),
            TlsContent::Read { identity: IdentityContent::NotKept, .. } => {
                self.permitted.identity > 0
            }
            _ => false,
        };
        lacks && self.unread.is_none()
    }
}
