//! The fuzz targets' corpora, as they are and changed by chance: what `make fuzz` does for minutes
//! with what it learns of coverage, for a moment and without.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

#[path = "../fuzz/checks/dns.rs"]
mod dns;
#[path = "../fuzz/checks/manifests.rs"]
mod manifests;
#[path = "../fuzz/checks/objects.rs"]
mod objects;
#[path = "../fuzz/checks/proxy_header.rs"]
mod proxy_header;
#[path = "../fuzz/checks/saved.rs"]
mod saved;

/// How many changed inputs each corpus is good for.
const CASES: u32 = 256;

#[test]
fn objects_keep_to_their_promises() {
    run("objects", objects::check);
}

#[test]
fn manifests_keep_to_their_promises() {
    run("manifests", manifests::check);
}

#[test]
fn dns_answers_keep_to_their_promises() {
    run("dns", dns::check);
}

#[test]
fn proxy_headers_keep_to_their_promises() {
    run("proxy_header", proxy_header::check);
}

#[test]
fn saved_tables_keep_to_their_promises() {
    run("saved", saved::check);
}

/// `check` returns whether an input is a good one: each corpus has good ones and bad ones.
fn run(target: &str, check: fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target);
    let mut inputs: Vec<Vec<u8>> = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        inputs.push(fs::read(entry.unwrap().path()).unwrap());
    }
    let good = inputs.iter().filter(|input| check(input)).count();
    assert!((1..inputs.len()).contains(&good), "{folder:?}: {good} of {}", inputs.len());
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let changed = (any::<Index>(), prop::collection::vec(change(), 1..4));
    TestRunner::new(config)
        .run(&changed, |(which, changes)| {
            let mut input = which.get(&inputs).clone();
            let other = &inputs[which.index(inputs.len() + 1) % inputs.len()];
            changes.iter().for_each(|change| change.make(&mut input, other));
            check(&input);
            Ok(())
        })
        .unwrap();
}

/// What becomes of an input.
#[derive(Clone, Debug)]
enum Change {
    /// A byte is another one.
    Byte(Index, u8),
    /// Something of another input is put in.
    Insert(Index, Index, Index),
    /// Something is left out.
    Leave(Index, Index),
    /// Something is there twice.
    Double(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        any::<(Index, Index, Index)>().prop_map(|(at, from, to)| Change::Insert(at, from, to)),
        any::<(Index, Index)>().prop_map(|(from, to)| Change::Leave(from, to)),
        any::<(Index, Index)>().prop_map(|(from, to)| Change::Double(from, to)),
    ]
}

impl Change {
    fn make(&self, input: &mut Vec<u8>, other: &[u8]) {
        let range = |bytes: &[u8], from: &Index, to: &Index| {
            let (from, to) = (from.index(bytes.len() + 1), to.index(bytes.len() + 1));
            from.min(to)..from.max(to)
        };
        match self {
            Change::Byte(at, byte) => {
                let at = at.index(input.len() + 1);
                input.splice(at..(at + 1).min(input.len()), [*byte]);
            }
            Change::Insert(at, from, to) => {
                let at = at.index(input.len() + 1);
                input.splice(at..at, other[range(other, from, to)].to_vec());
            }
            Change::Leave(from, to) => drop(input.drain(range(input, from, to))),
            Change::Double(from, to) => {
                let range = range(input, from, to);
                let twice = input[range.clone()].to_vec();
                input.splice(range.start..range.start, twice);
            }
        }
    }
}
