//! Sessions that are resumed, and those that must not be.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::{ClientConfig, HandshakeKind};
use testkit::{Authority, Finished, Identity, Program, tool, wait_until};

use super::backends;
use super::manifests::{self, call, secret, served, served_with, start};
use crate::client::{
    Call, Client, MESSAGE, Session, client_config_as, gnutls_cli, go_dial, python_dial,
    s_client_with,
};
use crate::server::reversed;
use crate::sluice::{Sluice, rename_over};

/// `open.test` asks for no certificate, and the others for those of two authorities. `shared.test` has three routes, of which
/// the one of `h2` asks.
struct Landscape {
    authority: Authority,
    one: Authority,
    other: Authority,
    sluice: Sluice,
}

impl Landscape {
    fn new() -> Self {
        let [authority, one, other] = [(); 3].map(|()| Authority::new());
        let backend = backends::lines();
        let names = ["open.test", "also-open.test", "one.test", "other.test", "shared.test"];
        let [h2, mqtt] = ["h2", "mqtt"].map(|alpn| format!("  alpn: [{alpn}]\n"));
        let sluice = start(&[
            secret("tls", &authority.issue(&names)),
            manifests::authority("one", &one),
            manifests::authority("other", &other),
            served("open", &["open.test"], backend, &["tls"], ""),
            served("also-open", &["also-open.test"], backend, &["tls"], ""),
            served("one", &["one.test"], backend, &["tls"], &asking("one")),
            served("other", &["other.test"], backend, &["tls"], &asking("other")),
            served("shared", &["shared.test"], backend, &["tls"], ""),
            served_with("h2", &["shared.test"], backend, &["tls"], &asking("one"), &h2),
            served_with("mqtt", &["shared.test"], backend, &["tls"], "", &mqtt),
        ]);
        Landscape { authority, one, other, sluice }
    }

    fn call<'a>(&'a self, name: &'a str, version: &'a str) -> Call<'a> {
        call(&self.sluice, &self.authority, name, version)
    }

    /// A file for a session of OpenSSL's.
    fn file(&self, name: &str) -> String {
        self.authority.folder().join(name).display().to_string()
    }
}

fn asking(config_map: &str) -> String {
    format!("clientCertificates: {{ ca: {{ configMap: {config_map} }} }}")
}

/// The flags of OpenSSL for a client's certificate.
fn of(identity: &Identity) -> [String; 4] {
    let file = |path: &std::path::Path| path.display().to_string();
    ["-cert".into(), file(&identity.certificate_file), "-key".into(), file(&identity.key_file)]
}

fn with<'a>(flags: &[&'a str], more: &'a [String]) -> Vec<&'a str> {
    flags.iter().copied().chain(more.iter().map(String::as_str)).collect()
}

#[test]
fn every_client_resumes_its_session() {
    let landscape = Landscape::new();
    for version in ["1.2", "1.3"] {
        let call = landscape.call("open.test", version);
        let session = landscape.file(version);
        let first = s_client_with(&call, call.name, &["-sess_out", &session]).unwrap();
        assert!(first.contains(&format!("New, TLSv{version}")), "{first}");
        let second = s_client_with(&call, call.name, &["-sess_in", &session]).unwrap();
        assert!(second.contains(&format!("Reused, TLSv{version}")), "{second}");

        assert_eq!(go_dial(&call, &[""; 0]).unwrap()["resumed"], false, "{version}");
        assert_eq!(go_dial(&call, &["-times", "2"]).unwrap()["resumed"], true, "{version}");
        assert_eq!(python_dial(&call, &["--resume"]).unwrap()["resumed"], true, "{version}");

        let config = resuming(&call, None);
        assert_eq!(kind(&config, &call), Ok(HandshakeKind::Full), "{version}");
        assert_eq!(kind(&config, &call), Ok(HandshakeKind::Resumed), "{version}");

        let mut gnutls = gnutls_cli(&call);
        let resumed = Program::run(gnutls.args(["--resume", "--waitresumption"]));
        assert!(resumed.stdout.contains("This is a resumed session"), "{version}: {resumed:?}");
    }
}

