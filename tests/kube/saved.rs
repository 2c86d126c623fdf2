//! The saved table: what a replica serves that starts while the API server is away.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::controlled::{Backend, Held, Sluice, ask};
use crate::controller::route;
use crate::objects::account;
use crate::outage::apply;
use crate::support::{
    ApiServer, Kubeconfig, Mode, PATIENCE, Proxy, quick, slow, succeeded, within,
};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        slow!(a_replica_that_starts_in_an_outage),
        slow!(a_change_is_saved_soon_and_survives_a_kill),
        slow!(a_client_that_cannot_be_made_is_made_later),
        quick!(a_program_for_credentials_that_hangs_stops_no_probe),
        quick!(a_change_is_saved_at_the_end),
        quick!(a_saved_table_that_is_not_good_is_refused),
        quick!(the_live_table_wins_even_if_it_is_empty),
        quick!(a_disk_that_cannot_be_written_hurts_nothing_else),
    ]
}

/// A sluice with a folder of its own for the table, and its way to the API server.
struct Setup {
    api: &'static ApiServer,
    namespace: &'static str,
    class: &'static str,
    proxy: Proxy,
    account: Kubeconfig,
    folder: TempDir,
}

impl Setup {
    /// With the objects of `app.test`.
    fn new(namespace: &'static str, class: &'static str, backend: &Backend) -> Self {
        let api = ApiServer::shared();
        api.namespace(namespace);
        apply(api, namespace, class, backend);
        let proxy = Proxy::start(api);
        let account = proxy.kubeconfig(&account(api, namespace));
        Setup { api, namespace, class, proxy, account, folder: tempfile::tempdir().unwrap() }
    }

    /// Has credentials come from a program; returns the kubeconfig that was.
    fn credentials_from(&self, exec: &str) -> String {
        let good = fs::read_to_string(self.account.path()).unwrap();
        let (before, _) = good.split_once("user: {").unwrap();
        let (_, after) = good.split_once("contexts:").unwrap();
        let version = "apiVersion: client.authentication.k8s.io/v1";
        let other = format!("{before}user: {{ exec: {{ {version}, {exec} }} }}\ncontexts:{after}");
        fs::write(self.account.path(), other).unwrap();
        good
    }

    fn start(&self) -> Sluice {
        self.start_as(self.class)
    }

    fn start_as(&self, class: &str) -> Sluice {
        let folder = self.folder.path().to_str().unwrap();
        let quick_end = ["--drain-delay", "0s", "--drain-timeout", "0s"];
        let state = ["--state-dir", folder, "--require-class"];
        Sluice::start(&self.account, class, &[&quick_end[..], &state].concat())
    }

    fn apply(&self, name: &str, hostname: &str) {
        let manifest = route(self.namespace, name, self.class, hostname);
        succeeded(self.api.admin().apply(&manifest));
    }

    fn delete(&self, name: &str) {
        succeeded(self.api.admin().kubectl(&["delete", "sni", name, "-n", self.namespace]));
    }

    fn saved(&self) -> String {
        fs::read_to_string(self.folder.path().join("table")).unwrap_or_default()
    }

    fn await_saved(&self, hostname: &str) {
        within(PATIENCE, "it is saved", || self.saved().contains(hostname).then_some(()));
    }
}

