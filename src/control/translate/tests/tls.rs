//! Routes that serve TLS themselves.

use rcgen::CertificateParams;

use super::tls_world::*;
use super::*;
use crate::termination::{CaText, MinVersion, NotReady};

const REFUSED: &str = "false CertificateNotReady no certificate of tls.certificates can be used; \
                       connections of the route are refused";

#[test]
fn a_certificate_is_served_as_soon_as_it_is_there_and_the_last_good_one_after_that() {
    let [first, second] = [(); 2].map(|()| Pair::of_r());
    let mut world = World::with(ONE);
    assert!(world.builder.awaits_references());
    assert_eq!(world.wanted, ["Secret data/one".to_owned()].into());
    world.is("false CertificateNotReady Secret data/one was not read yet", REFUSED);
    assert_eq!(world.serves(), Err(NotReady::NoCertificate));

    world.builder.remove_secret(&key_of("one"));
    world.settle();
    assert!(!world.builder.awaits_references());
    world.is("false InvalidCertificateRef Secret data/one does not exist", REFUSED);

    world.certificate("one", &first);
    world.is(FINE[0], FINE[1]);
    assert_eq!(world.serves(), Ok(vec![first.serial.clone()]));
    assert!(!world.is_stale());
    let secret = ObjectRef::new(Kind::Secret, key_of("one"));
    world.builder.reference_unread(&secret, "away");
    world.settle();
    let unread = "Secret data/one cannot be read: away; what it had last is still used";
    world.is(&format!("false CertificateNotReady {unread}"), FINE[1]);
    assert!(!world.is_stale(), "it has what it had, as far as is known");

    let kept = |world: &World, why: &str| {
        let told = format!("false {why}; what it had last is still used");
        world.is(&told, FINE[1]);
        assert_eq!(world.serves(), Ok(vec![first.serial.clone()]), "{why}");
        assert!(world.is_stale());
    };
    let of_another = [("tls.crt", &*second.certificate), ("tls.key", &*first.key)];
    world.secret("one", &of_another);
    let told = "tls.key is not the private key of the first certificate in tls.crt";
    kept(&world, &format!("InvalidCertificateRef Secret data/one cannot be used: {told}"));
    world.secret("one", &[("tls.crt", &second.certificate)]);
    let told = "InvalidCertificateRef Secret data/one lacks the entry tls.crt or tls.key; a Secret of \
                type kubernetes.io/tls has both";
    kept(&world, told);
    world.builder.reference_unread(&secret, "forbidden");
    world.settle();
    kept(&world, "CertificateNotReady Secret data/one cannot be read: forbidden");
    world.builder.remove_secret(&key_of("one"));
    world.settle();
    kept(&world, "InvalidCertificateRef Secret data/one does not exist");
    // The route changes meanwhile.
    world.put("certificates: [{secret: one}], minVersion: '1.3'");
    kept(&world, "InvalidCertificateRef Secret data/one does not exist");
    assert_eq!(world.served.as_ref().unwrap().text().min_version, MinVersion::V13);

    world.certificate("one", &second);
    world.is(FINE[0], FINE[1]);
    assert_eq!(world.serves(), Ok(vec![second.serial.clone()]));

    // Another route never had it.
    world.secret("one", &of_another);
    world.builder.remove_route(&RouteKey::sni_route("data", "r"));
    world.settle();
    assert!(world.wanted.is_empty());
    world.put(ONE);
    assert_eq!(world.serves(), Err(NotReady::NoCertificate));
}

