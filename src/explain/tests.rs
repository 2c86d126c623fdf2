use super::*;
use crate::policy::Balancing;
use crate::routing::{BackendKey, EndpointPlace, Ring, RouteSpec, TrafficPolicy};

/// A route `namespace/name` with its creation time and hostnames.
fn route(key: &str, created: Option<i64>, hostnames: &[&str]) -> RouteSpec {
    let (namespace, name) = key.split_once('/').expect("namespace/name");
    RouteSpec {
        created,
        backends: vec![(BackendKey::address("", "10.0.0.1:1"), 1)],
        ..RouteSpec::new(
            RouteKey::sni_route(namespace, name),
            hostnames.iter().map(|name| name.parse::<Hostname>().expect("a hostname")).collect(),
        )
    }
}

fn with_alpn(mut route: RouteSpec, alpn: &[&str]) -> RouteSpec {
    route.alpn = alpn.iter().map(|protocol| (*protocol).into()).collect();
    route
}

fn on(route: RouteSpec, listeners: &[&str]) -> RouteSpec {
    route.on(listeners)
}

fn shop() -> Vec<RouteSpec> {
    vec![
        route("a/exact", Some(10), &["www.example.com", "*.example.com"]),
        route("a/young", Some(20), &["www.example.com"]),
        route("b/old", Some(10), &["www.example.com"]),
        with_alpn(route("a/h2", Some(30), &["www.example.com"]), &["h2", "h3"]),
        on(route("a/inside", Some(5), &["www.example.com"]), &["internal"]),
        route("a/all", None, &["*"]),
        route("a/deep", None, &["*.deep.example.com"]),
        with_alpn(route("a/mail", None, &["mail.example.net", "*.mail.example.net"]), &["smtp"]),
    ]
}

/// The explanation for a name, the client's protocols, and a listener.
fn ask(routes: Vec<RouteSpec>, name: &str, alpn: &[&str], listener: Option<&str>) -> Explanation {
    let table = table(Snapshot { routes, ..Snapshot::default() });
    let query = Query {
        name: server_name(name).expect("a name"),
        alpn: alpn.iter().map(|protocol| (*protocol).to_owned()).collect(),
        listener: listener.map(str::to_owned),
        source: None,
    };
    explain(&table, &query)
}

fn first_line(explanation: &Explanation) -> String {
    explanation.to_string().lines().next().expect("a line").to_owned()
}

#[test]
fn the_first_line_names_the_winner_and_its_claim() {
    for (name, alpn, listener, line) in [
        ("www.example.com", &[][..], "https", "SniRoute a/exact: exact hostname www.example.com"),
        ("WWW.example.com.", &[], "https", "SniRoute a/exact: exact hostname www.example.com"),
        ("www.example.com", &["h2"], "https", "SniRoute a/h2: exact hostname www.example.com"),
        ("www.example.com", &[], "internal", "SniRoute a/inside: exact hostname www.example.com"),
        ("x.example.com", &[], "https", "SniRoute a/exact: wildcard *.example.com"),
        ("-a-.example.com", &[], "https", "SniRoute a/exact: wildcard *.example.com"),
        ("x.deep.example.com", &[], "https", "SniRoute a/deep: wildcard *.deep.example.com"),
        ("deep.example.com", &[], "https", "SniRoute a/exact: wildcard *.example.com"),
        ("example.com", &[], "https", "SniRoute a/all: any name"),
        ("mail.example.net", &[], "https", "SniRoute a/all: any name"),
        (
            "mail.example.net",
            &["smtp"],
            "https",
            "SniRoute a/mail: exact hostname mail.example.net",
        ),
        ("", &[], "https", "SniRoute a/all: any name"),
    ] {
        let explanation = ask(shop(), name, alpn, Some(listener));
        assert_eq!(first_line(&explanation), line, "{name} {alpn:?} {listener}");
        assert!(explanation.found());
    }
}

