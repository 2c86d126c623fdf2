//! kubectl, as the user of a kubeconfig.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kube::config::KubeConfigOptions;
use tempfile::NamedTempFile;

/// A kubeconfig: an API server, and a user of it.
pub(crate) struct Kubeconfig {
    path: PathBuf,
    authority: PathBuf,
    token: String,
    namespace: String,
}

impl Kubeconfig {
    /// Writes one for whoever has `token` and is at home in `namespace`. `authority` is the
    /// certificate that the server is known by.
    pub(super) fn write(
        path: PathBuf,
        server: &str,
        authority: &Path,
        token: &str,
        namespace: &str,
    ) -> Self {
        let authority = authority.to_str().expect("UTF-8");
        let text = format!(
            "apiVersion: v1
kind: Config
current-context: test
clusters:
- name: test
  cluster: {{ server: {server:?}, certificate-authority: {authority:?} }}
users:
- name: test
  user: {{ token: {token:?} }}
contexts:
- name: test
  context: {{ cluster: test, user: test, namespace: {namespace} }}
"
        );
        fs::write(&path, text).expect("a kubeconfig");
        Self {
            path,
            authority: authority.into(),
            token: token.to_owned(),
            namespace: namespace.to_owned(),
        }
    }

    /// The same user at another address, where a server may also have the certificate `other`.
    pub(super) fn at(&self, server: &str, port: u16, other: &str) -> Self {
        let authority = self.path.with_extension(format!("{port}.authorities"));
        let own = fs::read_to_string(&self.authority).expect("the certificate");
        fs::write(&authority, format!("{own}\n{other}")).expect("room for it");
        let path = self.path.with_extension(format!("{port}.kubeconfig"));
        Self::write(path, server, &authority, &self.token, &self.namespace)
    }

    /// Where it is: for `KUBECONFIG` or `--kubeconfig`.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A client for more changes than kubectl makes in a short time. Has to be called, and used, in
    /// a runtime of tokio.
    pub(crate) async fn client(&self) -> kube::Client {
        let kubeconfig = kube::config::Kubeconfig::read_from(&self.path).expect("as written");
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        kube::Client::try_from(config.expect("a configuration")).expect("a client")
    }

    /// Runs kubectl to its end.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program("kubectl"));
        command.arg("--kubeconfig").arg(&self.path).args(arguments);
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// `kubectl apply` of manifests.
    pub(crate) fn apply(&self, manifests: &str) -> Output {
        self.apply_with(&[], manifests)
    }

    /// `kubectl apply` of manifests, with flags.
    pub(crate) fn apply_with(&self, flags: &[&str], manifests: &str) -> Output {
        let mut file = NamedTempFile::with_suffix(".yaml").expect("a temporary file");
        file.write_all(manifests.as_bytes()).expect("room for it");
        let file = file.path().to_str().expect("UTF-8");
        self.kubectl(&[&["apply", "-f", file], flags].concat())
    }
}

/// What a command that succeeded wrote to stdout; panics with what it wrote if it failed.
pub(crate) fn succeeded(output: Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The path of etcd, kube-apiserver or kubectl.
pub(super) fn program(name: &str) -> OsString {
    let folder = std::env::var_os("KUBEBUILDER_ASSETS").expect("set by the sandbox");
    Path::new(&folder).join(name).into()
}
