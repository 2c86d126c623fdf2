//! Reports of certificates that real handshakes could show.

use std::cell::Cell;

use rcgen::date_time_ymd;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use super::super::authorities::AuthorityFault;
use super::super::fixture::{route_with, table};
use super::super::plan::plan;
use super::*;
use crate::routing::{Hostname, Hostnames, RouteSpec};

/// Valid from 2026-01-01 to 2026-04-01.
fn certificate(names: &[&str]) -> Arc<ServerCertificate> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 4, 1));
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    Arc::new(ServerCertificate::read(certificate.der()).unwrap())
}

fn view(certificate: &Arc<ServerCertificate>) -> CertificateView {
    let certificate = Some(Arc::clone(certificate));
    CertificateView { certificate, trust: Trust::NotAsked, h2: false }
}

/// A route of these hostnames, whose alpn is `h2` or nothing.
fn route(name: &str, hostnames: &[&str], backend: &str, h2: bool) -> RouteSpec {
    let mut route = route_with(name, &[backend], json!({ "type": "TLS" }));
    let hostnames = hostnames.iter().map(|hostname| hostname.parse::<Hostname>().unwrap());
    let hostnames: Vec<Hostname> = hostnames.collect();
    let attachments = Hostnames::from_iter(hostnames.iter().map(Hostname::borrowed));
    route.attachments = RouteSpec::new(route.key.clone(), attachments).attachments;
    route.alpn = if h2 { vec!["h2".into()] } else { Vec::new() };
    route
}

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

/// The report at a time, in which each address shows this.
fn report(
    routes: Vec<RouteSpec>,
    backends: &[(&str, &[&str])],
    now: &str,
    shows: &[(&str, CertificateView)],
) -> CertificateReport {
    let (_writer, reader) = table(routes, backends);
    let table = reader.table();
    assert!(!plan(&table, usize::MAX).checks.is_empty());
    CertificateReport::of(&table, at(now), |check| {
        let address = check.address.to_string();
        shows.iter().find_map(|(of, view)| (**of == address).then_some(view))
    })
}

fn told(report: &CertificateReport, route: &str) -> (&'static str, String) {
    let found = report.conditions.iter().find(|(object, _)| object.to_string() == route);
    let (_, condition) = found.unwrap();
    assert_eq!(condition.status, condition.message.is_empty());
    (condition.reason, condition.message.clone())
}

const GOOD: &str = "2026-02-01T00:00:00Z";

#[test]
fn dates_are_judged_by_what_is_left_of_them() {
    for (now, expected) in [
        (
            "2025-12-31T23:59:59Z",
            ("CertificateNotYetValid", "it is not valid before 2026-01-01T00:00:00Z"),
        ),
        (GOOD, ("Valid", "")),
        ("2026-03-24T23:59:59Z", ("Valid", "")),
        ("2026-03-25T00:00:01Z", ("CertificateExpiresSoon", "it expires at 2026-04-01T00:00:00Z")),
        ("2026-04-01T00:00:01Z", ("CertificateExpired", "it expired at 2026-04-01T00:00:00Z")),
    ] {
        let routes = vec![route("a/r", &["a.test"], "x", false)];
        let shows = [("192.0.2.1:1", view(&certificate(&["a.test"])))];
        let report = report(routes, &[("x", &["192.0.2.1:1", "192.0.2.2:1"])], now, &shows);
        let (reason, message) = expected;
        let message = match message {
            "" => String::new(),
            message => format!("the certificate of 192.0.2.1:1: {message}"),
        };
        assert_eq!(told(&report, "a/r"), (reason, message), "{now}");
        let expiry = report.expiries.values().copied().collect::<Vec<_>>();
        assert_eq!(expiry, [u64::try_from(at("2026-04-01T00:00:00Z")).unwrap()]);
    }
}

/// A route of these hostnames with these checks.
fn checked(hostnames: &[&str], active: serde_json::Value) -> RouteSpec {
    let mut spec = route("a/r", hostnames, "x", false);
    spec.policy = route_with("a/r", &[], active).policy;
    spec
}

#[test]
fn only_the_checked_name_is_judged() {
    let certificate = view(&certificate(&["A.test", "*.c.test"]));
    let of = |hostnames: &[&str], active: serde_json::Value| {
        let addresses = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"];
        let shows = addresses.map(|address| (address, certificate.clone()));
        report(vec![checked(hostnames, active)], &[("x", &addresses)], GOOD, &shows)
    };
    let tls = || json!({ "type": "TLS" });
    let named = |name: &str| json!({ "type": "TLS", "serverName": name });
    let all = ["*.f.test", "a.test", "z.test"];
    for (hostnames, active, missing) in [
        (&all[..], tls(), None),
        (&["z.test", "a.test"], tls(), Some("z.test")),
        (&all, named("b.c.test"), None),
        (&all, named("d.e.c.test"), Some("d.e.c.test")),
        (&all, named("c.test"), Some("c.test")),
        // Without a name, nobody knows which one the certificate is for.
        (&["*.f.test", "*"], tls(), None),
    ] {
        let report = of(hostnames, active);
        let expected = missing.map_or(("Valid", String::new()), |name| {
            let message =
                format!("the certificates of 192.0.2.1:1 and 2 more: it does not have {name}");
            ("NameNotInCertificate", message)
        });
        assert_eq!(told(&report, "a/r"), expected, "{hostnames:?}");
        let problems = report.problems[ProblemKind::Name as usize];
        assert_eq!(problems, usize::from(missing.is_some()));
    }
}