#[test]
fn every_loser_has_a_reason() {
    let explanation = ask(shop(), "www.example.com", &[], Some("https"));
    let reasons: Vec<(String, Lost)> =
        explanation.losers.iter().map(|l| (l.key.to_string(), l.reason.clone())).collect();
    let lost = |key: &str, reason| (key.to_owned(), reason);
    assert_eq!(
        reasons,
        [
            lost("a/h2", Lost::AlpnNotOffered(vec!["h2".into(), "h3".into()])),
            lost("a/inside", Lost::OtherListener(vec!["internal".into()])),
            lost("b/old", Lost::LaterName),
            lost("a/young", Lost::Younger),
            lost("a/all", Lost::LessSpecific),
        ]
    );
    let explanation = ask(shop(), "www.example.com", &["h2"], Some("https"));
    assert_eq!(explanation.winner.as_ref().and_then(|w| w.alpn.as_deref()), Some("h2"));
    let exact = explanation.losers.iter().find(|loser| loser.key.name() == "exact");
    assert_eq!(exact.map(|loser| &loser.reason), Some(&Lost::NoAlpn));
}

#[test]
fn without_a_listener_the_best_route_wins_and_other_answers_are_listed() {
    let explanation = ask(shop(), "www.example.com", &[], None);
    let text = explanation.to_string();
    assert!(text.starts_with("SniRoute a/inside: exact hostname www.example.com\n"), "{text}");
    assert!(text.contains("\n  on any other listener: SniRoute a/exact\n"), "{text}");

    // A route whose ALPN is not offered is not the best, whatever its listener.
    let routes = vec![
        on(with_alpn(route("a/h2", None, &["a.com"]), &["h2"]), &["x"]),
        on(route("a/plain", None, &["a.com"]), &["y", "z"]),
    ];
    let text = ask(routes, "a.com", &[], None).to_string();
    assert!(text.starts_with("SniRoute a/plain: "), "{text}");
    assert!(text.contains("\n  on listener x: no route\n"), "{text}");
    assert!(!text.contains("on listener y") && !text.contains("on listener z"), "{text}");

    // The more specific claim is better, not the older route.
    let routes = vec![
        on(route("a/wild", Some(1), &["*.a.com"]), &["x"]),
        on(route("a/exact", Some(2), &["www.a.com"]), &["y"]),
    ];
    let text = ask(routes, "www.a.com", &[], None).to_string();
    assert!(
        text.starts_with("SniRoute a/exact: ") && text.contains("on listener x: SniRoute a/wild"),
        "{text}"
    );

    let explanation = ask(vec![route("a/a", None, &["a.com"])], "a.com", &[], None);
    assert_eq!(explanation.elsewhere, []);
}

#[test]
fn no_route_is_explained_with_the_reasons() {
    let mut routes = shop();
    routes.retain(|route| route.key.name() != "all");
    for (name, listener, part) in [
        ("other.org", "https", "no route claims other.org"),
        ("", "https", "only * matches"),
        ("example.com", "https", "names below example.com, not example.com itself"),
        ("mail.example.net", "https", "asks for ALPN [\"smtp\"], of which the client offers none"),
    ] {
        let explanation = ask(routes.clone(), name, &[], Some(listener));
        let text = explanation.to_string();
        assert!(text.starts_with("no route\n") && text.contains(part), "{name}: {text}");
        assert!(!explanation.found());
    }
    let inside = vec![on(route("a/inside", None, &["a.com"]), &["internal"])];
    let text = ask(inside, "a.com", &[], Some("https")).to_string();
    assert!(
        text.contains(
            "not SniRoute a/inside, which claims a.com: it serves only listeners internal"
        )
    );
}

