//! Routes that change under load, from files, a thousand times.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use testkit::{Authority, Greeted, Traffic, eventually, greeter};

use super::client::{Call, Session, client_config};
use super::server::{Kind, Server};
use super::sluice::{Sluice, rename_over, route, route_with};

const CHANGES: usize = 1000;
/// Connections of each kind that were opened before the first change.
const OLDER: usize = 10;

#[test]
fn no_connection_is_lost_while_routes_change_a_thousand_times_in_bursts() {
    change_routes_under_load(20);
}

#[test]
#[ignore = "slow: waits for each of a thousand changes to be live, about two minutes"]
fn no_connection_is_lost_while_routes_change_a_thousand_times_one_by_one() {
    change_routes_under_load(1);
}

/// Makes all changes, so many at once before the last of them has to be live.
fn change_routes_under_load(burst: usize) {
    let authority = Authority::new();
    let tls = Server::start(Kind::Rustls, &authority, &["*.tls.test"], &[]);
    let mut files = Files::new(tls.address);
    let sluice = Sluice::start(&[]);
    files.write_all(&sluice);
    files.await_live(&sluice, "start.marker.test");
    let generation = |sluice: &Sluice| sluice.metrics().sum("sluice_table_generation", &[]);
    let before = generation(&sluice);

    let call = Call {
        to: sluice.address,
        authority: &authority,
        name: "load.tls.test",
        version: "1.3",
        alpn: &[],
    };
    let older = Older::open(&call);
    let load = Traffic::default();
    thread::scope(|scope| {
        let _stop = load.stop_at_end();
        scope.spawn(|| load.run(Duration::ZERO, || short_plain(sluice.address)));
        scope.spawn(|| load.run(Duration::ZERO, || short_plain(sluice.address)));
        scope.spawn(|| load.run(Duration::ZERO, || short_tls(&call)));
        eventually("the load runs", || (load.done() > 10).then_some(()));
        for change in 0..CHANGES {
            files.change(change, &sluice);
            if change % burst == burst - 1 {
                let marker = format!("after-{change}.marker.test");
                files.put("marker", &marker, files.servers[0]);
                rename_over(&sluice.routes().join("marker.yaml"), &files.content("marker"));
                files.await_live(&sluice, &marker);
            }
        }
    });
    let done = load.done();
    assert!(done > CHANGES / burst, "only {done} connections");
    let grown = generation(&sluice) - before;
    assert!(grown >= (CHANGES / burst) as f64, "the table changed only {grown} times");
    // A file whose writer is only just known to be done is taken in a later turn than the marker.
    eventually("the table is what the files say", || {
        (served(&sluice.report()) == files.expected()).then_some(())
    });

    older.end();
    assert_all_completed(&sluice, done + 3 * OLDER);
}

/// So many connections have ended, all of them well, and nothing was wrong on the way.
fn assert_all_completed(sluice: &Sluice, connections: usize) {
    let metrics = eventually("all connections have ended", || {
        let metrics = sluice.metrics();
        (metrics.sum("sluice_connections_active", &[]) == 0.0).then_some(metrics)
    });
    let ended = connections as f64;
    assert_eq!(metrics.connections("completed"), ended, "{}", metrics.0);
    assert_eq!(metrics.sum("sluice_connections_total", &[]), ended, "{}", metrics.0);
    let warnings: Vec<_> =
        sluice.log().into_iter().filter(|line| line["level"] != "INFO").collect();
    assert!(warnings.is_empty(), "{warnings:#?}");
}

/// The folder as it is to be, by file: a hostname and a backend.
struct Files {
    routes: BTreeMap<String, (String, SocketAddr)>,
    /// Two servers that routes change between.
    servers: [SocketAddr; 2],
}

impl Files {
    fn new(tls: SocketAddr) -> Self {
        let servers = [greeter("one"), greeter("two")];
        let mut files = Files { routes: BTreeMap::new(), servers };
        files.put("stay", "stay.test", servers[0]);
        files.put("tls", "*.tls.test", tls);
        files.put("marker", "start.marker.test", servers[0]);
        for number in 0..OLDER {
            files.put(&format!("older-{number}"), &format!("older-{number}.test"), servers[0]);
        }
        files
    }

    fn put(&mut self, file: &str, hostname: &str, backend: SocketAddr) {
        self.routes.insert(file.to_owned(), (hostname.to_owned(), backend));
    }

    fn content(&self, file: &str) -> String {
        let (hostname, backend) = &self.routes[file];
        route(file, &[hostname], *backend)
    }