#[test]
fn enforce_of_the_installation_says_where_it_has_no_name() {
    let enforce = || json!({ "type": "TLS", "verify": "Enforce", "ca": { "configMap": "ca" } });
    let shows = [("192.0.2.1:1", view(&certificate(&["a.test"])))];
    let of = |hostnames: &[&str]| {
        let routes = vec![checked(hostnames, enforce())];
        told(&report(routes, &[("x", &["192.0.2.1:1"])], GOOD, &shows), "a/r")
    };
    assert_eq!(of(&["*.a.test"]), ("NoCheckedName", NO_NAME.to_owned()));
    assert_eq!(of(&["*.a.test", "a.test"]), ("Valid", String::new()));
}

#[test]
fn a_wildcard_that_is_not_shown_to_clients_of_the_route_is_not_told() {
    let wildcard = certificate(&["a.test", "*.c.test"]);
    let routes = || {
        vec![route("a/one", &["one.c.test"], "x", true), route("a/two", &["two.c.test"], "y", true)]
    };
    let backends: [(&str, &[&str]); 2] = [("x", &["192.0.2.1:1"]), ("y", &["192.0.2.2:1"])];
    let shows = [("192.0.2.1:1", view(&wildcard)), ("192.0.2.2:1", view(&wildcard))];
    let reason = |change: &dyn Fn(&mut RouteSpec)| {
        let mut routes = routes();
        change(&mut routes[0]);
        told(&report(routes, &backends, GOOD, &shows), "a/two").0
    };
    assert_eq!(reason(&|_| {}), "SharedWildcardCertificate");
    // It is shown for another name, and one.c.test may have its own.
    let own = route("a/one", &["a.test", "one.c.test"], "x", true);
    assert_eq!(reason(&|route| *route = own.clone()), "Valid");
    let probing = route_with("a/one", &[], json!({ "type": "TLS", "serverName": "probe.c.test" }));
    assert_eq!(reason(&|route| route.policy = probing.policy.clone()), "Valid");
}

#[test]
fn a_wildcard_that_h2_routes_with_other_backends_share_is_told_of_each() {
    let (wildcard, other) = (certificate(&["*.c.test"]), certificate(&["*.c.test"]));
    let routes = || {
        vec![
            route("a/one", &["one.c.test"], "x", true),
            route("a/two", &["two.c.test"], "y", true),
            route("b/three", &["three.c.test"], "z", true),
            // The same backend, no h2, and another certificate.
            route("a/same", &["same.c.test"], "x", true),
            route("a/old", &["old.c.test"], "y", false),
            route("a/other", &["other.c.test"], "o", true),
        ]
    };
    let backends: [(&str, &[&str]); 4] = [
        ("x", &["192.0.2.1:1"]),
        ("y", &["192.0.2.2:1"]),
        ("z", &["192.0.2.3:1"]),
        ("o", &["192.0.2.4:1"]),
    ];
    let shows = [
        ("192.0.2.1:1", view(&wildcard)),
        ("192.0.2.2:1", view(&wildcard)),
        ("192.0.2.3:1", view(&wildcard)),
        ("192.0.2.4:1", view(&other)),
    ];
    let seen = report(routes(), &backends, GOOD, &shows);
    for (route, sharing) in [
        ("a/one", "route a/two"),
        ("a/two", "route a/one"),
        ("b/three", "a route of another namespace"),
        ("a/same", "route a/two"),
    ] {
        let (reason, message) = told(&seen, route);
        assert_eq!(reason, "SharedWildcardCertificate", "{route}");
        assert!(message.contains(&format!(": {sharing} has the same wildcard")), "{message}");
    }
    for route in ["a/old", "a/other"] {
        assert_eq!(told(&seen, route), ("Valid", String::new()));
    }
    // Without a list of protocols, what the server speaks decides.
    let speaking = |certificate| CertificateView { h2: true, ..view(certificate) };
    let shows = [("192.0.2.1:1", view(&wildcard)), ("192.0.2.2:1", speaking(&wildcard))];
    let seen = report(routes(), &backends, GOOD, &shows);
    assert_eq!(told(&seen, "a/old").0, "SharedWildcardCertificate");
}

