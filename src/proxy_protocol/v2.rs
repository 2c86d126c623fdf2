//! Version 2: a binary header (§2.2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc};

use super::{
    ConnectionAddresses, Extensions, Header, HeaderProgress, InvalidHeader, TlsExtension, begins,
};

pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and protocol, and the length of the rest.
const FIXED: usize = 16;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;
const VERSION: u8 = 2;
/// The address family of a sender that does not know the addresses, or cannot express them.
const UNSPEC: u8 = 0;
/// TCP over IPv4 and over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Types of extensions (§2.2.1).
const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const TLS: u8 = 0x20;
const MOST_ID: usize = 128;
/// The longest name and protocol.
const MOST_TEXT: usize = 255;

/// Types of extensions in that of TLS (§2.2.6).
const TLS_VERSION: u8 = 0x21;
const TLS_COMMON_NAME: u8 = 0x22;
const TLS_CIPHER: u8 = 0x23;
const TLS_KEY: u8 = 0x25;
/// Flags in it: the client speaks TLS, and has shown a certificate in this connection or in its session.
const CLIENT_TLS: u8 = 0x01;
const CLIENT_CERTIFICATE: u8 = 0x02;
const SESSION_CERTIFICATE: u8 = 0x04;

static CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

pub(super) fn read(received: &[u8]) -> HeaderProgress {
    match begins(received, &SIGNATURE) {
        Some(true) => {}
        Some(false) => return HeaderProgress::Incomplete,
        None => return HeaderProgress::Other,
    }
    // As soon as possible: whoever sends something else does not send the rest.
    let Some(version) = received.get(12) else { return HeaderProgress::Incomplete };
    if version >> 4 != VERSION {
        return HeaderProgress::Invalid(InvalidHeader::Version(version >> 4));
    }
    let command = version & 0x0f;
    if ![LOCAL, PROXY].contains(&command) {
        return HeaderProgress::Invalid(InvalidHeader::Command(command));
    }
    let Some(&[family, high, low]) = received.get(13..FIXED) else {
        return HeaderProgress::Incomplete;
    };
    let length = u16::from_be_bytes([high, low]);
    if command == PROXY
        && let Err(invalid) = addresses_length(family, length)
    {
        return HeaderProgress::Invalid(invalid);
    }
    let total = FIXED + usize::from(length);
    let Some(header) = received.get(..total) else { return HeaderProgress::Incomplete };
    let body = header.get(FIXED..).unwrap_or_default();
    let unnamed = Header { length: total, addresses: None, unique_id: None };
    if command == LOCAL {
        // The rest may be anything.
        return HeaderProgress::Header(unnamed);
    }
    match proxied(header, family, body) {
        Ok(header) => HeaderProgress::Header(header),
        // ConnectionAddresses of an unspecified family have an unknown length, so there may be no extensions at all.
        Err(InvalidHeader::Extension(_)) if family >> 4 == UNSPEC => {
            HeaderProgress::Header(unnamed)
        }
        Err(invalid) => HeaderProgress::Invalid(invalid),
    }
}

/// How many bytes the addresses of a family take.
fn addresses_length(family: u8, length: u16) -> Result<usize, InvalidHeader> {
    let addresses = match (family >> 4, family & 0x0f) {
        (UNSPEC, 0..=2) => 0,
        (1, 0..=2) => 12,
        (2, 0..=2) => 36,
        (3, 0..=2) => 216,
        _ => return Err(InvalidHeader::Family(family)),
    };
    if length < addresses {
        return Err(InvalidHeader::TooShort(length));
    }
    Ok(addresses.into())
}

fn proxied(header: &[u8], family: u8, body: &[u8]) -> Result<Header, InvalidHeader> {
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let (addresses, extensions) = body.split_at(addresses_length(family, length)?);
    let mut unique_id = None;
    let mut has_checksum = false;
    let mut rest = extensions;
    while let Some(Extension { kind, value, after }) = extension(rest)? {
        match kind {
            CRC32C => {
                let is_first = !std::mem::replace(&mut has_checksum, true);
                let stated = value.try_into().map(u32::from_be_bytes).ok().filter(|_| is_first);
                let stated = stated.ok_or(InvalidHeader::Extension(kind))?;
                // The field is zero while the checksum is computed.
                let before = header.len() - after.len() - value.len();
                if checksum(header, before) != stated {
                    return Err(InvalidHeader::Checksum);
                }
            }
            UNIQUE_ID if unique_id.is_some() || value.len() > MOST_ID => {
                return Err(InvalidHeader::Extension(kind));
            }
            UNIQUE_ID => unique_id = Some(value.into()),
            _ => {}
        }
        rest = after;
    }
    let addresses = match family {
        TCP4 => read_addresses(addresses, |bytes: [u8; 4]| Ipv4Addr::from(bytes).into()),
        TCP6 => read_addresses(addresses, |bytes: [u8; 16]| Ipv6Addr::from(bytes).to_canonical()),
        // Of another transport protocol, or of UNIX sockets: not this connection's.
        _ => None,
    };
    Ok(Header { length: header.len(), addresses, unique_id })
}