    fn write_all(&self, sluice: &Sluice) {
        for file in self.routes.keys() {
            fs::write(path(sluice, file), self.content(file)).unwrap();
        }
    }

    /// One change to one file: written anew, renamed over or removed; or to a route that carries
    /// the load, whose name and backend stay.
    fn change(&mut self, number: usize, sluice: &Sluice) {
        let backend = self.servers[number / 7 % 2];
        match number % 7 {
            0 | 1 => {
                let name = format!("route-{}", number % 40);
                self.put(&name, &format!("name-{number}.test"), backend);
                fs::write(path(sluice, &name), self.content(&name)).unwrap();
            }
            2 => {
                let name = format!("route-{}", number % 40);
                self.put(&name, &format!("*.name-{number}.test"), backend);
                rename_over(&path(sluice, &name), &self.content(&name));
            }
            3 => {
                let name = self.routes.keys().find(|name| name.starts_with("route-")).cloned();
                if let Some(name) = name {
                    fs::remove_file(path(sluice, &name)).unwrap();
                    self.routes.remove(&name);
                }
            }
            4 => {
                // The routes of older connections go elsewhere, and later they go altogether.
                let name = format!("older-{}", number / 7 % OLDER);
                if number < CHANGES / 2 {
                    self.put(&name, &format!("{name}.test"), backend);
                    fs::write(path(sluice, &name), self.content(&name)).unwrap();
                } else if self.routes.remove(&name).is_some() {
                    fs::remove_file(path(sluice, &name)).unwrap();
                }
            }
            stays => {
                let name = if stays == 5 { "stay" } else { "tls" };
                let idle = format!("  timeouts: {{ idle: {}s }}\n", 600 + number);
                let (hostname, backend) = &self.routes[name];
                let content = route_with(name, &[hostname], *backend, &idle);
                rename_over(&path(sluice, name), &content);
            }
        }
    }

    /// Waits until the last change is live.
    fn await_live(&self, sluice: &Sluice, marker: &str) {
        eventually(marker, || sluice.get("/routes").1.contains(marker).then_some(()));
    }

    /// What is to be served: hostname and backend by route.
    fn expected(&self) -> BTreeMap<String, (String, String)> {
        let text =
            |(hostname, backend): &(String, SocketAddr)| (hostname.clone(), backend.to_string());
        self.routes.iter().map(|(name, what)| (name.clone(), text(what))).collect()
    }
}

fn path(sluice: &Sluice, name: &str) -> PathBuf {
    sluice.routes().join(name).with_extension("yaml")
}

fn served(report: &Value) -> BTreeMap<String, (String, String)> {
    let routes = report["routes"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    routes
        .iter()
        .map(|route| {
            assert_eq!(route["served"], true, "{route}");
            let address = &route["backends"][0]["endpoints"][0]["address"];
            (text(&route["name"]), (text(&route["hostnames"][0]), text(address)))
        })
        .collect()
}

/// Connections that are there before the first change: on routes that go, and on routes that stay.
struct Older {
    plain: Vec<Greeted>,
    tls: Vec<Session>,
}

impl Older {
    fn open(call: &Call<'_>) -> Self {
        let names = (0..OLDER).flat_map(|n| [format!("older-{n}.test"), "stay.test".to_owned()]);
        let plain = names.map(|name| Greeted::ask(call.to, &name).unwrap()).collect();
        let mut tls: Vec<_> = (0..OLDER).map(|_| Session::open(call).unwrap()).collect();
        tls.iter_mut().for_each(|session| assert_eq!(session.say("abc").unwrap(), "cba"));
        Older { plain, tls }
    }

    /// All of them still work, and end as they should.
    fn end(self) {
        for mut connection in self.plain {
            assert_eq!(connection.by, "one");
            connection.echo("still there").unwrap();
            connection.close().unwrap();
        }
        for mut session in self.tls {
            assert_eq!(session.say("live").unwrap(), "evil");
            session.close().unwrap();
        }
    }
}

fn short_plain(sluice: SocketAddr) -> Result<(), String> {
    match Greeted::visit(sluice, "stay.test") {
        Ok(by) if by == "one" => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn short_tls(call: &Call<'_>) -> Result<(), String> {
    let mut session = Session::with(client_config(call), call).map_err(|e| e.to_string())?;
    let answer = session.say("stressed")?;
    session.close()?;
    if answer == "desserts" { Ok(()) } else { Err(answer) }
}
