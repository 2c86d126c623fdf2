//! The server names in hellos.

use std::fmt;
use std::net::IpAddr;

/// The longest name in bytes, without the trailing dot (RFC 1035 §2.3.4).
const MAX_NAME: usize = 253;
/// The longest label in bytes (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;

/// The maximum number of shown characters of an invalid name. A hello has room for 65,000.
const MAX_SHOWN: usize = 255;
/// Replaces the end of a longer name.
const CUT: &str = "...";

/// A server name in a hello (RFC 6066 §3): labels of ASCII letters, digits, `-` and `_`. It is never an
/// address.
///
/// It allows more than the hostnames of routes: a label may begin or end with a hyphen, because some clients
/// send such names.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerName(Box<str>);

/// Why a name cannot be a server name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidServerName {
    /// There is no label.
    #[error("the server name is empty")]
    Empty,
    /// The name is longer than DNS allows.
    #[error("the server name is longer than 253 bytes")]
    TooLong,
    /// Two dots in a row, or a dot at the start.
    #[error("the server name has an empty label")]
    EmptyLabel,
    /// A label is longer than DNS allows.
    #[error("the server name has a label longer than 63 bytes")]
    LabelTooLong,
    /// A byte that is not allowed in server names, such as NUL, `*` and everything that is not ASCII.
    #[error("the server name has the byte {0:#04x}")]
    Byte(u8),
    /// An IP address, or a text that could be parsed as one (RFC 6066 §3).
    #[error("the server name is an IP address")]
    IpAddress,
}

/// Any name that a client sent, in a form for logs: printable ASCII, at most 255 characters.
#[derive(Clone, PartialEq, Eq)]
pub struct SentName(Box<str>);

/// A name in a hello that cannot be a server name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusableName {
    /// Why it cannot be one.
    pub cause: InvalidServerName,
    /// The name.
    pub sent: SentName,
}

impl SentName {
    /// Escapes and shortens the bytes of a name.
    pub fn new(sent: &[u8]) -> Self {
        // Every byte becomes at least one character.
        let start = sent.get(..=MAX_SHOWN).unwrap_or(sent);
        let mut shown = start.escape_ascii().to_string();
        if shown.len() > MAX_SHOWN {
            shown.truncate(MAX_SHOWN - CUT.len());
            shown.push_str(CUT);
        }
        SentName(shown.into())
    }

    /// The text for logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl ServerName {
    /// Checks and normalises a name from a hello.
    ///
    /// # Errors
    /// When it cannot be a server name.
    pub fn parse(sent: &[u8]) -> Result<Self, InvalidServerName> {
        let name = sent.strip_suffix(b".").unwrap_or(sent);
        check(name)?;
        // All bytes are ASCII here.
        Ok(ServerName(name.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect()))
    }

