//! The routes whose endpoints this replica tries last, because they are ejected or unhealthy, for Events.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::IntCounter;

use super::warning::Warning;
use crate::routing::{
    Availability, Backend, CheckParams, EjectionRule, FailureKind, Moment, ObjectRef, Table,
    TableReader,
};

/// How often it is looked whether an endpoint was ejected or became unhealthy.
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

/// The routes that were warned of.
#[derive(Debug)]
pub(super) struct Ejections<'s> {
    source: &'s EjectionSource,
    /// The counts at the last look: of ejections, and of endpoints that became unhealthy.
    seen: [u64; LastFor::ALL.len()],
    /// When there was an Event about a route last.
    warned: HashMap<(ObjectRef, LastFor), Instant>,
    wake: Instant,
}

impl<'s> Ejections<'s> {
    pub(super) fn new(source: &'s EjectionSource, now: Instant) -> Self {
        Ejections { source, seen: [0; LastFor::ALL.len()], warned: HashMap::new(), wake: now }
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
        if counts == self.seen {
            return Vec::new();
        }
        self.warned.retain(|_, at| now.saturating_duration_since(*at) < WARN_EVERY);
        let table = Arc::clone(&table.table());
        let reasons = LastFor::ALL.into_iter().zip(counts).zip(self.seen);
        let changed = reasons.filter(|((_, count), seen)| count != seen);
        changed.flat_map(|((reason, count), _)| self.warnings(&table, reason, count, now)).collect()
    }

    /// The routes to warn of for a reason, which has this count now.
    fn warnings(
        &mut self,
        table: &Table,
        reason: LastFor,
        count: u64,
        now: Instant,
    ) -> Vec<(ObjectRef, Warning)> {
        let mut routes = last(table, reason);
        routes.retain(|(route, _)| !self.warned.contains_key(&(route.clone(), reason)));
        if routes.len() <= MOST_ROUTES {
            // In bounds: every reason is its own index in `LastFor::ALL`.
            self.seen[reason as usize] = count;
        }
        // The others come next time.
        routes.truncate(MOST_ROUTES);
        self.warned.extend(routes.iter().map(|(route, _)| ((route.clone(), reason), now)));
        routes.into_iter().map(|(route, endpoints)| (route, warning(reason, &endpoints))).collect()
    }
}

/// A backend, and the rule by which a route judges its endpoints.
type JudgedBackend = (*const Backend, EjectionRule, Option<*const CheckParams>);

/// The routes that try endpoints last for this reason, and which these are.
fn last(table: &Table, reason: LastFor) -> Vec<(ObjectRef, Vec<SocketAddr>)> {
    let (now, sought) = match reason {
        LastFor::Ejection => (Moment::now(), Availability::Ejected),
        LastFor::Checks => (Moment::now(), Availability::Unhealthy),
    };
    let mut known: HashMap<JudgedBackend, Vec<SocketAddr>> = HashMap::new();
    let mut routes: Vec<(ObjectRef, Vec<SocketAddr>)> = Vec::new();
    for route in table.routes() {
        let rule = route.health_rule();
        for share in &route.backends {
            let check = rule.check.map(Arc::as_ptr);
            let judged = (Arc::as_ptr(&share.backend), *rule.ejection, check);
            let endpoints = known.entry(judged).or_insert_with(|| {
                let endpoints = share.backend.endpoints();
                let out = endpoints.iter().filter(|one| rule.judge(one, now) == sought);
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

fn warning(reason: LastFor, endpoints: &[SocketAddr]) -> Warning {
    let named: Vec<_> = endpoints.iter().take(MOST_NAMED).map(ToString::to_string).collect();
    let more = match endpoints.len().saturating_sub(named.len()) {
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
        let source = EjectionSource {
            table: table.clone(),
            counts: [counter(), counter()],
            unhealthy: counter(),
        };
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