/// A configuration of rustls that keeps its sessions.
fn resuming(call: &Call<'_>, own: Option<&Identity>) -> Arc<ClientConfig> {
    let mut config = ClientConfig::clone(&client_config_as(call, own));
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    Arc::new(config)
}

/// How the handshake of a connection went that then has carried a line.
fn kind(config: &Arc<ClientConfig>, call: &Call<'_>) -> Result<HandshakeKind, String> {
    let mut session = Session::with(Arc::clone(config), call).map_err(|error| error.to_string())?;
    let said = session.say(MESSAGE)?;
    assert_eq!(said, reversed(MESSAGE));
    let kind = session.connection().handshake_kind().unwrap();
    session.close()?;
    Ok(kind)
}

/// OpenSSL offers the session of a file to any name that it is told.
#[test]
fn a_session_of_one_route_is_worth_nothing_at_another() {
    let landscape = Landscape::new();
    let one = of(&landscape.one.issue_client("one"));
    let other = of(&landscape.other.issue_client("other"));
    for version in ["1.2", "1.3"] {
        let call = |name| landscape.call(name, version);
        let files = ["open", "one"].map(|name| landscape.file(&format!("{name}-{version}")));
        let [of_open, of_one] = files.each_ref().map(String::as_str);
        s_client_with(&call("open.test"), "open.test", &["-sess_out", of_open]).unwrap();
        s_client_with(&call("one.test"), "one.test", &with(&["-sess_out", of_one], &one)).unwrap();

        // A name that asks for a certificate refuses the client without one, and makes a new session for
        // the one with one.
        let resumed = s_client_with(&call("one.test"), "one.test", &["-sess_in", of_open]);
        assert!(resumed.is_err(), "{version}: {resumed:?}");
        let flags = with(&["-sess_in", of_open], &one);
        let again = s_client_with(&call("one.test"), "one.test", &flags).unwrap();
        assert!(again.contains("New, "), "{version}: {again}");

        // So does one that asks for another authority's.
        let resumed = s_client_with(&call("other.test"), "other.test", &["-sess_in", of_one]);
        assert!(resumed.is_err(), "{version}: {resumed:?}");
        let flags = with(&["-sess_in", of_one], &other);
        let again = s_client_with(&call("other.test"), "other.test", &flags).unwrap();
        assert!(again.contains("New, "), "{version}: {again}");

        // At a route that asks for as little, it is not resumed either.
        let name = "also-open.test";
        let again = s_client_with(&call(name), name, &["-sess_in", of_open]).unwrap();
        assert!(again.contains("New, "), "{version}: {again}");

        // At home it is: the session stands for the certificate.
        let again = s_client_with(&call("one.test"), "one.test", &["-sess_in", of_one]).unwrap();
        assert!(again.contains("Reused, "), "{version}: {again}");
    }
}

/// Where the name does not tell the routes apart, so that the ticket must.
#[test]
fn a_session_of_one_route_is_worth_nothing_at_another_of_its_name() {
    let landscape = Landscape::new();
    let one = of(&landscape.one.issue_client("one"));
    let name = "shared.test";
    for version in ["1.2", "1.3"] {
        let call = landscape.call(name, version);
        let session = landscape.file(version);
        s_client_with(&call, name, &["-sess_out", &session]).unwrap();
        let asked = Call { alpn: &["h2"], ..call };
        let resumed = s_client_with(&asked, name, &["-sess_in", &session]);
        assert!(resumed.is_err(), "{version}: {resumed:?}");
        let again = s_client_with(&asked, name, &with(&["-sess_in", &session], &one)).unwrap();
        assert!(again.contains("New, "), "{version}: {again}");
        // Nor at one that asks for as little.
        let other = Call { alpn: &["mqtt"], ..call };
        let again = s_client_with(&other, name, &["-sess_in", &session]).unwrap();
        assert!(again.contains("New, "), "{version}: {again}");
        let again = s_client_with(&call, name, &["-sess_in", &session]).unwrap();
        assert!(again.contains("Reused, "), "{version}: {again}");
    }
}

