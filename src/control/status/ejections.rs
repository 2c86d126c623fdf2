//! The routes whose endpoints this replica has ejected, for Events.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use super::warning::Warning;
use crate::routing::{
    Availability, Backend, EjectionRule, FailureKind, Moment, ObjectRef, Table, TableReader,
};

/// How often it is looked whether an endpoint was ejected.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// A route is warned of at most this often.
const WARN_EVERY: Duration = Duration::from_secs(600);
/// The most routes that are warned of at once. A backend of many routes would otherwise leave no room for other
/// Events.
const MOST_ROUTES: usize = 8;
/// The most endpoints that are named.
const MOST_NAMED: usize = 8;

/// Where ejections are seen.
#[derive(Clone, Debug)]
pub struct EjectionSource {
    /// The table with the endpoints.
    pub table: TableReader,
    /// How many ejections there were, by reason. The endpoints are looked at only after a change.
    pub counts: [IntCounter; FailureKind::ALL.len()],
}

/// The routes that were warned of.
#[derive(Debug)]
pub(super) struct Ejections<'s> {
    source: &'s EjectionSource,
    /// The sum of the counts at the last look.
    seen: u64,
    /// When there was an Event about a route last.
    warned: HashMap<ObjectRef, Instant>,
    wake: Instant,
}

impl<'s> Ejections<'s> {
    pub(super) fn new(source: &'s EjectionSource, now: Instant) -> Self {
        Ejections { source, seen: 0, warned: HashMap::new(), wake: now }
    }

    /// When to look again.
    pub(super) fn wake(&self) -> Instant {
        self.wake
    }

    /// The routes to warn of.
    pub(super) fn look(&mut self, now: Instant) -> Vec<(ObjectRef, Warning)> {
        if now < self.wake {
            return Vec::new();
        }
        self.wake = now + LOOK_EVERY;
        let sum: u64 = self.source.counts.iter().map(IntCounter::get).sum();
        if sum == self.seen {
            return Vec::new();
        }
        self.warned.retain(|_, at| now.saturating_duration_since(*at) < WARN_EVERY);
        let table = Arc::clone(&self.source.table.table());
        let mut routes = ejected(&table);
        routes.retain(|(route, _)| !self.warned.contains_key(route));
        if routes.len() <= MOST_ROUTES {
            self.seen = sum;
        }
        // The others come next time.
        routes.truncate(MOST_ROUTES);
        self.warned.extend(routes.iter().map(|(route, _)| (route.clone(), now)));
        routes.into_iter().map(|(route, endpoints)| (route, warning(&endpoints))).collect()
    }
}

/// The routes that have ejected endpoints, and which these are.
fn ejected(table: &Table) -> Vec<(ObjectRef, Vec<SocketAddr>)> {
    let now = Moment::now();
    let mut known: HashMap<(*const Backend, EjectionRule), Vec<SocketAddr>> = HashMap::new();
    let mut routes: Vec<(ObjectRef, Vec<SocketAddr>)> = Vec::new();
    for route in table.routes() {
        let rule = *route.spec.policy.ejection();
        for share in &route.backends {
            let endpoints = known.entry((Arc::as_ptr(&share.backend), rule)).or_insert_with(|| {
                let endpoints = share.backend.endpoints();
                let is_out = |availability| availability == Availability::Ejected;
                let out = endpoints.iter().filter(|one| is_out(one.availability(now, &rule)));
                out.map(|endpoint| endpoint.address).collect()
            });
            if endpoints.is_empty() {
                continue;
            }
            match routes.last_mut() {
                Some((last, all)) if last == route.spec.key.object() => all.extend(&*endpoints),
                _ => routes.push((route.spec.key.object().clone(), endpoints.clone())),
            }
        }
    }
    routes
}

fn warning(endpoints: &[SocketAddr]) -> Warning {
    let named: Vec<_> = endpoints.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    let more = match endpoints.len().saturating_sub(named.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Warning::of_endpoints(format!(
        "{}{more}: ejected, because connections have failed too often in a row; tried last \
         until one succeeds",
        named.join(", ")
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::policy::{Number, Policy};
    use crate::routing::{
        BackendKey, Hostname, Hostnames, RouteKey, RouteSpec, Snapshot, TrafficPolicy, channel,
    };

    #[test]
    fn a_route_is_warned_of_once_in_a_while_and_only_if_its_own_rule_ejects() {
        let backend = BackendKey::address("", "shared");
        let addresses = ["192.0.2.1:1", "192.0.2.2:1"].map(|text| text.parse().unwrap());
        let route = |name: &str, failures| {
            let mut policy = Policy::default();
            policy.health.passive.failures = Some(Number::new(failures));
            let hostname: Hostname = format!("{name}.test").parse().unwrap();
            RouteSpec {
                backends: vec![(backend.clone(), 1)],
                policy: TrafficPolicy::of(&policy),
                ..RouteSpec::new(RouteKey::sni_route("ns", name), Hostnames::from(hostname))
            }
        };
        let (mut writer, table) = channel();
        writer.apply(Snapshot {
            routes: vec![route("a", 1), route("b", 2)],
            endpoints: [(backend.clone(), addresses.to_vec())].into_iter().collect(),
            ..Snapshot::default()
        });
        let counter = || IntCounter::new("c", "c").unwrap();
        let source = EjectionSource { table: table.clone(), counts: [counter(), counter()] };
        let start = Instant::now();
        let mut ejections = Ejections::new(&source, start);
        let mut looked = |seconds| {
            let told = ejections.look(start + Duration::from_secs(seconds));
            told.into_iter().map(|(route, _)| route.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(looked(0), [""; 0]);
        let table = table.table();
        let of_a = table.routes().find(|route| route.spec.key.name() == "a").unwrap();
        let fail = || {
            let endpoint = &of_a.backends[0].backend.endpoints()[1];
            endpoint.count_failure(Moment::now(), of_a.spec.policy.ejection());
            source.counts[0].inc();
        };
        fail();
        assert_eq!(looked(1), [""; 0], "too early");
        assert_eq!(looked(10), ["ns/a"]);
        fail();
        assert_eq!(looked(20), ["ns/b"]);
        fail();
        assert_eq!(looked(609), [""; 0]);
        fail();
        assert_eq!(looked(619), ["ns/a"]);
    }
}
