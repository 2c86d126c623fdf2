//! Every client through one port to every server.

use std::thread;

use serde_json::Value;
use testkit::Authority;

use super::client::{Answer, Call, Client};
use super::server::{Kind, Server};
use super::sluice::{Sluice, route};

/// A server of each kind, and sluice in front of them with a route `*.KIND.test` for each.
pub(crate) struct Landscape {
    pub(crate) authority: Authority,
    pub(crate) sluice: Sluice,
    servers: Vec<(&'static str, Server)>,
}

const KINDS: [(&str, Kind); 4] = [
    ("openssl", Kind::OpenSsl),
    ("openssl-web", Kind::OpenSslWeb),
    ("rustls", Kind::Rustls),
    ("go", Kind::Go),
];

impl Landscape {
    pub(crate) fn new() -> Self {
        let authority = Authority::new();
        let start = |(word, kind)| {
            (word, Server::start(kind, &authority, &[&format!("*.{word}.test")], &[]))
        };
        let servers: Vec<_> = KINDS.into_iter().map(start).collect();
        let manifests: Vec<_> = servers
            .iter()
            .map(|(word, server)| route(word, &[&format!("*.{word}.test")], server.address))
            .collect();
        let sluice = Sluice::start(&[("routes.yaml", manifests.join("---\n"))]);
        Landscape { authority, sluice, servers }
    }

    /// The three servers for a client: curl needs one that speaks HTTP.
    pub(crate) fn servers_for(
        &self,
        client: Client,
    ) -> impl Iterator<Item = &(&'static str, Server)> {
        let without = if client == Client::Curl { "openssl" } else { "openssl-web" };
        self.servers.iter().filter(move |(word, _)| *word != without)
    }
}

#[test]
fn every_client_reaches_every_server_by_name() {
    let landscape = Landscape::new();
    let landscape = &landscape;
    thread::scope(|scope| {
        for client in Client::ALL {
            scope.spawn(move || calls_every_server(client, landscape));
        }
    });
    let metrics = landscape.sluice.metrics();
    assert_eq!(metrics.connections("completed"), 30.0, "{}", metrics.0);
    assert_eq!(metrics.sum("sluice_connections_total", &[]), 30.0, "{}", metrics.0);
    assert_eq!(metrics.sum("sluice_connections_active", &[]), 0.0);
}

fn calls_every_server(client: Client, landscape: &Landscape) {
    let sluice = &landscape.sluice;
    for (word, server) in landscape.servers_for(client) {
        for version in ["1.2", "1.3"] {
            let name = format!("{}-{}.{word}.test", client.word(), version.replace('.', ""));
            let authority = &landscape.authority;
            let call = Call { to: sluice.address, authority, name: &name, version, alpn: &[] };
            assert_eq!(client.call(&call), Ok(Answer::to(&call, "")), "{name}");

            let entry = sluice.entry_of(&name);
            assert_eq!(entry["route"], *word, "{entry}");
            assert_eq!(entry["namespace"], "test", "{entry}");
            assert_eq!(entry["listener"], "https", "{entry}");
            assert_eq!(entry["endpoint"], server.address.to_string(), "{entry}");
            assert_eq!(entry["attempts"], 1, "{entry}");
            assert_eq!(entry["outcome"], "completed", "{entry}");
            assert_eq!(entry["tlsVersion"], format!("TLSv{version}"), "{entry}");
            // A handshake alone takes hundreds of bytes each way.
            let more_than = |field: &str, bytes| entry[field].as_u64().unwrap() > bytes;
            assert!(more_than("bytesUp", 200) && more_than("bytesDown", 500), "{entry}");
            assert_eq!(entry["ech"], false, "{entry}");
            assert_post_quantum(client, version, &entry);
        }
    }
}

/// OpenSSL offers a post-quantum share from 3.5 on, and with it curl and Python.
fn assert_post_quantum(client: Client, version: &str, entry: &Value) {
    let offered = entry["postQuantum"].as_bool().unwrap();
    match (client, version) {
        (Client::Go | Client::Rustls, "1.3") => assert!(offered, "{entry}"),
        (_, "1.2") => assert!(!offered, "{entry}"),
        _ => {}
    }
}

#[test]
fn every_client_notices_the_wrong_server() {
    let authority = Authority::new();
    let server = Server::start(Kind::Rustls, &authority, &["right.test"], &[]);
    let manifest = route("wrong", &["right.test", "wrong.test"], server.address);
    let sluice = Sluice::start(&[("routes.yaml", manifest)]);
    for client in Client::ALL {
        let call = |name| {
            let (to, authority) = (sluice.address, &authority);
            client.call(&Call { to, authority, name, version: "1.3", alpn: &[] })
        };
        assert!(call("right.test").is_ok(), "{client:?}: {:?}", call("right.test"));
        let refused = call("wrong.test").unwrap_err();
        let words = ["certificate", "hostname mismatch", "NotValidForName"];
        assert!(words.iter().any(|word| refused.contains(word)), "{client:?}: {refused}");
    }
}
