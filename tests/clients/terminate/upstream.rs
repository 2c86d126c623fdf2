//! TLS to the backends.

use std::net::SocketAddr;

use testkit::{Authority, PATIENCE, Program, eventually, wait_until};

use super::backends;
use super::manifests::{self, call, secret, served, start};
use crate::client::{Answer, Call, Client, MESSAGE, Session};
use crate::server::{Kind, Server, go_server, python, reversed, s_server};
use crate::sluice::Sluice;

const FRONT: &str = "front.test";
const BACK: &str = "back.test";

/// The authorities of both sides.
struct Authorities {
    front: Authority,
    back: Authority,
}

impl Authorities {
    fn new() -> Self {
        Authorities { front: Authority::new(), back: Authority::new() }
    }

    /// A sluice before this backend, with more fields of `upstream`.
    fn before(&self, backend: SocketAddr, more: &str) -> Sluice {
        self.before_as(backend, BACK, more)
    }

    fn before_as(&self, backend: SocketAddr, name: &str, more: &str) -> Sluice {
        let upstream =
            format!("upstream: {{ serverName: {name}, ca: {{ configMap: back }}{more} }}");
        start(&[
            secret("tls", &self.front.issue(&[FRONT])),
            manifests::authority("back", &self.back),
            secret("own", &self.back.issue_client("sluice")),
            secret("foreign", &self.front.issue_client("stranger")),
            served("front", &[FRONT], backend, &["tls"], &upstream),
        ])
    }

    fn call<'a>(&'a self, sluice: &Sluice, version: &'a str) -> Call<'a> {
        call(sluice, &self.front, FRONT, version)
    }

    /// No client gets through, and it is the endpoint's fault.
    fn assert_failing(&self, sluice: &Sluice, what: &str) {
        let call = self.call(sluice, "1.3");
        let answer = Client::Rustls.call(&call);
        assert!(answer.is_err(), "{what}: {answer:?}");
        assert_eq!(sluice.entry_of(FRONT)["outcome"], "connect_failed", "{what}");
    }
}

#[test]
fn every_server_is_reached_by_tls() {
    let authorities = Authorities::new();
    for kind in [Kind::OpenSsl, Kind::Go, Kind::Rustls] {
        let server = Server::start(kind, &authorities.back, &[BACK], &[]);
        let sluice = authorities.before(server.address, "");
        for version in ["1.2", "1.3"] {
            for client in [Client::OpenSsl, Client::Rustls, Client::Go] {
                let call = authorities.call(&sluice, version);
                let answer = client.call(&call);
                assert_eq!(answer, Ok(Answer::to(&call, "")), "{client:?} {kind:?} {version}");
            }
        }
        wait_until("all to be counted", || sluice.metrics().connections("completed") == 6.0);
    }
}

#[test]
fn a_server_of_the_older_version_is_reached_too() {
    let authorities = Authorities::new();
    let identity = authorities.back.issue_rsa(&[BACK]);
    for version in ["-tls1_2", "-tls1_3"] {
        let (address, _server) = s_server(&identity, &["-rev", version]);
        let sluice = authorities.before(address, "");
        let call = authorities.call(&sluice, "1.3");
        assert_eq!(Client::Rustls.call(&call), Ok(Answer::to(&call, "")), "{version}");
    }
    let (address, _server) =
        s_server(&identity, &["-rev", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]);
    authorities.assert_failing(&authorities.before(address, ""), "TLS 1.1");
}

#[test]
fn a_server_sees_the_name_and_a_clean_end() {
    let authorities = Authorities::new();
    let (address, server) = python(&authorities.back.issue(&[BACK]), &[]);
    let sluice = authorities.before(address, "");
    let call = authorities.call(&sluice, "1.3");
    let mut session = Session::open(&call).unwrap();
    session.shake_hands().unwrap();
    // Python answers that by the end of the connection alone, and so does sluice then.
    let _ = session.close();
    let seen = eventually("the end", || server.stdout.lines().get(1).cloned());
    assert_eq!(seen, format!("ended ['{BACK}'] None b''"));
}

