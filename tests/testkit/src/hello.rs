//! What clients say first.

use std::sync::Arc;

use rustls::client::ClientConnection;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};

const RECORD_HEADER: usize = 5;

/// A hello for `name`, as rustls says it.
pub fn hello(name: &str) -> Vec<u8> {
    of_rustls(config(), name)
}

/// A hello that names no server.
pub fn hello_without_name() -> Vec<u8> {
    let mut config = config();
    config.enable_sni = false;
    of_rustls(config, "a.test")
}

/// A hello that offers `protocols`.
pub fn hello_with_alpn(name: &str, protocols: Vec<Vec<u8>>) -> Vec<u8> {
    let mut config = config();
    config.alpn_protocols = protocols;
    of_rustls(config, name)
}

/// A hello whose name may be none at all.
pub fn hello_with_any_name(name: &[u8]) -> Vec<u8> {
    let mut hello = hello("a.test");
    let at = find(&hello, b"a.test");
    hello.splice(at..at + 6, name.iter().copied());
    // The lengths of the name, its list, its extension, and of all around it.
    let lengths = [at - 2, at - 5, at - 7].into_iter().chain(around(&hello));
    lengths.for_each(|length| grow(&mut hello, length, 6, name.len()));
    hello
}

/// A hello that names its server twice.
pub fn malformed_hello() -> Vec<u8> {
    let mut hello = hello("a.test");
    let name = find(&hello, b"a.test");
    let extension = hello[name - 9..name + 6].to_vec();
    hello.extend(&extension);
    around(&hello).into_iter().for_each(|length| grow(&mut hello, length, 0, extension.len()));
    hello
}

/// The length at this place is to be one of what has become `to` bytes out of `from`.
fn grow(hello: &mut [u8], length: usize, from: usize, to: usize) {
    let value = u16::from_be_bytes([hello[length], hello[length + 1]]);
    let value = value + u16::try_from(to).unwrap() - u16::try_from(from).unwrap();
    hello[length..length + 2].copy_from_slice(&value.to_be_bytes());
}

fn find(hello: &[u8], name: &[u8]) -> usize {
    hello.windows(name.len()).position(|window| window == name).unwrap()
}

/// Where the lengths of the record, the message and the extensions stand.
fn around(hello: &[u8]) -> [usize; 3] {
    // Headers, version and random; session id, cipher suites, compression methods.
    let mut at = RECORD_HEADER + 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    at += 1 + usize::from(hello[at]);
    [RECORD_HEADER - 2, RECORD_HEADER + 2, at]
}

/// The same handshake bytes in records of at most `size` bytes.
pub fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
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
