//! Announce: the PROXY header that tells an endpoint who the client is.

use super::connection::Connection;
use super::relay::FirstBytes;
use super::socket::Socket;
use crate::policy::ProxyVersion;
use crate::proxy_protocol::{ConnectionAddresses, Extensions, Version, write};
use crate::routing::{ProxyHeader, Route};

/// More than a header has without its extensions, and than most have with them.
const ROOM: usize = 128;

/// Puts the header that the route asks for in front of `received`, so that both are sent at once.
pub(super) fn announce(
    connection: &Connection,
    route: &Route,
    downstream: &Socket,
    received: Vec<u8>,
) -> FirstBytes {
    let Some(header) = route.spec.policy.proxy_header() else {
        return FirstBytes { bytes: received, header: 0 };
    };
    let mut bytes = Vec::with_capacity(ROOM + received.len());
    write_header(&mut bytes, connection, header, downstream);
    // Nearly 700 bytes at most: the name has 255, and the id 128.
    let header = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&received);
    FirstBytes { bytes, header }
}

fn write_header(
    bytes: &mut Vec<u8>,
    connection: &Connection,
    header: ProxyHeader,
    downstream: &Socket,
) {
    let ProxyHeader { version, authority, unique_id, checksum } = header;
    let proxied = connection.proxied.as_deref();
    let destination = proxied.and_then(|proxied| proxied.destination);
    // The kernel knows the address of an open connection.
    let local = || connection.listener.local.or_else(|| downstream.local_address().ok());
    let source = connection.source;
    let destination = destination.or_else(local).unwrap_or(source);
    let name = connection.hello.as_ref().and_then(|hello| hello.server_name.as_ref());
    let received_id = proxied.and_then(|proxied| proxied.unique_id.clone());
    let own_id = || format!("{:016x}", connection.id()).into_bytes().into();
    let id: Option<Box<[u8]>> = unique_id.then(|| received_id.unwrap_or_else(own_id));
    let extensions = Extensions {
        authority: name.map(|name| name.as_str()).filter(|_| authority),
        unique_id: id.as_deref(),
        checksum,
    };
    let version = match version {
        ProxyVersion::V1 => Version::V1,
        ProxyVersion::V2 => Version::V2,
    };
    write(bytes, version, ConnectionAddresses { source, destination }, extensions);
}