#[test]
fn the_details_of_the_winner_are_shown() {
    let mut spec = with_alpn(route("data/kafka", None, &["kafka.example.com"]), &["h2"]);
    let service: BackendKey = BackendKey::Service {
        service: crate::routing::ObjectKey::new("data", "kafka"),
        port: crate::routing::ServicePort::Number(9093),
    };
    spec.backends = vec![(service.clone(), 90), (BackendKey::address("", "far:1"), 10)];
    spec.policy = TrafficPolicy::of(&Balancing::SourceAddress.into());
    let mut snapshot = Snapshot { routes: vec![spec], ..Snapshot::default() };
    let address = |last: u8| SocketAddr::from(([10, 0, 0, last], 9093));
    snapshot.endpoints.insert(service, vec![address(1), address(2)]);
    let query = Query {
        name: Some("kafka.example.com".into()),
        alpn: vec!["h2".to_owned()],
        listener: None,
        source: Some([10, 1, 2, 3].into()),
    };
    let mut explanation = explain(&table(snapshot), &query);
    assert_eq!(
        explanation.to_string(),
        "SniRoute data/kafka: exact hostname kafka.example.com\n\
         \x20 alpn: \"h2\" is offered, one of [\"h2\"] is asked for\n\
         \x20 health.passive.ejectFor: 10s (by default)\n\
         \x20 health.passive.failures: 3 (by default)\n\
         \x20 health.passive.maxEjectFor: 5m (by default)\n\
         \x20 loadBalancing.locality: Hints (by default), which SourceAddress ignores\n\
         \x20 loadBalancing.policy: SourceAddress (of the route), 10.1.2.3 always gets the same endpoint \
         while it exists\n\
         \x20 loadBalancing.race.after: 300ms (by default)\n\
         \x20 loadBalancing.race.budget: 20 (by default)\n\
         \x20 timeouts.connect: 5s (by default)\n\
         \x20 timeouts.idle: 1h (by default)\n\
         \x20 backend data/kafka:9093, weight 90: 10.0.0.1:9093, 10.0.0.2:9093\n\
         \x20 backend far:1, weight 10: no endpoint\n"
    );
    explanation.endpoint = Some(address(2));
    let winner = explanation.winner.as_ref().expect("a winner").route.spec.key.clone();
    explanation.add_state(&winner, address(1), "ejected");
    explanation.add_state(&RouteKey::sni_route("data", "other"), address(2), "resting");
    let text = explanation.to_string();
    assert!(text.contains("10.1.2.3 goes to 10.0.0.2:9093"), "{text}");
    assert!(text.contains("weight 90: 10.0.0.1:9093 (ejected), 10.0.0.2:9093\n"), "{text}");
}

#[test]
fn near_endpoints_are_shown_unless_the_route_treats_all_alike() {
    let backend = BackendKey::address("", "x");
    let place = |ring: Ring, zone: Option<&str>| {
        Arc::new(EndpointPlace { ring, node: None, zone: zone.map(Into::into) })
    };
    let shown = |balancing: Balancing| {
        let mut spec = route("data/web", None, &["a.com"]);
        spec.backends = vec![(backend.clone(), 1)];
        spec.policy = TrafficPolicy::of(&balancing.into());
        let mut snapshot = Snapshot { routes: vec![spec], ..Snapshot::default() };
        let addresses = [1, 2, 3, 4].map(|last| SocketAddr::from(([10, 0, 0, last], 1)));
        snapshot.endpoints.insert(backend.clone(), addresses.into());
        let places = [
            place(Ring::Any, None),
            place(Ring::Any, Some("b")),
            place(Ring::Zone, Some("a")),
            place(Ring::Node, Some("a")),
        ];
        snapshot.places.insert(backend.clone(), places.into());
        let query = Query { name: Some("a.com".into()), ..Query::default() };
        let text = explain(&table(snapshot), &query).to_string();
        text.split_once("weight 1: ").expect("a backend").1.to_owned()
    };
    assert_eq!(
        shown(Balancing::RoundRobin),
        "10.0.0.1:1, 10.0.0.2:1 (zone b), 10.0.0.3:1 (for this zone), 10.0.0.4:1 (for this node)\n"
    );
    assert_eq!(
        shown(Balancing::ServerName),
        "10.0.0.1:1, 10.0.0.2:1 (zone b), 10.0.0.3:1 (zone a), 10.0.0.4:1 (zone a)\n"
    );
}

