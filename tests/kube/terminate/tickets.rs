//! The keys of session tickets, which replicas share.

use std::sync::Arc;

use libtest_mimic::Trial;
use rustls::ClientConfig;
use serde_json::{Value, json};
use testkit::{Authority, wait_until};

use super::route;
use super::site::{TlsClient, arguments_with, secret, terminating};
use crate::controlled::Sluice;
use crate::support::{ApiServer, Kubeconfig, PATIENCE, quick, slow, succeeded, within};

pub(super) fn tests() -> Vec<Trial> {
    vec![
        slow!(a_session_is_resumed_with_another_replica_and_after_the_keys_have_moved_on),
        slow!(a_secret_that_is_missing_or_broken_harms_nothing),
        quick!(without_resumption_no_session_is_resumed),
    ]
}

/// An installation with a route for `app.test`.
struct Installation {
    api: &'static ApiServer,
    namespace: &'static str,
    class: &'static str,
    account: Kubeconfig,
    authority: Authority,
}

impl Installation {
    fn new(namespace: &'static str, class: &'static str) -> Self {
        let api = ApiServer::shared();
        api.namespace(namespace);
        let account = terminating(api, namespace);
        let authority = Authority::new();
        succeeded(api.admin().apply(&secret(namespace, "app", &authority.issue(&["app.test"]))));
        succeeded(api.admin().apply(&route(namespace, class)));
        Installation { api, namespace, class, account, authority }
    }

    /// The Secret and the role that are shipped.
    fn share(&self) {
        let role = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/role-ticket-keys.yaml");
        succeeded(self.api.admin().kubectl(&["apply", "-n", self.namespace, "-f", role]));
        let binding = ["create", "rolebinding", "tickets", "--role=sluice-ticket-keys"];
        let subject = format!("--serviceaccount={}:sluice", self.namespace);
        let of = ["-n", self.namespace, &subject];
        succeeded(self.api.admin().kubectl(&[&binding[..], &of].concat()));
    }

    fn start(&self, arguments: &[&str]) -> Sluice {
        let sluice = Sluice::start(&self.account, self.class, &arguments_with(arguments));
        sluice.await_ready();
        let client = self.client();
        within(PATIENCE, "the route is served", || connect(&client, &sluice).ok());
        sluice
    }

    fn client(&self) -> Arc<ClientConfig> {
        TlsClient::config(&self.authority)
    }

    /// The keys in the Secret; nothing before there are any.
    fn keys(&self) -> Option<Value> {
        let path = "jsonpath={.data.keys}";
        let get = ["get", "secret", "sluice-ticket-keys", "-n", self.namespace, "-o", path];
        let encoded = succeeded(self.api.admin().kubectl(&get));
        let text: k8s_openapi::ByteString = serde_json::from_value(json!(encoded)).unwrap();
        serde_json::from_slice(&text.0).ok()
    }

    fn put_keys(&self, text: &str) {
        let patch = json!({ "stringData": { "keys": text } }).to_string();
        let of = ["-n", self.namespace, "--type", "merge", "-p", &patch];
        let patch = [&["patch", "secret", "sluice-ticket-keys"], &of[..]].concat();
        succeeded(self.api.admin().kubectl(&patch));
    }
}

const SHARED: [&str; 2] = ["--ticket-keys", "sluice-ticket-keys"];

fn connect(client: &Arc<ClientConfig>, sluice: &Sluice) -> std::io::Result<TlsClient> {
    let mut connected = TlsClient::connect(client, sluice.address, "app.test")?;
    // Tickets come after the handshake.
    connected.try_echo("tickets")?;
    Ok(connected)
}

/// Whether a new client resumes with `to` the session that it has had with `from`.
fn resumes(installation: &Installation, from: &Sluice, to: &Sluice) -> bool {
    let client = installation.client();
    assert!(!connect(&client, from).unwrap().is_resumed());
    connect(&client, to).unwrap().is_resumed()
}

fn a_session_is_resumed_with_another_replica_and_after_the_keys_have_moved_on() {
    let installation = Installation::new("terminate-tickets", "tickets");
    // Before there is a Secret, each replica has its own keys.
    let one = installation.start(&SHARED);
    let two = installation.start(&SHARED);
    assert!(resumes(&installation, &one, &one) && resumes(&installation, &two, &two));
    assert!(!resumes(&installation, &one, &two));

    installation.share();
    within(PATIENCE, "there are keys", || installation.keys());
    wait_until("sessions of one are resumed with two", || resumes(&installation, &one, &two));
    assert!(resumes(&installation, &two, &one));
    assert_eq!(one.all_logged("the keys of session tickets are shared").len(), 1);

    // An hour later, the next key encrypts, and the one before still decrypts.
    let client = installation.client();
    connect(&client, &one).unwrap();
    let mut keys = installation.keys().unwrap();
    let (next, current) = (keys["next"].clone(), keys["current"].clone());
    keys["rotatedAt"] = json!(keys["rotatedAt"].as_i64().unwrap() - 3601);
    installation.put_keys(&keys.to_string());
    let moved = within(PATIENCE, "they have moved on", || {
        installation.keys().filter(|keys| keys["current"] == next)
    });
    assert_eq!(moved["previous"], current);
    let later = installation.client();
    wait_until("both have the new keys", || {
        connect(&later, &one).is_ok() && connect(&later, &two).unwrap().is_resumed()
    });
    assert!(connect(&client, &two).unwrap().is_resumed(), "with the ticket of before");

    // A replica that starts later has them at once.
    let three = installation.start(&SHARED);
    wait_until("it has them", || resumes(&installation, &one, &three));
    for sluice in [&one, &two, &three] {
        let log = json!(sluice.log()).to_string();
        for key in ["next", "current", "previous"] {
            assert!(!log.contains(moved[key].as_str().unwrap()), "{log}");
        }
    }
}

fn a_secret_that_is_missing_or_broken_harms_nothing() {
    let installation = Installation::new("terminate-broken-tickets", "brokentickets");
    let [one, two] = [installation.start(&SHARED), installation.start(&SHARED)];
    let of_no_use = "the Secret with the keys of session tickets is of no use";
    one.await_logged(of_no_use);
    installation.share();
    within(PATIENCE, "there are keys", || installation.keys());
    wait_until("they share them", || resumes(&installation, &one, &two));
    installation.put_keys("no keys");
    assert!(resumes(&installation, &one, &two), "each keeps what it has");
    within(PATIENCE, "the leader writes others", || installation.keys());
    wait_until("they share them", || resumes(&installation, &one, &two));

    let delete = ["delete", "secret", "sluice-ticket-keys", "-n", installation.namespace];
    succeeded(installation.api.admin().kubectl(&delete));
    wait_until("it is told once more", || one.all_logged(of_no_use).len() >= 2);
    assert!(resumes(&installation, &one, &two));
}

fn without_resumption_no_session_is_resumed() {
    let installation = Installation::new("terminate-no-tickets", "notickets");
    let sluice = installation.start(&["--resumption", "false"]);
    assert!(!resumes(&installation, &sluice, &sluice));
}
