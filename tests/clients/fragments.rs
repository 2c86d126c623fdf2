//! Hellos in pieces. The transcript of a handshake covers its messages and not their records, so a
//! handshake over a hello that was cut on the way is as good as any.

use std::thread;

use super::client::{Answer, Call, Client};
use super::matrix::Landscape;
use super::recut::{Cut, forwarder};

#[test]
fn hellos_in_records_of_one_byte_complete_their_handshakes() {
    every_client_completes_with(Cut::Records);
}

#[test]
fn hellos_in_segments_of_one_byte_complete_their_handshakes() {
    every_client_completes_with(Cut::Segments);
}

fn every_client_completes_with(cut: Cut) {
    let landscape = Landscape::new();
    let to = forwarder(landscape.sluice.address, cut);
    let landscape = &landscape;
    thread::scope(|scope| {
        for client in Client::ALL {
            scope.spawn(move || {
                for (word, _) in landscape.servers_for(client) {
                    for version in ["1.2", "1.3"] {
                        let version_word = version.replace('.', "");
                        let name = format!("{}-{version_word}.{word}.test", client.word());
                        let authority = &landscape.authority;
                        let call = Call { to, authority, name: &name, version, alpn: &[] };
                        assert_eq!(client.call(&call), Ok(Answer::to(&call, "")), "{cut:?} {name}");
                        let entry = landscape.sluice.entry_of(&name);
                        assert_eq!(entry["route"], *word, "{entry}");
                        assert_eq!(entry["outcome"], "completed", "{entry}");
                    }
                }
            });
        }
    });
}