#[test]
fn the_endpoint_of_a_server_name_is_shown() {
    let mut spec = route("data/mail", None, &["*.example.com"]);
    spec.policy = TrafficPolicy::of(&Balancing::ServerName.into());
    let table = table(Snapshot { routes: vec![spec], ..Snapshot::default() });
    let name = || Some("a.example.com".into());
    let mut explanation = explain(&table, &Query { name: name(), ..Query::default() });
    let policy = "loadBalancing.policy: ServerName (of the route), a.example.com";
    let text = explanation.to_string();
    assert!(text.contains(&format!("{policy} always gets the same endpoint while")), "{text}");
    explanation.endpoint = Some(([10, 0, 0, 1], 443).into());
    let text = explanation.to_string();
    assert!(text.contains(&format!("{policy} goes to 10.0.0.1:443\n")), "{text}");
}

#[test]
fn a_server_name_is_what_a_client_can_send() {
    assert_eq!(server_name(""), Ok(None));
    assert_eq!(server_name("A.com."), Ok(Some("a.com".into())));
    // Routes cannot claim such an exact name, but clients send it, and a wildcard may cover it.
    assert_eq!(server_name("-A-.example.com"), Ok(Some("-a-.example.com".into())));
    for (text, part) in [
        (".", "empty"),
        ("*", "wildcard"),
        ("*.example.com", "wildcard"),
        ("10.0.0.1", "IP address"),
        ("127.1", "IP address"),
        ("a b", "byte 0x20"),
        ("a:443", "byte 0x3a"),
    ] {
        let error = server_name(text).expect_err(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn routes_of_other_namespaces_lose_a_claimed_name_with_the_reason() {
    let routes = vec![
        with_alpn(route("a/h2", Some(1), &["login.a.com"]), &["h2"]),
        route("b/wild", Some(2), &["*.a.com"]),
        route("a/any", Some(3), &["*"]),
        route("b/any", Some(4), &["*"]),
    ];
    let text = ask(routes.clone(), "login.a.com", &[], Some("https")).to_string();
    assert!(text.starts_with("SniRoute a/any: any name\n"), "{text}");
    let why = "login.a.com belongs to namespace a, so routes of other namespaces get no connections for it";
    assert!(text.contains(&format!("not SniRoute b/wild, which claims *.a.com: {why}")), "{text}");

    let mut explanation = ask(routes, "login.a.com", &["h2"], Some("https"));
    let told = "login.a.com belongs to namespace a, whose route a/h2 is the oldest";
    let accepted = format!("there is no listener \"x\"; {told}; other.com belongs to b/x");
    explanation.add_told(&RouteKey::sni_route("c", "thief"), &accepted);
    let text = explanation.to_string();
    assert!(text.ends_with(&format!("\n  status of SniRoute c/thief: {told}\n")), "{text}");
}

#[test]
fn the_winners_limited_timeouts_are_shown() {
    let routes = vec![route("a/capped", None, &["a.com"]), route("a/other", None, &["b.com"])];
    let mut explanation = ask(routes, "a.com", &[], Some("https"));
    let said = "timeouts.idle is 2h, the most that this installation allows, and not 24h";
    explanation.add_told(&RouteKey::sni_route("a", "other"), said);
    explanation.add_told(&RouteKey::sni_route("a", "capped"), &format!("something else; {said}"));
    let text = explanation.to_string();
    assert!(text.ends_with(&format!("\n  status of SniRoute a/capped: {said}\n")), "{text}");
    assert!(!text.contains("other"), "{text}");
}