#[test]
fn a_secret_of_another_namespace_needs_a_grant_and_its_key_is_dropped_without_one() {
    let pair = Pair::of_r();
    let mut world = World::with("certificates: [{secret: one, namespace: other}]");
    let refused = "false RefNotPermitted no ReferenceGrant in namespace other lets the SniRoutes of \
                   data refer to Secret one";
    world.is(refused, REFUSED);
    assert!(world.wanted.is_empty(), "it is not even read");
    // What is put all the same is not stored.
    world.certificate("other/one", &pair);
    world.is(refused, REFUSED);
    world.grant("ConfigMap").is(refused, REFUSED);

    world.grant("Secret");
    assert_eq!(world.wanted, ["Secret other/one".to_owned()].into());
    world.is("false CertificateNotReady Secret other/one was not read yet", REFUSED);
    world.certificate("other/one", &pair);
    world.is(FINE[0], FINE[1]);

    world.builder.remove_grant(&ObjectKey::new("other", "g"));
    world.settle();
    world.is(refused, REFUSED);
    assert_eq!(world.serves(), Err(NotReady::NoCertificate));
    assert!(world.wanted.is_empty());
    world.grant("Secret");
    world.is("false CertificateNotReady Secret other/one was not read yet", REFUSED);
    assert_eq!(world.serves(), Err(NotReady::NoCertificate), "the last good one is gone");
}

/// A Secret is read once. What was read must not get lost because the route is put again at that moment.
#[test]
fn what_is_read_while_its_route_is_put_again_is_stored() {
    let [first, second] = [(); 2].map(|()| Pair::of_r());
    let mut world = World::with(ONE);
    world.builder.put_route(&tls_route("r", ONE));
    world.certificate("one", &first);
    world.is(FINE[0], FINE[1]);
    assert_eq!(world.serves(), Ok(vec![first.serial]));
    world.builder.put_route(&tls_route("r", ONE));
    world.certificate("one", &second);
    assert_eq!(world.serves(), Ok(vec![second.serial.clone()]));

    let secret = ObjectRef::new(Kind::Secret, key_of("one"));
    world.builder.put_route(&tls_route("r", ONE));
    world.builder.reference_unread(&secret, "forbidden");
    world.settle();
    assert!(
        world.conditions()[0].contains("cannot be read: forbidden"),
        "{:?}",
        world.conditions()
    );
    world.builder.put_route(&tls_route("r", ONE));
    world.builder.remove_secret(&key_of("one"));
    world.settle();
    assert!(world.conditions()[0].contains("does not exist"), "{:?}", world.conditions());

    // A route that is gone at the end leaves nothing.
    world.builder.remove_route(&RouteKey::sni_route("data", "r"));
    world.certificate("one", &second);
    assert!(world.builder.is_empty(), "{:?}", world.builder);
}

#[test]
fn a_route_with_other_certificates_is_served_with_its_former_ones_until_these_are_read() {
    let [first, second] = [(); 2].map(|()| Pair::of_r());
    let changed = || {
        let mut world = World::with(ONE);
        world.certificate("one", &first);
        world.put("certificates: [{secret: two}]");
        world.is("false CertificateNotReady Secret data/two was not read yet", FINE[1]);
        assert_eq!(world.serves(), Ok(vec![first.serial.clone()]));
        assert_eq!(world.wanted, ["Secret data/two".to_owned()].into());
        world
    };
    let mut world = changed();
    // Once more, before the Secret of the first change was read.
    world.put("certificates: [{secret: three}]");
    assert_eq!(world.serves(), Ok(vec![first.serial.clone()]));
    world.certificate("three", &second);
    world.is(FINE[0], FINE[1]);
    assert_eq!(world.serves(), Ok(vec![second.serial.clone()]));

    let mut world = changed();
    world.builder.remove_secret(&key_of("two"));
    world.settle();
    assert_eq!(world.serves(), Err(NotReady::NoCertificate), "it does not exist");
    world.put("certificates: [{secret: three}]");
    assert_eq!(world.serves(), Err(NotReady::NoCertificate), "what was refused stays so");

    // Nothing else may differ: a client must not get in without its certificate.
    let mut world = World::with(ONE);
    world.certificate("one", &first);
    world.put("certificates: [{secret: two}], clientCertificates: {ca: {secret: ca}}");
    assert_eq!(world.serves(), Err(NotReady::NoCertificate));

    // A grant could be taken back unseen.
    let mut world = World::with("certificates: [{secret: one, namespace: other}]");
    world.grant("Secret").certificate("other/one", &first);
    assert_eq!(world.serves(), Ok(vec![first.serial.clone()]));
    world.put(ONE);
    assert_eq!(world.serves(), Err(NotReady::NoCertificate));
    let upstream = "upstream: {serverName: a.b, ca: {secret: one}, \
                    clientCertificate: {secret: one, namespace: other}}";
    let mut world = World::with(&format!("{ONE}, {upstream}"));
    let [chain, key] = first.entries();
    world.secret("one", &[chain, key, ("ca.crt", &first.certificate)]);
    world.grant("Secret").certificate("other/one", &first);
    assert_eq!(world.serves(), Ok(vec![first.serial.clone()]));
    // Nothing that it serves now was read.
    world.put(&format!("certificates: [{{secret: two}}], {upstream}"));
    world.builder.remove_grant(&ObjectKey::new("other", "g"));
    world.settle();
    assert_eq!(world.serves(), Err(NotReady::NoCertificate));
}