#[test]
fn a_session_ends_when_its_route_asks_for_a_certificate() {
    let landscape = Landscape::new();
    let calls = ["1.2", "1.3"].map(|version| landscape.call("open.test", version));
    let sessions = calls.each_ref().map(|call| landscape.file(call.version));
    for (call, session) in calls.iter().zip(&sessions) {
        s_client_with(call, call.name, &["-sess_out", session]).unwrap();
    }
    let asking = served("open", &["open.test"], backends::lines(), &["tls"], &asking("one"));
    rename_over(&landscape.sluice.routes().join("3.yaml"), &asking);
    wait_until("the route asks", || Client::Rustls.call(&calls[1]).is_err());
    for (call, session) in calls.iter().zip(&sessions) {
        let resumed = s_client_with(call, call.name, &["-sess_in", session]);
        assert!(resumed.is_err(), "{}: {resumed:?}", call.version);
    }
}

#[test]
fn a_session_ends_when_the_authority_of_its_client_does() {
    let landscape = Landscape::new();
    let client = landscape.one.issue_client("one");
    let calls = ["1.2", "1.3"].map(|version| landscape.call("one.test", version));
    let configs = calls.each_ref().map(|call| resuming(call, Some(&client)));
    for (config, call) in configs.iter().zip(&calls) {
        assert_eq!(kind(config, call), Ok(HandshakeKind::Full), "{}", call.version);
        assert_eq!(kind(config, call), Ok(HandshakeKind::Resumed), "{}", call.version);
    }
    let file = landscape.sluice.routes().join("1.yaml");
    rename_over(&file, &manifests::authority("one", &landscape.other));
    let unknown = resuming(&calls[1], Some(&client));
    wait_until("the authority is live", || kind(&unknown, &calls[1]).is_err());
    for (config, call) in configs.iter().zip(&calls) {
        assert!(kind(config, call).is_err(), "{}", call.version);
    }
}

#[test]
#[ignore = "slow: a certificate expires after three seconds"]
fn a_session_ends_with_the_certificate_of_its_client() {
    let landscape = Landscape::new();
    let calls = ["1.2", "1.3"].map(|version| landscape.call("one.test", version));
    // A busy machine takes longer for the handshakes.
    let resumed = [4, 8, 16, 32].into_iter().find_map(|seconds| {
        // In whole seconds, as certificates have it.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let end = UNIX_EPOCH + Duration::from_secs(now + seconds);
        let client = landscape.one.issue_client_until("brief", end);
        let configs = calls.each_ref().map(|call| resuming(call, Some(&client)));
        let mut kinds = Vec::new();
        for (config, call) in configs.iter().zip(&calls) {
            kinds.extend([kind(config, call), kind(config, call)]);
        }
        (SystemTime::now() < end).then_some((end, configs, kinds))
    });
    let (end, configs, kinds) = resumed.expect("four handshakes in 32 seconds");
    let [full, again] = [HandshakeKind::Full, HandshakeKind::Resumed].map(Ok);
    assert_eq!(kinds, [full.clone(), again.clone(), full, again]);
    // Its last second is the one that `end` begins.
    wait_until("it has expired", || SystemTime::now() > end + Duration::from_secs(1));
    for (config, call) in configs.iter().zip(&calls) {
        assert!(kind(config, call).is_err(), "{}", call.version);
    }
}

#[test]
fn a_renewed_certificate_leaves_sessions_resumable() {
    let landscape = Landscape::new();
    let call = landscape.call("open.test", "1.3");
    let config = resuming(&call, None);
    assert_eq!(kind(&config, &call), Ok(HandshakeKind::Full));
    let names = ["open.test", "also-open.test", "one.test", "other.test"];
    let renewed = landscape.authority.issue(&names);
    rename_over(&landscape.sluice.routes().join("0.yaml"), &secret("tls", &renewed));
    wait_until("the new certificate is served", || served_certificate(&call) == renewed.chain()[0]);
    assert_eq!(kind(&config, &call), Ok(HandshakeKind::Resumed));
}

