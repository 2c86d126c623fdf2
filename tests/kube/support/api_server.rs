//! etcd and kube-apiserver.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use rcgen::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::kubectl::{Kubeconfig, program, succeeded};
use super::process::{Process, port};
use super::{sandbox, within};

/// How long a server may take to be ready, on a machine with other work to do that has yet to read
/// the program from its disk.
const READY_WITHIN: Duration = Duration::from_secs(300);

const ADMIN_TOKEN: &str = "admin-token";

/// A kube-apiserver with an etcd of its own, and no controllers. Both end with the value.
pub(crate) struct ApiServer {
    /// Nothing while it is away.
    process: Mutex<Option<Process>>,
    _etcd: Process,
    etcd_url: String,
    port: u16,
    admin: Kubeconfig,
    folder: TempDir,
}

impl ApiServer {
    /// The one that the tests of this binary share, with sluice's CRDs. Started by the first call.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<ApiServer> = OnceLock::new();
        SHARED.get_or_init(|| {
            let api = Self::start();
            api.install_crds();
            api
        })
    }

    /// A new and empty one. It is ready when this returns.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write_credentials(folder.path());
        let (etcd, etcd_url) = start_etcd(folder.path());
        let port = port();
        let server = format!("https://127.0.0.1:{port}");
        let admin = Kubeconfig::write(
            folder.path().join("admin.kubeconfig"),
            &server,
            &authority(folder.path()),
            ADMIN_TOKEN,
            "default",
        );
        let process = Mutex::new(None);
        let api = Self { process, _etcd: etcd, etcd_url, port, admin, folder };
        api.start_again();
        api
    }

    /// Kills the API server by SIGKILL. etcd runs on.
    pub(crate) fn kill(&self) {
        self.process.lock().expect("no test failed here").take().expect("it ran");
    }

    /// Starts the API server after [`kill`](Self::kill): with the same objects, certificate, tokens
    /// and port. It is ready when this returns.
    pub(crate) fn start_again(&self) {
        let mut command = self.command();
        let log = self.folder.path().join("apiserver.log");
        let mut process = Process::start(&mut command, &log);
        within(READY_WITHIN, "the API server is ready", || {
            assert_eq!(process.ended(), None, "the API server ended");
            self.ready().then_some(())
        });
        let before = self.process.lock().expect("no test failed here").replace(process);
        assert!(before.is_none(), "it ran already");
    }

    /// Applies `crds/` and waits until its objects and their descriptions are served.
    pub(crate) fn install_crds(&self) {
        self.install(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/crds")));
    }

    /// The same without the rules, so that there can be objects that break them: of a definition
    /// that was older, say.
    pub(crate) fn install_crds_without_rules(&self) {
        let definition = include_str!("../../../crds/sniroutes.sluice.dev.yaml");
        let mut definition: Value = serde_yaml::from_str(definition).expect("YAML");
        remove_everywhere(&mut definition, "x-kubernetes-validations");
        let file = self.folder.path().join("without-rules.json");
        fs::write(&file, definition.to_string()).expect("room for it");
        self.install(&file);
    }

    fn install(&self, definitions: &Path) {
        let definitions = definitions.to_str().expect("UTF-8");
        succeeded(self.admin.kubectl(&["apply", "-f", definitions]));
        let wait = ["wait", "--for=condition=Established", "--timeout=300s", "-f", definitions];
        succeeded(self.admin.kubectl(&wait));
        // Which is a moment later.
        within(READY_WITHIN, "SniRoutes are explained", || {
            self.admin.kubectl(&["explain", "sniroutes.sluice.dev"]).status.success().then_some(())
        });
    }

    /// Applies Gateway API's definition of ReferenceGrant, and waits until they are served.
    pub(crate) fn install_grants(&self) {
        let file = Self::grants();
        succeeded(self.admin.kubectl(&["apply", "-f", &file]));
        let wait = ["wait", "--for=condition=Established", "--timeout=300s", "-f", &file];
        succeeded(self.admin.kubectl(&wait));
    }

    /// Takes the definition away, and with it all grants.
    pub(crate) fn uninstall_grants(&self) {
        succeeded(self.admin.kubectl(&["delete", "-f", &Self::grants(), "--timeout=300s"]));
    }

    fn grants() -> String {
        let folder = std::env::var(sandbox::GATEWAY_CRDS).expect("set in the sandbox");
        format!("{folder}/gateway.networking.k8s.io_referencegrants.yaml")
    }

    /// A user who may do everything.
    pub(crate) fn admin(&self) -> &Kubeconfig {
        &self.admin
    }

    /// Makes a service account, binds it to a ClusterRole, in all namespaces, and gives its
    /// kubeconfig, of which the namespace is the account's. Its token is good for a day.
    pub(crate) fn service_account(&self, namespace: &str, name: &str, role: &str) -> Kubeconfig {
        let of = ["-n", namespace];
        succeeded(self.admin.kubectl(&[&["create", "serviceaccount", name], &of[..]].concat()));
        let binding = format!("{namespace}-{name}");
        succeeded(self.admin.kubectl(&[
            "create",
            "clusterrolebinding",
            &binding,
            &format!("--clusterrole={role}"),
            &format!("--serviceaccount={namespace}:{name}"),
        ]));
        let token = ["create", "token", name, "--duration=24h"];
        let token = succeeded(self.admin.kubectl(&[&token, &of[..]].concat()));
        let path = self.folder.path().join(format!("{binding}.kubeconfig"));
        let authority = authority(self.folder.path());
        Kubeconfig::write(path, &self.url(), &authority, token.trim_end(), namespace)
    }

    /// Makes a namespace, and gives back its name. A name that a test has already taken is refused.
    pub(crate) fn namespace<'n>(&self, name: &'n str) -> &'n str {
        succeeded(self.admin.kubectl(&["create", "namespace", name]));
        name
    }

    /// The requests for Secrets that a user has made, as `VERB NAMESPACE/NAME`.
    pub(crate) fn secret_requests(&self, user: &str) -> Vec<String> {
        let log = fs::read_to_string(self.audit_log()).unwrap_or_default();
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let of_user = events.filter(|event| event["user"]["username"] == user);
        let request = |event: Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let object = &event["objectRef"];
            let (namespace, name) = (text(&object["namespace"]), text(&object["name"]));
            format!("{} {namespace}/{name}", text(&event["verb"]))
        };
        of_user.map(request).collect()
    }

    fn audit_log(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    /// `https://` and the address.
    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn command(&self) -> Command {
        let folder = self.folder.path();
        let file = |name: &str| folder.join(name).display().to_string();
        let mut command = Command::new(program("kube-apiserver"));
        command.args([
            format!("--etcd-servers={}", self.etcd_url),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={}", self.port),
            // Without a default route it does not find one.
            format!("--advertise-address={}", sandbox::ADDRESS),
            format!("--cert-dir={}", file("certificates")),
            "--service-cluster-ip-range=10.96.0.0/16".into(),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", file("service-account.pub")),
            format!("--service-account-signing-key-file={}", file("service-account.key")),
            "--authorization-mode=RBAC".into(),
            format!("--token-auth-file={}", file("tokens.csv")),
            format!("--audit-policy-file={}", file("audit-policy.json")),
            format!("--audit-log-path={}", self.audit_log().display()),
        ]);
        command
    }

    fn ready(&self) -> bool {
        let mut command = curl();
        command.arg("--cacert").arg(authority(self.folder.path()));
        command.args(["--header", &format!("Authorization: Bearer {ADMIN_TOKEN}")]);
        command.arg(format!("{}/readyz", self.url()));
        command.status().expect("curl runs").success()
    }
}

