//! Descriptors run out: nothing spins, nothing is lost for good.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, prlimit};

use crate::support::{
    Blackhole, Process, answering, ask, connect, fresh, hello, is_over, manifest, millis, open,
    reset, rest, wait_until,
};

const EMFILE: &str = "sluice_accept_errors_total{error=\"emfile\"}";
const REFUSED: &str =
    "sluice_connections_total{kind=\"\",namespace=\"\",route=\"\",outcome=\"limit_exceeded\"}";

fn manifests() -> String {
    manifest("a.test", answering("served"), "")
}

fn limit_descriptors(process: &Process, current: u64) -> Rlimit {
    let limit = Rlimit { current: Some(current), maximum: Some(20_000) };
    prlimit(Some(process.pid()), Resource::Nofile, limit).unwrap()
}

#[test]
fn out_of_descriptors_it_waits_and_then_goes_on() {
    let process = Process::start(&manifests(), &["--timeouts-hello", "600s"]);
    // So many clients meet every worker: all have started.
    for _ in 0..20 {
        assert_eq!(ask(process.address, "a.test"), "served");
    }
    let before = limit_descriptors(&process, 60);
    let clients: Vec<TcpStream> = (0..200).map(|_| connect(process.address)).collect();

    // It has accepted what it can, and the rest of the queue would wake it up for ever.
    let begun = Instant::now();
    let used = process.cpu();
    wait_until("a second", || begun.elapsed() > Duration::from_secs(1));
    let used = process.cpu() - used;
    assert!(used < millis(250), "{used:?} of CPU in a second");

    prlimit(Some(process.pid()), Resource::Nofile, before).unwrap();
    wait_until("all to be accepted", || process.metric("sluice_connections_active") == 200.0);
    assert!(process.metric(EMFILE) > 0.0);
    assert_eq!(ask(process.address, "a.test"), "served");
    drop(clients);
    wait_until("the ends", || process.metric("sluice_connections_active") == 0.0);
    assert_eq!(process.get("/readyz").0, 200);
}

#[test]
fn with_a_low_limit_the_admin_port_keeps_its_share() {
    let process = Process::start_unread(
        "ulimit -n 300",
        &manifests(),
        &["--access-log", "off", "--timeouts-hello", "600s"],
    );
    let mut clients: Vec<TcpStream> = (0..500).map(|_| connect(process.address)).collect();
    wait_until("all to be counted", || {
        process.metric(REFUSED) + process.metric("sluice_connections_active") == 500.0
    });
    let refused = process.metric(REFUSED) as usize;
    assert!((400..500).contains(&refused), "{refused}");
    assert_eq!(process.metric(EMFILE), 0.0);
    assert_eq!(process.get("/readyz").0, 200);

    // Each is counted a moment before it is closed.
    wait_until("the ends of the refused", || {
        clients.iter().filter(|client| is_over(client)).count() == refused
    });
    clients.retain(|client| !is_over(client));
    assert_eq!(clients.len(), 500 - refused);
    for client in &mut clients {
        std::io::Write::write_all(client, &hello("a.test")).unwrap();
        assert_eq!(rest(client).0, b"served");
    }
    drop(clients);
    wait_until("the ends", || process.metric("sluice_connections_active") == 0.0);
    assert_eq!(rest(&mut open(process.address, &hello("a.test"))).0, b"served");
}

/// A route whose endpoints are silent has a second and a third attempt for each client.
#[test]
fn clients_of_silent_endpoints_leave_the_admin_port_and_others_their_share() {
    const CLIENTS: usize = 500;
    let silent = [(); 3].map(|()| Blackhole::new());
    let [first, second, third] = silent.each_ref().map(Blackhole::address);
    let more = format!(
        "  timeouts: {{ connect: 60s }}\n  loadBalancing: {{ race: {{ budget: 100 }} }}\n  backends:\n  - address: \"{first}\"\n  \
         - address: \"{second}\"\n  - address: \"{third}\"\n"
    );
    let route = manifest("silent.test", first, "").replace("  backends: ", "  # ") + &more;
    let process =
        Process::start_unread("ulimit -n 1150", &(manifests() + &route), &["--access-log", "off"]);
    let few = process.descriptors();
    let hello = hello("silent.test");
    let raced: Vec<_> = (0..10).map(|_| open(process.address, &fresh(&hello))).collect();
    wait_until("all to be tried", || process.descriptors() >= few + raced.len() * 4);

    let mut clients: Vec<_> = (0..CLIENTS).map(|_| open(process.address, &fresh(&hello))).collect();
    wait_until("all to be counted", || {
        let open = process.metric("sluice_connections_active");
        process.metric(REFUSED) + open == (CLIENTS + raced.len()) as f64
    });
    let begun = Instant::now();
    wait_until("longer than an endpoint may be silent", || {
        assert_eq!((process.get("/readyz").0, process.metric(EMFILE)), (200, 0.0));
        begun.elapsed() > Duration::from_secs(1)
    });
    // Those that are served now have no second attempt, and others come in their place.
    clients.retain(|client| !is_over(client));
    assert!(clients.len() > 300, "{}", clients.len());
    clients.drain(250..).for_each(reset);
    wait_until("room", || process.metric("sluice_connections_active") <= 260.0);
    for _ in 0..40 {
        assert_eq!(ask(process.address, "a.test"), "served");
    }
}
