//! `check`, `explain` and `run` as commands: what they print and how they end.

use std::fs;
use std::net::TcpListener;

use testkit::{Finished, Program};

use super::server::refusing;
use super::sluice::{Sluice, binary, route, route_with};

const HEAD: &str = "\
apiVersion: sluice.dev/v1alpha1
kind: SniRoute
metadata: { name: a, namespace: test }
spec:
  hostnames: [a.test]
";

#[test]
fn check_has_a_line_for_each_fault_with_file_line_object_and_field() {
    let backends = "  backends: [{ address: '127.0.0.1:1' }]\n";
    let good = format!("{HEAD}{backends}");
    let two_lines = "  backends:\n  - address: '127.0.0.1:1'\n";
    for (manifest, faults) in [
        (good.clone(), &[][..]),
        (HEAD.to_owned(), &["4: SniRoute test/a: spec: missing field `backends`"]),
        (
            good.replace("127.0.0.1:", "localhost:x"),
            &["6: SniRoute test/a: spec.backends[0].address: \"localhost:x1\" has no port number"],
        ),
        (
            format!("{HEAD}{two_lines}    wieght: 1\n"),
            &["8: SniRoute test/a: spec.backends[0].wieght: unknown field; did you mean weight?"],
        ),
        (
            format!("{HEAD}{two_lines}    weight: 2000000\n"),
            &["8: SniRoute test/a: spec.backends[0].weight: 2000000 is over the maximum"],
        ),
        (
            good.replace("a.test]", "b.test, 'a.*.test']"),
            &["5: SniRoute test/a: spec.hostnames[1]: hostname \"a.*.test\": '*' may only stand"],
        ),
        (
            format!("{good}  timeouts: {{ idle: soon }}\n"),
            &["7: SniRoute test/a: spec.timeouts.idle: \"soon\" is not a duration"],
        ),
        (
            format!("{good}  loadBalancing:\n    policy: Fastest\n"),
            &["8: SniRoute test/a: spec.loadBalancing.policy: \"Fastest\" is not a policy"],
        ),
        // What only shows beside other objects and the installation.
        (
            format!("{good}  listeners: [other]\n"),
            &["7: SniRoute test/a: spec.listeners[0]: there is no listener \"other\""],
        ),
        (
            format!("{HEAD}  backends:\n  - service: {{ name: web, port: 443 }}\n"),
            &["7: SniRoute test/a: spec.backends[0].service.name: there is no Service test/web"],
        ),
        (
            format!(
                "{good}  health:\n    active: {{ type: TLS, verify: Enforce, ca: {{ configMap: ca }} }}\n"
            ),
            &[
                "8: SniRoute test/a: spec.health.active.ca.configMap: test/ca: there is no such ConfigMap",
            ],
        ),
        (
            format!("{good}---\n{good}"),
            &["8: SniRoute test/a: is in this file twice, first in line 1"],
        ),
        (
            format!("{good}---\n{}", good.replace("name: a,", "name: b,")),
            &["12: SniRoute test/b: spec.hostnames[0]: a.test belongs to test/a"],
        ),
        // What is no object of ours, and no YAML.
        (
            "apiVersion: apps/v1\nkind: Deployment\n".to_owned(),
            &["1: Deployment (apps/v1) is not supported; supported are SniRoute"],
        ),
        (format!("{HEAD}  backends: [\n"), &["6: unclosed bracket '['"]),
        (
            format!("{HEAD}{two_lines}    wieght: 1\n---\n{HEAD}"),
            &[
                "8: SniRoute test/a: spec.backends[0].wieght: unknown field",
                "13: SniRoute test/a: spec: missing field `backends`",
            ],
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), &manifest).unwrap();
        let checked = Program::run(binary().args(["check", "."]).current_dir(folder.path()));
        assert_eq!(checked.stderr, "", "{manifest}");
        assert_eq!(checked.stdout.lines().count(), faults.len(), "{manifest}{checked:?}");
        for (line, fault) in checked.stdout.lines().zip(faults) {
            assert!(line.starts_with(&format!("./a.yaml:{fault}")), "{line}\n{fault}");
        }
        assert_eq!(checked.code(), i32::from(!faults.is_empty()), "{manifest}");
    }
}

#[test]
fn check_looks_at_the_files_together() {
    let folder = tempfile::tempdir().unwrap();
    let address = "127.0.0.1:1".parse().unwrap();
    let write = |file: &str, text| fs::write(folder.path().join(file), text).unwrap();
    write("a.yaml", route("a", &["a.test"], address));
    write("b.yaml", route("b", &["b.test"], address));
    let check = || {
        let mut command = binary();
        Program::run(command.args(["check", "a.yaml", "b.yaml"]).current_dir(folder.path()))
    };
    assert_eq!((check().code(), check().stdout.as_str()), (0, ""));

    write("b.yaml", route("b", &["b.test", "a.test"], address));
    let expected = "b.yaml:5: SniRoute test/b: spec.hostnames[1]: a.test belongs to test/a\n";
    assert_eq!((check().code(), check().stdout.as_str()), (1, expected));

    write("b.yaml", route("a", &["b.test"], address));
    let expected = "b.yaml:1: SniRoute test/a: is in a.yaml:1 already\n";
    assert_eq!((check().code(), check().stdout.as_str()), (1, expected));

    fs::remove_file(folder.path().join("b.yaml")).unwrap();
    assert_eq!((check().code(), check().stderr.as_str()), (2, "error: b.yaml does not exist\n"));
}