/// The certificate that the API server makes for itself when it first starts.
fn authority(folder: &Path) -> PathBuf {
    folder.join("certificates/apiserver.crt")
}

fn remove_everywhere(node: &mut Value, key: &str) {
    match node {
        Value::Array(items) => items.iter_mut().for_each(|item| remove_everywhere(item, key)),
        Value::Object(fields) => {
            fields.remove(key);
            fields.values_mut().for_each(|field| remove_everywhere(field, key));
        }
        _ => {}
    }
}

fn write_credentials(folder: &Path) {
    let key = KeyPair::generate().expect("a key");
    let tokens = format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n");
    let audit = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            { "level": "Metadata", "resources": [{ "group": "", "resources": ["secrets"] }] },
            { "level": "None" },
        ],
    });
    for (name, text) in [
        ("service-account.key", key.serialize_pem()),
        ("service-account.pub", key.public_key_pem()),
        ("tokens.csv", tokens),
        ("audit-policy.json", audit.to_string()),
    ] {
        fs::write(folder.join(name), text).expect("room for it");
    }
}

/// The API server waits for it: nothing else has to.
fn start_etcd(folder: &Path) -> (Process, String) {
    let [clients, peers] = [(); 2].map(|()| format!("http://127.0.0.1:{}", port()));
    let mut command = Command::new(program("etcd"));
    command.arg("--data-dir").arg(folder.join("etcd"));
    command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    command.args(["--initial-cluster", &format!("default={peers}")]);
    let mut process = Process::start(&mut command, &folder.join("etcd.log"));
    // The API server ends if it has no answer for 20 seconds.
    within(READY_WITHIN, "etcd is ready", || {
        assert_eq!(process.ended(), None, "etcd ended");
        let mut curl = curl();
        curl.arg(format!("{clients}/health"));
        curl.status().expect("curl runs").success().then_some(())
    });
    (process, clients)
}

/// Asks for a page, and succeeds if there is one.
fn curl() -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--fail", "--max-time", "5"]).stdout(Stdio::null());
    command
}
