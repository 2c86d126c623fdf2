//! What changes of Secrets and ConfigMaps cost, and what is kept of them.

use std::sync::Arc;

use super::tls_world::*;
use super::*;

/// A change of a Secret concerns only the routes that name it, and equal keys are kept once.
#[test]
fn a_change_costs_what_it_concerns() {
    let pair = Pair::of_r();
    let mut builder = Builder::new(terminating());
    for index in 0..100 {
        let secret = if index % 10 == 0 { "shared" } else { "own" };
        let tls = format!("certificates: [{{secret: {secret}-{}}}]", index % 10);
        builder.put_route(&tls_route(&format!("r{index}"), &tls));
    }
    builder.settle();
    let put = |builder: &mut Builder, secret: &str, pair: &Pair| {
        builder.put_secret(&key_of(secret), &data(&pair.entries()));
        builder.settle().changes.routes
    };
    let changed = put(&mut builder, "shared-0", &pair);
    assert_eq!(changed.len(), 10);
    assert_eq!(put(&mut builder, "own-1", &pair).len(), 10);
    assert_eq!(put(&mut builder, "own-1", &pair).len(), 0, "nothing has changed");
    builder.put_route(&tls_route(
        "ca",
        "certificates: [{secret: own-1}], clientCertificates: {ca: {configMap: ca}}",
    ));
    builder.settle();
    let entries = [("ca.crt".to_owned(), pair.certificate.clone())].into();
    for expected in [1, 0, 0] {
        builder.put_config_map(&key_of("ca"), Some(&entries));
        assert_eq!(builder.settle().statuses.len(), expected);
    }
    let facts: Vec<_> = changed
        .iter()
        .filter_map(|(_, spec)| spec.as_ref()?.termination.as_ref())
        .flat_map(|termination| termination.certificates().map(|(_, facts)| Arc::clone(facts)))
        .collect();
    assert_eq!(facts.len(), 10);
    assert!(facts.iter().all(|one| Arc::ptr_eq(one, &facts[0])));
    // Nothing of the table changes where nothing of the route does.
    let before = changed[0].1.clone().unwrap();
    builder.tell_all();
    let again = builder.settle().changes.routes;
    let again = again.into_iter().find(|(key, _)| *key == before.key).unwrap().1.unwrap();
    assert!(Arc::ptr_eq(&before.termination.unwrap(), &again.termination.unwrap()));
}

#[test]
fn what_no_route_names_is_not_stored_and_nothing_is_left_of_what_is_gone() {
    let pair = Pair::of_r();
    let mut world = World::new();
    world.certificate("one", &pair);
    assert!(world.builder.is_empty());
    world.put(&format!("{ONE}, clientCertificates: {{ca: {{configMap: ca}}}}"));
    world.certificate("one", &pair);
    world.builder.remove_config_map(&key_of("ca"));
    world.settle();
    world.builder.remove_route(&RouteKey::sni_route("data", "r"));
    world.settle();
    assert!(world.builder.is_empty(), "{:?}", world.builder);
    assert!(world.wanted.is_empty());
    assert!(!format!("{:?}", world.builder).contains("PRIVATE"));
}

/// Where all objects are put, what is not there does not exist, and what is there is found by later routes.
#[test]
fn a_source_that_puts_all_objects_awaits_none() {
    let pair = Pair::of_r();
    let mut world = World::of(Builder::of_all_objects(terminating()));
    world.certificate("one", &pair);
    world.put("certificates: [{secret: one}, {secret: two}]");
    assert!(!world.builder.awaits_references());
    world.is("false InvalidCertificateRef Secret data/two does not exist", FINE[1]);
    assert_eq!(world.serves(), Ok(vec![pair.serial.clone()]));
    world.builder.remove_route(&RouteKey::sni_route("data", "r"));
    world.settle();
    world.put(ONE).is(FINE[0], FINE[1]);
}
