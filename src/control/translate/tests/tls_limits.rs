//! Routes of a namespace that name more Secrets and ConfigMaps than are read.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::super::named_objects::{CONFIG_MAPS_OF_A_NAMESPACE, SECRETS_OF_A_NAMESPACE};
use super::tls_world::{ONE, Pair, World, key_of, terminating, tls_route};
use super::*;
use crate::termination::NotReady;

/// Puts a route with this ConfigMap and age.
fn put(builder: &mut Builder, name: &str, config_map: &str, created: i64) {
    let tls = format!("{ONE}, clientCertificates: {{ca: {{configMap: {config_map}}}}}");
    let mut route = tls_route(name, &tls);
    let created = Timestamp::from_second(created).unwrap();
    route.metadata.creation_timestamp = Some(Time(created));
    builder.put_route(&route);
}

#[test]
fn a_namespace_names_a_bounded_number_of_objects_and_the_oldest_routes_come_first() {
    let mut builder = Builder::new(terminating());
    let count = CONFIG_MAPS_OF_A_NAMESPACE + 2;
    for index in 0..count {
        put(&mut builder, &format!("r{index}"), &format!("ca{index}"), 10_000 - index as i64);
    }
    let delta = builder.settle();
    // The oldest routes are the last ones.
    let beyond = |delta: &Delta| {
        let told = delta.statuses.iter().filter(|status| {
            status.conditions[1].message.contains("is not read: the routes of this namespace name")
        });
        let mut told: Vec<_> = told.map(|status| status.object.name().to_owned()).collect();
        told.sort();
        told
    };
    assert_eq!(beyond(&delta), ["r0", "r1"]);
    assert_eq!(delta.references.wanted.len(), CONFIG_MAPS_OF_A_NAMESPACE + 1);
    // One that leaves makes room for the oldest of them.
    builder.remove_route(&RouteKey::sni_route("data", "r9"));
    let delta = builder.settle();
    let wanted: Vec<_> = delta.references.wanted.iter().map(|object| object.name()).collect();
    assert_eq!(wanted, ["ca1"]);
    assert_eq!(delta.statuses.len(), 1);
    // Another namespace has its own share.
    let mut other =
        tls_route("other", &format!("{ONE}, clientCertificates: {{ca: {{configMap: x}}}}"));
    other.metadata.namespace = Some("other".to_owned());
    builder.put_route(&other);
    assert!(beyond(&builder.settle()).is_empty());
    for index in 0..count {
        builder.remove_route(&RouteKey::sni_route("data", &format!("r{index}")));
    }
    builder.remove_route(&RouteKey::sni_route("other", "other"));
    builder.settle();
    assert!(builder.is_empty());
    const { assert!(SECRETS_OF_A_NAMESPACE > CONFIG_MAPS_OF_A_NAMESPACE) };
}

/// The work of a change does not grow with the number of objects that a namespace names.
#[test]
fn a_route_that_is_put_again_costs_nothing_where_there_are_too_many() {
    let mut builder = Builder::new(terminating());
    let count = 10 * CONFIG_MAPS_OF_A_NAMESPACE;
    for index in 0..count {
        put(&mut builder, &format!("r{index}"), &format!("ca{index}"), index as i64);
    }
    builder.settle();
    let concerned = |builder: &mut Builder| {
        let mut concerned = Vec::new();
        while let Some(users) = builder.targets.tls.settle_crossed() {
            concerned.extend(users.map(|key| key.name().to_owned()));
        }
        concerned
    };
    for index in [0, count - 1] {
        put(&mut builder, &format!("r{index}"), &format!("ca{index}"), index as i64);
        assert_eq!(concerned(&mut builder), [""; 0]);
    }
    builder.remove_route(&RouteKey::sni_route("data", "r7"));
    let next = format!("r{CONFIG_MAPS_OF_A_NAMESPACE}");
    assert_eq!(concerned(&mut builder), [next]);
}

#[test]
fn what_was_beyond_the_most_is_read_anew_and_not_served_as_it_was() {
    let pair = Pair::of_r();
    let authorities = [("ca.crt".to_owned(), Pair::of_r().certificate)].into();
    let mut world = World::new();
    let served = |world: &mut World| {
        world.settle();
        world.serves().map(|certificates| certificates.len())
    };
    put(&mut world.builder, "r", "ca", 10_000);
    world.settle().certificate("one", &pair);
    world.builder.put_config_map(&key_of("ca"), Some(&authorities));
    assert_eq!(served(&mut world), Ok(1));
    let older = (0..CONFIG_MAPS_OF_A_NAMESPACE).map(|index| format!("older{index}"));
    let older: Vec<_> = older.collect();
    older.iter().for_each(|name| put(&mut world.builder, name, name, 1));
    assert_eq!(served(&mut world), Err(NotReady::NoCertificate));
    assert!(!world.wanted.contains("ConfigMap data/ca"));
    world.builder.remove_route(&RouteKey::sni_route("data", &older[0]));
    assert_eq!(served(&mut world), Err(NotReady::NoCertificate), "it was not read again");
    assert!(world.wanted.contains("ConfigMap data/ca"));
    world.builder.put_config_map(&key_of("ca"), Some(&authorities));
    assert_eq!(served(&mut world), Ok(1));
}