#[test]
fn certificates_beside_one_that_cannot_be_used_are_served() {
    let [first, second] = [(); 2].map(|()| Pair::of_r());
    let mut world = World::with("certificates: [{secret: one}, {secret: two}, {secret: one}]");
    world.certificate("one", &first);
    let told = "Secret data/two was not read yet";
    world.is(&format!("false CertificateNotReady {told}"), FINE[1]);
    assert_eq!(world.serves(), Ok(vec![first.serial.clone()]));
    world.certificate("two", &second);
    world.is(FINE[0], FINE[1]);
    assert_eq!(world.serves(), Ok(vec![first.serial, second.serial]), "in their order, each once");
}

#[test]
fn nothing_is_served_without_authorities_or_the_certificate_for_backends() {
    let (pair, ca) = (Pair::of_r(), Pair::of_r());
    let authorities = [("ca.crt".to_owned(), ca.certificate.clone())].into();
    for (field, config_map, what) in [
        ("clientCertificates: {ca: {configMap: ca}}", true, "clientCertificates.ca"),
        ("clientCertificates: {ca: {secret: ca}, required: false}", false, "clientCertificates.ca"),
        ("upstream: {serverName: a.b, ca: {configMap: ca}}", true, "upstream.ca"),
        ("upstream: {serverName: a.b, ca: {secret: ca}}", false, "upstream.ca"),
        (
            "upstream: {serverName: a.b, ca: {secret: one}, clientCertificate: {secret: ca}}",
            false,
            "upstream.clientCertificate",
        ),
    ] {
        let mut world = World::with(&format!("{ONE}, {field}"));
        let [chain, key] = pair.entries();
        world.secret("one", &[chain, key, ("ca.crt", &ca.certificate)]);
        let refused = format!(
            "false CertificateNotReady tls.{what} cannot be used; connections of the route are refused"
        );
        let kind = if config_map { "ConfigMap" } else { "Secret" };
        let told = format!("false CertificateNotReady {kind} data/ca was not read yet");
        world.is(&told, &refused);
        match config_map {
            true => world.builder.put_config_map(&key_of("ca"), None),
            false => world.builder.put_secret(&key_of("ca"), &data(&[])),
        }
        world.settle();
        let lacks = if what.ends_with("Certificate") { "lacks the entry" } else { "has no entry" };
        assert!(world.conditions()[0].contains(&format!("{kind} data/ca {lacks}")), "{field}");
        assert_eq!(world.serves(), Err(NotReady::NoCertificate), "{field}");
        match config_map {
            true => world.builder.put_config_map(&key_of("ca"), Some(&authorities)),
            false => {
                let [chain, key] = ca.entries();
                let whole = [chain, key, ("ca.crt", &ca.certificate)];
                world.builder.put_secret(&key_of("ca"), &data(&whole));
            }
        }
        world.settle();
        world.is(FINE[0], FINE[1]);
        assert_eq!(world.serves(), Ok(vec![pair.serial.clone()]), "{field}");
        let upstream = world.served.as_ref().unwrap().upstream().is_some();
        assert_eq!(upstream, field.starts_with("upstream"));
        world
            .builder
            .remove(if config_map { Kind::ConfigMap } else { Kind::Secret }, &key_of("ca"));
        world.settle();
        assert_eq!(world.serves(), Ok(vec![pair.serial.clone()]), "the last ones are in force");
        assert!(world.conditions()[0].starts_with("false InvalidCertificateRef"), "{field}");
    }
}

