//! The hostnames that routes claim.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The longest name in characters, without the trailing dot (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
/// The longest label in characters (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// A hostname as a route claims it: an exact name, a wildcard, or `*`.
///
/// It is normalised: lower case, without a trailing dot. It owns its text; a `Hostname<&str>` borrows it.
///
/// The order is the precedence: if two hostnames match a name, the greater one wins. An exact name beats
/// every wildcard, a wildcard with more labels beats one with fewer, and [`Hostname::Any`] loses to all.
/// Hostnames of equal precedence cannot match the same name unless they are equal; they are ordered by text,
/// so that the order is total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hostname<S = Arc<str>> {
    /// `*`: any name, and connections without a name.
    Any,
    /// `*.example.com`, stored as its suffix `example.com`. Matches one or more labels before the suffix,
    /// never the suffix itself.
    Wildcard(S),
    /// `www.example.com`: only this name.
    Exact(S),
}

/// Why a text is not a [`Hostname`]. Each message contains the correction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHostname {
    /// The text is empty.
    #[error("a hostname is empty; write a name, a wildcard such as *.example.com, or * for any")]
    Empty,
    /// The name is longer than DNS allows.
    #[error("hostname {0:?} is longer than 253 characters")]
    TooLong(String),
    /// Two dots in a row, or a dot at the start.
    #[error("hostname {0:?} has an empty label")]
    EmptyLabel(String),
    /// A label is longer than DNS allows.
    #[error("hostname {name:?}: label {label:?} is longer than 63 characters")]
    LabelTooLong {
        /// The whole name.
        name: String,
        /// The label at fault.
        label: String,
    },
    /// A label begins or ends with a hyphen.
    #[error("hostname {name:?}: label {label:?} begins or ends with a hyphen")]
    Hyphen {
        /// The whole name.
        name: String,
        /// The label at fault.
        label: String,
    },
    /// A character that is not allowed in server names.
    #[error(
        "hostname {name:?} has the character {character:?}; allowed are a-z, 0-9, '-' and '_' \
         (write international names in their xn-- form, and no port)"
    )]
    Character {
        /// The whole name.
        name: String,
        /// The first character at fault.
        character: char,
    },
    /// A `*` that is not the whole first label.
    #[error(
        "hostname {0:?}: '*' may only stand alone or as the whole first label, as in *.example.com"
    )]
    Wildcard(String),
    /// An IP address, which a client never sends as a server name (RFC 6066 §3).
    #[error(
        "hostname {0:?} is an IP address; TLS clients send no server name for those: use * instead"
    )]
    IpAddress(String),
}

impl<'t> Hostname<&'t str> {
    /// The hostname with this text, which must be normalised.
    pub(super) fn shown_as(text: &'t str) -> Self {
        match text.strip_prefix("*.") {
            Some(suffix) => Hostname::Wildcard(suffix),
            None if text == "*" => Hostname::Any,
            None => Hostname::Exact(text),
        }
    }

    /// The same hostname, with its own text.
    pub fn owned(self) -> Hostname {
        match self {
            Hostname::Any => Hostname::Any,
            Hostname::Wildcard(suffix) => Hostname::Wildcard(suffix.into()),
            Hostname::Exact(name) => Hostname::Exact(name.into()),
        }
    }
}

impl<S: AsRef<str>> Hostname<S> {
    /// The same hostname, borrowing its text.
    pub fn borrowed(&self) -> Hostname<&str> {
        match self {
            Hostname::Any => Hostname::Any,
            Hostname::Wildcard(suffix) => Hostname::Wildcard(suffix.as_ref()),
            Hostname::Exact(name) => Hostname::Exact(name.as_ref()),
        }
    }

    /// Whether the hostname matches `name`, which must be normalised; `None` is a client without a name.
    pub fn matches(&self, name: Option<&str>) -> bool {
        match (self, name) {
            (Hostname::Any, _) => true,
            (_, None) => false,
            (Hostname::Exact(exact), Some(name)) => exact.as_ref() == name,
            (Hostname::Wildcard(suffix), Some(name)) => name
                .strip_suffix(suffix.as_ref())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }

    /// How specific the hostname is: its type, and the number of labels of a wildcard's suffix.
    fn rank(&self) -> (u8, usize) {
        match self {
            Hostname::Any => (0, 0),
            Hostname::Wildcard(suffix) => (1, labels(suffix.as_ref())),
            Hostname::Exact(_) => (2, 0),
        }
    }

    /// The name or the suffix; empty for [`Hostname::Any`].
    pub(super) fn text(&self) -> &str {
        match self {
            Hostname::Any => "",
            Hostname::Wildcard(text) | Hostname::Exact(text) => text.as_ref(),
        }
    }
}

impl<S: AsRef<str> + Eq> Ord for Hostname<S> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank()).then_with(|| self.text().cmp(other.text()))
    }
}

