//! Routes and grants whose latest version, or every version, cannot be read.

use super::*;
use crate::control::api::RouteClaims;
use crate::routing::RouteKey;

/// A route with a uid; a lower `second` is older.
fn owned(namespace: &str, name: &str, second: u8, hostnames: &str) -> SniRoute {
    let mut route = route(name, &format!("hostnames: [{hostnames}]"), ADDRESS);
    route.metadata.namespace = Some(namespace.to_owned());
    route.metadata.uid = Some(format!("uid-{name}"));
    route.metadata.creation_timestamp = Some(yaml(&format!("'2026-01-01T00:00:{second:02}Z'")));
    route
}

/// A later version of the route's object that cannot be read, except for `claims`.
fn unread(route: &SniRoute, claims: Option<&str>) -> UnreadableRoute {
    let mut metadata = route.metadata.clone();
    metadata.generation = Some(2);
    UnreadableRoute {
        metadata,
        class: Some(None),
        claims: claims.map(yaml::<RouteClaims>),
        why: "spec.loadBalancing.policy: no such".to_owned(),
    }
}

/// The effect of a change: the routes whose entry in the table has changed, and the conditions.
struct Came {
    served: Vec<(String, bool)>,
    told: Vec<String>,
}

fn settle(builder: &mut Builder) -> Came {
    let delta = builder.settle();
    let served = delta.changes.routes.iter();
    let mut served: Vec<_> =
        served.map(|(key, spec)| (key.name().to_owned(), spec.is_some())).collect();
    served.sort();
    let mut told: Vec<String> = delta
        .statuses
        .iter()
        .map(|status| {
            let [accepted, _, programmed] = &status.conditions;
            let generation = status.observed_generation.unwrap_or(1);
            let (name, accepted) =
                (status.object.name(), format!("{} {}", accepted.reason, accepted.message));
            format!("{name} {generation} {accepted} / {} {}", programmed.status, programmed.message)
        })
        .map(|told| told.trim_end().to_owned())
        .collect();
    told.sort();
    Came { served, told }
}

#[test]
fn the_last_readable_version_of_a_route_stays_served() {
    let mut builder = Builder::new(installation());
    let mine = owned("data", "mine", 1, "a.test");
    let younger = owned("other", "younger", 2, "a.test");
    builder.put_route(&mine);
    builder.put_route(&younger);
    settle(&mut builder);
    assert_eq!(builder.put_unreadable_route(&unread(&mine, None)), UnreadableOutcome::Kept);
    let came = settle(&mut builder);
    assert_eq!(came.served, [("mine".to_owned(), true)], "and the other one is not concerned");
    assert_eq!(
        came.told,
        [
            "mine 2 Invalid spec.loadBalancing.policy: no such; the route is served as it was when it \
             was read last / true the route is in the table as it was when it was read last"
        ]
    );
    // A second time, and then with a readable version.
    assert_eq!(builder.put_unreadable_route(&unread(&mine, None)), UnreadableOutcome::Kept);
    assert_eq!(settle(&mut builder).served, [("mine".to_owned(), true)]);
    builder.put_route(&mine);
    assert_eq!(settle(&mut builder).told, ["mine 1 Accepted  / true"]);
    // Deleting the route removes it.
    builder.put_unreadable_route(&unread(&mine, None));
    builder.remove_route(&RouteKey::sni_route("data", "mine"));
    let came = settle(&mut builder);
    assert_eq!(came.served, [("mine".to_owned(), false), ("younger".to_owned(), true)]);
    assert_eq!(came.told, ["younger 1 Accepted  / true"]);
}

#[test]
fn endpoints_and_conflicts_of_an_unreadable_route_are_updated() {
    let mut builder = Builder::new(installation());
    let mut mine = owned("data", "mine", 5, "a.test");
    mine.spec.backends = yaml("[{service: {name: s, port: 1}}]");
    builder.put_service(&service("s", "{ports: [{port: 1}]}"));
    builder.put_route(&mine);
    builder.put_unreadable_route(&unread(&mine, None));
    assert_eq!(settle(&mut builder).served, [("mine".to_owned(), true)]);
    builder.put_slice(&slice("s", "IPv4", "[{port: 1}]", "[{addresses: [10.0.0.1]}]"));
    let delta = builder.settle();
    assert_eq!((delta.changes.endpoints.len(), delta.statuses[0].endpoints), (1, 1));
    builder.put_route(&owned("other", "older", 1, "a.test"));
    let came = settle(&mut builder);
    assert_eq!(came.served, [("mine".to_owned(), false), ("older".to_owned(), true)]);
    let told = &came.told[0];
    assert!(
        told.starts_with(
            "mine 2 Invalid spec.loadBalancing.policy: no such; as it was when it was read last: \
             a.test belongs to namespace other"
        ),
        "{told}"
    );
}

