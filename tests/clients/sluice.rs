//! The binary itself, as an operator runs and sees it.

use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;

use super::process::{DEADLINE, Program, eventually};

/// A running `sluice run` over a folder of manifests. It ends with the test.
pub(crate) struct Sluice {
    program: Program,
    /// Where clients connect to.
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Sluice {
    /// Serves the given manifests, each `(file name, content)`, and is ready.
    pub(crate) fn start(manifests: &[(&str, String)]) -> Self {
        Sluice::start_with(manifests, &[])
    }

    pub(crate) fn start_with(manifests: &[(&str, String)], flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let routes = folder.path().join("routes");
        fs::create_dir(&routes).unwrap();
        for (file, content) in manifests {
            fs::write(routes.join(file), content).unwrap();
        }
        let sluice = Sluice::over(folder, flags);
        eventually("sluice is ready", || (sluice.get("/readyz").0 == 200).then_some(()));
        sluice
    }

    /// Serves what is in `routes` of the folder, ready or not.
    pub(crate) fn over(folder: tempfile::TempDir, flags: &[&str]) -> Self {
        let mut command = binary();
        command.arg("run").arg("--routes").arg(folder.path().join("routes"));
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"]);
        let mut program = Program::start(command.args(flags));
        let (address, admin) = eventually("sluice says its addresses", || {
            assert!(program.is_running(), "{}", program.stderr.text());
            let log = json_lines(&program.stderr.lines());
            Some((said(&log, "listening")?, said(&log, "admin port")?))
        });
        Sluice { program, address, admin, folder }
    }

    /// The folder of manifests.
    pub(crate) fn routes(&self) -> PathBuf {
        self.folder.path().join("routes")
    }

    /// All that it wrote to stdout.
    pub(crate) fn stdout(&self) -> Vec<u8> {
        self.program.stdout.bytes()
    }

    /// All that it wrote to stderr.
    pub(crate) fn stderr(&self) -> Vec<u8> {
        self.program.stderr.bytes()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.program.is_running()
    }

    /// A page of the admin port: status and body.
    pub(crate) fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect_timeout(&self.admin, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: sluice\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// `/metrics` as it is now.
    pub(crate) fn metrics(&self) -> Metrics {
        let (status, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        Metrics(text)
    }

    /// `/routes` as it is now.
    pub(crate) fn report(&self) -> Value {
        let (status, text) = self.get("/routes");
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    /// The lines of the log so far.
    pub(crate) fn log(&self) -> Vec<Value> {
        json_lines(&self.program.stderr.lines())
    }

    /// The lines of the access log so far.
    pub(crate) fn access_log(&self) -> Vec<Value> {
        json_lines(&self.program.stdout.lines())
    }

    /// The one line of the access log about a server name, once it is there.
    pub(crate) fn entry_of(&self, server_name: &str) -> Value {
        let is_it = |entry: &&Value| entry["serverName"] == server_name;
        eventually(&format!("an access-log line about {server_name}"), || {
            let log = self.access_log();
            assert!(log.iter().filter(is_it).count() <= 1, "{log:#?}");
            log.iter().find(is_it).cloned()
        })
    }
}

/// The command, away from settings of the one who runs the test.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.env_clear();
    command
}

fn said(log: &[Value], message: &str) -> Option<SocketAddr> {
    let line = log.iter().find(|line| line["message"] == message)?;
    line["address"].as_str()?.parse().ok()
}

/// Every line is one JSON object that has no key twice, or the test fails.
fn json_lines(lines: &[String]) -> Vec<Value> {
    let parse = |line: &String| match serde_json::from_str(line) {
        Ok(Line(fields)) => Value::Object(fields),
        Err(error) => panic!("{line:?}: {error}"),
    };
    lines.iter().map(parse).collect()
}

/// `serde_json` alone takes the last of two values.
struct Line(serde_json::Map<String, Value>);

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Line(serde_json::Map::new()))
    }
}

impl<'de> Visitor<'de> for Line {
    type Value = Line;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with no key twice")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Line, A::Error> {
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            if self.0.insert(key.clone(), value).is_some() {
                return Err(A::Error::custom(format!("{key} is there twice")));
            }
        }
        Ok(self)
    }
}

/// Prometheus' text format.
pub(crate) struct Metrics(pub(crate) String);

impl Metrics {
    /// The sum of a metric over all labels that contain each of `labels`, such as `route="a"`.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let values = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, its) = series.split_once('{').unwrap_or((series, ""));
            let all = labels.iter().all(|label| its.contains(label));
            (found == name && all).then(|| value.parse::<f64>().unwrap())
        });
        values.sum()
    }

    pub(crate) fn connections(&self, outcome: &str) -> f64 {
        self.sum("sluice_connections_total", &[&format!("outcome=\"{outcome}\"")])
    }
}

/// A manifest of one route.
pub(crate) fn route(name: &str, hostnames: &[&str], backend: SocketAddr) -> String {
    route_with(name, hostnames, backend, "")
}

/// A manifest of one route with more lines in its spec.
pub(crate) fn route_with(
    name: &str,
    hostnames: &[&str],
    backend: SocketAddr,
    more: &str,
) -> String {
    let hostnames = serde_json::to_string(hostnames).unwrap();
    format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: SniRoute\n\
         metadata: {{ name: {name}, namespace: test }}\n\
         spec:\n  hostnames: {hostnames}\n  backends: [{{ address: '{backend}' }}]\n{more}"
    )
}

/// Replaces a file in one step, as most editors do.
pub(crate) fn rename_over(file: &Path, content: &str) {
    let new = file.with_extension("new");
    fs::write(&new, content).unwrap();
    fs::rename(&new, file).unwrap();
}