#[test]
fn a_server_gets_the_certificate_that_the_route_names() {
    let authorities = Authorities::new();
    let identity = authorities.back.issue(&[BACK]);
    let ca = authorities.back.file().display().to_string();
    let verify = ["-rev", "-Verify", "1", "-verify_return_error", "-CAfile", &ca];
    let (openssl, _server) = s_server(&identity, &verify);
    let (go, output) = go_server(&identity, &["-client-ca", &ca]);
    for address in [openssl, go] {
        let own = ", clientCertificate: { secret: own }";
        let sluice = authorities.before(address, own);
        let call = authorities.call(&sluice, "1.3");
        assert_eq!(Client::Rustls.call(&call), Ok(Answer::to(&call, "")), "{address}");
    }
    assert_eq!(output.stdout.lines().last().map(String::as_str), Some("client sluice"));
    // In TLS 1.3 it is only after sluice's handshake that the server refuses, so that the outcome may be
    // another one; nobody is served.
    for more in ["", ", clientCertificate: { secret: foreign }"] {
        for address in [openssl, go] {
            let sluice = authorities.before(address, more);
            let answer = Client::Rustls.call(&authorities.call(&sluice, "1.3"));
            assert!(answer.is_err(), "{more} {address}: {answer:?}");
        }
    }
}

#[test]
fn a_server_that_is_not_the_right_one_gets_nothing() {
    let authorities = Authorities::new();
    let other = Authority::new();
    let strange = other.issue(&[BACK]);
    let (address, server) = s_server(&strange, &[]);
    authorities.assert_failing(&authorities.before(address, ""), "another authority");
    let named = authorities.back.issue(&["another.test"]);
    let (address, second) = s_server(&named, &[]);
    authorities.assert_failing(&authorities.before(address, ""), "another name");
    // Nor one whose certificate has the client's name.
    let front = authorities.back.issue(&[FRONT]);
    let (address, third) = s_server(&front, &[]);
    authorities.assert_failing(&authorities.before(address, ""), "the client's name");
    for server in [server, second, third] {
        assert!(!server.stdout.text().contains(MESSAGE), "{}", server.stdout.text());
    }
    // An address as the name is in no certificate here.
    let (address, _server) = s_server(&authorities.back.issue(&[BACK]), &[]);
    authorities.assert_failing(&authorities.before_as(address, "also.test", ""), "a name");
}

/// Such as one of a protocol in which the server speaks first.
#[test]
fn a_server_without_tls_gets_a_hello_and_nothing_else() {
    let authorities = Authorities::new();
    let (address, received) = backends::recorder("220 ready when you are\r\n");
    let sluice = authorities.before(address, "");
    authorities.assert_failing(&sluice, "no TLS");
    assert_hello(&received.recv_timeout(PATIENCE).expect("an end").bytes);
}

#[test]
#[ignore = "slow: sluice waits for the server until its deadline"]
fn a_silent_server_gets_a_hello_and_nothing_else() {
    let authorities = Authorities::new();
    let (address, received) = backends::recorder("");
    let sluice = authorities.before(address, "");
    let answer = Client::Rustls.call(&authorities.call(&sluice, "1.3"));
    assert!(answer.is_err(), "{answer:?}");
    assert_hello(&received.recv_timeout(PATIENCE).expect("an end").bytes);
    // Whether that is a connection which fails or one that takes too long.
    let outcome = sluice.entry_of(FRONT)["outcome"].to_string();
    assert!(outcome.contains("connect_"), "{outcome}");
}

fn assert_hello(bytes: &[u8]) {
    assert_eq!(bytes.first(), Some(&22), "{bytes:?}");
    let text = String::from_utf8_lossy(bytes);
    assert!(!text.contains(MESSAGE), "{text}");
}

