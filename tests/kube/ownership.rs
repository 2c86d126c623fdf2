//! Whose a hostname is, among namespaces of one cluster.

use libtest_mimic::Trial;
use testkit::hello_with_alpn;

use crate::controlled::{Backend, Sluice, answer, ask, manifest};
use crate::objects::account;
use crate::status::{GOOD, await_status, events, get};
use crate::support::{ApiServer, PATIENCE, quick, slow, succeeded, within};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        quick!(no_namespace_takes_a_name_of_another_one_by_its_alpn),
        quick!(a_name_below_a_wildcard_is_told_to_both_and_can_be_refused),
        slow!(a_grant_of_the_owner_lets_another_namespace_in),
    ]
}

fn route(namespace: &str, name: &str, class: &str, backend: &Backend, more: &str) -> String {
    let spec = format!("backends: [{{ address: '{}' }}]\n  {more}", backend.address);
    manifest(namespace, name, class, &spec)
}

const LOST: &str = "Accepted=False/HostnameConflict/1 ResolvedRefs=True/ResolvedRefs/1 \
                    Programmed=False/NotAccepted/1 ";
const MESSAGE: &str = "jsonpath={.status.conditions[?(@.type=='Accepted')].message}";
const THEFT: &str = "{ hostnames: [login.test], alpn: [acme-tls/1, h2, http/1.1] }";

/// What the server says to a client that offers `acme-tls/1`.
fn ask_for_certificate(sluice: &Sluice) -> String {
    answer(sluice.address, &hello_with_alpn("login.test", vec![b"acme-tls/1".to_vec()]))
}

fn fields(flow: &str) -> String {
    flow.trim_matches(['{', '}', ' ']).replace(", alpn", "\n  alpn")
}

fn no_namespace_takes_a_name_of_another_one_by_its_alpn() {
    let api = ApiServer::shared();
    let (victim, thief) = (api.namespace("owner-a"), api.namespace("owner-b"));
    let (own, others) = (Backend::start("victim"), Backend::start("thief"));
    let admin = api.admin();
    let hostnames = "hostnames: [login.test]";
    succeeded(admin.apply(&route(victim, "login", "owned", &own, hostnames)));
    succeeded(admin.apply(&route(thief, "theft", "owned", &others, &fields(THEFT))));
    let sluice = Sluice::start(&account(api, victim), "owned", &["--require-class"]);
    sluice.await_ready();
    assert_eq!(ask_for_certificate(&sluice), "victim");
    assert_eq!(ask(sluice.address, "login.test"), "victim");
    await_status(api, victim, "login", GOOD);
    await_status(api, thief, "theft", LOST);
    let message = format!(
        "login.test belongs to namespace {victim}, whose route {victim}/login is the oldest"
    );
    assert_eq!(get(api, thief, "theft", MESSAGE), message);
    assert_eq!(sluice.metric("sluice_hostname_owner_changes_total"), 0.0);

    // The owner's last route goes, and both sides are told.
    succeeded(admin.kubectl(&["delete", "sni", "login", "-n", victim]));
    await_status(api, thief, "theft", GOOD);
    assert_eq!(ask_for_certificate(&sluice), "thief");
    sluice.await_metric("sluice_hostname_owner_changes_total", 1.0);
    let lost = format!("HostnameMoved login.test: no longer of namespace {victim}; now of");
    let got = format!("HostnameMoved login.test: now of namespace {thief}; before of namespace");
    within(PATIENCE, "both have an Event", || {
        (events(api, victim, "login").contains(&lost) && events(api, thief, "theft").contains(&got))
            .then_some(())
    });
}

fn a_name_below_a_wildcard_is_told_to_both_and_can_be_refused() {
    let api = ApiServer::shared();
    let (wild, name) = (api.namespace("below-a"), api.namespace("below-b"));
    let (own, others) = (Backend::start("wildcard"), Backend::start("name"));
    let admin = api.admin();
    let below = "hostnames: [login.a.test]";
    succeeded(admin.apply(&route(wild, "wild", "below", &own, "hostnames: [\"*.a.test\"]")));
    succeeded(admin.apply(&route(name, "login", "below", &others, below)));
    let user = account(api, wild);
    let sluice = Sluice::start(&user, "below", &["--require-class"]);
    sluice.await_ready();
    assert_eq!(ask(sluice.address, "login.a.test"), "name");
    let shared = GOOD.replace("True/Accepted", "True/SharedDomain");
    await_status(api, name, "login", &shared);
    await_status(api, wild, "wild", &shared);
    assert_eq!(
        get(api, name, "login", MESSAGE),
        format!("login.a.test is below *.a.test of namespace {wild}, route {wild}/wild")
    );
    assert_eq!(
        get(api, wild, "wild", MESSAGE),
        format!("names below *.a.test are other namespaces': login.a.test of {name}/login")
    );
    assert_eq!(events(api, name, "login"), "", "nothing is wrong");
    sluice.end();

    let flags = ["--require-class", "--hostnames-below", "Owner"];
    let sluice = Sluice::start(&user, "below", &flags);
    sluice.await_ready();
    assert_eq!(ask(sluice.address, "login.a.test"), "wildcard");
    await_status(api, name, "login", LOST);
    await_status(api, wild, "wild", GOOD);
}

fn a_grant_of_the_owner_lets_another_namespace_in() {
    let api = ApiServer::start();
    api.install_crds();
    api.install_grants();
    let admin = api.admin();
    let (victim, solver) = (api.namespace("grant-a"), api.namespace("grant-b"));
    let (own, others) = (Backend::start("owner"), Backend::start("solver"));
    let hostnames = "hostnames: [login.test]";
    succeeded(admin.apply(&route(victim, "login", "granted", &own, hostnames)));
    succeeded(admin.apply(&route(solver, "acme", "granted", &others, &fields(THEFT))));
    let sluice = Sluice::start(&account(&api, victim), "granted", &[]);
    sluice.await_ready();
    assert_eq!(ask_for_certificate(&sluice), "owner");
    let grant = format!(
        "apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {{ name: grant, namespace: {victim} }}
spec:
  from: [{{ group: sluice.dev, kind: SniRoute, namespace: {solver} }}]
  to: [{{ group: sluice.dev, kind: SniRoute, name: login }}]
"
    );
    succeeded(admin.apply(&grant));
    let says = |name: &'static str| {
        within(PATIENCE, name, || (ask_for_certificate(&sluice) == name).then_some(()));
    };
    says("solver");
    assert_eq!(ask(sluice.address, "login.test"), "owner");
    await_status(&api, solver, "acme", GOOD);
    succeeded(admin.kubectl(&["delete", "referencegrant", "grant", "-n", victim]));
    says("owner");
    await_status(&api, solver, "acme", LOST);
    assert_eq!(sluice.metric("sluice_hostname_owner_changes_total"), 0.0);
}
