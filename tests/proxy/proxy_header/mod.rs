//! PROXY headers, from proxies and to endpoints.

mod received;
mod sent;

use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;
use sluice::config::{Config, OtherPeers, ProxyProtocolIn, TrustedPeers};
use sluice::policy::Access;
use sluice::proxy_protocol::{ConnectionAddresses, Extensions, Version, write};

use crate::support::{Plane, open_from, rest};

pub(crate) const CLIENT: &str = "192.0.2.7:40000";
pub(crate) const SERVED: &str = "203.0.113.9:443";

pub(crate) fn header(version: Version) -> Vec<u8> {
    header_of(version, CLIENT, SERVED, Extensions::default())
}

pub(crate) fn header_of(
    version: Version,
    source: &str,
    destination: &str,
    extensions: Extensions<'_>,
) -> Vec<u8> {
    let mut header = Vec::new();
    let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
    write(&mut header, version, ConnectionAddresses { source, destination }, extensions);
    header
}

/// Trusts 127.0.0.1, and not 127.0.0.2.
pub(crate) fn trusting(trusted: TrustedPeers, others: OtherPeers) -> impl Fn(&mut Config) {
    move |config| {
        let from = vec!["127.0.0.1".parse().unwrap()];
        config.listeners[0].proxy_protocol = Some(ProxyProtocolIn { from, trusted, others });
    }
}

pub(crate) fn requiring(config: &mut Config) {
    trusting(TrustedPeers::Require, OtherPeers::Plain)(config);
}

/// A client that is not trusted.
pub(crate) fn stranger(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    open_from(([127, 0, 0, 2], 0).into(), address, bytes)
}

#[track_caller]
pub(crate) fn is_refused(mut client: TcpStream) {
    let _ = client.shutdown(Shutdown::Write);
    assert_eq!(rest(&mut client).0, b"");
}

/// The log line of a plane that served one connection.
#[track_caller]
pub(crate) fn only_line(plane: Plane) -> Value {
    let mut lines = plane.access_log();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// The log line whose field has this value.
#[track_caller]
pub(crate) fn line_with(plane: Plane, field: &str, value: &str) -> Value {
    let lines = plane.access_log();
    lines.iter().find(|line| line[field] == value).unwrap_or_else(|| panic!("{lines:?}")).clone()
}

/// Access for these alone.
pub(crate) fn only(networks: &[&str]) -> Access {
    let allow = networks.iter().map(|network| network.parse().unwrap()).collect();
    Access { allow, ..Access::default() }
}
