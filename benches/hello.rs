//! Reading a ClientHello, as real clients send it.
//!
//! Without `--bench`, as in a test, each is read once, to show that this works.

#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluice::tls::{HelloReader, Progress};

/// From tests/corpus: a small one, one that is padded, and two with post-quantum key shares, of
/// which the last has an Encrypted ClientHello too.
const CLIENTS: [&str; 4] = ["openssl-tls13", "curl", "go-alpn", "chromium"];
const MAX_HELLO: usize = 16 * 1024;
/// The payload of an Ethernet frame with TCP's timestamps, which the large ones do not fit.
const SEGMENT: usize = 1448;
const RECORD: usize = 200;

criterion_group!(benches, hello);
criterion_main!(benches);

fn hello(criterion: &mut Criterion) {
    for client in CLIENTS {
        let path = format!("{}/tests/corpus/hello/{client}.bin", env!("CARGO_MANIFEST_DIR"));
        let whole = fs::read(path).unwrap();
        let split = in_records(&whole);
        let cut = SEGMENT.min(whole.len() / 2);
        let mut group = criterion.benchmark_group(format!("hello of {client}"));
        group.throughput(Throughput::Bytes(whole.len() as u64));
        group.bench_function("in one segment", |bencher| bencher.iter(|| read(&whole, &[])));
        group.bench_function("in two segments", |bencher| bencher.iter(|| read(&whole, &[cut])));
        group.bench_function("in many records", |bencher| bencher.iter(|| read(&split, &[])));
        group.finish();
    }
}

/// Reads what has come, at each of `cuts` and at the end.
fn read(received: &[u8], cuts: &[usize]) -> Progress {
    let mut reader = HelloReader::new(MAX_HELLO);
    for cut in cuts {
        assert_eq!(reader.read(&received[..*cut]), Progress::Incomplete);
    }
    let progress = reader.read(received);
    assert!(matches!(progress, Progress::Hello(_)));
    progress
}

/// The same handshake message in records of [`RECORD`] bytes.
fn in_records(hello: &[u8]) -> Vec<u8> {
    let (header, message) = hello.split_at(5);
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap();
        [&header[..3], &length.to_be_bytes(), part].concat()
    };
    message.chunks(RECORD).flat_map(record).collect()
}