/// An extension (§2.2.1), and the bytes after it.
struct Extension<'a> {
    kind: u8,
    value: &'a [u8],
    after: &'a [u8],
}

/// The first extension of `bytes`, if there is one.
fn extension(bytes: &[u8]) -> Result<Option<Extension<'_>>, InvalidHeader> {
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    let malformed = InvalidHeader::Extension(kind);
    let (length, rest) = rest.split_first_chunk::<2>().ok_or(malformed)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let (value, after) = rest.split_at_checked(length).ok_or(malformed)?;
    Ok(Some(Extension { kind, value, after }))
}

fn read_addresses<const N: usize>(
    bytes: &[u8],
    ip: impl Fn([u8; N]) -> IpAddr,
) -> Option<ConnectionAddresses> {
    let (source, rest) = bytes.split_first_chunk::<N>()?;
    let (destination, ports) = rest.split_first_chunk::<N>()?;
    let (source_port, rest) = ports.split_first_chunk::<2>()?;
    let (destination_port, _) = rest.split_first_chunk::<2>()?;
    let address = |bytes, port| SocketAddr::new(ip(bytes), u16::from_be_bytes(port));
    Some(ConnectionAddresses {
        source: address(*source, *source_port),
        destination: address(*destination, *destination_port),
    })
}

/// The checksum of a header whose own checksum of four bytes is at this place.
fn checksum(header: &[u8], at: usize) -> u32 {
    let mut digest = CHECKSUM.digest();
    digest.update(header.get(..at).unwrap_or_default());
    digest.update(&[0; 4]);
    digest.update(header.get(at + 4..).unwrap_or_default());
    digest.finalize()
}

/// Writes a header. An extension that is longer than it may be is left out: a server name, a protocol and a common
/// name have at most 255 bytes, and an id 128.
pub(super) fn write(out: &mut Vec<u8>, addresses: ConnectionAddresses, extensions: Extensions<'_>) {
    let begin = out.len();
    out.extend_from_slice(&SIGNATURE);
    let family = if addresses.source.is_ipv4() { TCP4 } else { TCP6 };
    out.extend_from_slice(&[VERSION << 4 | PROXY, family, 0, 0]);
    for address in [addresses.source, addresses.destination] {
        match address.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    }
    for address in [addresses.source, addresses.destination] {
        out.extend_from_slice(&address.port().to_be_bytes());
    }
    let alpn = extensions.alpn.filter(|protocol| protocol.len() <= MOST_TEXT);
    let authority = extensions.authority.map(str::as_bytes);
    let authority = authority.filter(|name| name.len() <= MOST_TEXT);
    let unique_id = extensions.unique_id.filter(|id| id.len() <= MOST_ID);
    for (kind, value) in [(ALPN, alpn), (AUTHORITY, authority), (UNIQUE_ID, unique_id)] {
        value.into_iter().for_each(|value| write_extension(out, kind, value));
    }
    extensions.tls.into_iter().for_each(|tls| write_extension(out, TLS, &tls_value(tls)));
    let checksum_length = if extensions.checksum { 7 } else { 0 };
    let length = u16::try_from(out.len() - begin - FIXED + checksum_length).unwrap_or(u16::MAX);
    out.splice(begin + 14..begin + FIXED, length.to_be_bytes());
    if extensions.checksum {
        write_extension(out, CRC32C, &[0; 4]);
        let at = out.len() - 4;
        let sum = checksum(out.get(begin..).unwrap_or_default(), at - begin);
        out.truncate(at);
        out.extend_from_slice(&sum.to_be_bytes());
    }
}

fn tls_value(tls: TlsExtension<'_>) -> Vec<u8> {
    let certificate = tls.client.map_or(0, |client| {
        SESSION_CERTIFICATE | if client.is_of_connection { CLIENT_CERTIFICATE } else { 0 }
    });
    // 0 is a certificate that was verified.
    let verify = u32::from(tls.client.is_none());
    let mut value = vec![CLIENT_TLS | certificate];
    value.extend_from_slice(&verify.to_be_bytes());
    let common_name = tls.client.and_then(|client| client.common_name);
    for (kind, text) in [
        (TLS_VERSION, Some(tls.version)),
        (TLS_COMMON_NAME, common_name.filter(|name| name.len() <= MOST_TEXT)),
        (TLS_CIPHER, Some(tls.cipher)),
        (TLS_KEY, tls.key),
    ] {
        let text = text.filter(|text| !text.is_empty());
        text.into_iter().for_each(|text| write_extension(&mut value, kind, text.as_bytes()));
    }
    value
}

fn write_extension(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or_default();
    out.push(kind);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
}