    /// The name for lookups: in lower case, without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn check(name: &[u8]) -> Result<(), InvalidServerName> {
    if name.is_empty() {
        return Err(InvalidServerName::Empty);
    }
    if name.len() > MAX_NAME {
        return Err(InvalidServerName::TooLong);
    }
    let allowed = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if let Some(&byte) = name.iter().find(|byte| !allowed(byte)) {
        return Err(match str::from_utf8(name).map(str::parse::<IpAddr>) {
            Ok(Ok(_)) => InvalidServerName::IpAddress,
            _ => InvalidServerName::Byte(byte),
        });
    }
    for label in name.split(|&byte| byte == b'.') {
        if label.is_empty() {
            return Err(InvalidServerName::EmptyLabel);
        }
        if label.len() > MAX_LABEL {
            return Err(InvalidServerName::LabelTooLong);
        }
    }
    // No top-level domain is a number; such names are forms of IPv4 addresses (127.1).
    if name.iter().all(|&byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(InvalidServerName::IpAddress);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        for (sent, normalised) in [
            ("example.com", "example.com"),
            ("WWW.Example.COM", "www.example.com"),
            ("example.com.", "example.com"),
            ("Example.com.", "example.com"),
            ("_sip._tcp.example.com", "_sip._tcp.example.com"),
            ("-a-.example.com", "-a-.example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("localhost", "localhost"),
            ("1.2.3.4.example", "1.2.3.4.example"),
            ("1.2.3.4a", "1.2.3.4a"),
        ] {
            let name = ServerName::parse(sent.as_bytes()).expect(sent);
            assert_eq!(name.as_str(), normalised, "{sent}");
        }
    }

    #[test]
    fn invalid_server_names_are_refused_with_the_cause() {
        use InvalidServerName::*;
        for (sent, cause) in [
            (&b""[..], Empty),
            (b".", Empty),
            (b"..", EmptyLabel),
            (b".example.com", EmptyLabel),
            (b"a..example.com", EmptyLabel),
            (b"example.com..", EmptyLabel),
            (b"www.example.com\0", Byte(0)),
            (b"good.example\0.evil.example", Byte(0)),
            (b"a b.example.com", Byte(b' ')),
            (b" example.com", Byte(b' ')),
            (b"*", Byte(b'*')),
            (b"*.example.com", Byte(b'*')),
            (b"example.com:443", Byte(b':')),
            (b"https://example.com", Byte(b':')),
            (b"a/b", Byte(b'/')),
            (b"a\"b", Byte(b'"')),
            (b"a\nb", Byte(b'\n')),
            (b"a\x7fb", Byte(0x7f)),
            ("bücher.example".as_bytes(), Byte(0xc3)),
            (b"a\xff.example", Byte(0xff)),
            (b"10.0.0.1", IpAddress),
            (b"10.0.0.1.", IpAddress),
            (b"127.1", IpAddress),
            (b"2130706433", IpAddress),
            (b"999.999", IpAddress),
            (b"::1", IpAddress),
            (b"2001:db8::1", IpAddress),
            (b"[2001:db8::1]", Byte(b'[')),
            (b"fe80::1%eth0", Byte(b':')),
        ] {
            assert_eq!(ServerName::parse(sent), Err(cause), "{}", sent.escape_ascii());
        }
    }

    #[test]
    fn a_name_is_shown_escaped_and_shortened() {
        for (sent, shown) in
            [(&b"10.1.2.3"[..], "10.1.2.3"), (b"", ""), (b"a\n\"\xff\0\\", r#"a\n\"\xff\x00\\"#)]
        {
            assert_eq!(SentName::new(sent).as_str(), shown);
        }
        assert_eq!(SentName::new(&[b'a'; 255]).as_str(), "a".repeat(255));
        let cut = format!("{}...", "a".repeat(252));
        assert_eq!(SentName::new(&[b'a'; 256]).as_str(), cut);
        assert_eq!(SentName::new(&[b'a'; 60_000]).as_str(), cut);
        for length in 60..300 {
            let shown = SentName::new(&vec![0xff; length]);
            assert!(shown.as_str().len() <= 255 && shown.as_str().is_ascii(), "{length}");
        }
    }

    #[test]
    fn the_limits_on_lengths_are_those_of_dns() {
        let label = |length: usize| "a".repeat(length);
        assert!(ServerName::parse(format!("{}.com", label(63)).as_bytes()).is_ok());
        let long_label = ServerName::parse(format!("{}.com", label(64)).as_bytes());
        assert_eq!(long_label, Err(InvalidServerName::LabelTooLong));

        let name = |length: usize| format!("{}{}", "abcdefg.".repeat(31), label(length - 31 * 8));
        assert_eq!(name(253).len(), 253);
        assert!(ServerName::parse(name(253).as_bytes()).is_ok());
        assert!(ServerName::parse(format!("{}.", name(253)).as_bytes()).is_ok());
        let long_name = ServerName::parse(name(254).as_bytes());
        assert_eq!(long_name, Err(InvalidServerName::TooLong));
    }

    #[test]
    fn only_letters_digits_hyphens_and_underscores_make_a_label() {
        for byte in 0..=u8::MAX {
            let taken = ServerName::parse(&[b'a', byte, b'a']).is_ok();
            let legal =
                matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.');
            assert_eq!(taken, legal, "{byte:#04x}");
        }
    }
}
