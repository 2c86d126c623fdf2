//! What clients say first.

use std::sync::Arc;

use rustls::client::ClientConnection;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

const RECORD_HEADER: usize = 5;

/// A hello for `name`, as rustls says it.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    of_rustls(config(), name)
}

/// A hello that names no server.
pub(crate) fn hello_without_name() -> Vec<u8> {
    let mut config = config();
    config.enable_sni = false;
    of_rustls(config, "a.test")
}

/// A hello that offers `protocols`.
pub(crate) fn hello_with_alpn(name: &str, protocols: Vec<Vec<u8>>) -> Vec<u8> {
    let mut config = config();
    config.alpn_protocols = protocols;
    of_rustls(config, name)
}

/// A hello whose name has an empty label, and so is none.
pub(crate) fn malformed_hello() -> Vec<u8> {
    let mut hello = hello("aaaa.test");
    let at = hello.windows(9).position(|window| window == b"aaaa.test").unwrap();
    hello[at + 2] = b'.';
    hello[at + 3] = b'.';
    hello
}

/// The same handshake bytes in records of at most `size` bytes.
pub(crate) fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
    let (header, message) = hello.split_at(RECORD_HEADER);
    message
        .chunks(size)
        .flat_map(|part| {
            let length = u16::try_from(part.len()).unwrap();
            [&header[..3], &length.to_be_bytes(), part].concat()
        })
        .collect()
}

fn config() -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

fn of_rustls(config: ClientConfig, name: &str) -> Vec<u8> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}
