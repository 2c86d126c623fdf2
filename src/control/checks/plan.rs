//! Which checks a table needs. Pure.

use std::net::SocketAddr;
use std::sync::Arc;

use ahash::{AHashMap as HashMap, AHashSet as HashSet};

use crate::routing::{Backend, CheckEntry, CheckParams, CheckState, Endpoint, Table};

/// The identity of a check. Whatever the number of routes and backends, there is one of each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CheckKey {
    pub(super) address: SocketAddr,
    pub(super) params: Arc<CheckParams>,
}

/// A check that the table needs.
#[derive(Debug)]
pub(super) struct PlannedCheck {
    pub(super) key: CheckKey,
    /// The namespaces that need it. It is made in the turn of whichever comes first, so that none can delay it for
    /// another one.
    pub(super) namespaces: Vec<Arc<str>>,
    /// The endpoints with the address, one for each backend.
    pub(super) endpoints: Vec<PlannedEndpoint>,
}

/// An endpoint that gets the verdict of a check.
#[derive(Clone, Debug)]
pub(super) struct PlannedEndpoint {
    pub(super) endpoint: Arc<Endpoint>,
    /// Its backend.
    pub(super) backend: Arc<Backend>,
}

impl PlannedCheck {
    /// Whether clients use any of its backends.
    pub(super) fn is_used(&self) -> bool {
        self.endpoints.iter().any(|planned| planned.backend.is_used())
    }
}

/// The checks that a table needs.
#[derive(Debug, Default)]
pub(super) struct CheckPlan {
    pub(super) checks: Vec<PlannedCheck>,
    /// How many endpoints have none, because there would be too many.
    pub(super) unchecked: usize,
}

/// The checks that a table needs, each once, for at most `most` endpoints. If there are more, namespaces share them
/// evenly. An endpoint counts once for each backend and each kind of checks.
pub(super) fn plan(table: &Table, most: usize) -> CheckPlan {
    let mut namespaces = needed(table);
    let endpoints = |needed: &Vec<CheckedBackend<'_>>| {
        needed.iter().map(|one| one.backend.endpoints().len()).sum::<usize>()
    };
    // First those with few: what they leave of their share is for the others.
    namespaces.sort_by_cached_key(|(namespace, needed)| (endpoints(needed), *namespace));
    let (mut plan, mut left, mut sharing) = (Planner::default(), most, namespaces.len());
    for (namespace, needed) in namespaces {
        let share = left.checked_div(sharing).unwrap_or_default();
        left -= plan.add(namespace, &needed, share);
        sharing -= 1;
    }
    CheckPlan { checks: plan.checks.into_values().collect(), unchecked: plan.unchecked }
}

/// A backend, and how it is checked.
#[derive(Clone, Copy)]
struct CheckedBackend<'t> {
    backend: &'t Arc<Backend>,
    params: &'t Arc<CheckParams>,
}

impl CheckedBackend<'_> {
    fn id(&self) -> (*const Backend, *const CheckParams) {
        (Arc::as_ptr(self.backend), Arc::as_ptr(self.params))
    }
}

/// What each namespace needs, each once, in the order of its routes. A backend without weight gets no connections,
/// and so no checks.
fn needed(table: &Table) -> Vec<(&str, Vec<CheckedBackend<'_>>)> {
    let mut namespaces: HashMap<&str, Vec<CheckedBackend<'_>>> = HashMap::new();
    let mut known = HashSet::new();
    for route in table.routes() {
        let Some(params) = &route.check else { continue };
        let namespace = route.spec.key.namespace();
        for share in route.backends.iter().filter(|share| share.weight > 0) {
            let checked = CheckedBackend { backend: &share.backend, params };
            if known.insert((namespace, checked.id())) {
                namespaces.entry(namespace).or_default().push(checked);
            }
        }
    }
    namespaces.into_iter().collect()
}