#[test]
fn an_installation_that_serves_no_tls_holds_no_key_and_keeps_the_name() {
    for builder in [Builder::new, Builder::of_all_objects] {
        holds_no_key(World::of(builder(installation())));
    }
}

fn holds_no_key(mut world: World) {
    world.put(ONE);
    let refused = "false TerminateDisabled this installation does not serve TLS itself: its setting \
                   terminate is off; connections of the route are refused";
    world.is(FINE[0], refused);
    assert_eq!(world.serves(), Err(NotReady::Disabled));
    assert!(world.wanted.is_empty());
    world.certificate("one", &Pair::of_r());
    world.is(FINE[0], refused);
    world.put("certificates: [{secret: one, namespace: other}]");
    assert!(world.conditions()[0].starts_with("false RefNotPermitted"), "{:?}", world.conditions());
    world.builder.remove_route(&RouteKey::sni_route("data", "r"));
    world.settle();
    assert!(world.builder.is_empty(), "nothing was stored");
}

#[test]
fn certificates_that_clients_will_not_take_are_told_and_served() {
    let year = |year: i32| {
        move |params: &mut CertificateParams| {
            params.not_before = rcgen::date_time_ymd(year, 1, 1);
            params.not_after = rcgen::date_time_ymd(year, 7, 1);
        }
    };
    let day = |text: &str| text.parse::<k8s_openapi::jiff::Timestamp>().unwrap().as_second();
    let mut world = World::with(ONE);
    world.builder.set_time(day("2030-02-01T00:00:00Z"));
    world.certificate("one", &Pair::new(&["*.test", "b.test"], year(2030)));
    world.is(FINE[0], FINE[1]);
    world.certificate("one", &Pair::new(&["r.example"], year(2030)));
    world.is(FINE[0], "true Programmed no certificate of the route has the name r.test");
    world.certificate("one", &Pair::new(&["r.test"], year(2031)));
    let early = "the certificate of Secret data/one is valid only from 2031-01-01T00:00:00Z";
    world.is(FINE[0], &format!("true Programmed {early}"));
    world.builder.set_time(day("2031-01-01T00:00:00Z"));
    world.settle().is(FINE[0], FINE[1]);
    world.builder.set_time(day("2031-07-01T00:00:01Z"));
    let late = "the certificate of Secret data/one has expired at 2031-07-01T00:00:00Z";
    world.settle().is(FINE[0], &format!("true Programmed {late}"));
    assert_eq!(world.serves().unwrap().len(), 1);

    // That for the backends has no hostname of the route.
    let upstream =
        "upstream: {serverName: a.b, ca: {secret: two}, clientCertificate: {secret: two}}";
    let mut world = World::with(&format!("{ONE}, {upstream}"));
    world.builder.set_time(day("2031-07-01T00:00:01Z"));
    world.certificate("one", &Pair::of_r());
    let old = Pair::new(&["client"], year(2030));
    let [chain, key] = old.entries();
    world.secret("two", &[chain, key, ("ca.crt", &old.certificate)]);
    let late = "the certificate of Secret data/two has expired at 2030-07-01T00:00:00Z";
    world.is(FINE[0], &format!("true Programmed {late}"));
}

