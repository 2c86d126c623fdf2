//! Binds that come and go while connections run.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sluice::config::Protocol;
use sluice::outcome::Outcome;
use sluice::proxy::{BindSpec, PassedSocket};
use sluice::routing::{Attachment, Hostname, ObjectKey, Scope};

use crate::support::{
    Backend, End, Innocent, PATIENCE, Plane, answering, ask, connect, exchange, fresh, hello,
    innocent, is_listened_on, listener, open, rest, target, wait_until,
};

/// A bind of the configuration's on a free port, or at `address`.
fn bind(name: &str, address: Option<SocketAddr>) -> BindSpec {
    let mut config = listener(name, Protocol::Tls, false);
    config.address = address.unwrap_or(config.address);
    BindSpec::of(&config)
}

/// Has the plane bind this as well. Returns where.
fn add(plane: &Plane, spec: BindSpec) -> SocketAddr {
    let name = spec.listener.name.clone();
    let mut wanted = plane.running().binds_in_force();
    wanted.push(spec);
    apply(plane, &wanted);
    let addresses = plane.running().addresses();
    addresses.iter().find(|(other, _)| *other == name).expect("it is bound").1
}

fn remove(plane: &Plane, name: &str) {
    let mut wanted = plane.running().binds_in_force();
    wanted.retain(|spec| spec.listener.name != name);
    apply(plane, &wanted);
}

#[track_caller]
fn apply(plane: &Plane, wanted: &[BindSpec]) {
    let errors = plane.running().apply(wanted);
    assert!(errors.is_empty(), "{errors:?}");
}

/// Connects again and again until nobody listens any more. Whoever was connected is served.
fn clients_of(address: SocketAddr, served: Arc<AtomicUsize>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        while let Ok(mut client) = TcpStream::connect_timeout(&address, PATIENCE) {
            if client.local_addr().ok() == Some(address) {
                // Nobody listens there: the port was its own, and it is connected to itself.
                return;
            }
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.write_all(&fresh(&hello("a.test"))).unwrap();
            assert_eq!(rest(&mut client), (b"served".to_vec(), End::Eof));
            served.fetch_add(1, Ordering::Relaxed);
        }
    })
}

#[test]
fn binds_come_and_go_under_load_and_no_connection_is_lost() {
    const TIMES: u64 = 200;
    const CLIENTS: usize = 3;
    let (quick, lasting, other) = (answering("served"), Backend::new(), innocent::backend());
    let plane = Plane::start(vec![
        target("a.test", &[quick]),
        target("long.test", &[lasting.address()]),
        target("other.test", &[other]),
    ]);
    let long = hello("long.test");
    let mut older = open(plane.address(), &long);
    let mut server = lasting.accept_with(&long);
    let beside = Innocent::start(plane.address(), hello("other.test"), other);

    let (mut clients, mut all) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let address = add(&plane, bind("more", None));
        let served = Arc::<AtomicUsize>::default();
        clients.extend((0..CLIENTS).map(|_| clients_of(address, Arc::clone(&served))));
        wait_until("clients of the new bind", || served.load(Ordering::Relaxed) > CLIENTS);
        remove(&plane, "more");
        all.push(served);
    }
    clients.into_iter().for_each(|client| client.join().expect("everybody was served"));
    beside.finish();
    exchange(&mut older, &mut server);
    assert_eq!(plane.running().addresses().len(), 1);
    let served: usize = all.iter().map(|served| served.load(Ordering::Relaxed)).sum();
    wait_until("the end of all but the oldest", || plane.metrics.connections.total() == 1);
    assert_eq!(plane.count("a.test", Outcome::Completed), served as u64);
}

#[test]
fn an_address_is_had_again_while_its_last_clients_are_still_accepted() {
    let plane = Plane::start(vec![target("a.test", &[answering("served")])]);
    let address = add(&plane, bind("more", None));
    for _ in 0..3 {
        remove(&plane, "more");
        assert_eq!(add(&plane, bind("more", Some(address))), address);
    }
    assert_eq!(ask(address, "a.test"), "served");
}

#[test]
fn one_address_takes_the_place_of_all() {
    let plane = Plane::start(vec![target("a.test", &[answering("served")])]);
    let every = add(&plane, bind("more", Some(([0, 0, 0, 0], 0).into())));
    let one = SocketAddr::from(([127, 0, 0, 1], every.port()));
    let mut wanted = plane.running().binds_in_force();
    wanted.pop();
    wanted.push(bind("more", Some(one)));
    apply(&plane, &wanted);
    assert_eq!(ask(one, "a.test"), "served");
    wait_until("the end of the other bind", || {
        TcpStream::connect(SocketAddr::from(([127, 0, 0, 2], one.port()))).is_err()
    });
    assert_eq!(ask(one, "a.test"), "served");
}

