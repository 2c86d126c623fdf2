//! Ends without `close_notify`: what came before them is intact and arrives, and then the end looks like none.

use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::PKCS_ECDSA_P256_SHA256;
use sluice::outcome::Outcome;
use sluice::policy::{OnRemoval, Policy, Spread, Timeout};

use super::Site;
use super::peer::{TlsEnd, TlsPeer, exchange};
use super::pki::Authority;
use crate::support::{
    Backend, Bulk, End, LongPath, Plane, Target, expect_reset, in_own_network, millis,
    receive_bulk, reset, rest, target, wait_until,
};

/// More than a receiver takes that does not read, and less than sluice takes from the sender all the same.
const SIZE: usize = 240 * 1024;

/// Endpoints with TLS, or without if they are `plain`.
struct World {
    authority: Authority,
    backend: Backend,
    plane: Plane,
}

impl World {
    fn new(plain: bool, idle: u64) -> Self {
        World::of(plain, |policy| policy.timeouts.idle = Timeout::new(millis(idle)))
    }

    fn of(plain: bool, policy: impl FnOnce(&mut Policy)) -> Self {
        let (authority, backend) = (Authority::new(), Backend::new());
        let target = target_of(&authority, &backend, plain).policy(policy);
        let plane = Plane::with(vec![target], |config| config.workers = 1.try_into().unwrap());
        World { authority, backend, plane }
    }

    /// A client and an endpoint that speak TLS.
    fn pair(&self) -> (TlsPeer, TlsPeer) {
        let own = self.authority.server("inner.test", false);
        thread::scope(|scope| {
            let server = scope.spawn(|| TlsPeer::accept(self.backend.accept(), &own).unwrap());
            let client = self.client();
            (client, server.join().unwrap())
        })
    }

    fn client(&self) -> TlsPeer {
        TlsPeer::open(self.plane.address(), "a.test", &self.authority.client())
    }
}

fn target_of(authority: &Authority, backend: &Backend, plain: bool) -> Target {
    let parts = authority.parts("a.test", &PKCS_ECDSA_P256_SHA256);
    let upstream = (!plain).then(|| authority.upstream("inner.test"));
    target("a.test", &[backend.address()]).terminated(parts, upstream)
}

/// Sends the bytes, and then the end of the connection alone. sluice has seen it when this returns.
#[track_caller]
fn send_and_cut(sender: &mut TlsPeer, bulk: &Bulk) {
    sender.send_bulk(bulk, SIZE);
    sender.socket.shutdown(Shutdown::Write).unwrap();
    assert_ne!(sender.rest().1, TlsEnd::Closed);
}

/// The receiver has all bytes, and then the end of the connection alone.
#[track_caller]
fn receive_until_cut(receiver: &mut TlsPeer, bulk: &Bulk) {
    receiver.receive_bulk(bulk, SIZE);
    assert_eq!(receiver.rest(), (vec![], TlsEnd::Cut));
}

#[test]
fn a_client_has_all_bytes_of_an_endpoint_that_leaves_out_its_close_notify() {
    let world = World::new(false, 60_000);
    let (mut client, mut server) = world.pair();
    let bulk = Bulk::new(11);
    send_and_cut(&mut server, &bulk);
    receive_until_cut(&mut client, &bulk);
    world.plane.assert_ended(&[("a.test", Outcome::UpstreamReset, 1)]);
    let lines = world.plane.access_log();
    let cause = "TLS with the endpoint: the connection has ended without close_notify";
    assert_eq!(lines[0]["cause"], cause);
}

/// A socket that is closed while its peer still sends is reset, with the bytes that are on their way.
#[test]
fn a_client_that_goes_on_sending_has_all_bytes_too() {
    let world = World::new(false, 60_000);
    let (mut client, mut server) = world.pair();
    let bulk = Bulk::new(12);
    send_and_cut(&mut server, &bulk);
    client.send(&[7; 100_000]);
    receive_until_cut(&mut client, &bulk);
    world.plane.assert_ended(&[("a.test", Outcome::UpstreamReset, 1)]);
}

#[test]
fn an_endpoint_with_tls_has_all_bytes_of_a_client_that_leaves_out_its_close_notify() {
    let world = World::new(false, 60_000);
    let (mut client, mut server) = world.pair();
    let bulk = Bulk::new(13);
    send_and_cut(&mut client, &bulk);
    receive_until_cut(&mut server, &bulk);
    world.plane.assert_ended(&[("a.test", Outcome::DownstreamReset, 1)]);
}

/// A FIN would tell it that it has everything.
#[test]
fn an_endpoint_without_tls_has_all_bytes_and_then_a_reset() {
    let world = World::new(true, 60_000);
    let (mut client, mut server) = (world.client(), world.backend.accept());
    let bulk = Bulk::new(14);
    send_and_cut(&mut client, &bulk);
    receive_bulk(&mut server, &bulk, SIZE);
    assert_eq!(rest(&mut server), (vec![], End::Reset));
    world.plane.assert_ended(&[("a.test", Outcome::DownstreamReset, 1)]);
    let lines = world.plane.access_log();
    assert_eq!(lines[0]["cause"], "the connection has ended without close_notify");
}