#[test]
fn explain_says_the_same_offline_and_of_a_running_sluice() {
    let address = "127.0.0.1:1".parse().unwrap();
    let sluice = Sluice::start(&[
        ("exact.yaml", route("exact", &["www.example.test"], address)),
        ("h2.yaml", route_with("h2", &["www.example.test"], address, "  alpn: [h2]\n")),
        ("wild.yaml", route("wild", &["*.example.test"], address)),
        ("deep.yaml", route("deep", &["*.deep.example.test", "only.test"], address)),
    ]);
    let admin = format!("http://{}", sluice.admin);
    let folder = sluice.routes();
    for (sni, alpn, winner) in [
        ("www.example.test", &[][..], Some("SniRoute test/exact: exact hostname www.example.test")),
        ("WWW.example.test.", &[], Some("SniRoute test/exact: exact hostname www.example.test")),
        (
            "www.example.test",
            &["http/1.1", "h2"],
            Some("SniRoute test/h2: exact hostname www.example.test"),
        ),
        ("other.example.test", &["h2"], Some("SniRoute test/wild: wildcard *.example.test")),
        ("a.b.example.test", &[], Some("SniRoute test/wild: wildcard *.example.test")),
        ("a.deep.example.test", &[], Some("SniRoute test/deep: wildcard *.deep.example.test")),
        ("only.test", &[], Some("SniRoute test/deep: exact hostname only.test")),
        ("example.test", &[], None),
        ("nobody.test", &[], None),
        ("", &[], None),
    ] {
        let explain = |from: &str, what: &str| {
            let mut command = binary();
            command.args(["explain", "--sni", sni, from, what]);
            Program::run(command.args(alpn.iter().flat_map(|protocol| ["--alpn", protocol])))
        };
        let offline = explain("--routes", folder.to_str().unwrap());
        let online = explain("--admin", &admin);
        assert_eq!(offline.stdout, online.stdout, "{sni} {alpn:?}");
        assert_eq!((offline.stderr.as_str(), online.stderr.as_str()), ("", ""), "{sni} {alpn:?}");
        let expected = winner.unwrap_or("no route");
        assert_eq!(offline.stdout.lines().next(), Some(expected), "{sni} {alpn:?}");
        let code = i32::from(winner.is_none());
        assert_eq!((offline.code(), online.code()), (code, code), "{sni} {alpn:?}");
    }
}

#[test]
fn explain_names_what_it_cannot_ask() {
    let (closed, _socket) = refusing();
    let url = format!("http://{closed}");
    let asked = Program::run(binary().args(["explain", "--sni", "a.test", "--admin", &url]));
    assert_eq!((asked.code(), asked.stdout.as_str()), (1, ""));
    assert!(asked.stderr.contains(&url) && asked.stderr.contains("refused"), "{asked:?}");

    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().to_str().unwrap();
    for sni in ["*.example.test", "10.0.0.1", "a b.test", "a..test"] {
        let asked = Program::run(binary().args(["explain", "--sni", sni, "--routes", routes]));
        assert_eq!((asked.code(), asked.stdout.as_str()), (2, ""), "{sni}");
        assert!(asked.stderr.starts_with("error: --sni: "), "{asked:?}");
    }
}

#[test]
fn crds_prints_the_definition() {
    let printed = Program::run(binary().arg("crds"));
    assert_eq!((printed.code(), printed.stderr.as_str()), (0, ""));
    let crd: serde_json::Value = serde_yaml::from_str(&printed.stdout).unwrap();
    assert_eq!(crd["kind"], "CustomResourceDefinition");
    assert_eq!(crd["metadata"]["name"], "sniroutes.sluice.dev");
}

#[test]
fn a_port_in_use_is_named_with_its_listener() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let web = format!("web={taken}");
    let in_use = "Address already in use (os error 98)";
    let listener = format!("error: listener \"web\" cannot listen on {taken}: {in_use}\n");
    let refused = run(&["--listen", "ok=127.0.0.1:0", "--listen", &web, "--admin", "127.0.0.1:0"]);
    assert_eq!(last_line(&refused), (1, listener.as_str()));
    let admin = format!("error: cannot bind the admin port {taken}: {in_use}\n");
    let refused = run(&["--listen", "127.0.0.1:0", "--admin", &taken]);
    assert_eq!(last_line(&refused), (1, admin.as_str()));
}

/// The listeners of one process share their port; those of two must not.
#[test]
fn a_second_sluice_on_the_same_port_is_refused() {
    let first = Sluice::start_with(&[], &["--workers", "2"]);
    let (address, admin) = (first.address.to_string(), first.admin.to_string());
    let refused = run(&["--listen", &address, "--admin", "127.0.0.1:0"]);
    let expected = format!("error: listener \"https\" cannot listen on {address}: ");
    let (code, line) = last_line(&refused);
    assert_eq!(code, 1);
    assert!(line.starts_with(&expected), "{line}");
    let refused = run(&["--listen", "127.0.0.1:0", "--admin", &admin]);
    assert!(last_line(&refused).1.contains(&format!("the admin port {admin}: ")), "{refused:?}");
}

fn run(flags: &[&str]) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary();
    command.arg("run").arg("--routes").arg(folder.path());
    Program::run(command.args(flags))
}

fn last_line(finished: &Finished) -> (i32, &str) {
    (finished.code(), finished.stderr.split_inclusive('\n').next_back().unwrap())
}
