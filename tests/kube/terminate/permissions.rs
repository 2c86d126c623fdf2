//! What sluice may read, and what becomes of routes when that changes.

use std::time::Duration;

use libtest_mimic::Trial;
use testkit::{Authority, echo_at, wait_until};

use super::site::{NOT_READY, SERVED, TlsClient, arguments_with, secret, terminating};
use super::{account, route};
use crate::controlled::{Sluice, manifest};
use crate::objects::bind_role;
use crate::status::{await_status, get};
use crate::support::{ApiServer, Kubeconfig, quick, slow, succeeded, within};

pub(super) fn tests() -> Vec<Trial> {
    vec![
        slow!(a_missing_permission_is_told_and_works_when_it_is_given),
        slow!(a_grant_lets_a_route_name_a_secret_until_it_is_taken_back),
        slow!(permission_for_single_secrets_is_enough),
        quick!(roles_of_namespaces_are_enough),
        slow!(authorities_of_clients_come_from_config_maps),
    ]
}

const MESSAGE: &str = "jsonpath={.status.conditions[?(@.type=='ResolvedRefs')].message}";
/// A read that has failed is tried again within half a minute.
const AGAIN: Duration = Duration::from_secs(90);

fn a_missing_permission_is_told_and_works_when_it_is_given() {
    let api = ApiServer::shared();
    let namespace = api.namespace("terminate-refused");
    let authority = Authority::new();
    succeeded(api.admin().apply(&secret(namespace, "app", &authority.issue(&["app.test"]))));
    succeeded(api.admin().apply(&route(namespace, "refused")));
    let sluice = Sluice::start(&account(api, namespace), "refused", &arguments_with(&[]));
    await_status(
        api,
        namespace,
        "app",
        &NOT_READY.replace("InvalidCertificateRef", "CertificateNotReady"),
    );
    let told = get(api, namespace, "app", MESSAGE);
    assert!(told.contains("the value terminate of its chart lets it"), "{told}");
    // All else is served, and the source counts as up.
    sluice.await_ready();
    sluice.await_metric("sluice_source_up", 1.0);

    let binding = format!("{namespace}-terminate");
    let bound = || {
        let role = include_str!("../../../deploy/clusterrole-terminate.yaml");
        within(AGAIN, "the role", || api.admin().apply(role).status.success().then_some(()));
        let subject = format!("--serviceaccount={namespace}:sluice");
        let create =
            ["create", "clusterrolebinding", &binding, "--clusterrole=sluice-terminate", &subject];
        succeeded(api.admin().kubectl(&create));
    };
    bound();
    let client = TlsClient::config(&authority);
    let connect = || TlsClient::connect(&client, sluice.address, "app.test");
    within(AGAIN, "it is served", || connect().ok());
    await_status(api, namespace, "app", SERVED);

    // Taken back, what was read stays in use.
    succeeded(api.admin().kubectl(&["delete", "clusterrolebinding", &binding]));
    let other = authority.issue(&["app.test"]);
    succeeded(api.admin().apply(&secret(namespace, "app", &other)));
    within(AGAIN, "the status tells", || {
        get(api, namespace, "app", MESSAGE).contains("what it had last is still used").then_some(())
    });
    assert!(connect().is_ok_and(|client| !client.has(&other)));
    bound();
    within(AGAIN, "the new one is served", || connect().ok().filter(|client| client.has(&other)));
    assert_eq!(sluice.all_logged("cannot read what a route names").len(), 2);
    // A watch that is on outlives its permission for a while.
    let unwatched = sluice.all_logged("cannot watch the Secrets that routes name").len();
    assert!((1..=2).contains(&unwatched), "{unwatched}");
}

/// With the verb get for this Secret alone, as an operator can write it who trusts sluice with less.
fn permission_for_single_secrets_is_enough() {
    let api = ApiServer::shared();
    let namespace = api.namespace("terminate-single");
    let authority = Authority::new();
    let first = authority.issue(&["app.test"]);
    succeeded(api.admin().apply(&secret(namespace, "app", &first)));
    succeeded(api.admin().apply(&route(namespace, "single")));
    let account = account(api, namespace);
    let role = ["create", "role", "one", "--verb=get", "--resource=secrets", "--resource-name=app"];
    succeeded(api.admin().kubectl(&[&role[..], &["-n", namespace]].concat()));
    bind(api, namespace, "one");
    let sluice = Sluice::start(&account, "single", &arguments_with(&[]));
    let client = TlsClient::config(&authority);
    let connect = || TlsClient::connect(&client, sluice.address, "app.test").ok();
    within(AGAIN, "it is served", connect);
    let second = authority.issue(&["app.test"]);
    succeeded(api.admin().apply(&secret(namespace, "app", &second)));
    within(AGAIN, "the new one is served", || connect().filter(|client| client.has(&second)));
    assert!(sluice.logged("cannot read what a route names").is_none());
}

fn bind(api: &ApiServer, namespace: &str, role: &str) {
    let binding = ["create", "rolebinding", role, "-n", namespace];
    let of = [format!("--role={role}"), format!("--serviceaccount={namespace}:sluice")];
    succeeded(api.admin().kubectl(&[&binding[..], &[&of[0], &of[1]]].concat()));
}

