//! The TLS versions that a client offers.

use std::fmt;

/// A TLS version. Later versions are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TlsVersion {
    /// SSL 3.0.
    Ssl30,
    /// TLS 1.0.
    Tls10,
    /// TLS 1.1.
    Tls11,
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl TlsVersion {
    /// All versions, the latest first.
    const DESCENDING: [TlsVersion; 5] = [
        TlsVersion::Tls13,
        TlsVersion::Tls12,
        TlsVersion::Tls11,
        TlsVersion::Tls10,
        TlsVersion::Ssl30,
    ];

    /// The name in OpenSSL and similar libraries, such as `TLSv1.3`.
    pub fn as_str(self) -> &'static str {
        match self {
            TlsVersion::Ssl30 => "SSLv3",
            TlsVersion::Tls10 => "TLSv1",
            TlsVersion::Tls11 => "TLSv1.1",
            TlsVersion::Tls12 => "TLSv1.2",
            TlsVersion::Tls13 => "TLSv1.3",
        }
    }

    fn from_wire(value: u16) -> Option<Self> {
        match value {
            0x0300 => Some(TlsVersion::Ssl30),
            0x0301 => Some(TlsVersion::Tls10),
            0x0302 => Some(TlsVersion::Tls11),
            0x0303 => Some(TlsVersion::Tls12),
            0x0304 => Some(TlsVersion::Tls13),
            _ => None,
        }
    }
}

impl fmt::Display for TlsVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The TLS versions that a client offers, without unknown ones: drafts and GREASE (RFC 8701).
///
/// A client without the supported_versions extension offers one version: the highest that it supports.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Versions(u8);

impl Versions {
    /// The latest version; `None` if all are unknown.
    pub fn highest(self) -> Option<TlsVersion> {
        self.iter().next()
    }

    /// Whether the client offers `version`.
    pub fn offers(self, version: TlsVersion) -> bool {
        self.0 & bit(version) != 0
    }

    /// All offered versions, the latest first.
    pub fn iter(self) -> impl Iterator<Item = TlsVersion> {
        TlsVersion::DESCENDING.into_iter().filter(move |&version| self.offers(version))
    }

    /// The versions in a supported_versions extension.
    pub(super) fn supported(values: impl Iterator<Item = u16>) -> Self {
        Versions(values.filter_map(TlsVersion::from_wire).map(bit).fold(0, |all, one| all | one))
    }

    /// The version of a hello without that extension. It is never TLS 1.3, whatever the field contains (RFC
    /// 8446 §4.2.1).
    pub(super) fn legacy(value: u16) -> Self {
        Versions(TlsVersion::from_wire(value.min(0x0303)).map_or(0, bit))
    }
}

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

fn bit(version: TlsVersion) -> u8 {
    1 << version as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_versions_are_left_out_and_the_latest_is_first() {
        let versions = Versions::supported([0x0303, 0x2a2a, 0x7f1c, 0x0304].into_iter());
        assert_eq!(versions.iter().collect::<Vec<_>>(), [TlsVersion::Tls13, TlsVersion::Tls12]);
        assert_eq!(versions.highest(), Some(TlsVersion::Tls13));
        assert!(!versions.offers(TlsVersion::Tls11));
        assert_eq!(Versions::supported([0x8a8a].into_iter()).highest(), None);
    }

    #[test]
    fn the_old_field_says_at_most_tls_1_2() {
        for (value, highest) in [
            (0x0200, None),
            (0x0300, Some("SSLv3")),
            (0x0301, Some("TLSv1")),
            (0x0302, Some("TLSv1.1")),
            (0x0303, Some("TLSv1.2")),
            (0x0304, Some("TLSv1.2")),
            (0x0a0a, Some("TLSv1.2")),
        ] {
            assert_eq!(Versions::legacy(value).highest().map(TlsVersion::as_str), highest);
        }
    }
}