/// It has got the end of its endpoint, which has got all bytes before it was closed.
#[test]
fn an_endpoint_that_ended_first_has_all_bytes_before_the_connection_is_over() {
    let world = World::new(true, 60_000);
    let (mut client, mut server) = (world.client(), world.backend.accept());
    server.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), (vec![], TlsEnd::Closed));
    let bulk = Bulk::new(15);
    client.send_bulk(&bulk, SIZE);
    drop(client);
    // The worker, which is the only one, has seen the end by now.
    let (mut later, mut behind) = (world.client(), world.backend.accept());
    exchange(&mut later, &mut behind);
    receive_bulk(&mut server, &bulk, SIZE);
    assert_eq!(rest(&mut server), (vec![], End::Reset));
    drop(behind);
    assert_eq!(later.rest(), (vec![], TlsEnd::Closed));
    later.close();
    world.plane.assert_ended(&[("a.test", Outcome::Completed, 2)]);
}

/// The pool of a client keeps such connections for long.
#[test]
fn an_endpoint_that_is_gone_after_its_own_end_misses_nothing() {
    let world = World::new(true, 60_000);
    let (client, server) = (world.client(), world.backend.accept());
    server.shutdown(Shutdown::Write).unwrap();
    let mut client = client;
    assert_eq!(client.rest(), (vec![], TlsEnd::Closed));
    reset(server);
    // The worker, which is the only one, has seen that by now.
    let (mut later, mut behind) = (world.client(), world.backend.accept());
    exchange(&mut later, &mut behind);
    drop((client, behind));
    assert_eq!(later.rest(), (vec![], TlsEnd::Closed));
    later.close();
    world.plane.assert_ended(&[("a.test", Outcome::Completed, 2)]);
}

/// What the endpoint has left behind is not less intact for that.
#[test]
fn neither_a_lifetime_nor_the_removal_of_the_endpoint_cuts_off_what_it_has_left_behind() {
    let policy = |policy: &mut Policy| {
        policy.timeouts.lifetime = Timeout::new(millis(500));
        policy.endpoints.on_removal = Some(OnRemoval::Close);
        policy.endpoints.close_over = Some(Spread::new(Duration::ZERO));
    };
    let mut world = World::of(false, policy);
    let (mut client, mut server) = world.pair();
    let (bulk, begun) = (Bulk::new(19), Instant::now());
    send_and_cut(&mut server, &bulk);
    let moved = target_of(&world.authority, &Backend::new(), false).policy(policy);
    world.plane.apply(vec![moved]);
    // Longer than the lifetime, and the pause in which it ends.
    wait_until("two seconds", || begun.elapsed() > Duration::from_secs(2));
    receive_until_cut(&mut client, &bulk);
    world.plane.assert_ended(&[("a.test", Outcome::UpstreamReset, 1)]);
}

#[test]
fn a_receiver_that_never_reads_is_waited_for_until_a_deadline() {
    let world = World::new(true, 300);
    let (mut client, server) = (world.client(), world.backend.accept());
    send_and_cut(&mut client, &Bulk::new(16));
    world.plane.assert_ended(&[("a.test", Outcome::DownstreamReset, 1)]);
    expect_reset(server);
}

/// An endpoint may answer meanwhile. There is nobody for that, and no place.
#[test]
fn an_answer_to_a_cut_request_holds_nothing_up() {
    let site = Site::new();
    let (mut client, mut server) = site.pair();
    let bulk = Bulk::new(17);
    send_and_cut(&mut client, &bulk);
    drop(client);
    std::io::Write::write_all(&mut server, &[7; 100_000]).unwrap();
    receive_bulk(&mut server, &bulk, SIZE);
    assert_eq!(rest(&mut server), (vec![], End::Reset));
    site.plane.assert_ended(&[("a.test", Outcome::DownstreamReset, 1)]);
}

/// Each peer is far in its turn, and reads nothing before the sender has closed.
#[test]
fn all_bytes_arrive_over_a_long_path() {
    const HERE: &str = "10.9.0.1";
    const PEER: &str = "10.9.0.2";
    const SIZE: usize = 600_000;
    in_own_network("terminate::cuts::all_bytes_arrive_over_a_long_path", || {
        let _path = LongPath::start(HERE, PEER, 100, 50);
        let far = |port: u16| -> SocketAddr { format!("{PEER}:{port}").parse().unwrap() };
        let (authority, near) = (Authority::new(), Backend::new());
        let backend = Backend::at([0, 0, 0, 0]);
        let parts = |name| authority.parts(name, &PKCS_ECDSA_P256_SHA256);
        let upstream = Some(authority.upstream("inner.test"));
        let targets = vec![
            target("near.test", &[near.address()]).terminated(parts("near.test"), upstream),
            target("far.test", &[far(backend.address().port())])
                .terminated(parts("far.test"), None),
        ];
        let plane = Plane::with(targets, |config| {
            config.listeners[0].address = format!("{HERE}:0").parse().unwrap();
        });
        let own = authority.server("inner.test", false);
        let bulk = Bulk::new(18);
        thread::scope(|scope| {
            let server = scope.spawn(|| TlsPeer::accept(near.accept(), &own).unwrap());
            let address = far(plane.address().port());
            let mut client = TlsPeer::open(address, "near.test", &authority.client());
            server.join().unwrap().send_bulk(&bulk, SIZE);
            client.receive_bulk(&bulk, SIZE);
            assert_eq!(client.rest(), (vec![], TlsEnd::Cut));
        });
        let mut client = TlsPeer::open(plane.address(), "far.test", &authority.client());
        let mut server = backend.accept();
        client.send_bulk(&bulk, SIZE);
        drop(client);
        receive_bulk(&mut server, &bulk, SIZE);
        assert_eq!(rest(&mut server), (vec![], End::Reset));
        plane.assert_ended(&[
            ("near.test", Outcome::UpstreamReset, 1),
            ("far.test", Outcome::DownstreamReset, 1),
        ]);
    });
}
