//! One stream over a long path.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{LongPath, Process, Traced, ask, hello, in_own_network, manifest};

const HERE: &str = "10.9.0.1";
const PEER: &str = "10.9.0.2";
/// After the start of a stream, which is slow and differs from one to the next.
const WARM_UP: Duration = Duration::from_secs(4);
const MEASURED: Duration = Duration::from_secs(6);
/// What comes through sluice, of what comes without it at the same time.
const LEAST: f64 = 0.9;

/// 100 Mbit/s and 100 ms: 1.25 MB are on their way at any time.
#[test]
#[ignore = "slow: a stream over a long path takes seconds to be as fast as it can"]
fn a_long_path_is_filled_on_either_side_of_sluice() {
    in_own_network("far::a_long_path_is_filled_on_either_side_of_sluice", || {
        let _path = LongPath::start(HERE, PEER, 100, 100);
        let port = sends_for_ever();
        let at =
            |host: &str, port: u16| -> SocketAddr { format!("{host}:{port}").parse().unwrap() };
        let manifests =
            [manifest("near.test", at(HERE, port), ""), manifest("far.test", at(PEER, port), "")];
        let process =
            Process::start(&manifests.concat(), &["--listen", &format!("far={HERE}:4430")]);
        for (what, address, name) in [
            ("the client is far", at(PEER, 4430), "near.test"),
            ("the server is far", process.address, "far.test"),
        ] {
            let streams = [(at(PEER, port), "any.test"), (address, name)];
            let taken = streams.map(|(address, name)| thread::spawn(move || taken(address, name)));
            let [alone, through] = taken.map(|taken| taken.join().unwrap());
            let ratio = through as f64 / alone as f64;
            assert!(ratio >= LEAST, "{what}: {ratio:.2}, {through} bytes of {alone}");
        }
    });
}

/// A worker that names a deadline looks again when the kernel tells it to, and not before.
#[test]
fn an_endpoint_that_takes_its_time_is_not_looked_at_in_vain() {
    const TIMES: usize = 20;
    in_own_network("far::an_endpoint_that_takes_its_time_is_not_looked_at_in_vain", || {
        let _path = LongPath::start(HERE, PEER, 100, 4);
        let far = format!("{PEER}:{}", answers()).parse().unwrap();
        let sluice = Traced::start_only(&manifest("far.test", far, ""), "epoll_pwait");
        let ask = || assert_eq!(ask(sluice.process.address, "far.test"), "served");
        // Both workers come to know it.
        (0..TIMES).for_each(|_| ask());
        let before = sluice.looks();
        (0..TIMES).for_each(|_| ask());
        let looks = sluice.looks() - before;
        // One is for the turn in which a connection is begun.
        assert!(looks <= TIMES + TIMES / 4, "{looks} for {TIMES} connections");
    });
}

/// A server on all addresses.
fn answers() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(b"served"));
        }
    });
    port
}

fn sends_for_ever() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || while stream.write_all(&[7; 64 * 1024]).is_ok() {});
        }
    });
    port
}

/// How many bytes come in the time that is measured.
fn taken(address: SocketAddr, name: &str) -> usize {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&hello(name)).unwrap();
    let (begun, mut taken) = (Instant::now(), 0);
    let mut buffer = vec![0; 256 * 1024];
    while begun.elapsed() < WARM_UP + MEASURED {
        let read = stream.read(&mut buffer).unwrap();
        taken += if begun.elapsed() >= WARM_UP { read } else { 0 };
    }
    taken
}
