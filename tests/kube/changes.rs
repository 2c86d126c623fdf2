//! Changes of routes and endpoints, one after the other, and what they come to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::controlled::Sluice;
use crate::objects::{Objects, route, service, slice};

/// Routes of connections that are older than the changes.
pub(crate) const OLDER: usize = 10;
const SERVICES: usize = 8;

/// What is served: a hostname and its endpoints, by route.
type Served = BTreeMap<String, (String, BTreeSet<SocketAddr>)>;

/// The objects as they are to be.
pub(crate) struct Changes {
    objects: Objects,
    class: String,
    /// Two servers that connections are led to, on the same port.
    servers: [SocketAddr; 2],
    /// Hostname and Service of each route.
    routes: BTreeMap<String, (String, String)>,
    /// Endpoints of each Service.
    services: BTreeMap<String, Vec<SocketAddr>>,
}

impl Changes {
    /// Makes the objects that changes begin with: routes for `stay.test` and `older-0.test` to
    /// `older-9.test`, to the first server.
    pub(crate) fn begin(objects: Objects, class: &str, servers: [SocketAddr; 2]) -> Self {
        let (routes, services) = <_>::default();
        let mut changes = Changes { objects, class: class.to_owned(), servers, routes, services };
        let names = (0..SERVICES).map(|number| format!("service-{number}"));
        for name in names.chain(["stay".into(), "older".into()]) {
            changes.objects.put(&service(&name));
            changes.set_endpoints(&name, vec![servers[0]]);
        }
        for number in 0..OLDER {
            changes.set_route(&format!("older-{number}"), format!("older-{number}.test"), "older");
        }
        changes.set_route("stay", "stay.test".into(), "stay");
        changes
    }

    /// Gives a route a hostname by which to see that all changes of routes before it are live.
    pub(crate) fn mark(&mut self, hostname: &str) {
        self.set_route("marker", hostname.to_owned(), "stay");
    }

    /// Makes the change of this number, out of so many.
    pub(crate) fn change(&mut self, number: usize, of: usize) {
        let round = number / 8;
        let some_route = format!("route-{}", round % 40);
        let some_service = format!("service-{}", round % SERVICES);
        let next_service = format!("service-{}", (round + 1) % SERVICES);
        match number % 8 {
            0 => self.set_route(&some_route, format!("name-{number}.test"), &some_service),
            1 => self.set_route(&some_route, format!("*.name-{number}.test"), &some_service),
            2 if round.is_multiple_of(3) => self.remove_route(&some_route),
            2 => self.set_route(&some_route, format!("name-{number}.test"), &next_service),
            3 => self.set_endpoints(&some_service, self.some_servers(round)),
            4 => self.set_endpoints(&some_service, self.some_servers(round + 1)),
            // The endpoints of older connections go, and their routes go elsewhere, or altogether.
            5 => self.set_endpoints("older", self.some_servers(round)),
            6 => {
                let older = format!("older-{}", round % OLDER);
                if number < of / 2 {
                    self.set_route(&older, format!("{older}.test"), &some_service);
                } else {
                    self.remove_route(&older);
                }
            }
            // What carries the load changes too, but it always has an endpoint.
            _ if round.is_multiple_of(2) => {
                self.set_endpoints("stay", self.some_servers(1 + round / 2 % 3))
            }
            _ => self.set_idle("stay", 600 + number),
        }
    }

    /// What is to be served.
    pub(crate) fn expected(&self) -> Served {
        let routes = self.routes.iter();
        routes
            .map(|(name, (hostname, service))| {
                let endpoints = self.services[service].iter().copied().collect();
                (name.clone(), (hostname.clone(), endpoints))
            })
            .collect()
    }

    /// None, the one, the other, or both.
    fn some_servers(&self, which: usize) -> Vec<SocketAddr> {
        let bits = self.servers.iter().enumerate().filter(|(bit, _)| which >> bit & 1 == 1);
        bits.map(|(_, server)| *server).collect()
    }

    fn set_route(&mut self, name: &str, hostname: String, service: &str) {
        self.objects.put(&route(name, &self.class, &hostname, service));
        self.routes.insert(name.to_owned(), (hostname, service.to_owned()));
    }

    fn set_idle(&mut self, name: &str, seconds: usize) {
        let (hostname, service) = &self.routes[name];
        let mut route = route(name, &self.class, hostname, service);
        route["spec"]["timeouts"] = json!({ "idle": format!("{seconds}s") });
        self.objects.put(&route);
    }

    fn remove_route(&mut self, name: &str) {
        if self.routes.remove(name).is_some() {
            self.objects.delete(&route(name, "", "", ""));
        }
    }

    fn set_endpoints(&mut self, service: &str, endpoints: Vec<SocketAddr>) {
        self.objects.put(&slice(service, &endpoints));
        self.services.insert(service.to_owned(), endpoints);
    }
}

/// What is served.
pub(crate) fn served(sluice: &Sluice) -> Served {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let routes = sluice.routes();
    routes
        .iter()
        .map(|route| {
            assert_eq!(route["served"], true, "{route}");
            let endpoints = route["backends"][0]["endpoints"].as_array().unwrap();
            let endpoints =
                endpoints.iter().map(|one| text(&one["address"]).parse().unwrap()).collect();
            (text(&route["name"]), (text(&route["hostnames"][0]), endpoints))
        })
        .collect()
}
