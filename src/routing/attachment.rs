//! Attachments of routes: their listeners, and their hostnames there.

use smallvec::SmallVec;

use super::hostnames::HostnameOffset;
use super::{Hostname, Hostnames, ObjectKey};

/// A set of listeners among which hostnames conflict. The same hostname in two scopes is two hostnames.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The listeners of the configuration.
    #[default]
    Config,
    /// The listeners of one Gateway.
    Gateway(ObjectKey),
}

/// A reference to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerRef<'l> {
    /// Its scope.
    pub scope: &'l Scope,
    /// Its name in the scope.
    pub name: &'l str,
}

/// A listener of the configuration.
impl<'l> From<&'l str> for ListenerRef<'l> {
    fn from(name: &'l str) -> Self {
        ListenerRef { scope: &Scope::Config, name }
    }
}

/// The listeners of one scope that have a route, and the hostnames that the route has there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The scope.
    pub scope: Scope,
    /// The names of the listeners; empty means all of the scope.
    pub listeners: Vec<Box<str>>,
    /// The hostnames.
    pub hostnames: Hostnames,
}

/// The attachments of a route. Nearly all routes have one, which is stored inline for fast lookups.
pub type Attachments = SmallVec<[Attachment; 1]>;

/// The place of a hostname in a route: the attachment, and the offset there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClaimPlace(u32);

impl ClaimPlace {
    /// The number of bits for the offset in the attachment: 16 MiB of hostnames. The other bits are the
    /// attachment's number.
    const BITS: u32 = 24;

    /// The place `place` in the attachment with this number. `None` if a number is too large.
    pub(super) fn new(attachment: usize, place: HostnameOffset) -> Option<Self> {
        let attachment = u32::try_from(attachment).ok()?;
        let fits = attachment >> (u32::BITS - Self::BITS) == 0 && place.0 >> Self::BITS == 0;
        fits.then_some(ClaimPlace(attachment << Self::BITS | place.0))
    }

    /// The number of the attachment.
    pub(super) fn attachment(self) -> usize {
        (self.0 >> Self::BITS) as usize
    }

    /// The offset in the attachment.
    pub(super) fn place(self) -> HostnameOffset {
        HostnameOffset(self.0 & ((1 << Self::BITS) - 1))
    }
}

impl Attachment {
    /// An attachment to all listeners of a scope.
    pub fn to_all(scope: Scope, hostnames: Hostnames) -> Self {
        Attachment { scope, listeners: Vec::new(), hostnames }
    }

    /// Whether it includes this listener.
    pub fn is_to(&self, listener: ListenerRef<'_>) -> bool {
        self.scope == *listener.scope && self.names(listener.name)
    }

    /// Like [`Attachment::is_to`], for a listener of the same scope.
    pub(super) fn names(&self, listener: &str) -> bool {
        self.listeners.is_empty() || self.listeners.iter().any(|name| **name == *listener)
    }

    /// Whether a hostname of this attachment is served on a listener. `*` may belong to another route there.
    pub fn has(&self, hostname: Hostname<&str>, listener: &str) -> bool {
        self.names(listener) && (hostname != Hostname::Any || self.hostnames.any_on().has(listener))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_can_store_the_maximum_of_each_number() {
        let largest = (1 << ClaimPlace::BITS) - 1;
        for (attachment, place) in [(0, 0), (255, largest), (7, 5)] {
            let claim = ClaimPlace::new(attachment, HostnameOffset(place)).expect("there is room");
            assert_eq!((claim.attachment(), claim.place()), (attachment, HostnameOffset(place)));
        }
        assert_eq!(ClaimPlace::new(256, HostnameOffset(0)), None);
        assert_eq!(ClaimPlace::new(0, HostnameOffset(largest + 1)), None);
    }
}