#[derive(Default)]
struct Planner {
    checks: HashMap<CheckKey, PlannedCheck>,
    /// The endpoints of `checks`: several namespaces may name a backend.
    planned: HashSet<(*const Endpoint, *const CheckParams)>,
    unchecked: usize,
}

impl Planner {
    /// Adds what a namespace needs, up to its share, and returns how much that is.
    fn add(&mut self, namespace: &str, needed: &[CheckedBackend<'_>], share: usize) -> usize {
        let (namespace, mut left) = (Arc::<str>::from(namespace), share);
        for checked in needed {
            let endpoints = checked.backend.endpoints();
            for endpoint in endpoints.iter().take(left) {
                self.check(&namespace, *checked, endpoint);
            }
            self.unchecked += endpoints.len().saturating_sub(left);
            left = left.saturating_sub(endpoints.len());
        }
        share - left
    }

    fn check(&mut self, namespace: &Arc<str>, by: CheckedBackend<'_>, endpoint: &Arc<Endpoint>) {
        let key = CheckKey { address: endpoint.address, params: Arc::clone(by.params) };
        let check = self.checks.entry(key).or_insert_with_key(|key| PlannedCheck {
            key: key.clone(),
            namespaces: Vec::new(),
            endpoints: Vec::new(),
        });
        // Namespaces come one after the other.
        if check.namespaces.last() != Some(namespace) {
            check.namespaces.push(Arc::clone(namespace));
        }
        if self.planned.insert((Arc::as_ptr(endpoint), Arc::as_ptr(by.params))) {
            let (endpoint, backend) = (Arc::clone(endpoint), Arc::clone(by.backend));
            check.endpoints.push(PlannedEndpoint { endpoint, backend });
        }
    }
}

/// The endpoints that have states of checks. When this is dropped, they are unknown to all checks again.
#[derive(Debug, Default)]
pub(super) struct CheckedEndpoints(HashMap<*const Endpoint, Arc<Endpoint>>);

impl CheckedEndpoints {
    /// Gives each endpoint the states of its checks, and takes them from those without checks.
    pub(super) fn attach<'c>(
        &mut self,
        checks: impl Iterator<Item = (&'c PlannedCheck, &'c Arc<CheckState>)>,
    ) {
        let mut entries: HashMap<*const Endpoint, (&Arc<Endpoint>, Vec<CheckEntry>)> =
            HashMap::new();
        for (planned, state) in checks {
            for PlannedEndpoint { endpoint, .. } in &planned.endpoints {
                let entry = entries.entry(Arc::as_ptr(endpoint));
                let (_, entries) = entry.or_insert_with(|| (endpoint, Vec::new()));
                entries.push((Arc::clone(&planned.key.params), Arc::clone(state)));
            }
        }
        self.0.retain(|id, endpoint| {
            let stays = entries.contains_key(id);
            if !stays {
                endpoint.set_checks(&[]);
            }
            stays
        });
        for (id, (endpoint, entries)) in entries {
            endpoint.set_checks(&entries);
            self.0.entry(id).or_insert_with(|| Arc::clone(endpoint));
        }
    }
}

