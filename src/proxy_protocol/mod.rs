//! The PROXY protocol, versions 1 and 2: how a proxy tells the next one who the client is.
//!
//! Section numbers are those of [the specification](https://www.haproxy.org/download/3.3/doc/proxy-protocol.txt).
//! This module only reads and writes bytes; it does no I/O.

mod v1;
mod v2;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The two ends of a client's connection, as a header has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionAddresses {
    /// The client.
    pub source: SocketAddr,
    /// The address that the client connected to.
    pub destination: SocketAddr,
}

/// A header that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// How many bytes it has. What follows is the client's.
    pub length: usize,
    /// The addresses. `None` if the sender does not know them, or speaks for itself, as a health check does
    /// (`LOCAL`, `UNKNOWN`, `UNSPEC`): then the connection's own are the right ones (§2.1, §2.2).
    pub addresses: Option<ConnectionAddresses>,
    /// The id that the sender gave the connection (`PP2_TYPE_UNIQUE_ID`, §2.2.5).
    pub unique_id: Option<Box<[u8]>>,
}

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderProgress {
    /// They may become a header.
    Incomplete,
    /// They begin with a header.
    Header(Header),
    /// They begin with something else.
    Other,
    /// They begin as a header does, and break its rules.
    Invalid(InvalidHeader),
}

/// Why a header is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidHeader {
    /// A line of version 1 has no end within 107 bytes (§2.1).
    #[error("the line is longer than 107 bytes")]
    LineTooLong,
    /// A line of version 1 ends with something else than CRLF (§2.1).
    #[error("the line does not end with CRLF")]
    LineEnd,
    /// A line of version 1 has other fields than it may have (§2.1).
    #[error("the line has not the fields of PROXY, TCP4 or TCP6, two addresses and two ports")]
    LineFields,
    /// The version is not 2 (§2.2).
    #[error("the version is {0}, not 2")]
    Version(u8),
    /// The command is neither `LOCAL` nor `PROXY` (§2.2).
    #[error("the command is {0}, neither LOCAL nor PROXY")]
    Command(u8),
    /// The address family or the transport protocol does not exist (§2.2).
    #[error("{0:#04x} is no address family and transport protocol")]
    Family(u8),
    /// The addresses do not fit into the length that the header declares (§2.2).
    #[error("it has {0} bytes, which are too few for its addresses")]
    TooShort(u16),
    /// An extension does not fit, occurs twice or is too long (§2.2.1 to §2.2.5).
    #[error("its extension of type {0:#04x} is malformed")]
    Extension(u8),
    /// The checksum is another one (§2.2.3).
    #[error("its checksum is wrong")]
    Checksum,
}

/// Reads a header from the first bytes of a connection. It costs the same for each call while the header is
/// incomplete, so it may be called for every byte.
pub fn read(received: &[u8]) -> HeaderProgress {
    match v1::read(received) {
        HeaderProgress::Other => v2::read(received),
        progress => progress,
    }
}

/// Whether bytes begin as a header does; `None` if the next bytes decide.
pub fn begins_header(received: &[u8]) -> Option<bool> {
    match (begins(received, v1::BEGIN), begins(received, &v2::SIGNATURE)) {
        (None, None) => Some(false),
        (Some(true), _) | (_, Some(true)) => Some(true),
        _ => None,
    }
}

/// Which version a header is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// The line of text. It has addresses only.
    V1,
    /// The binary form.
    V2,
}

/// What of version 2 a header has besides the addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extensions<'a> {
    /// The protocol that was negotiated with the client (`PP2_TYPE_ALPN`, §2.2.1), of at most 255 bytes.
    pub alpn: Option<&'a [u8]>,
    /// The TLS with the client, if the sender has served that (`PP2_TYPE_SSL`, §2.2.6).
    pub tls: Option<TlsExtension<'a>>,
    /// The name that the client asked for (`PP2_TYPE_AUTHORITY`, §2.2.2).
    pub authority: Option<&'a str>,
    /// The connection's id (`PP2_TYPE_UNIQUE_ID`, §2.2.5), of at most 128 bytes.
    pub unique_id: Option<&'a [u8]>,
    /// Whether there is a checksum (`PP2_TYPE_CRC32C`, §2.2.3).
    pub checksum: bool,
}

/// The TLS with a client (§2.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsExtension<'a> {
    /// The version, such as `TLSv1.3`.
    pub version: &'a str,
    /// The cipher suite, by its name in OpenSSL.
    pub cipher: &'a str,
    /// The key of the certificate that was served, such as `RSA2048`.
    pub key: Option<&'a str>,
    /// The certificate of the client, which was verified.
    pub client: Option<ClientCertificateExtension<'a>>,
}

/// The certificate of a client (§2.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientCertificateExtension<'a> {
    /// Whether it was shown in this connection, and not only in an earlier one of the session.
    pub is_of_connection: bool,
    /// The common name of its subject, of at most 255 bytes.
    pub common_name: Option<&'a str>,
}

/// Writes a header for a connection of these addresses. Version 1 has no extensions.
pub fn write(
    header: &mut Vec<u8>,
    version: Version,
    addresses: ConnectionAddresses,
    extensions: Extensions<'_>,
) {
    let addresses = addresses.of_one_family();
    match version {
        Version::V1 => v1::write(header, addresses),
        Version::V2 => v2::write(header, addresses, extensions),
    }
}

/// The header of a connection that the sender makes for itself, such as a health check (`LOCAL`, §2.2).
pub const LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

impl ConnectionAddresses {
    /// IPv4 addresses in the form of IPv6 as IPv4, if both are; if one is, both as IPv6 (RFC 4291 §2.5.5.2).
    /// A header has one family.
    fn of_one_family(self) -> Self {
        let canonical =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        let (source, destination) = (canonical(self.source), canonical(self.destination));
        match (source, destination) {
            (SocketAddr::V4(_), SocketAddr::V4(_)) | (SocketAddr::V6(_), SocketAddr::V6(_)) => {
                ConnectionAddresses { source, destination }
            }
            _ => ConnectionAddresses { source: as_v6(source), destination: as_v6(destination) },
        }
    }
}

fn as_v6(address: SocketAddr) -> SocketAddr {
    let ip: Ipv6Addr = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    (ip, address.port()).into()
}

/// Whether `received` is `whole` or its beginning; `None` if it is neither.
fn begins(received: &[u8], whole: &[u8]) -> Option<bool> {
    if received.len() >= whole.len() {
        return received.starts_with(whole).then_some(true);
    }
    whole.starts_with(received).then_some(false)
}

#[cfg(test)]
mod tests;
