//! The controller at scale, against a real API server: how soon it is ready, how much memory it
//! takes, and how soon a change is live, as a client sees it.
//!
//! `make bench-control` builds and measures the release binary. Without `--bench`, a few routes
//! show that this still works: as a test, it counts as slow. The environment is that of
//! `tests/kube/`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[path = "../tests/kube/controlled.rs"]
#[allow(dead_code)]
mod controlled;
#[path = "../tests/kube/objects.rs"]
#[allow(dead_code)]
mod objects;
#[path = "../tests/kube/support/mod.rs"]
#[allow(dead_code, unused_imports, unused_macros)]
mod support;

use std::env;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Measurement, Trial};

use controlled::Sluice;
use objects::{Objects, account, route, service, slice};
use support::ApiServer;
use testkit::{Greeted, PATIENCE, greeter_at};

const NAMESPACE: &str = "bench";
/// How often a client asks whether a change is live.
const POLL: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    let measured = env::args().any(|argument| argument == "--bench");
    let trial = Trial::bench("controller", |test| bench(if test { SMALL } else { LARGE }));
    support::run([vec![trial.with_ignored_flag(!measured)]])
}

/// How much there is.
struct Scale {
    /// Each with a Service of its own that has two endpoints.
    routes: u32,
    /// Changes of each kind.
    changes: u32,
}

const LARGE: Scale = Scale { routes: 10_000, changes: 50 };
const SMALL: Scale = Scale { routes: 200, changes: 5 };

/// Fails if a goal is missed at full scale.
fn bench(scale: Scale) -> Result<Option<Measurement>, Failed> {
    let api = ApiServer::shared();
    api.namespace(NAMESPACE);
    let objects = Objects::of(api.admin(), NAMESPACE);
    let servers = Servers::start();
    let started = Instant::now();
    fill(&objects, &scale, &servers);
    println!("\n{} routes, as many Services, {} endpoints", scale.routes, 2 * scale.routes);
    println!("made in {:.0?}\n", started.elapsed());

    let account = account(api, NAMESPACE);
    let started = Instant::now();
    let sluice = Sluice::start(&account, NAMESPACE, &[]);
    sluice.await_ready();
    let ready = started.elapsed();
    assert_eq!(sluice.metric("sluice_routes"), f64::from(scale.routes));
    let endpoints = sluice.metric("sluice_endpoints{state=\"serving\"}");
    assert_eq!(endpoints, f64::from(2 * scale.routes));

    let mut report = Report::default();
    report.row("ready after the start", ready.as_secs_f64(), "s", Some(5.0));
    report.row("memory then", mebibytes(&sluice, "VmRSS:"), "MiB", Some(100.0));
    report.row("memory until then, at most", mebibytes(&sluice, "VmHWM:"), "MiB", None);
    let stage = Stage { objects: &objects, sluice: &sluice, servers };
    let numbers = || (0..scale.changes).map(|change| change * (scale.routes / scale.changes));
    let routes: Vec<Live> = numbers().map(|number| stage.change_route(number)).collect();
    report.lives("a changed route", &routes);
    let endpoints: Vec<Live> = numbers().map(|number| stage.change_endpoint(number)).collect();
    report.lives("a changed endpoint", &endpoints);
    report.row("memory after the changes", mebibytes(&sluice, "VmRSS:"), "MiB", None);

    let avg = u64::try_from(ready.as_nanos())?;
    match report.missed {
        true if scale.routes == LARGE.routes => Err("a goal is missed".into()),
        _ => Ok(Some(Measurement { avg, variance: 0 })),
    }
}

fn fill(objects: &Objects, scale: &Scale, servers: &Servers) {
    let all = (0..scale.routes).flat_map(|number| {
        let name = name(number);
        // Those that will be changed lead to servers. To the others nobody connects.
        let measured = number % (scale.routes / scale.changes) == 0;
        let nobody = |which| (Ipv4Addr::from_bits(0x0a00_0000 + 4 * number + which), 443).into();
        let endpoints = if measured { servers.before } else { [1, 2].map(nobody) };
        [
            service(&name),
            slice(&name, &endpoints),
            route(&name, NAMESPACE, &format!("{name}.test"), &name),
        ]
    });
    objects.put_all(all);
}