#[test]
fn there_is_no_tls_on_a_listener_of_tcp() {
    let mut installation = terminating();
    installation.tcp_listeners = vec!["kafka".to_owned()];
    let pair = Pair::of_r();
    for (listeners, is_served) in [("[kafka]", false), ("[kafka, https]", true), ("[]", true)] {
        let mut world = World::of(Builder::new(installation.clone()));
        let mut route = tls_route("r", ONE);
        route.spec.listeners = yaml(listeners);
        world.builder.put_route(&route);
        world.settle().certificate("one", &pair);
        let programmed = world.conditions()[1].clone();
        assert_eq!(programmed == FINE[1], is_served, "{listeners}: {programmed}");
        assert_eq!(world.serves().is_ok(), is_served, "{listeners}");
        assert_eq!(world.wanted.is_empty(), !is_served, "no key is read for nothing");
        assert!(
            is_served || programmed.starts_with("false ListenerNotTls none of"),
            "{programmed}"
        );
        let problems = world.builder.problems();
        assert_eq!(problems.is_empty(), is_served, "{problems:?}");
    }
    installation.tcp_listeners = installation.listeners.clone();
    let mut world = World::of(Builder::new(installation));
    world.put(ONE).certificate("one", &pair);
    assert!(world.conditions()[1].starts_with("false ListenerNotTls"));
}

#[test]
fn the_text_of_a_termination_has_what_the_route_has() {
    let world = World::with(
        "certificates: [{secret: one}, {secret: two, namespace: other}], minVersion: '1.3', \
         clientCertificates: {required: false, ca: {configMap: a, namespace: b}}, \
         upstream: {serverName: S.test, ca: {secret: c}, clientCertificate: {secret: d}}",
    );
    let text = world.served.as_ref().unwrap().text();
    let secrets: Vec<&str> = text.certificates.iter().map(|one| &*one.secret).collect();
    assert_eq!(secrets, ["data/one", "other/two"]);
    assert_eq!(text.min_version, MinVersion::V13);
    let clients = text.client_certificates.as_ref().unwrap();
    assert_eq!((clients.required, &clients.ca), (false, &CaText::ConfigMap("b/a".into())));
    let upstream = text.upstream.as_ref().unwrap();
    assert_eq!(
        (&*upstream.server_name, &upstream.ca),
        ("s.test", &CaText::Secret("data/c".into()))
    );
    assert_eq!(&*upstream.client_certificate.as_ref().unwrap().secret, "data/d");
}

/// Of an authority, it is the key that signs certificates.
#[test]
fn the_key_of_a_secret_that_is_named_for_its_authorities_is_not_kept() {
    let pair = Pair::of_r();
    let [chain, key] = pair.entries();
    let whole = [chain, key, ("ca.crt", &pair.certificate)];
    let mut world =
        World::with("certificates: [{secret: one}], clientCertificates: {ca: {secret: ca}}");
    world.certificate("one", &pair);
    world.secret("ca", &whole);
    world.is(FINE[0], FINE[1]);
    // As soon as a route serves it, it is read anew.
    world.put("certificates: [{secret: ca}], clientCertificates: {ca: {secret: ca}}");
    assert_eq!(world.read_anew, ["Secret data/ca"]);
    let told = "CertificateNotReady Secret data/ca was not read yet";
    assert_eq!(world.conditions()[0], format!("false {told}"));
    assert!(world.builder.awaits_references());
    assert_eq!(world.settle().read_anew, [""; 0]);
    world.secret("ca", &whole);
    world.is(FINE[0], FINE[1]);
    assert_eq!(world.serves(), Ok(vec![pair.serial.clone()]));
    // Then it is dropped.
    world.put("certificates: [{secret: one}], clientCertificates: {ca: {secret: ca}}");
    world.certificate("one", &pair);
    world.put("certificates: [{secret: ca}], clientCertificates: {ca: {secret: ca}}");
    assert_eq!(world.read_anew, ["Secret data/ca"]);
}
