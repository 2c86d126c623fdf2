//! The ClientHello (RFC 8446 §4.1.2), as far as routing needs it.

use tls_parser::nom::error::ErrorKind;
use tls_parser::{Err, TlsExtensionType, parse_tls_handshake_client_hello};

use super::vector::{sole, values16, vector8, vector16};
use super::{Alpn, MalformedHello, SentName, ServerName, UnusableName, Versions};

const SERVER_NAME: u16 = TlsExtensionType::ServerName.0;
const SUPPORTED_GROUPS: u16 = TlsExtensionType::SupportedGroups.0;
const ALPN: u16 = TlsExtensionType::ApplicationLayerProtocolNegotiation.0;
const SUPPORTED_VERSIONS: u16 = TlsExtensionType::SupportedVersions.0;
const KEY_SHARE: u16 = TlsExtensionType::KeyShare.0;
/// RFC 9849 §5.
const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;

/// A client's random value (RFC 8446 §4.1.2).
pub(super) type Random = [u8; 32];
/// The number of bytes before it: the version.
const VERSION: usize = 2;

/// The only type of server name (RFC 6066 §3).
const HOST_NAME: u8 = 0;

/// A ClientHello, the first message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name, if the client sends one. With ECH, the outer name.
    pub server_name: Option<ServerName>,
    /// A name that cannot be a server name. The client is routed as if it sent no name.
    pub unusable_name: Option<Box<UnusableName>>,
    /// The protocols that the client offers.
    pub alpn: Alpn,
    /// The TLS versions that the client offers.
    pub versions: Versions,
    /// Whether the client sends an Encrypted ClientHello (RFC 9849), or an imitation, as browsers do.
    pub ech: bool,
    /// Whether the client offers a post-quantum key exchange, pure or hybrid.
    pub post_quantum: bool,
    /// The length in bytes of the records that contain the hello, including their headers. Later bytes, such
    /// as early data, do not belong to the hello.
    pub consumed: usize,
}

impl ClientHello {
    /// Parses the body of the handshake message. `consumed` is stored in the result.
    pub(super) fn parse(body: &[u8], consumed: usize) -> Result<Self, MalformedHello> {
        let (version, extensions) = fields(body)?;
        let mut hello = ClientHello {
            server_name: None,
            unusable_name: None,
            alpn: Alpn::default(),
            versions: Versions::legacy(version),
            ech: false,
            post_quantum: false,
            consumed,
        };
        let mut rest = extensions;
        let mut seen = SeenExtensions::default();
        while !rest.is_empty() {
            let (number, content, after) = extension(rest).ok_or(MalformedHello::Extensions)?;
            if !seen.insert(number) {
                return Err(MalformedHello::DuplicateExtension(number));
            }
            hello.take(number, content)?;
            rest = after;
        }
        Ok(hello)
    }

    fn take(&mut self, number: u16, content: &[u8]) -> Result<(), MalformedHello> {
        let broken = MalformedHello::ExtensionFormat(number);
        match number {
            SERVER_NAME => {
                let sent = server_name(content)?;
                match ServerName::parse(sent) {
                    Ok(name) => self.server_name = Some(name),
                    Err(cause) => {
                        let sent = SentName::new(sent);
                        self.unusable_name = Some(Box::new(UnusableName { cause, sent }));
                    }
                }
            }
            ALPN => self.alpn = Alpn::parse(content).ok_or(broken)?,
            SUPPORTED_VERSIONS => {
                let versions = sole(vector8, content).and_then(values16).ok_or(broken)?;
                self.versions = Versions::supported(versions);
            }
            SUPPORTED_GROUPS => {
                let mut groups = sole(vector16, content).and_then(values16).ok_or(broken)?;
                self.post_quantum |= groups.any(is_post_quantum);
            }
            KEY_SHARE => self.post_quantum |= shares_post_quantum(content).ok_or(broken)?,
            ENCRYPTED_CLIENT_HELLO => self.ech = true,
            _ => {}
        }
        Ok(())
    }
}

