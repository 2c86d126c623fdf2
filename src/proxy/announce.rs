//! Announce: the PROXY header that tells an endpoint who the client is.

use std::task::Poll;

use super::connection::Connection;
use super::relay::FirstBytes;
use super::stream::Stream;
use super::terminated::Terminated;
use crate::policy::ProxyVersion;
use crate::proxy_protocol::{
    ClientCertificateExtension, ConnectionAddresses, Extensions, TlsExtension, Version, write,
};
use crate::routing::{ProxyHeader, Route};

/// More than a header has without its extensions, and than most have with them.
const ROOM: usize = 128;

/// Puts the header that the route asks for in front of what the client has sent, so that both are sent at once.
pub(super) fn announce(
    connection: &Connection,
    route: &Route,
    downstream: &Stream,
    received: Vec<u8>,
) -> FirstBytes {
    let has_tls = route.spec.termination.as_ref().is_some_and(|tls| tls.upstream().is_some());
    if route.spec.policy.proxy_header().is_none() || has_tls {
        // TLS with the endpoint has begun with the header.
        return FirstBytes { bytes: received, header: 0 };
    }
    let mut bytes = Vec::with_capacity(ROOM + received.len());
    header(&mut bytes, connection, route, downstream);
    // Nearly 1,400 bytes at most: the server name, the protocol and the common name have 255 each, and the id 128.
    let header = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&received);
    add_first_data(&mut bytes, connection, downstream);
    FirstBytes { bytes, header }
}

/// Adds the data of a client of TLS that are there already. An end or an error shows again in the relay.
fn add_first_data(bytes: &mut Vec<u8>, connection: &Connection, downstream: &Stream) {
    let mut buffer = connection.context.buffer.borrow_mut();
    if downstream.tls().is_some()
        && let Poll::Ready(Ok(read)) = downstream.poll_recv(&mut buffer)
    {
        bytes.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
}

/// Writes the header that the route asks for.
pub(super) fn header(
    bytes: &mut Vec<u8>,
    connection: &Connection,
    route: &Route,
    downstream: &Stream,
) {
    if let Some(header) = route.spec.policy.proxy_header() {
        write_header(bytes, connection, header, downstream);
    }
}

fn write_header(
    bytes: &mut Vec<u8>,
    connection: &Connection,
    header: ProxyHeader,
    downstream: &Stream,
) {
    let ProxyHeader { version, authority, unique_id, checksum } = header;
    let proxied = connection.proxied.as_deref();
    let destination = proxied.and_then(|proxied| proxied.destination);
    // The kernel knows the address of an open connection.
    let local = || connection.listener.local.or_else(|| downstream.socket().local_address().ok());
    let source = connection.source;
    let destination = destination.or_else(local).unwrap_or(source);
    let name = connection.hello.as_ref().and_then(|hello| hello.server_name.as_ref());
    let received_id = proxied.and_then(|proxied| proxied.unique_id.clone());
    let own_id = || format!("{:016x}", connection.id()).into_bytes().into();
    let id: Option<Box<[u8]>> = unique_id.then(|| received_id.unwrap_or_else(own_id));
    let terminated = connection.terminated.as_deref();
    let key = terminated.and_then(Terminated::key);
    let extensions = Extensions {
        alpn: terminated.and_then(|terminated| terminated.alpn.as_deref()),
        tls: terminated.map(|terminated| tls_extension(terminated, key.as_deref())),
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

fn tls_extension<'a>(terminated: &'a Terminated, key: Option<&'a str>) -> TlsExtension<'a> {
    let client = terminated.client.as_ref();
    TlsExtension {
        version: terminated.version.unwrap_or_default(),
        cipher: terminated.cipher.unwrap_or_default(),
        key,
        client: client.map(|client| ClientCertificateExtension {
            is_of_connection: terminated.resumed == Some(false),
            common_name: client.common_name.as_deref(),
        }),
    }
}