fn a_replica_that_starts_in_an_outage() {
    let backend = Backend::start("here");
    let setup = Setup::new("saved-replica", "saved-replica", &backend);
    setup.apply("gone", "gone.test");
    Held::apply(setup.api, setup.namespace, setup.class);
    let sluice = setup.start();
    sluice.await_ready();
    setup.await_saved("gone.test");
    within(PATIENCE, "the metric says so", || {
        (sluice.metric("sluice_table_saved_timestamp_seconds") > 1.7e9).then_some(())
    });
    assert_eq!(sluice.metric("sluice_table_from_saved"), 0.0);
    // By SIGKILL.
    drop(sluice);
    let saved = setup.saved();
    let saved_at = saved.split_once(r#""savedAt":""#).unwrap().1.split('"').next().unwrap();

    setup.proxy.set(Mode::Refuse);
    setup.delete("gone");
    setup.apply("new", "new.test");
    let sluice = setup.start();
    sluice.await_ready();
    assert_eq!(ask(sluice.address, "app.test"), "here");
    assert_eq!(ask(sluice.address, "gone.test"), "here");
    assert_eq!(ask(sluice.address, "new.test"), "");
    let mut held = Held::connect(&sluice);
    assert_eq!(sluice.metric("sluice_table_from_saved"), 1.0);
    assert_eq!(sluice.metric("sluice_source_up"), 0.0);
    let notice = format!("; serving the table that was saved at {saved_at}\n");
    within(PATIENCE, &notice, || {
        let (_, body) = sluice.get("/readyz");
        (body.starts_with("ok\nnotice: ") && body.ends_with(&notice)).then_some(())
    });
    let message = "serving the saved table until the API server has been listed";
    assert_eq!(sluice.await_logged(message)["saved_at"], saved_at);
    assert_eq!(setup.saved(), saved, "it is not saved as if it were new");

    setup.proxy.set(Mode::Pass);
    sluice.await_metric("sluice_table_from_saved", 0.0);
    assert_eq!(ask(sluice.address, "gone.test"), "");
    assert_eq!(ask(sluice.address, "new.test"), "here");
    assert_eq!(ask(sluice.address, "app.test"), "here");
    held.assert_open();
    sluice.await_logged("the table of the API server has replaced the saved one");
    sluice.await_plain_ready();
    setup.await_saved("new.test");
    assert!(!setup.saved().contains("gone.test"));
}

fn a_change_is_saved_soon_and_survives_a_kill() {
    let backend = Backend::start("here");
    let setup = Setup::new("saved-kill", "saved-kill", &backend);
    let sluice = setup.start();
    sluice.await_ready();
    setup.await_saved("app.test");
    setup.apply("app", "later.test");
    setup.await_saved("later.test");
    drop(sluice);

    // Nothing fails at once here: it is a matter of patience.
    setup.proxy.set(Mode::Silent);
    let sluice = setup.start();
    sluice.await_ready();
    assert_eq!(ask(sluice.address, "later.test"), "here");
    let (_, body) = sluice.get("/readyz");
    assert!(body.contains("notice: serving the table that was saved at 20"), "{body}");
    // The end of a process that has served nothing else saves nothing.
    let saved = setup.saved();
    sluice.end();
    assert_eq!(setup.saved(), saved);
}

fn a_client_that_cannot_be_made_is_made_later() {
    let backend = Backend::start("here");
    let setup = Setup::new("saved-client", "saved-client", &backend);
    let sluice = setup.start();
    sluice.await_ready();
    setup.await_saved("app.test");
    drop(sluice);

    // Credentials come from a program that needs what is away.
    let good = setup.credentials_from("command: \"false\"");
    let sluice = setup.start();
    sluice.await_ready();
    assert_eq!(ask(sluice.address, "app.test"), "here");
    assert_eq!(sluice.metric("sluice_table_from_saved"), 1.0);
    sluice.await_logged("no way to the API server; trying again");

    fs::write(setup.account.path(), good).unwrap();
    sluice.await_metric("sluice_table_from_saved", 0.0);
    sluice.await_plain_ready();
}

fn a_program_for_credentials_that_hangs_stops_no_probe() {
    let backend = Backend::start("here");
    let setup = Setup::new("saved-hang", "saved-hang", &backend);
    let sluice = setup.start();
    sluice.await_ready();
    setup.await_saved("app.test");
    drop(sluice);

    let good = fs::read_to_string(setup.account.path()).unwrap();
    let token = good.split_once("token: \"").unwrap().1.split_once('"').unwrap().0;
    // It waits for a file, for half a minute at most.
    let go = setup.folder.path().join("go");
    let script = format!(
        "i=0; until [ -e '{}' ] || [ $i = 300 ]; do sleep 0.1; i=$((i + 1)); done; \
         echo '{{\"status\": {{\"token\": \"{token}\"}}}}'",
        go.display()
    );
    let arguments = serde_json::to_string(&["-c", &script]).unwrap();
    setup.credentials_from(&format!("interactiveMode: Never, command: sh, args: {arguments}"));
    let sluice = setup.start();
    within(PATIENCE, "the saved table is served", || {
        let asked = Instant::now();
        assert_eq!(sluice.get("/livez").0, 200);
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
        (sluice.get("/readyz").0 == 200).then_some(())
    });
    assert_eq!(ask(sluice.address, "app.test"), "here");
    let line = sluice.await_logged("no way to the API server; trying again");
    let error = "the program \"sh\", which gets credentials, has not answered in 5 s";
    assert_eq!(line["error"], error);
    fs::write(go, "").unwrap();
    sluice.await_metric("sluice_table_from_saved", 0.0);
    sluice.await_plain_ready();
    sluice.await_metric("sluice_leader", 1.0);
}

fn a_change_is_saved_at_the_end() {
    let backend = Backend::start("here");
    let setup = Setup::new("saved-end", "saved-end", &backend);
    let sluice = setup.start();
    sluice.await_ready();
    setup.await_saved("app.test");
    // Sooner than the next one is due.
    setup.apply("app", "last.test");
    within(PATIENCE, "it is live", || (ask(sluice.address, "last.test") == "here").then_some(()));
    sluice.end();
    assert!(setup.saved().contains("last.test"));
}

fn a_saved_table_that_is_not_good_is_refused() {
    let backend = Backend::start("here");
    let setup = Setup::new("saved-refused", "saved-refused", &backend);
    let sluice = setup.start();
    sluice.await_ready();
    setup.await_saved("app.test");
    drop(sluice);
    let good = setup.saved();
    let file = setup.folder.path().join("table");
    setup.proxy.set(Mode::Refuse);

    let refused = |class: &str, text: &str, fault: &str| {
        fs::write(&file, text).unwrap();
        let sluice = setup.start_as(class);
        let line = sluice.await_logged("the saved table is refused");
        assert!(line["error"].as_str().unwrap().contains(fault), "{line}");
        assert_eq!(line["file"], file.to_str().unwrap());
        assert_eq!(line["level"], "ERROR");
        let (status, body) = sluice.get("/readyz");
        assert!(status == 503 && body.starts_with("the first complete table"), "{body}");
        assert_eq!(sluice.metric("sluice_table_from_saved"), 0.0);
    };
    refused("saved-refused", &good.replace("app.test", "bad.test"), "does not fit its checksum");
    refused("saved-refused", &good[..good.len() / 2], "cut off");
    refused("saved-refused", &good.replacen(" 4 ", " 1 ", 1), "its format has version 1");
    refused("another", &good, "with class \"saved-refused\", and this one has class \"another\"");
}

fn the_live_table_wins_even_if_it_is_empty() {
    let backend = Backend::start("here");
    let setup = Setup::new("saved-empty", "saved-empty", &backend);
    let sluice = setup.start();
    sluice.await_ready();
    setup.await_saved("app.test");
    drop(sluice);
    setup.delete("app");
    let sluice = setup.start();
    sluice.await_ready();
    // An API server that takes its time lets the saved one be served until then.
    sluice.await_metric("sluice_table_from_saved", 0.0);
    assert_eq!(ask(sluice.address, "app.test"), "");
    within(PATIENCE, "that is saved too", || (!setup.saved().contains("app.test")).then_some(()));
}

fn a_disk_that_cannot_be_written_hurts_nothing_else() {
    let backend = Backend::start("here");
    let setup = Setup::new("saved-disk", "saved-disk", &backend);
    let nowhere = Path::new("/proc/sluice");
    let arguments = ["--state-dir", nowhere.to_str().unwrap()];
    let sluice = Sluice::start(&setup.account, setup.class, &arguments);
    sluice.await_ready();
    let line = sluice.await_logged("cannot save the table");
    assert_eq!(line["file"], "/proc/sluice/table");
    assert!(line["error"].as_str().unwrap().contains("cannot make the folder"), "{line}");
    within(PATIENCE, "it is counted", || {
        (sluice.metric("sluice_table_save_errors_total") >= 1.0).then_some(())
    });
    assert_eq!(sluice.metric("sluice_table_saved_timestamp_seconds"), 0.0);
    setup.apply("app", "new.test");
    within(PATIENCE, "changes are live", || {
        (ask(sluice.address, "new.test") == "here").then_some(())
    });
    sluice.await_plain_ready();
}
