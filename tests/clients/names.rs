//! Names as clients send them, none at all, and protocols beside them.

use testkit::{Authority, eventually};

use super::client::{Answer, Call, Client, s_client};
use super::server::{Kind, Server};
use super::sluice::{Sluice, route, route_with};

#[test]
fn exact_names_wildcards_and_no_name_have_servers_of_their_own() {
    let authority = Authority::new();
    let start = |kind, names: &[&str]| Server::start(kind, &authority, names, &[]);
    let exact = start(Kind::Rustls, &["www.example.test"]);
    let deep = start(Kind::Go, &["*.deep.example.test", "*.a.deep.example.test"]);
    let wide = start(Kind::OpenSsl, &["*.example.test", "*.b.example.test"]);
    let any = start(Kind::Go, &["example.test"]);
    let sluice = Sluice::start(&[
        ("exact.yaml", route("exact", &["www.example.test"], exact.address)),
        ("deep.yaml", route("deep", &["*.deep.example.test"], deep.address)),
        ("wide.yaml", route("wide", &["*.example.test"], wide.address)),
        ("any.yaml", route("any", &["*"], any.address)),
    ]);
    for (name, expected) in [
        ("www.example.test", "exact"),
        ("other.example.test", "wide"),
        ("a.b.example.test", "wide"),
        ("a.deep.example.test", "deep"),
        ("b.a.deep.example.test", "deep"),
        // A wildcard does not cover its bare suffix.
        ("example.test", "any"),
    ] {
        for client in [Client::Rustls, Client::OpenSsl] {
            let call = call(&sluice, &authority, name);
            assert_eq!(client.call(&call), Ok(Answer::to(&call, "")), "{client:?} {name}");
        }
        let entries = eventually("both are in the access log", || {
            let log = sluice.access_log();
            let entries: Vec<_> = log.into_iter().filter(|e| e["serverName"] == name).collect();
            (entries.len() == 2).then_some(entries)
        });
        assert!(entries.iter().all(|entry| entry["route"] == expected), "{entries:#?}");
    }
}

#[test]
fn upper_case_and_a_trailing_dot_make_no_difference() {
    let authority = Authority::new();
    let names = ["www.example.test", "other.wild.test"];
    // Others answer a name with a trailing dot with an alert (RFC 6066 §3 has none).
    let server = Server::start(Kind::OpenSsl, &authority, &names, &[]);
    let manifest = route("named", &["WWW.example.test.", "*.Wild.test"], server.address);
    let sluice = Sluice::start(&[("routes.yaml", manifest)]);
    for (sent, name) in [
        ("www.example.test", "www.example.test"),
        ("WWW.Example.TEST", "www.example.test"),
        ("www.example.test.", "www.example.test"),
        ("wWw.eXample.teSt.", "www.example.test"),
        ("Other.WILD.test.", "other.wild.test"),
    ] {
        let before = sluice.access_log().len();
        let call = call(&sluice, &authority, name);
        assert_eq!(s_client(&call, sent), Ok(Answer::to(&call, "")), "{sent}");
        let entry =
            eventually("the access log has it", || sluice.access_log().get(before).cloned());
        assert_eq!(entry["serverName"], name, "{entry}");
        assert_eq!(entry["route"], "named", "{entry}");
    }
}

#[test]
fn a_client_without_a_name_gets_the_catch_all_or_nothing() {
    let authority = Authority::new();
    let server = Server::start(Kind::Go, &authority, &["127.0.0.1"], &[]);
    let any = Sluice::start(&[("any.yaml", route("any", &["*"], server.address))]);
    let named = Sluice::start(&[("named.yaml", route("named", &["*.test"], server.address))]);
    for client in Client::ALL {
        let to_any = call(&any, &authority, "127.0.0.1");
        assert_eq!(client.call(&to_any), Ok(Answer::to(&to_any, "")), "{client:?}");
        assert!(client.call(&call(&named, &authority, "127.0.0.1")).is_err(), "{client:?}");
    }
    for (sluice, route, outcome) in [(&any, Some("any"), "completed"), (&named, None, "no_sni")] {
        let log = eventually("all are in the access log", || {
            Some(sluice.access_log()).filter(|log| log.len() == Client::ALL.len())
        });
        for entry in log {
            assert_eq!(entry.get("serverName"), None, "{entry}");
            assert_eq!(entry.get("route").and_then(|route| route.as_str()), route, "{entry}");
            assert_eq!(entry["outcome"], outcome, "{entry}");
            assert_eq!(entry["tlsVersion"], "TLSv1.3", "{entry}");
        }
    }
}

#[test]
fn the_protocol_chooses_among_servers_of_one_name() {
    let authority = Authority::new();
    let names = ["alpn.test"];
    let start = |kind, alpn: &[&str]| Server::start(kind, &authority, &names, alpn);
    let h2 = start(Kind::Rustls, &["h2"]);
    let http1 = start(Kind::Go, &["http/1.1"]);
    let mqtt = start(Kind::OpenSsl, &["mqtt"]);
    let none = start(Kind::Rustls, &[]);
    let asks_for = |alpn| format!("  alpn: [{alpn}]\n");
    let sluice = Sluice::start(&[
        ("h2.yaml", route_with("h2", &names, h2.address, &asks_for("h2"))),
        ("http1.yaml", route_with("http1", &names, http1.address, &asks_for("http/1.1"))),
        ("mqtt.yaml", route_with("mqtt", &names, mqtt.address, &asks_for("mqtt"))),
        ("none.yaml", route("none", &names, none.address)),
    ]);
    let mut expected = Vec::new();
    for client in Client::ALL {
        for (offered, negotiated, route) in [
            (&["h2"][..], "h2", "h2"),
            (&["http/1.1"], "http/1.1", "http1"),
            (&["mqtt", "other"], "mqtt", "mqtt"),
            (&["other"], "", "none"),
            (&[], "", "none"),
            // Several match: without ages, the first name.
            (&["http/1.1", "h2"], "h2", "h2"),
        ] {
            // curl offers what it speaks itself.
            if client == Client::Curl && !matches!(offered, ["http/1.1"] | []) {
                continue;
            }
            let call = Call { alpn: offered, ..call(&sluice, &authority, "alpn.test") };
            let answer = client.call(&call);
            assert_eq!(answer, Ok(Answer::to(&call, negotiated)), "{client:?} {offered:?}");
            expected.push((serde_json::json!(offered), route));
        }
    }
    let log = eventually("all are in the access log", || {
        Some(sluice.access_log()).filter(|log| log.len() == expected.len())
    });
    let mut logged: Vec<_> =
        log.iter().map(|entry| (entry["alpn"].clone(), entry["route"].as_str().unwrap())).collect();
    let by_text = |(offered, route): &(serde_json::Value, &str)| format!("{offered} {route}");
    logged.sort_by_key(by_text);
    expected.sort_by_key(by_text);
    assert_eq!(logged, expected);
}

fn call<'a>(sluice: &Sluice, authority: &'a Authority, name: &'a str) -> Call<'a> {
    Call { to: sluice.address, authority, name, version: "1.3", alpn: &[] }
}