#[test]
fn an_address_that_is_wanted_twice_is_an_error_that_names_both_listeners() {
    let plane = Plane::start(vec![target("a.test", &[answering("served")])]);
    let address = add(&plane, bind("more", None));
    let mut wanted = plane.running().binds_in_force();
    wanted.push(bind("again", Some(address)));
    wanted[1].address = address;
    let errors = plane.running().apply(&wanted);
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let expected =
        format!("listener \"again\" cannot listen on {address}, because listener \"more\" does");
    assert_eq!(errors, [expected]);
    assert_eq!(ask(address, "a.test"), "served");
}

/// Nobody could bind its address: the other process keeps the socket.
#[test]
fn a_passed_socket_can_be_had_again() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let passed = PassedSocket {
        name: Some("https".to_owned()),
        described: "a socket".to_owned(),
        socket: socket.try_clone().unwrap().into(),
    };
    let plane = Plane::with_passed(vec![target("a.test", &[answering("served")])], passed, |_| {});
    let wanted = plane.running().binds_in_force();
    for _ in 0..2 {
        apply(&plane, &[]);
        apply(&plane, &wanted);
        assert_eq!(ask(plane.address(), "a.test"), "served");
    }
    assert_eq!(plane.address(), socket.local_addr().unwrap());
}

#[test]
fn binds_that_come_while_the_process_ends_are_closed_as_well() {
    let plane = Plane::start(vec![target("a.test", &[answering("served")])]);
    plane.running().close();
    let address = add(&plane, bind("more", None));
    wait_until("nobody listens there", || !is_listened_on(address));
}

#[test]
fn a_bind_that_is_removed_drains_and_refuses() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let address = add(&plane, bind("more", None));
    let hello = hello("a.test");
    let mut client = open(address, &hello);
    let mut server = backend.accept_with(&hello);
    remove(&plane, "more");
    wait_until("nobody listens there", || !is_listened_on(address));
    exchange(&mut client, &mut server);
    assert!(is_listened_on(plane.address()), "the others are as before");
    drop((client, server));
    plane.assert_ended(&[("a.test", Outcome::Completed, 1)]);
}

#[test]
fn the_same_hostname_in_two_scopes_leads_to_two_backends() {
    let gateway = Scope::Gateway(ObjectKey::new("infra", "edge"));
    let of_gateway = target("theirs", &[answering("gateway")]).with(|spec| {
        let hostname = Hostname::Exact("a.test");
        spec.attachments = [Attachment::to_all(gateway.clone(), hostname.into())].into();
    });
    let plane = Plane::start(vec![target("a.test", &[answering("config")]), of_gateway]);
    let mut spec = bind("https", Some(([127, 0, 0, 1], 0).into()));
    spec.listener.scope = gateway;
    let mut wanted = plane.running().binds_in_force();
    wanted.push(spec);
    assert!(plane.running().apply(&wanted).is_empty());
    let addresses = plane.running().addresses();
    let theirs = addresses.iter().find(|(_, address)| *address != plane.address()).unwrap().1;
    assert_eq!(ask(plane.address(), "a.test"), "config");
    assert_eq!(ask(theirs, "a.test"), "gateway");
}

#[test]
fn an_address_that_another_process_has_is_told_and_can_be_had_later() {
    let plane = Plane::start(vec![target("a.test", &[answering("served")])]);
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let mut wanted = plane.running().binds_in_force();
    wanted.push(bind("more", Some(address)));
    for _ in 0..2 {
        let errors = plane.running().apply(&wanted);
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let expected =
            format!("listener \"more\" cannot listen on {address}: Address already in use");
        assert!(errors.len() == 1 && errors[0].starts_with(&expected), "{errors:?}");
        assert_eq!(ask(plane.address(), "a.test"), "served", "the others are served");
    }
    drop(other);
    wait_until("it is had", || plane.running().apply(&wanted).is_empty());
    assert_eq!(ask(address, "a.test"), "served");
}

#[test]
fn an_address_that_is_kept_has_its_new_listener_from_now_on() {
    let backend = Backend::new();
    let plane = Plane::start(vec![target("a.test", &[backend.address()])]);
    let hello = hello("a.test");
    let mut client = open(plane.address(), &hello);
    let mut server = backend.accept_with(&hello);
    let mut wanted = plane.running().binds_in_force();
    wanted[0].listener.alerts = true;
    assert!(plane.running().apply(&wanted).is_empty());
    exchange(&mut client, &mut server);
    wait_until("an alert", || {
        let mut unknown = open(plane.address(), &fresh(&crate::support::hello("b.test")));
        rest(&mut unknown).0.first() == Some(&21)
    });
    assert_eq!(plane.running().addresses()[0].1, plane.address());
}

/// A route to it would go round.
#[test]
fn no_route_leads_to_a_bind_that_came_later() {
    let mut plane = Plane::start(vec![]);
    let address = add(&plane, bind("more", None));
    plane.apply(vec![target("a.test", &[address])]);
    let mut client = connect(plane.address());
    client.write_all(&hello("a.test")).unwrap();
    assert_eq!(rest(&mut client), (vec![], End::Eof));
    plane.assert_ended(&[("a.test", Outcome::ConnectFailed, 1)]);
}
