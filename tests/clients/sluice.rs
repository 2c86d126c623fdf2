//! The binary itself, as an operator runs and sees it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use testkit::eventually;

/// A running `sluice run` over a folder of manifests. It ends with the test.
pub(crate) struct Sluice {
    sluice: testkit::Sluice,
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
        sluice.await_ready();
        sluice
    }

    /// Serves what is in `routes` of the folder, ready or not.
    pub(crate) fn over(folder: tempfile::TempDir, flags: &[&str]) -> Self {
        let mut command = binary();
        command.arg("run").arg("--routes").arg(folder.path().join("routes"));
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--log-format", "json"]);
        Sluice { sluice: testkit::Sluice::start(command.args(flags)), folder }
    }

    /// The same, with a configuration file.
    pub(crate) fn configured(folder: tempfile::TempDir, file: &Path) -> Self {
        let mut command = binary();
        command.arg("run").arg("--routes").arg(folder.path().join("routes"));
        command.args(["--admin", "127.0.0.1:0", "--log-format", "json"]);
        command.arg("--config").arg(file);
        Sluice { sluice: testkit::Sluice::start(&mut command), folder }
    }

    /// The folder of manifests.
    pub(crate) fn routes(&self) -> PathBuf {
        self.folder.path().join("routes")
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

testkit::deref_to_sluice!(Sluice, sluice);

/// The command, away from settings of the one who runs the test.
pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.env_clear();
    command
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