/// Servers that say whether they are endpoints from before the changes or after them.
struct Servers {
    before: [SocketAddr; 2],
    after: SocketAddr,
}

impl Servers {
    fn start() -> Self {
        let start = |address: &str, name| greeter_at((address, 0), name);
        let first = start("198.18.6.1", "before");
        // The endpoints of a slice have the same port.
        let second = greeter_at(("198.18.6.2", first.port()), "before");
        Servers { before: [first, second], after: start("198.18.6.3", "after") }
    }
}

fn name(number: u32) -> String {
    format!("app-{number}")
}

/// Where changes are made, and seen.
struct Stage<'a> {
    objects: &'a Objects,
    sluice: &'a Sluice,
    servers: Servers,
}

/// How long a change took to be live.
struct Live {
    from_request: Duration,
    from_answer: Duration,
}

impl Stage<'_> {
    /// Gives a route a name that nobody had.
    fn change_route(&self, number: u32) -> Live {
        let (name, hostname) = (name(number), format!("new-{number}.test"));
        let route = route(&name, NAMESPACE, &hostname, &name);
        self.live(&hostname, "before", || self.objects.put(&route))
    }

    /// Gives a Service one endpoint in place of its two.
    fn change_endpoint(&self, number: u32) -> Live {
        let (name, hostname) = (name(number), format!("new-{number}.test"));
        let slice = slice(&name, &[self.servers.after]);
        self.live(&hostname, "after", || self.objects.put(&slice))
    }

    /// Makes a change, while a client asks again and again who is behind `hostname`.
    fn live(&self, hostname: &str, by: &str, change: impl FnOnce()) -> Live {
        let is_live = || {
            let greeted = Greeted::ask(self.sluice.address, hostname);
            greeted.is_ok_and(|greeted| greeted.by == by)
        };
        thread::scope(|scope| {
            let requested = Instant::now();
            let seen = scope.spawn(move || {
                while !is_live() {
                    assert!(requested.elapsed() < PATIENCE, "{hostname} is not live");
                    thread::sleep(POLL);
                }
                Instant::now()
            });
            change();
            let answered = Instant::now();
            let seen = seen.join().expect("it is live");
            Live {
                from_request: seen.duration_since(requested),
                from_answer: seen.saturating_duration_since(answered),
            }
        })
    }
}

/// Prints a line for each thing measured, and remembers whether a goal was missed.
#[derive(Default)]
struct Report {
    missed: bool,
}

impl Report {
    fn row(&mut self, what: &str, measured: f64, unit: &str, goal: Option<f64>) {
        let (goal, judged) = match goal {
            Some(goal) if measured <= goal => (format!("goal {goal} {unit}"), "met"),
            Some(goal) => {
                self.missed = true;
                (format!("goal {goal} {unit}"), "MISSED")
            }
            None => Default::default(),
        };
        println!("{what:<54}{measured:>9.2} {unit:<5}{goal:<14}{judged}");
    }

    fn lives(&mut self, what: &str, lives: &[Live]) {
        let percentile = |of: fn(&Live) -> Duration, hundredths: usize| {
            let mut all: Vec<Duration> = lives.iter().map(of).collect();
            all.sort_unstable();
            1000.0 * all[(all.len() * hundredths / 100).min(all.len() - 1)].as_secs_f64()
        };
        for (from, of) in [("request", from_request as fn(&_) -> _), ("answer", from_answer)] {
            // The request is where the user starts to wait.
            let goal = (from == "request").then_some(20.0);
            let what = format!("{what} is live, from the {from}");
            self.row(&format!("{what}: median"), percentile(of, 50), "ms", goal);
            self.row(&format!("{what}: 90 %"), percentile(of, 90), "ms", None);
        }
    }
}

fn from_request(live: &Live) -> Duration {
    live.from_request
}

fn from_answer(live: &Live) -> Duration {
    live.from_answer
}

/// A field of `/proc/PID/status`.
fn mebibytes(sluice: &Sluice, field: &str) -> f64 {
    let pid = sluice.pid().as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    let kibibytes: u32 = line.trim().trim_end_matches(" kB").parse().unwrap();
    f64::from(kibibytes) / 1024.0
}