fn roles_of_namespaces_are_enough() {
    let api = ApiServer::shared();
    let namespace = api.namespace("terminate-roles");
    let authority = Authority::new();
    succeeded(api.admin().apply(&secret(namespace, "app", &authority.issue(&["app.test"]))));
    succeeded(api.admin().apply(&route(namespace, "roles")));
    let account = namespaced(api, namespace);
    let arguments = arguments_with(&["--namespaces", namespace]);
    let sluice = Sluice::start(&account, "roles", &arguments);
    let client = TlsClient::config(&authority);
    wait_until("it is served", || TlsClient::connect(&client, sluice.address, "app.test").is_ok());
    assert_eq!(sluice.warnings(), [(); 0].map(|()| serde_json::Value::Null));
    let requests = api.secret_requests(&format!("system:serviceaccount:{namespace}:sluice"));
    let here = |request: &String| {
        request.ends_with(&format!(" {namespace}/"))
            || request.ends_with(&format!(" {namespace}/app"))
    };
    assert!(requests.iter().all(here), "{requests:?}");
    assert!(requests.contains(&format!("get {namespace}/app")), "{requests:?}");
}

/// An account with the roles that are shipped, in its namespace alone.
fn namespaced(api: &ApiServer, namespace: &str) -> Kubeconfig {
    crate::objects::install_role(api);
    let roles = include_str!("../../../deploy/clusterrole-terminate.yaml");
    within(AGAIN, "the role", || api.admin().apply(roles).status.success().then_some(()));
    let account = api.service_account(namespace, "sluice", "system:discovery");
    bind_role(api, namespace);
    for role in ["sluice", "sluice-terminate"] {
        let (name, role) = (format!("{role}-here"), format!("--clusterrole={role}"));
        let binding = ["create", "rolebinding", &name, &role, "-n", namespace];
        let subject = format!("--serviceaccount={namespace}:sluice");
        succeeded(api.admin().kubectl(&[&binding[..], &[&subject]].concat()));
    }
    account
}

fn a_grant_lets_a_route_name_a_secret_until_it_is_taken_back() {
    let api = ApiServer::start();
    api.install_crds();
    api.install_grants();
    let (home, away) = (api.namespace("home"), api.namespace("away"));
    let authority = Authority::new();
    let identity = authority.issue(&["app.test"]);
    succeeded(api.admin().apply(&secret(away, "shared", &identity)));
    let address = echo_at("198.18.9.2:0");
    let spec = format!(
        "hostnames: [app.test]\n  backends: [{{ address: '{address}' }}]\n  tls: {{ mode: Terminate, \
         certificates: [{{ secret: shared, namespace: {away} }}] }}"
    );
    succeeded(api.admin().apply(&manifest(home, "app", "granted", &spec)));
    let sluice = Sluice::start(&terminating(&api, home), "granted", &arguments_with(&[]));
    let refused = "Accepted=True/Accepted/1 ResolvedRefs=False/RefNotPermitted/1 \
                   Programmed=False/CertificateNotReady/1 ";
    await_status(&api, home, "app", refused);
    let requests = || api.secret_requests(&format!("system:serviceaccount:{home}:sluice"));
    assert!(!requests().iter().any(|request| request.starts_with("get")), "{:?}", requests());

    let grant = format!(
        "apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {{ name: grant, namespace: {away} }}
spec:
  from: [{{ group: sluice.dev, kind: SniRoute, namespace: {home} }}]
  to: [{{ group: '', kind: Secret, name: shared }}]
"
    );
    let client = TlsClient::config(&authority);
    let connect = || TlsClient::connect(&client, sluice.address, "app.test");
    succeeded(api.admin().apply(&grant));
    let mut held = within(AGAIN, "it is served", || connect().ok());
    await_status(&api, home, "app", SERVED);
    succeeded(api.admin().kubectl(&["delete", "referencegrant", "grant", "-n", away]));
    within(AGAIN, "it is refused", || connect().is_err().then_some(()));
    await_status(&api, home, "app", refused);
    held.echo("who is connected stays so");
    succeeded(api.admin().apply(&grant));
    within(AGAIN, "it is served again", || connect().ok());
}

fn authorities_of_clients_come_from_config_maps() {
    let api = ApiServer::shared();
    let namespace = api.namespace("terminate-clients");
    let authority = Authority::new();
    let role = include_str!("../../../deploy/clusterrole-configmaps.yaml");
    within(AGAIN, "the role", || api.admin().apply(role).status.success().then_some(()));
    let account = terminating(api, namespace);
    let subject = format!("--serviceaccount={namespace}:sluice");
    let binding = [
        "create",
        "rolebinding",
        "ca",
        "--clusterrole=sluice-configmaps",
        &subject,
        "-n",
        namespace,
    ];
    succeeded(api.admin().kubectl(&binding));
    let address = echo_at("198.18.9.3:0");
    let spec = format!(
        "hostnames: [app.test]\n  backends: [{{ address: '{address}' }}]\n  tls: {{ mode: Terminate, \
         certificates: [{{ secret: app }}], clientCertificates: {{ required: true, ca: {{ configMap: ca \
         }} }} }}"
    );
    succeeded(api.admin().apply(&manifest(namespace, "app", "clients", &spec)));
    succeeded(api.admin().apply(&secret(namespace, "app", &authority.issue(&["app.test"]))));
    let sluice = Sluice::start(&account, "clients", &arguments_with(&[]));
    await_status(api, namespace, "app", NOT_READY);
    let data = serde_json::json!({ "ca.crt": std::fs::read_to_string(authority.file()).unwrap() });
    let config_map = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: ca, namespace: {namespace} }}\ndata: {data}\n"
    );
    succeeded(api.admin().apply(&config_map));
    // A ConfigMap that was missing is looked at again soon.
    within(AGAIN, "the status is good", || {
        (crate::status::status(api, namespace, "app") == SERVED).then_some(())
    });
    // A client without a certificate is refused, in TLS 1.3 after it has ended its handshake.
    let client = TlsClient::config(&authority);
    let connected = TlsClient::connect(&client, sluice.address, "app.test");
    assert!(connected.and_then(|mut client| client.try_echo("x")).is_err());
}