#[test]
fn another_object_of_the_same_name_does_not_use_the_earlier_version() {
    let mut builder = Builder::new(installation());
    let mine = owned("data", "mine", 1, "a.test");
    builder.put_route(&mine);
    settle(&mut builder);
    let mut other = mine.clone();
    other.metadata.uid = Some("another".to_owned());
    assert_eq!(builder.put_unreadable_route(&unread(&other, None)), UnreadableOutcome::Unused);
    let came = settle(&mut builder);
    assert_eq!(came.served, [("mine".to_owned(), false)]);
    let not_accepted = "false the route is not accepted, so it gets no connection";
    assert_eq!(
        came.told,
        [format!("mine 2 Invalid spec.loadBalancing.policy: no such / {not_accepted}")]
    );
}

#[test]
fn an_unreadable_route_reserves_its_hostnames_for_its_namespace() {
    let mut builder = Builder::new(installation());
    let mine = owned("data", "mine", 1, "a.test");
    let claims = Some("{hostnames: [a.test, '*'], listeners: [https], backends: 5}");
    assert_eq!(builder.put_unreadable_route(&unread(&mine, claims)), UnreadableOutcome::Unused);
    builder.put_route(&owned("other", "younger", 2, "a.test"));
    builder.put_route(&owned("other", "any", 2, "'*'"));
    let came = settle(&mut builder);
    let expected = [("any", true), ("mine", false), ("younger", false)];
    assert_eq!(came.served, expected.map(|(name, served)| (name.to_owned(), served)));
    assert!(came.told[0].starts_with("any 1 PartiallyConflicted * belongs to namespace data"));
    assert!(came.told[1].starts_with("mine 2 Invalid spec.loadBalancing.policy: no such /"));
    assert!(
        came.told[2].starts_with("younger 1 HostnameConflict a.test belongs to namespace data")
    );
    // Routes of its own namespace may still be served for this hostname.
    builder.put_route(&owned("data", "sibling", 3, "a.test"));
    let came = settle(&mut builder);
    assert_eq!(came.served, [("sibling".to_owned(), true)]);
    assert_eq!(came.told, ["sibling 1 Accepted  / true"]);
    for name in ["mine", "sibling"] {
        builder.remove_route(&RouteKey::sni_route("data", name));
    }
    let came = settle(&mut builder);
    assert!(came.served.contains(&("younger".to_owned(), true)));
    assert_eq!(came.told, ["any 1 Accepted  / true", "younger 1 Accepted  / true"]);
}

#[test]
fn the_class_of_an_unreadable_route_decides_its_installation() {
    let strict = Installation { require_class: true, ..installation() };
    let mut builder = Builder::new(strict);
    let mut mine = owned("data", "mine", 1, "a.test");
    mine.spec.class_name = Some(yaml("sluice"));
    let of = |class: Option<Option<&str>>| UnreadableRoute {
        class: class.map(|class| class.map(str::to_owned)),
        ..unread(&mine, None)
    };
    assert_eq!(builder.put_unreadable_route(&of(None)), UnreadableOutcome::Elsewhere);
    builder.put_route(&mine);
    settle(&mut builder);
    for class in [None, Some(Some("sluice"))] {
        assert_eq!(builder.put_unreadable_route(&of(class)), UnreadableOutcome::Kept);
        assert_eq!(settle(&mut builder).served, [("mine".to_owned(), true)]);
    }
    for class in [Some(Some("other")), Some(None)] {
        builder.put_route(&mine);
        assert_eq!(builder.put_unreadable_route(&of(class)), UnreadableOutcome::Elsewhere);
        assert_eq!(settle(&mut builder).served, [("mine".to_owned(), false)]);
    }
}

#[test]
fn the_last_readable_version_of_a_grant_stays_in_use() {
    let mut builder = Builder::new(installation());
    builder.put_route(&owned("owner", "mine", 1, "a.test"));
    builder.put_route(&owned("data", "guest", 2, "a.test"));
    let mut grant: ReferenceGrant = yaml(
        "{metadata: {name: g, namespace: owner, uid: one}, spec: {\
         from: [{group: sluice.dev, kind: SniRoute, namespace: data}], \
         to: [{group: sluice.dev, kind: SniRoute}]}}",
    );
    builder.put_grant(&grant);
    settle(&mut builder);
    assert!(builder.keep_grant(&grant.metadata));
    assert_eq!(settle(&mut builder).told, [""; 0]);
    // An object that was deleted and created again with the same name is another object.
    grant.metadata.uid = Some("two".to_owned());
    assert!(!builder.keep_grant(&grant.metadata));
    let told = settle(&mut builder).told;
    assert!(told.iter().any(|told| told.starts_with("guest 1 HostnameConflict")), "{told:?}");
}
