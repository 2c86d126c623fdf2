//! The routes whose endpoints this replica tries last, because they are ejected or unhealthy, for Events.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use super::warning::Warning;
use crate::control::turns::{DistinctQueue, Turns};
use crate::routing::{
    Availability, Backend, CheckParams, EjectionRule, FailureKind, Moment, ObjectRef, Route, Table,
    TableReader,
};

/// How often it is looked whether an endpoint was ejected or became unhealthy, and how often routes are warned of.
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
    /// How many endpoints became unhealthy by active checks.
    pub unhealthy: IntCounter,
}

/// Why endpoints of a route are tried last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum LastFor {
    Ejection,
    Checks,
}

impl LastFor {
    const ALL: [LastFor; 2] = [LastFor::Ejection, LastFor::Checks];
}

/// A route that tries endpoints last, and why.
type AffectedRoute = (ObjectRef, LastFor);

/// The routes that were warned of, and those that have to be.
#[derive(Debug)]
pub(super) struct Ejections<'s> {
    source: &'s EjectionSource,
    /// The counts at the last look: of ejections, and of endpoints that became unhealthy.
    seen: [u64; LastFor::ALL.len()],
    /// When there was an Event about a route last.
    warned: HashMap<AffectedRoute, Instant>,
    /// The routes that were affected when a count changed last, and have to be warned of.
    queue: Turns<DistinctQueue<AffectedRoute, NamedEndpoints>>,
    wake: Instant,
}

impl<'s> Ejections<'s> {
    pub(super) fn new(source: &'s EjectionSource, now: Instant) -> Self {
        Ejections {
            source,
            seen: [0; LastFor::ALL.len()],
            warned: HashMap::new(),
            queue: Turns::default(),
            wake: now,
        }
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
        let EjectionSource { table, counts, unhealthy } = self.source;
        let counts = [counts.iter().map(IntCounter::get).sum(), unhealthy.get()];
        if counts != self.seen {
            self.warned.retain(|_, at| now.saturating_duration_since(*at) < WARN_EVERY);
            let table = Arc::clone(&table.table());
            let reasons = LastFor::ALL.into_iter().zip(counts).zip(self.seen);
            let changed = reasons.filter(|((_, count), seen)| count != seen);
            changed.for_each(|((reason, _), _)| self.queue_affected(&table, reason));
            self.seen = counts;
        }
        let mut warnings = Vec::new();
        while warnings.len() < MOST_ROUTES
            && let Some((affected, endpoints)) = self.queue.pop()
        {
            let (route, reason) = affected.clone();
            self.warned.insert(affected, now);
            warnings.push((route, warning(reason, &endpoints)));
        }
        warnings
    }

    /// Queues the routes that try endpoints last for this reason and were not warned of lately. Only another failure
    /// queues them again.
    fn queue_affected(&mut self, table: &Table, reason: LastFor) {
        let now = Moment::now();
        let mut judged: HashMap<JudgedBackend, NamedEndpoints> = HashMap::new();
        let mut last: Option<(&ObjectRef, NamedEndpoints)> = None;
        for route in table.routes() {
            let object = route.spec.key.object();
            for share in &route.backends {
                let endpoints = judged
                    .entry(judged_backend(route, &share.backend))
                    .or_insert_with(|| NamedEndpoints::of(route, &share.backend, reason, now));
                match &mut last {
                    _ if endpoints.count == 0 => {}
                    Some((before, all)) if *before == object => all.extend(endpoints),
                    _ => {
                        let before = last.replace((object, endpoints.clone()));
                        before.into_iter().for_each(|(route, all)| self.push(route, reason, all));
                    }
                }
            }
        }
        last.into_iter().for_each(|(route, all)| self.push(route, reason, all));
    }

    fn push(&mut self, route: &ObjectRef, reason: LastFor, endpoints: NamedEndpoints) {
        let affected = (route.clone(), reason);
        if !self.warned.contains_key(&affected) {
            self.queue.push(route.key.namespace(), affected, endpoints);
        }
    }
}

/// A backend, and the rule by which a route judges its endpoints.
type JudgedBackend = (*const Backend, EjectionRule, Option<*const CheckParams>);

fn judged_backend(route: &Route, backend: &Arc<Backend>) -> JudgedBackend {
    let rule = route.health_rule();
    (Arc::as_ptr(backend), *rule.ejection, rule.check.map(Arc::as_ptr))
}

/// Endpoints that are tried last, of which the first ones are named.
#[derive(Clone, Debug)]
struct NamedEndpoints {
    /// At most [`MOST_NAMED`].
    named: Vec<SocketAddr>,
    count: usize,
}

