//! The hostnames of a route.

use std::fmt::{self, Write};
use std::sync::Arc;

use super::Hostname;

/// The hostnames of a route, in the route's order.
///
/// They are stored in one text, which clones share. A table may have a million hostnames, and points into
/// these texts.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hostnames {
    /// The hostnames, separated by spaces.
    text: Arc<str>,
    /// `None` means [`AnyOn::All`].
    any_on: Option<Arc<AnyOn>>,
}

/// The listeners on which a route has `*`. Its other hostnames apply to all its listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AnyOn {
    /// All listeners.
    #[default]
    All,
    /// Only these listeners.
    Only(Box<[Box<str>]>),
    /// All listeners except these.
    Except(Box<[Box<str>]>),
}

impl AnyOn {
    /// Whether the listener is included.
    pub fn has(&self, listener: &str) -> bool {
        let among = |some: &[Box<str>]| some.iter().any(|name| **name == *listener);
        match self {
            AnyOn::All => true,
            AnyOn::Only(some) => among(some),
            AnyOn::Except(some) => !among(some),
        }
    }

    /// Whether listeners are included that are not named here.
    pub(super) fn has_others(&self) -> bool {
        !matches!(self, AnyOn::Only(_))
    }
}

impl Hostnames {
    /// All hostnames.
    pub fn iter(&self) -> impl Iterator<Item = Hostname<&str>> {
        self.texts().map(Hostname::shown_as)
    }

    /// The number of hostnames.
    pub fn len(&self) -> usize {
        self.texts().count()
    }

    /// Whether there are no hostnames.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Whether the hostname is included.
    pub fn contains<S: AsRef<str>>(&self, hostname: &Hostname<S>) -> bool {
        self.iter().any(|own| own == hostname.borrowed())
    }

    /// The listeners on which the route has `*`, if `*` is included.
    pub fn any_on(&self) -> &AnyOn {
        self.any_on.as_deref().unwrap_or(&AnyOn::All)
    }

    /// The same hostnames, with `*` only on these listeners.
    pub fn with_any_on(self, any_on: AnyOn) -> Self {
        let any_on = (any_on != AnyOn::All).then(|| Arc::new(any_on));
        Hostnames { any_on, ..self }
    }

    /// All hostnames with their offsets.
    pub(super) fn places(&self) -> impl Iterator<Item = (HostnameOffset, Hostname<&str>)> {
        let mut next = 0;
        self.texts().map(move |text| {
            let place = HostnameOffset(next);
            // Hostnames beyond 4 GiB of text have invalid offsets.
            let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
            next = next.saturating_add(length).saturating_add(1);
            (place, Hostname::shown_as(text))
        })
    }

    /// The hostname at an offset from [`Hostnames::places`].
    pub(super) fn at(&self, place: HostnameOffset) -> Hostname<&str> {
        let rest = usize::try_from(place.0).ok().and_then(|start| self.text.get(start..));
        let text = rest.and_then(|rest| rest.split(' ').next());
        Hostname::shown_as(text.unwrap_or_default())
    }

    /// The name or suffix at this offset.
    pub(super) fn text_at(&self, place: HostnameOffset) -> &str {
        match self.at(place) {
            Hostname::Any => "",
            Hostname::Wildcard(text) | Hostname::Exact(text) => text,
        }
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.text.split(' ').filter(|text| !text.is_empty())
    }
}

/// The offset of a hostname in the text of [`Hostnames`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostnameOffset(pub(super) u32);

impl<S: AsRef<str>> From<Hostname<S>> for Hostnames {
    fn from(hostname: Hostname<S>) -> Self {
        Hostnames::from_iter([hostname])
    }
}

impl<S: AsRef<str>> FromIterator<Hostname<S>> for Hostnames {
    fn from_iter<I: IntoIterator<Item = Hostname<S>>>(hostnames: I) -> Self {
        let mut text = String::new();
        for hostname in hostnames {
            let space = if text.is_empty() { "" } else { " " };
            // Writing to a String cannot fail.
            _ = write!(text, "{space}{hostname}");
        }
        Hostnames { text: text.into(), any_on: None }
    }
}

impl fmt::Debug for Hostnames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.texts()).finish()?;
        match self.any_on() {
            AnyOn::All => Ok(()),
            some => write!(f, " * on {some:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostnames(texts: &[&str]) -> Hostnames {
        texts.iter().map(|text| text.parse::<Hostname>().expect("a hostname")).collect()
    }

    #[test]
    fn hostnames_keep_their_order() {
        let all = ["b.com", "*.a.com", "*", "a.com"];
        let packed = hostnames(&all);
        assert_eq!(packed.iter().map(|hostname| hostname.to_string()).collect::<Vec<_>>(), all);
        assert_eq!(packed.len(), 4);
        assert!(packed.contains(&Hostname::Wildcard("a.com")));
        assert!(!packed.contains(&Hostname::Wildcard("b.com")));
        assert!(!packed.is_empty() && hostnames(&[]).is_empty());
        assert_eq!(hostnames(&[]).iter().count(), 0);
    }

    #[test]
    fn each_hostname_is_found_at_its_offset() {
        let packed = hostnames(&["b.com", "*.a.com", "*", "a.com"]);
        assert_eq!(packed.places().count(), 4);
        for (place, hostname) in packed.places() {
            assert_eq!(packed.at(place), hostname);
        }
    }
}