impl Drop for CheckedEndpoints {
    fn drop(&mut self) {
        self.0.values().for_each(|endpoint| endpoint.set_checks(&[]));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::fixture::{route, table};
    use super::*;
    use crate::routing::{Availability, CheckVerdict, Moment};

    #[test]
    fn each_address_is_checked_once_in_each_way() {
        let (_, reader) = table(
            vec![
                route("b/one", &["x"], Some("TCP")),
                route("a/same", &["x", "y"], Some("TCP")),
                route("a/other", &["x"], Some("TLS")),
                route("a/without", &["z"], None),
            ],
            &[
                ("x", &["192.0.2.1:1", "192.0.2.2:1"]),
                ("y", &["192.0.2.2:1"]),
                ("z", &["192.0.2.3:1"]),
            ],
        );
        let mut planned: Vec<_> = plan(&reader.table(), usize::MAX)
            .checks
            .iter()
            .map(|check| {
                let PlannedCheck { key, namespaces, endpoints } = check;
                let is_tls = matches!(key.params.method, crate::routing::CheckMethod::Tls(_));
                (key.address.to_string(), is_tls, namespaces.join(" "), endpoints.len())
            })
            .collect();
        planned.sort();
        let check = |address: &str, is_tls, namespace: &str, backends| {
            (address.to_owned(), is_tls, namespace.to_owned(), backends)
        };
        assert_eq!(
            planned,
            [
                check("192.0.2.1:1", false, "b a", 1),
                check("192.0.2.1:1", true, "a", 1),
                check("192.0.2.2:1", false, "b a", 2),
                check("192.0.2.2:1", true, "a", 1),
            ]
        );
    }

    #[test]
    fn namespaces_share_the_most_checks_and_none_uses_those_of_another() {
        let addresses: Vec<_> = (0..100).map(|last| format!("192.0.2.{last}:1")).collect();
        let all: Vec<_> = addresses.iter().map(String::as_str).collect();
        let (_, reader) = table(
            vec![
                route("a/one", &["many"], Some("TCP")),
                route("a/other", &["same"], Some("TLS")),
                route("b/r", &["few", "many"], Some("TCP")),
                route("c/r", &["half"], Some("TCP")),
            ],
            &[
                ("many", &all),
                ("same", &all),
                ("few", &["198.51.100.1:1", "198.51.100.2:1"]),
                ("half", &["203.0.113.1:1", "203.0.113.2:1"]),
            ],
        );
        let table = reader.table();
        let of = |most: usize| {
            let CheckPlan { checks, unchecked } = plan(&table, most);
            let of = |namespace: &str| {
                let own =
                    |check: &&PlannedCheck| check.namespaces.iter().any(|one| &**one == namespace);
                checks.iter().filter(own).count()
            };
            ([of("a"), of("b"), of("c")], unchecked)
        };
        assert_eq!(of(usize::MAX), ([200, 102, 2], 0));
        // `c` needs less than its third, and the others have half of the rest each.
        assert_eq!(of(32), ([15, 15, 2], 87 + 185));
        assert_eq!(of(0), ([0, 0, 0], 304));
        let keys =
            |plan: CheckPlan| plan.checks.into_iter().map(|one| one.key).collect::<HashSet<_>>();
        assert_eq!(keys(plan(&table, 32)), keys(plan(&table, 32)), "always the same ones");
    }

    #[test]
    fn only_routes_with_these_checks_see_the_state_and_only_while_they_have_them() {
        let routes = vec![route("a/checked", &["x"], Some("TCP")), route("a/not", &["x"], None)];
        let (_writer, reader) = table(routes, &[("x", &["192.0.2.1:1"])]);
        let table = reader.table();
        let availability = |name: &str| {
            let route = table.routes().find(|route| route.spec.key.name() == name).unwrap();
            let endpoints = route.backends[0].backend.endpoints();
            route.health_rule().judge(&endpoints[0], Moment::now())
        };
        let (planned, state) = (plan(&table, usize::MAX).checks, Arc::<CheckState>::default());
        let mut checked = CheckedEndpoints::default();
        checked.attach(planned.iter().map(|check| (check, &state)));
        assert_eq!(availability("checked"), Availability::Well);
        state.set(CheckVerdict::Unhealthy);
        assert_eq!(availability("checked"), Availability::Unhealthy);
        assert_eq!(availability("not"), Availability::Well);
        checked.attach(std::iter::empty());
        assert_eq!(availability("checked"), Availability::Well);
        checked.attach(planned.iter().map(|check| (check, &state)));
        assert_eq!(availability("checked"), Availability::Unhealthy);
        drop(checked);
        assert_eq!(availability("checked"), Availability::Well);
    }
}
