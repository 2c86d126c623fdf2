//! Files that are broken, while sluice runs and when it starts.

use std::fs;

use serde_json::Value;
use testkit::{Greeted, eventually, greeter};

use super::sluice::{Sluice, route, route_with};

#[test]
fn a_broken_file_changes_nothing_and_is_named_once() {
    let (one, two) = (greeter("one"), greeter("two"));
    let sluice = Sluice::start(&[
        ("a.yaml", route("a", &["a.test"], one)),
        ("b.yaml", route("b", &["b.test"], one)),
    ]);
    let file = sluice.routes().join("a.yaml");
    let before = sluice.report()["routes"].clone();

    let first = route_with("a", &["a.test"], two, "  idel: 5s\n");
    fs::write(&file, &first).unwrap();
    await_faults(&sluice, 1.0);
    assert_eq!(sluice.report()["routes"], before);
    assert_eq!(server_of(&sluice, "a.test"), "one");

    // Other files go on, and the fault is not told again with their changes.
    fs::write(sluice.routes().join("b.yaml"), route("b", &["b.test"], two)).unwrap();
    await_server(&sluice, "b.test", "two");
    assert_eq!(server_of(&sluice, "a.test"), "one");
    let named = await_named(&sluice, 1);
    assert_named(&named[0], "a.yaml", 7, Some("SniRoute test/a"), Some("spec.idel"));
    let detail = named[0]["detail"].as_str().unwrap();
    assert!(detail.starts_with("unknown field; there are access, alpn, "), "{detail}");

    // Another fault in the same file is another change.
    fs::write(&file, first.replace("a.test", "a..test").replace("  idel: 5s\n", "")).unwrap();
    let named = await_named(&sluice, 2);
    assert_named(&named[1], "a.yaml", 5, Some("SniRoute test/a"), Some("spec.hostnames[0]"));

    fs::write(&file, route("a", &["a.test"], two)).unwrap();
    await_faults(&sluice, 0.0);
    await_server(&sluice, "a.test", "two");
    let again = |line: &Value| {
        line["level"] == "INFO"
            && line["file"].as_str().is_some_and(|file| file.ends_with("a.yaml"))
    };
    eventually("the log says that a.yaml is in order again", || {
        (sluice.log().into_iter().filter(again).count() == 1).then_some(())
    });
    assert_eq!(faults(&sluice).len(), 2);
}

#[test]
fn a_route_that_loses_its_hostname_is_named_once_and_again_when_it_has_it() {
    let (one, two) = (greeter("one"), greeter("two"));
    let sluice = Sluice::start(&[("a.yaml", route("a", &["a.test"], one))]);
    let told = || -> Vec<Value> {
        sluice.log().into_iter().filter(|line| line["condition"] == "Accepted").collect()
    };
    fs::write(sluice.routes().join("b.yaml"), route("b", &["a.test"], two)).unwrap();
    let named = eventually("the loser is named", || Some(told()).filter(|told| !told.is_empty()));
    assert_eq!(named[0]["level"], "WARN");
    assert_eq!(named[0]["route"], "test/b");
    assert_eq!(named[0]["reason"], "HostnameConflict");
    assert_eq!(named[0]["detail"], "a.test belongs to test/a");

    fs::write(sluice.routes().join("c.yaml"), route("c", &["c.test"], two)).unwrap();
    await_server(&sluice, "c.test", "two");
    assert_eq!(told().len(), 1);
    fs::remove_file(sluice.routes().join("a.yaml")).unwrap();
    await_server(&sluice, "a.test", "two");
    let named = eventually("it is in order", || Some(told()).filter(|told| told.len() == 2));
    assert_eq!((&named[1]["level"], &named[1]["route"]), (&"INFO".into(), &"test/b".into()));
}

#[test]
fn yaml_that_is_no_yaml_is_named_with_its_line() {
    let one = greeter("one");
    let sluice = Sluice::start(&[("a.yaml", route("a", &["a.test"], one))]);
    fs::write(sluice.routes().join("a.yaml"), "apiVersion: v1\nkind: [\n").unwrap();
    fs::write(sluice.routes().join("new.yaml"), "kind: SniRoute\n").unwrap();
    let named = await_named(&sluice, 2);
    assert_named(&named[0], "a.yaml", 2, None, None);
    assert_named(&named[1], "new.yaml", 1, None, None);
    assert_eq!(server_of(&sluice, "a.test"), "one");
}

