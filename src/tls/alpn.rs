//! Application-Layer Protocol Negotiation (RFC 7301).

use std::fmt;

use super::vector::{sole, vector8, vector16};

/// The protocols that a client offers, in its order of preference. Stored in one piece, as received.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Alpn {
    /// Each protocol is preceded by a byte with its length, which is never 0.
    wire: Box<[u8]>,
}

impl Alpn {
    /// The protocols, such as `h2`. They are bytes, because clients may send any (RFC 8701).
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        protocols(&self.wire)
    }

    /// Whether the client offers `protocol`.
    pub fn offers(&self, protocol: &[u8]) -> bool {
        self.iter().any(|offered| offered == protocol)
    }

    /// Whether the client offers no protocol: it did not send the extension.
    pub fn is_empty(&self) -> bool {
        self.wire.is_empty()
    }

    /// Removes protocols from the end until the list has at most `most` bytes.
    pub fn shorten(&mut self, most: usize) {
        if self.wire.len() <= most {
            return;
        }
        let fits = |taken: &mut usize, name: &[u8]| {
            *taken += 1 + name.len();
            (*taken <= most).then_some(*taken)
        };
        let kept = self.iter().scan(0, fits).last().unwrap_or(0);
        self.wire = self.wire.get(..kept).unwrap_or_default().into();
    }

    /// Parses the extension's body. `None` if it is invalid; neither the list nor a protocol may be empty
    /// (RFC 7301 §3.1).
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let list = sole(vector16, body)?;
        let taken: usize =
            protocols(list).take_while(|name| !name.is_empty()).map(|name| 1 + name.len()).sum();
        (taken == list.len()).then(|| Alpn { wire: list.into() })
    }
}

impl fmt::Debug for Alpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.iter().map(<[u8]>::escape_ascii).map(|p| p.to_string()))
            .finish()
    }
}

fn protocols(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        let (protocol, after) = vector8(rest)?;
        rest = after;
        Some(protocol)
    })
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn shortening_removes_whole_protocols_from_the_end() {
        let whole = Alpn { wire: (*b"\x02h2\x08http/1.1\x03foo").into() };
        for (most, left) in [(100, 3), (16, 3), (15, 2), (12, 2), (11, 1), (3, 1), (2, 0), (0, 0)] {
            let mut alpn = whole.clone();
            alpn.shorten(most);
            assert_eq!(alpn.iter().count(), left, "{most}");
            assert!(alpn.iter().eq(whole.iter().take(left)));
        }
    }

    #[test]
    fn protocols_are_in_the_order_of_the_client() {
        let alpn = Alpn::parse(b"\0\x0c\x02h2\x08http/1.1").expect("a list");
        assert_eq!(alpn.iter().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
        assert!(alpn.offers(b"h2") && alpn.offers(b"http/1.1"));
        assert!(!alpn.offers(b"h") && !alpn.offers(b"http/1.0") && !alpn.offers(b""));
        assert!(!alpn.is_empty());
        assert_eq!(format!("{alpn:?}"), r#"["h2", "http/1.1"]"#);
    }

    #[test]
    fn without_the_extension_the_list_is_empty() {
        assert!(Alpn::default().is_empty());
        assert_eq!(Alpn::default().iter().count(), 0);
    }

    #[test]
    fn a_malformed_list_is_refused() {
        assert!(Alpn::parse(b"\0\x03\x02h2").is_some());
        for broken in [
            &b""[..],
            b"\0",
            b"\0\0",
            b"\0\x02\x02h2",         // the list ends inside a protocol
            b"\0\x04\x02h2",         // the extension ends inside the list
            b"\0\x03\x02h2\0",       // bytes after the list
            b"\0\x04\x02h2\0",       // an empty protocol at the end
            b"\0\x04\0\x02h2",       // and at the front
            b"\0\x01\0",             // and alone
            b"\0\x07\x02h2\0\x02h3", // and in between
        ] {
            assert_eq!(Alpn::parse(broken), None, "{}", broken.escape_ascii());
        }
    }
}