#[test]
fn the_worst_problem_is_the_reason_and_what_was_not_seen_is_not_told() {
    let routes =
        vec![route("a/r", &["z.test"], "x", false), route("a/unseen", &["a.test"], "y", false)];
    let fault = AuthorityFault::Missing;
    let blind = CertificateView { certificate: None, trust: Trust::NoAuthority(fault), h2: false };
    let shows = [("192.0.2.1:1", view(&certificate(&["a.test"]))), ("192.0.2.2:1", blind)];
    let backends: [(&str, &[&str]); 2] =
        [("x", &["192.0.2.1:1", "192.0.2.2:1"]), ("y", &["192.0.2.3:1"])];
    let report = report(routes, &backends, "2026-05-01T00:00:00Z", &shows);
    let (reason, message) = told(&report, "a/r");
    assert_eq!(reason, "CaNotFound");
    assert_eq!(message.split("; ").count(), 3, "{message}");
    assert_eq!(report.conditions.len(), 1);
}

#[test]
fn a_certificate_that_cannot_be_read_is_none() {
    let der = certificate_der();
    for length in 0..der.len() {
        assert_eq!(ServerCertificate::read(&der[..length]), None, "{length}");
    }
    for index in 0..der.len() {
        for bit in 0..8 {
            let mut wrong = der.clone();
            wrong[index] ^= 1 << bit;
            // Whatever it is, it does not panic.
            let _ = ServerCertificate::read(&wrong);
        }
    }
}

fn certificate_der() -> Vec<u8> {
    let params = CertificateParams::new(vec!["a.test".to_owned(), "*.b.test".to_owned()]).unwrap();
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

/// How often the report of so many routes with one wildcard certificate asks what an endpoint shows.
fn counted(routes: usize, backend: impl Fn(usize) -> String, addresses: &[Vec<String>]) -> usize {
    let specs = (0..routes).map(|number| {
        let name = format!("{}/r{number:05}", ["a", "b"][number % 2]);
        let hostnames = [&*format!("n{number}.c.test"), "x.c.test"];
        let mut spec = route(&name, &hostnames, &backend(number), true);
        // Equal checks: by default, each would ask for its own hostname.
        spec.policy =
            route_with("a/r", &[], json!({ "type": "TLS", "serverName": "x.c.test" })).policy;
        spec
    });
    let texts: Vec<(String, Vec<&str>)> = addresses
        .iter()
        .enumerate()
        .map(|(number, texts)| (format!("x{number}"), texts.iter().map(String::as_str).collect()))
        .collect();
    let backends: Vec<(&str, &[&str])> =
        texts.iter().map(|(key, texts)| (key.as_str(), texts.as_slice())).collect();
    let (_writer, reader) = table(specs.collect(), &backends);
    let (table, shown) = (reader.table(), view(&certificate(&["*.c.test"])));
    let lookups = Cell::new(0);
    let report = CertificateReport::of(&table, at(GOOD), |_| {
        lookups.set(lookups.get() + 1);
        Some(&shown)
    });
    assert_eq!(report.conditions.len(), routes);
    let shared = report.problems[ProblemKind::SharedWildcard as usize];
    assert_eq!(shared, if addresses.len() > 1 { routes } else { 0 });
    lookups.get()
}

#[test]
fn a_backend_that_many_routes_share_is_looked_at_once() {
    let addresses = (0..1_000).map(|n| format!("10.0.{}.{}:1", n / 250, n % 250)).collect();
    assert_eq!(counted(1_000, |_| "x0".to_owned(), &[addresses]), 1_000);
}

#[test]
fn many_routes_with_one_wildcard_certificate_keep_two_of_each_namespace() {
    let addresses = (0..10_000).map(|n| vec![format!("10.0.{}.{}:1", n / 250, n % 250)]);
    let lookups = counted(10_000, |number| format!("x{number}"), &addresses.collect::<Vec<_>>());
    assert_eq!(lookups, 10_000);
}

#[test]
fn of_many_certificates_of_a_backend_those_that_expire_first_are_told() {
    let addresses: Vec<_> = (0..100).map(|last| format!("192.0.2.{last}:1")).collect();
    let texts: Vec<_> = addresses.iter().map(String::as_str).collect();
    let shows: Vec<_> = (0..100)
        .map(|number| {
            let mut one = Arc::into_inner(certificate(&["b.test"])).unwrap();
            one.not_after -= number;
            (texts[number as usize], view(&Arc::new(one)))
        })
        .collect();
    let routes = vec![route("a/r", &["a.test"], "x", false)];
    let report = report(routes, &[("x", &texts)], "2026-04-02T00:00:00Z", &shows);
    let last = u64::try_from(at("2026-04-01T00:00:00Z") - 99).unwrap();
    assert_eq!(report.expiries.values().copied().collect::<Vec<_>>(), [last]);
    let (reason, message) = told(&report, "a/r");
    assert_eq!(reason, "CertificateExpired");
    let more = MOST_SHOWN + 1 - message.matches("it expired").count();
    assert!(message.ends_with(&format!("; and {more} more")), "{message}");
}