#[test]
fn a_broken_file_does_not_keep_a_replica_that_starts_from_being_ready() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes");
    fs::create_dir(&routes).unwrap();
    let broken = "kind: SniRoute\n";
    fs::write(routes.join("good.yaml"), route("good", &["good.test"], greeter("good"))).unwrap();
    fs::write(routes.join("late.yaml"), broken).unwrap();
    let sluice = Sluice::over(folder, &[]);

    await_server(&sluice, "good.test", "good");
    eventually("sluice is ready", || (sluice.get("/readyz").0 == 200).then_some(()));
    await_faults(&sluice, 1.0);
    assert_named(&await_named(&sluice, 1)[0], "late.yaml", 1, None, None);
    fs::write(routes.join("late.yaml"), route("late", &["late.test"], greeter("late"))).unwrap();
    await_server(&sluice, "late.test", "late");
}

#[test]
fn ready_waits_for_the_first_complete_load_and_stays_from_then_on() {
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes");
    fs::create_dir(&routes).unwrap();
    let late = routes.join("late.yaml");
    fs::write(routes.join("good.yaml"), route("good", &["good.test"], greeter("good"))).unwrap();
    std::os::unix::fs::symlink("gone.yaml", &late).unwrap();
    let sluice = Sluice::over(folder, &[]);

    await_server(&sluice, "good.test", "good");
    let not_yet = "the first complete table is not built yet\n".to_owned();
    assert_eq!(sluice.get("/readyz"), (503, not_yet));
    assert_eq!(sluice.get("/livez"), (200, "ok\n".to_owned()));

    fs::remove_file(&late).unwrap();
    fs::write(&late, route("late", &["late.test"], greeter("late"))).unwrap();
    await_server(&sluice, "late.test", "late");
    eventually("sluice is ready", || (sluice.get("/readyz").0 == 200).then_some(()));

    for file in ["good.yaml", "late.yaml"] {
        fs::write(routes.join(file), "kind: SniRoute\n").unwrap();
    }
    await_faults(&sluice, 2.0);
    assert_eq!(sluice.get("/readyz"), (200, "ok\n".to_owned()));
    assert_eq!(server_of(&sluice, "good.test"), "good");
    assert_eq!(server_of(&sluice, "late.test"), "late");
}

#[test]
fn a_folder_that_cannot_be_read_is_counted_and_its_routes_stay() {
    let sluice = Sluice::start(&[("a.yaml", route("a", &["a.test"], greeter("a")))]);
    let errors = || sluice.metrics().sum("sluice_source_errors_total", &[]);
    assert_eq!(errors(), 0.0);
    // At once: file by file, it would be a folder without manifests first.
    fs::rename(sluice.routes(), sluice.routes().with_extension("gone")).unwrap();
    eventually("the error is counted", || (errors() > 0.0).then_some(()));
    assert_eq!(server_of(&sluice, "a.test"), "a");
}

fn await_faults(sluice: &Sluice, count: f64) {
    eventually(&format!("{count} faults"), || {
        (sluice.metrics().sum("sluice_manifest_faults", &[]) == count).then_some(())
    });
}

/// Waits until so many faults are named, and no more, and returns them.
fn await_named(sluice: &Sluice, count: usize) -> Vec<Value> {
    eventually(&format!("{count} faults are named"), || {
        let named = faults(sluice);
        assert!(named.len() <= count, "{named:#?}");
        (named.len() == count).then_some(named)
    })
}

fn await_server(sluice: &Sluice, name: &str, server: &str) {
    eventually(&format!("{name} is at {server}"), || {
        let greeted = Greeted::ask(sluice.address, name).ok()?;
        (greeted.by == server).then_some(())
    });
}

fn server_of(sluice: &Sluice, name: &str) -> String {
    Greeted::ask(sluice.address, name).unwrap().by
}

/// All that the log says above INFO.
fn faults(sluice: &Sluice) -> Vec<Value> {
    sluice.log().into_iter().filter(|line| line["level"] != "INFO").collect()
}

fn assert_named(line: &Value, file: &str, at: u64, object: Option<&str>, field: Option<&str>) {
    assert_eq!(line["level"], "WARN", "{line}");
    assert_eq!(line["message"], "a file of manifests is at fault and changes nothing", "{line}");
    assert!(line["file"].as_str().is_some_and(|path| path.ends_with(file)), "{line}");
    assert_eq!(line["line"], at, "{line}");
    assert_eq!(line.get("object").and_then(Value::as_str), object, "{line}");
    assert_eq!(line.get("field").and_then(Value::as_str), field, "{line}");
}