impl NamedEndpoints {
    /// The endpoints of a backend that a route tries last for this reason.
    fn of(route: &Route, backend: &Backend, reason: LastFor, now: Moment) -> Self {
        let sought = match reason {
            LastFor::Ejection => Availability::Ejected,
            LastFor::Checks => Availability::Unhealthy,
        };
        let (rule, endpoints) = (route.health_rule(), backend.endpoints());
        let mut last = NamedEndpoints { named: Vec::new(), count: 0 };
        for endpoint in endpoints.iter().filter(|one| rule.judge(one, now) == sought) {
            if last.named.len() < MOST_NAMED {
                last.named.push(endpoint.address);
            }
            last.count += 1;
        }
        last
    }

    fn extend(&mut self, more: &NamedEndpoints) {
        let room = MOST_NAMED.saturating_sub(self.named.len());
        self.named.extend(more.named.iter().take(room));
        self.count = self.count.saturating_add(more.count);
    }
}

fn warning(reason: LastFor, endpoints: &NamedEndpoints) -> Warning {
    let named: Vec<_> = endpoints.named.iter().map(ToString::to_string).collect();
    let more = match endpoints.count.saturating_sub(named.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let named = named.join(", ") + &more;
    match reason {
        LastFor::Ejection => Warning::of_ejected(format!(
            "{named}: ejected, because connections have failed too often in a row; tried last \
             until one succeeds"
        )),
        LastFor::Checks => Warning::of_unhealthy(format!(
            "{named}: unhealthy, because active health checks have failed; tried last until they \
             succeed again"
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::policy::{Number, Policy};
    use crate::routing::{
        BackendKey, Hostname, Hostnames, RouteKey, RouteSpec, Snapshot, TrafficPolicy, channel,
    };

    fn counter() -> IntCounter {
        IntCounter::new("c", "c").unwrap()
    }

    /// A route of the backend `shared`, which ejects endpoints after as many failures.
    fn route(namespace: &str, name: &str, failures: u32) -> RouteSpec {
        let mut policy = Policy::default();
        policy.health.passive.failures = Some(Number::new(failures));
        let hostname: Hostname = format!("{name}.{namespace}.test").parse().unwrap();
        RouteSpec {
            backends: vec![(BackendKey::address("", "shared"), 1)],
            policy: TrafficPolicy::of(&policy),
            ..RouteSpec::new(RouteKey::sni_route(namespace, name), Hostnames::from(hostname))
        }
    }

    /// A table of these routes, whose backend has two endpoints, and the counts.
    fn source(routes: Vec<RouteSpec>) -> EjectionSource {
        let addresses = ["192.0.2.1:1", "192.0.2.2:1"].map(|text| text.parse().unwrap());
        let (mut writer, table) = channel();
        writer.apply(Snapshot {
            routes,
            endpoints: [(BackendKey::address("", "shared"), addresses.to_vec())]
                .into_iter()
                .collect(),
            ..Snapshot::default()
        });
        EjectionSource { table, counts: [counter(), counter()], unhealthy: counter() }
    }

    /// One endpoint fails once more.
    fn fail(source: &EjectionSource) {
        let table = source.table.table();
        let route = table.routes().next().unwrap();
        let endpoint = &route.backends[0].backend.endpoints()[1];
        endpoint.count_failure(Moment::now(), &EjectionRule::new(1, WARN_EVERY, WARN_EVERY));
        source.counts[0].inc();
    }

    #[test]
    fn a_route_is_warned_of_once_in_a_while_and_only_if_its_own_rule_ejects() {
        let source = source(vec![route("ns", "a", 1), route("ns", "b", 2)]);
        let start = Instant::now();
        let mut ejections = Ejections::new(&source, start);
        let mut looked = |seconds| {
            let told = ejections.look(start + Duration::from_secs(seconds));
            told.into_iter().map(|(route, _)| route.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(looked(0), [""; 0]);
        fail(&source);
        assert_eq!(looked(1), [""; 0], "too early");
        assert_eq!(looked(10), ["ns/a"]);
        fail(&source);
        assert_eq!(looked(20), ["ns/b"]);
        fail(&source);
        assert_eq!(looked(609), [""; 0]);
        fail(&source);
        assert_eq!(looked(619), ["ns/a"]);
    }

    /// More than there are turns until the first one may be warned of again.
    #[test]
    fn one_failure_of_an_endpoint_of_many_routes_warns_of_each_once_and_of_all_namespaces_soon() {
        const MANY: usize = 3000;
        let mut routes: Vec<_> = (0..MANY).map(|n| route("a", &format!("r{n}"), 1)).collect();
        routes.push(route("z", "r", 1));
        let source = source(routes);
        let start = Instant::now();
        let mut ejections = Ejections::new(&source, start);
        fail(&source);
        let mut told = HashSet::new();
        for turn in 0..1800 {
            for (route, _) in ejections.look(start + LOOK_EVERY * turn) {
                assert!(told.insert(route.to_string()), "{route} is told again");
            }
            assert!(told.contains("z/r"), "in the first turn");
        }
        assert_eq!(told.len(), MANY + 1);
        fail(&source);
        assert_eq!(ejections.look(start + LOOK_EVERY * 1800).len(), MOST_ROUTES, "a new failure");
    }
}
