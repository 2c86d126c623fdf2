//! The notes about names below wildcards of other namespaces.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const NAMESPACES: [&str; 3] = ["one", "two", "three"];

/// A route; a lower number is older.
fn claiming(number: usize, hostnames: &BTreeSet<String>) -> SniRoute {
    let quoted: Vec<String> = hostnames.iter().map(|name| format!("'{name}'")).collect();
    let fields = format!("hostnames: [{}]", quoted.join(", "));
    let mut route = route(&format!("r{number}"), &fields, ADDRESS);
    route.metadata.namespace = Some(NAMESPACES[number % NAMESPACES.len()].to_owned());
    route.metadata.creation_timestamp = Some(yaml(&format!("'2026-01-01T00:00:0{number}Z'")));
    route
}

fn suffix(hostname: &str) -> &str {
    hostname.strip_prefix("*.").unwrap_or(hostname)
}

fn is_below(hostname: &str, wildcard: &str) -> bool {
    suffix(hostname).ends_with(&format!(".{}", suffix(wildcard)))
}

/// The expected notes of each route, computed from the definition.
fn expected(routes: &BTreeMap<usize, BTreeSet<String>>, most: usize) -> BTreeSet<String> {
    let mut owners: BTreeMap<&String, usize> = BTreeMap::new();
    for (number, hostnames) in routes {
        hostnames.iter().for_each(|name| _ = owners.entry(name).or_insert(*number));
    }
    let key = |number: usize| format!("{}/r{number}", NAMESPACES[number % NAMESPACES.len()]);
    let names_below =
        |wildcard: &str| owners.keys().filter(|name| is_below(name, wildcard)).count();
    let crowded: BTreeSet<&String> = owners
        .keys()
        .filter(|name| name.starts_with("*.") && names_below(name) > most)
        .copied()
        .collect();
    let nearest = |name: &str, number: usize| {
        let above = owners.iter().filter(|(wildcard, owner)| {
            wildcard.starts_with("*.")
                && is_below(name, wildcard)
                && *owner % NAMESPACES.len() != number % NAMESPACES.len()
        });
        above.max_by_key(|(wildcard, _)| wildcard.len()).filter(|(w, _)| !crowded.contains(*w))
    };
    let mut told = BTreeMap::new();
    let mut below: BTreeMap<&String, Vec<(String, String)>> = BTreeMap::new();
    for (name, number) in &owners {
        if let Some((wildcard, owner)) = nearest(name, *number) {
            let namespace = NAMESPACES[owner % NAMESPACES.len()];
            let owner = key(*owner);
            let said =
                format!("{name} is below {wildcard} of namespace {namespace}, route {owner}");
            told.insert((*name).clone(), format!("{}: {said}", key(*number)));
            below.entry(wildcard).or_default().push(((*name).clone(), key(*number)));
        }
    }
    for (wildcard, mut names) in below {
        let backwards = |name: &str| suffix(name).chars().rev().collect::<String>();
        names.sort_by_key(|(name, _)| (backwards(name), !name.starts_with('*')));
        let named: Vec<String> =
            names.iter().take(3).map(|(name, owner)| format!("{name} of {owner}")).collect();
        let more = match names.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let said =
            format!("names below {wildcard} are other namespaces': {}{more}", named.join(", "));
        told.insert(wildcard.clone(), format!("{}: {said}", key(owners[wildcard])));
    }
    for wildcard in crowded {
        let said = format!(
            "more than 1000 names below {wildcard} are claimed, and some may be other namespaces'"
        );
        told.insert(wildcard.clone(), format!("{}: {said}", key(owners[wildcard])));
    }
    told.into_values().collect()
}

fn hostnames() -> impl Strategy<Value = BTreeSet<String>> {
    let hostname = "(\\*\\.)?([ab](-[ab])?\\.){0,3}t"
        .prop_filter_map("a hostname", |name| name.parse::<Hostname>().is_ok().then_some(name));
    prop::collection::btree_set(hostname, 1..7)
}

/// Steps of the test: a route gets these hostnames or is removed, or the builder settles.
fn steps() -> impl Strategy<Value = Vec<Option<(usize, Option<BTreeSet<String>>)>>> {
    let change = (0..6usize, prop::option::weighted(0.8, hostnames()));
    prop::collection::vec(prop::option::weighted(0.7, change), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn each_name_has_a_note_about_the_nearest_wildcard_of_another_namespace(
        steps in steps(),
        most in 1..6usize,
    ) {
        let mut builder = Builder::new(installation());
        builder.claims.wildcards.set_most_below(most);
        let mut routes = BTreeMap::new();
        let mut told: BTreeMap<ObjectRef, String> = BTreeMap::new();
        for step in steps.into_iter().chain([None]) {
            match step {
                Some((number, Some(hostnames))) => {
                    builder.put_route(&claiming(number, &hostnames));
                    routes.insert(number, hostnames);
                }
                Some((number, None)) => {
                    let namespace = NAMESPACES[number % NAMESPACES.len()];
                    builder.remove_route(&RouteKey::sni_route(namespace, &format!("r{number}")));
                    routes.remove(&number);
                }
                None => {
                    let delta = builder.settle();
                    delta.changes.routes.iter().for_each(|(key, _)| _ = told.remove(key.object()));
                    told.extend(delta.statuses.into_iter().map(|status| {
                        let [accepted, ..] = status.conditions;
                        (status.object, accepted.message)
                    }));
                }
            }
        }
        let said = told.iter().flat_map(|(key, message)| {
            message.split("; ").map(move |said| format!("{key}: {said}"))
        });
        let said: BTreeSet<String> = said.filter(|said| said.contains(" below ")).collect();
        prop_assert_eq!(said, expected(&routes, most));
    }
}

/// Names with the maximum number of labels, with wildcards of two namespaces at each label. The state grows
/// with the number of names, not with the pairs of a name and a wildcard above it.
#[test]
fn the_state_of_chained_wildcards_grows_with_their_names() {
    let mut builder = Builder::new(installation());
    let hostnames = |chain: usize, half: usize| -> BTreeSet<String> {
        let depths = (1..=120).filter(|depth| depth % 2 == half);
        depths.map(|depth| format!("*.{}c{chain}.test", "a.".repeat(depth))).collect()
    };
    let of = |chain: usize, half: usize| {
        let mut route = claiming(half, &hostnames(chain, half));
        route.metadata.name = Some(format!("c{chain}-{half}"));
        route
    };
    for chain in 0..10 {
        (0..2).for_each(|half| builder.put_route(&of(chain, half)));
    }
    assert_eq!(builder.settle().statuses.len(), 20);
    // The names with a wildcard of at most sixteen labels above them.
    assert_eq!(builder.claims.notes.count(), 10 * 119);
    let mut changed = of(0, 1);
    changed.spec.hostnames = vec!["other.test".parse().unwrap()];
    for route in [changed, of(0, 1)] {
        builder.put_route(&route);
        // The route itself, and the other route of its chain.
        assert_eq!(builder.settle().statuses.len(), 2);
    }
    assert_eq!(builder.claims.notes.count(), 10 * 119);
}
