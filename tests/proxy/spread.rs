//! Connections are spread over the workers, however the kernel spreads the clients.

use std::io::{Read, Write};
use std::net::TcpStream;

use sluice::outcome::Outcome;

use crate::support::{Plane, answering, hello, open, target, wait_until};

const WORKERS: usize = 4;
const CLIENTS: usize = 256;
/// How many more the busiest may have than the idlest: by chance alone it is more, but for one run
/// in twenty.
const SPREAD: usize = 8;

#[test]
fn connections_that_last_are_even_and_served() {
    let plane = Plane::with(vec![target("a.test", &[answering("served")])], |config| {
        config.workers = WORKERS.try_into().unwrap();
    });
    let load = || plane.metrics.connections.by_worker().into_iter();
    let mut clients: Vec<TcpStream> = Vec::new();
    for number in 1..=CLIENTS {
        clients.push(open(plane.address(), b""));
        // One after another, so that each finds the others counted.
        wait_until("it is counted", || load().sum::<usize>() == number);
    }
    let loads: Vec<usize> = load().collect();
    let (most, least) = (loads.iter().max().unwrap(), loads.iter().min().unwrap());
    assert!(most - least <= SPREAD, "{loads:?}");

    for mut client in clients {
        client.write_all(&hello("a.test")).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "served");
    }
    wait_until("the ends", || load().all(|load| load == 0));
    plane.assert_ended(&[("a.test", Outcome::Completed, CLIENTS as u64)]);
}
