//! cert-manager's own controllers.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::api_server::ApiServer;
use super::kubectl::succeeded;
use super::process::Process;
use super::sandbox;

/// cert-manager's controllers for Certificates and Issuers, on an API server. They end with the value.
pub(crate) struct CertManager {
    _process: Process,
    _folder: TempDir,
}

impl CertManager {
    /// Installs cert-manager's CRDs and starts its controllers, as a user who may do everything.
    pub(crate) fn start(api: &ApiServer) -> Self {
        let program = PathBuf::from(
            std::env::var_os(sandbox::CERT_MANAGER)
                .expect("cert-manager, which `make cert-manager` builds"),
        );
        let crds = program.join("crds").display().to_string();
        // An annotation with all of it, as a client-side apply makes it, would be too long.
        succeeded(api.admin().kubectl(&["apply", "--server-side", "-f", &crds]));
        let wait = ["wait", "--for=condition=Established", "--timeout=300s", "-f", &crds];
        succeeded(api.admin().kubectl(&wait));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new(program.join("cert-manager"));
        command.arg(api.admin().path());
        let process = Process::start(&mut command, &folder.path().join("cert-manager.log"));
        Self { _process: process, _folder: folder }
    }
}