fn served_certificate(call: &Call<'_>) -> rustls::pki_types::CertificateDer<'static> {
    let mut session = Session::open(call).unwrap();
    session.say(MESSAGE).unwrap();
    let certificate = session.connection().peer_certificates().unwrap()[0].clone().into_owned();
    session.close().unwrap();
    certificate
}

#[test]
fn no_session_is_resumed_where_that_is_switched_off() {
    let authority = Authority::new();
    let manifests = [
        ("secret.yaml", secret("tls", &authority.issue(&["off.test"]))),
        ("route.yaml", served("off", &["off.test"], backends::lines(), &["tls"], "")),
    ];
    let sluice = Sluice::start_with(&manifests, &["--terminate", "--resumption", "false"]);
    for version in ["1.2", "1.3"] {
        let call = call(&sluice, &authority, "off.test", version);
        let config = resuming(&call, None);
        for _ in 0..2 {
            assert_eq!(kind(&config, &call), Ok(HandshakeKind::Full), "{version}");
        }
        assert_eq!(go_dial(&call, &["-times", "2"]).unwrap()["resumed"], false, "{version}");
    }
}

/// With the ticket of another process, as after a restart.
#[test]
fn a_ticket_of_other_keys_makes_a_new_session() {
    let (first, second) = (Landscape::new(), Landscape::new());
    for version in ["1.2", "1.3"] {
        let session = first.file(version);
        let call = first.call("open.test", version);
        s_client_with(&call, call.name, &["-sess_out", &session]).unwrap();
        let call = second.call("open.test", version);
        let said = s_client_with(&call, call.name, &["-sess_in", &session]).unwrap();
        assert!(said.contains("New, "), "{version}: {said}");
        let broken = corrupted(&session);
        let call = first.call("open.test", version);
        let said = s_client_with(&call, call.name, &["-sess_in", &broken]).unwrap();
        assert!(said.contains("New, "), "{version}: {said}");
    }
}

/// A copy of OpenSSL's session whose ticket has another byte in its middle.
fn corrupted(session: &str) -> String {
    let der = format!("{session}.der");
    let pem = format!("{session}.broken");
    let convert = |input: &str, form: [&str; 2], output: &str| {
        let mut command = tool("openssl");
        command.args(["sess_id", "-in", input, "-inform", form[0], "-out", output]);
        let converted = Program::run(command.args(["-outform", form[1]]));
        assert!(converted.status.success(), "{converted:?}");
    };
    convert(session, ["PEM", "DER"], &der);
    let text = Program::run(tool("openssl").args(["sess_id", "-noout", "-text", "-in", session]));
    let ticket = ticket(&text);
    let mut bytes = std::fs::read(&der).unwrap();
    let found =
        bytes.windows(ticket.len()).position(|window| window == ticket).expect("the ticket");
    bytes[found + ticket.len() / 2] ^= 1;
    std::fs::write(&der, bytes).unwrap();
    convert(&der, ["DER", "PEM"], &pem);
    pem
}

/// The first bytes of the ticket, from lines such as `    0000 - 8d 11 ...-... 5c   ....`.
fn ticket(text: &Finished) -> Vec<u8> {
    let mut lines = text.stdout.lines().skip_while(|line| !line.contains("TLS session ticket:"));
    let byte = |digits: &str| u8::from_str_radix(digits, 16).ok();
    let of_line = |line: &str| -> Vec<u8> {
        let digits = line.split_once(" - ").expect("an offset").1;
        digits.split([' ', '-']).take(16).filter_map(byte).collect()
    };
    lines.next().expect("a ticket");
    lines.take_while(|line| line.contains(" - ")).take(6).flat_map(of_line).collect()
}