impl<S: AsRef<str> + Eq> PartialOrd for Hostname<S> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<S: AsRef<str>> fmt::Display for Hostname<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hostname::Any => f.write_str("*"),
            Hostname::Wildcard(suffix) => write!(f, "*.{}", suffix.as_ref()),
            Hostname::Exact(name) => f.write_str(name.as_ref()),
        }
    }
}

impl FromStr for Hostname {
    type Err = InvalidHostname;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => return Err(InvalidHostname::Empty),
            "*" => return Ok(Hostname::Any),
            _ => {}
        }
        let normal = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if normal.len() > MAX_NAME {
            return Err(InvalidHostname::TooLong(text.to_owned()));
        }
        match normal.strip_prefix("*.") {
            Some(suffix) => {
                check_labels(text, suffix)?;
                Ok(Hostname::Wildcard(suffix.into()))
            }
            None => {
                check_labels(text, &normal)?;
                Ok(Hostname::Exact(normal.into()))
            }
        }
    }
}

/// The number of labels of a normalised name.
pub(super) fn labels(name: &str) -> usize {
    name.split('.').count()
}

fn check_labels(whole: &str, name: &str) -> Result<(), InvalidHostname> {
    let whole = || whole.to_owned();
    for label in name.split('.') {
        if label.is_empty() {
            return Err(InvalidHostname::EmptyLabel(whole()));
        }
        if label.contains('*') {
            return Err(InvalidHostname::Wildcard(whole()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if let Some(character) = label.chars().find(|&c| !allowed(c)) {
            return Err(match name.parse::<std::net::IpAddr>() {
                Ok(_) => InvalidHostname::IpAddress(whole()),
                Err(_) => InvalidHostname::Character { name: whole(), character },
            });
        }
        if label.len() > MAX_LABEL {
            return Err(InvalidHostname::LabelTooLong { name: whole(), label: label.to_owned() });
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(InvalidHostname::Hyphen { name: whole(), label: label.to_owned() });
        }
    }
    // All numeric names are refused, because inet_aton(3) accepts them as addresses: 127.1, 010.0.0.1,
    // 2130706433.
    if name.split('.').all(|label| label.bytes().all(|b| b.is_ascii_digit())) {
        return Err(InvalidHostname::IpAddress(whole()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Hostname {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn names_are_normalised_and_shown_as_they_are_written() {
        for (text, shown) in [
            ("*", "*"),
            ("WWW.Example.COM.", "www.example.com"),
            ("*.Example.com", "*.example.com"),
            ("_dmarc.example.com", "_dmarc.example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("localhost", "localhost"),
            ("1.example", "1.example"),
        ] {
            assert_eq!(host(text).to_string(), shown);
        }
    }

    #[test]
    fn hostnames_that_no_client_can_send_are_refused_with_the_reason() {
        let long_label = format!("{}.com", "a".repeat(64));
        let long_name = format!("{}com", "abcdefg.".repeat(32));
        for (text, part) in [
            ("", "empty"),
            (".", "empty label"),
            ("a..b", "empty label"),
            (".example.com", "empty label"),
            ("a.com..", "empty label"),
            ("*.", "'*' may only"),
            ("**.com", "'*' may only"),
            ("www.*.com", "'*' may only"),
            ("w*.com", "'*' may only"),
            ("*.*.com", "'*' may only"),
            ("*com", "'*' may only"),
            ("10.0.0.1", "IP address"),
            ("127.1", "IP address"),
            ("::1", "IP address"),
            ("example.com:443", "':'"),
            ("a b.com", "' '"),
            ("bücher.example", "xn--"),
            ("-a.com", "hyphen"),
            ("a-.com", "hyphen"),
            (&long_label, "63 characters"),
            (&long_name, "253 characters"),
        ] {
            match text.parse::<Hostname>() {
                Ok(host) => panic!("{text:?} was taken as {host:?}"),
                Err(error) => assert!(error.to_string().contains(part), "{text:?}: {error}"),
            }
        }
    }

    #[test]
    fn the_order_is_the_precedence() {
        let descending = ["a.b.example.com", "*.b.example.com", "*.example.com", "*.com", "*"];
        for pair in descending.windows(2) {
            assert!(host(pair[0]) > host(pair[1]), "{pair:?}");
        }
        // The number of labels decides, not the number of characters.
        assert!(host("*.a.b.c") > host("*.averylongname.com"));
    }

    #[test]
    fn a_wildcard_matches_one_or_more_labels_and_never_the_suffix_itself() {
        let wildcard = host("*.example.com");
        assert!(wildcard.matches(Some("a.example.com")));
        assert!(wildcard.matches(Some("a.b.example.com")));
        assert!(!wildcard.matches(Some("example.com")));
        assert!(!wildcard.matches(Some("badexample.com")));
        assert!(!wildcard.matches(None));
        assert!(host("*").matches(None));
    }
}