/// The next endpoint is tried, as after a refused connection.
#[test]
fn another_endpoint_takes_over() {
    let authorities = Authorities::new();
    let (strange, _server) = s_server(&Authority::new().issue(&[BACK]), &["-rev"]);
    let right = Server::start(Kind::Rustls, &authorities.back, &[BACK], &[]);
    let upstream = format!("upstream: {{ serverName: {BACK}, ca: {{ configMap: back }} }}");
    let both =
        format!("backends: [{{ address: '{strange}' }}, {{ address: '{}' }}]", right.address);
    let route = served("front", &[FRONT], right.address, &["tls"], &upstream)
        .replace(&format!("backends: [{{ address: '{}' }}]", right.address), &both);
    assert!(route.contains(&strange.to_string()), "{route}");
    let sluice = start(&[
        secret("tls", &authorities.front.issue(&[FRONT])),
        manifests::authority("back", &authorities.back),
        route,
    ]);
    let call = authorities.call(&sluice, "1.3");
    for _ in 0..8 {
        assert_eq!(Client::Rustls.call(&call), Ok(Answer::to(&call, "")));
    }
    wait_until("all to be counted", || sluice.metrics().connections("completed") == 8.0);
}

/// The keys of the second connection too.
#[test]
fn a_server_renews_its_keys() {
    let authorities = Authorities::new();
    let identity = authorities.back.issue(&[BACK]);
    let (address, mut server) = s_server(&identity, &["-tls1_3", "-msg"]);
    let sluice = authorities.before(address, "");
    let call = authorities.call(&sluice, "1.3");
    let mut client = crate::client::s_client_started(&call, FRONT, &[""; 0]);
    let heard = |program: &Program, line: &str| {
        wait_until(line, || program.stdout.text().contains(line));
    };
    client.say("up before\n");
    heard(&server, "up before");
    let updates = |program: &Program, way: &str| {
        let is_one = |line: &&String| line.starts_with(way) && line.ends_with("KeyUpdate");
        program.stdout.lines().iter().filter(is_one).count()
    };
    // By `k` those of its own direction; by `K` the other's too.
    for (round, command) in ["k", "K"].into_iter().enumerate() {
        server.say(&format!("{command}\n"));
        wait_until("the key update", || updates(&server, ">>>") > round);
        let line = format!("down after {command}");
        server.say(&format!("{line}\n"));
        heard(&client, &line);
        let line = format!("up after {command}");
        client.say(&format!("{line}\n"));
        heard(&server, &line);
    }
    assert_eq!(updates(&server, "<<<"), 1);
}

/// A change of either authority or certificate is live, and closes nothing.
#[test]
fn a_changed_authority_counts_for_new_connections() {
    let authorities = Authorities::new();
    let server = Server::start(Kind::Rustls, &authorities.back, &[BACK], &[]);
    let sluice = authorities.before(server.address, "");
    let call = authorities.call(&sluice, "1.3");
    let mut open = Session::open(&call).unwrap();
    open.say("before").unwrap();
    let file = sluice.routes().join("1.yaml");
    crate::sluice::rename_over(&file, &manifests::authority("back", &Authority::new()));
    wait_until("the server is unknown", || Client::Rustls.call(&call).is_err());
    assert_eq!(open.say(MESSAGE), Ok(reversed(MESSAGE)));
    crate::sluice::rename_over(&file, &manifests::authority("back", &authorities.back));
    wait_until("it is known again", || Client::Rustls.call(&call).is_ok());
    open.close().unwrap();
}

/// What is selected with the client is offered to the backend.
#[test]
fn the_selected_protocol_is_offered_to_the_backend() {
    let authorities = Authorities::new();
    let server = Server::start(Kind::Rustls, &authorities.back, &[BACK], &["h2", "http/1.1"]);
    let upstream = format!("upstream: {{ serverName: {BACK}, ca: {{ configMap: back }} }}");
    let sluice = start(&[
        secret("tls", &authorities.front.issue(&[FRONT])),
        manifests::authority("back", &authorities.back),
        manifests::served_with(
            "front",
            &[FRONT],
            server.address,
            &["tls"],
            &upstream,
            "  alpn: [h2, http/1.1]\n",
        ),
    ]);
    for alpn in ["h2", "http/1.1"] {
        let call = Call { alpn: &[alpn], ..authorities.call(&sluice, "1.3") };
        assert_eq!(Client::Rustls.call(&call), Ok(Answer::to(&call, alpn)));
    }
}