/// The legacy version and the extensions.
///
/// tls-parser accepts empty lists, and leaves bytes after the parsed part to its caller.
fn fields(body: &[u8]) -> Result<(u16, &[u8]), MalformedHello> {
    let (rest, hello) = parse_tls_handshake_client_hello(body).map_err(|error| match error {
        Err::Incomplete(_) => MalformedHello::Truncated,
        Err::Error(error) | Err::Failure(error) => match error.code {
            ErrorKind::Verify => MalformedHello::SessionId,
            _ => MalformedHello::AlgorithmLists,
        },
    })?;
    if hello.ciphers.is_empty() || hello.comp.is_empty() {
        return Err(MalformedHello::AlgorithmLists);
    }
    match hello.ext {
        Some(extensions) if rest.is_empty() => Ok((hello.version.0, extensions)),
        Some(_) => Err(MalformedHello::TrailingBytes),
        // Before TLS 1.3, a hello may have no extensions (RFC 5246 §7.4.1.2).
        None if rest.is_empty() => Ok((hello.version.0, &[])),
        None => Err(MalformedHello::Extensions),
    }
}

/// Splits off the first extension: its number, its content, and the rest.
fn extension(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    let (content, after) = vector16(rest)?;
    Some((u16::from_be_bytes(*number), content, after))
}

/// The name in the body of a message that is malformed elsewhere, for logs.
pub(super) fn name_in_broken(body: &[u8]) -> Option<SentName> {
    let (_, mut rest) = fields(body).ok()?;
    while let Some((number, content, after)) = extension(rest) {
        if number == SERVER_NAME {
            return server_name(content).ok().map(SentName::new);
        }
        rest = after;
    }
    None
}

/// The random value in the body of a message.
pub(super) fn random(body: &[u8]) -> Option<&Random> {
    body.get(VERSION..)?.first_chunk()
}

/// The only name in the extension, without validation.
fn server_name(content: &[u8]) -> Result<&[u8], MalformedHello> {
    let broken = MalformedHello::ExtensionFormat(SERVER_NAME);
    let mut list = sole(vector16, content).ok_or(broken)?;
    let mut name = None;
    while let Some((&kind, rest)) = list.split_first() {
        if kind != HOST_NAME {
            return Err(MalformedHello::ServerNameType);
        }
        let (host, rest) = vector16(rest).ok_or(broken)?;
        if name.replace(host).is_some() {
            return Err(MalformedHello::SeveralServerNames);
        }
        list = rest;
    }
    name.ok_or(broken)
}

/// Whether one of the key shares is post-quantum. The list may be empty (RFC 8446 §4.2.8).
fn shares_post_quantum(content: &[u8]) -> Option<bool> {
    let (mut shares, []) = vector16(content)? else { return None };
    let mut found = false;
    while !shares.is_empty() {
        // A share has the format of an extension: a number and a vector.
        let (group, key, after) = extension(shares)?;
        if key.is_empty() {
            return None;
        }
        found |= is_post_quantum(group);
        shares = after;
    }
    Some(found)
}

/// Whether a group (RFC 8446 §4.2.7) is ML-KEM, alone or combined with an elliptic curve.
fn is_post_quantum(group: u16) -> bool {
    matches!(
        group,
        0x0200..=0x0202         // MLKEM512, MLKEM768, MLKEM1024
            | 0x11eb..=0x11ed   // SecP256r1MLKEM768, X25519MLKEM768, SecP384r1MLKEM1024
            | 0x6399 // X25519Kyber768Draft00
    )
}

/// The extensions that were already seen. The size is constant, so that the time for a hello is proportional
/// to its length.
struct SeenExtensions([u64; 1 << 10]);

impl Default for SeenExtensions {
    fn default() -> Self {
        SeenExtensions([0; 1 << 10])
    }
}

impl SeenExtensions {
    /// Adds `number`. Returns whether it is new.
    fn insert(&mut self, number: u16) -> bool {
        // Ten bits select the word and six the bit, so neither can be out of range.
        let word = &mut self.0[usize::from(number >> 6)];
        let bit = 1 << (number & 63);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests;
