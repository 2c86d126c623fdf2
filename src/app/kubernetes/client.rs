//! Creates clients of the API server.
//!
//! Creating a client may run a program that gets credentials, and read files from a disk that does not
//! answer. So it has its own thread.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig, KubeconfigError};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{sleep, timeout};

use super::apart::apart;
use super::proxy;
use crate::config::Config;
use crate::control::kubernetes;

/// How long creating a client may take before this is reported.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause between two attempts to create a client.
const PAUSE: Duration = Duration::from_secs(5);

/// Creates clients, one at a time.
pub(super) struct Connector {
    kubeconfig: Option<PathBuf>,
    patience: Duration,
    /// A client that was not created in time, and may be later.
    making: RefCell<Option<PendingClient>>,
}

/// A client was not created yet. Creating it continues.
#[derive(Debug, thiserror::Error)]
#[error("{what} has not answered in {} s", .patience.as_secs())]
pub(super) struct NoAnswer {
    what: String,
    patience: Duration,
}

struct PendingClient {
    step: ConnectStep,
    made: JoinHandle<anyhow::Result<kube::Client>>,
}

/// The current step of creating a client.
#[derive(Clone, Debug, Default)]
struct ConnectStep(Arc<Mutex<String>>);

impl Connector {
    pub(super) fn new(config: &Config) -> Self {
        Connector {
            kubeconfig: config.kubeconfig.clone(),
            patience: PATIENCE,
            making: RefCell::default(),
        }
    }

    /// Creates a client. If an earlier call has not finished in time, waits for that one, so that a blocked
    /// program is not started repeatedly.
    ///
    /// # Errors
    /// When no client can be created. [`NoAnswer`] while it takes long.
    pub(super) async fn client(&self) -> anyhow::Result<kube::Client> {
        let making = self.making.take();
        let mut making = making.unwrap_or_else(|| PendingClient::begin(self.kubeconfig.clone()));
        match timeout(self.patience, &mut making.made).await {
            Ok(made) => made.context("a fault of sluice")?,
            Err(_) => {
                let what = making.step.text();
                self.making.replace(Some(making));
                Err(NoAnswer { what, patience: self.patience }.into())
            }
        }
    }

    /// The created client, or one that is created later: a program that gets credentials may need something
    /// that is not available yet. Calls `failed` with the error of each failed attempt.
    pub(super) async fn persist(
        &self,
        mut made: anyhow::Result<kube::Client>,
        mut failed: impl FnMut(&anyhow::Error),
    ) -> kube::Client {
        loop {
            match made {
                Ok(client) => return client,
                Err(error) => {
                    failed(&error);
                    if !error.is::<NoAnswer>() {
                        sleep(PAUSE).await;
                    }
                }
            }
            made = self.client().await;
        }
    }
}

impl PendingClient {
    fn begin(kubeconfig: Option<PathBuf>) -> Self {
        let step = ConnectStep::default();
        let told = step.clone();
        let made =
            spawn_blocking(move || Handle::current().block_on(make(kubeconfig.as_deref(), &told)));
        PendingClient { step, made }
    }
}

impl ConnectStep {
    fn begin(&self, what: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Creates a client. Reports the file or program that it waits for to `step`.
async fn make(kubeconfig: Option<&Path>, step: &ConnectStep) -> anyhow::Result<kube::Client> {
    let variable = |name: &str| std::env::var(name).ok();
    let kube_config = match kubeconfig {
        Some(path) => with_kubeconfig(path, variable, step)
            .await
            .with_context(|| format!("cannot use the kubeconfig {}", path.display()))?,
        None => {
            step.begin("a file of the service account".to_owned());
            let mut kube_config = kube::Config::incluster().context(
                "no access to the API server: this is no pod with a service account; give \
                 --kubeconfig",
            )?;
            kube_config.proxy_url = proxy::from_environment(&kube_config.cluster_url, variable)?;
            kube_config
        }
    };
    if let Some(proxy) = &kube_config.proxy_url {
        let proxy = proxy::shown(&proxy.to_string());
        tracing::info!(server = %kube_config.cluster_url, proxy, "a proxy leads to the API server");
    }
    if let Some(program) = program(&kube_config.auth_info) {
        step.begin(format!("the program {program:?}, which gets credentials,"));
    }
    let login = &kube_config.auth_info;
    let waits = login.exec.is_some() || login.auth_provider.is_some() || login.token_file.is_some();
    let client = kube::Client::try_from(kubernetes::tuned(kube_config))?;
    // The token of a service account is in memory, so requests do not block.
    Ok(if waits && kubeconfig.is_some() { apart(&client) } else { client })
}

/// The program that gets credentials, if any.
fn program(login: &AuthInfo) -> Option<&str> {
    let command = login.exec.as_ref().and_then(|exec| exec.command.as_deref());
    let provider = || login.auth_provider.as_ref()?.config.get("cmd-path").map(String::as_str);
    command.or_else(provider)
}

async fn with_kubeconfig(
    path: &Path,
    variable: impl Fn(&str) -> Option<String>,
    step: &ConnectStep,
) -> anyhow::Result<kube::Config> {
    step.begin(format!("the kubeconfig {}, or a file that it names,", path.display()));
    let mut kubeconfig = Kubeconfig::read_from(path)?;
    let mut own = None;
    if let Some((name, cluster)) = proxy::current_cluster(&mut kubeconfig) {
        if let Some(text) = cluster.proxy_url.take().filter(|text| !text.is_empty()) {
            own = Some(proxy::from_field(&name, &text)?);
        }
        // The library would compare NO_PROXY with the proxy instead of the server, so its result is not
        // used. The placeholder only prevents an error for variables that it does not need.
        let is_set = |name: &&str| variable(name).is_some_and(|text| !text.is_empty());
        if ["HTTPS_PROXY", "https_proxy"].iter().any(is_set) {
            cluster.proxy_url = Some("http://unused.invalid".to_owned());
        }
    }
    let options = KubeConfigOptions::default();
    let made = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut kube_config = made.map_err(|error| match error {
        KubeconfigError::ParseNoProxy(error) => anyhow::anyhow!(
            "NO_PROXY: {error}; write names, addresses and networks, with commas between them"
        ),
        error => error.into(),
    })?;
    kube_config.proxy_url = match own {
        Some(proxy) => Some(proxy),
        None => proxy::from_environment(&kube_config.cluster_url, variable)?,
    };
    Ok(kube_config)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::fs;

    use super::*;

    /// A kubeconfig whose credentials come from a script, which waits for the file `go` beside it, for ten
    /// seconds at most.
    fn kubeconfig(folder: &Path) -> PathBuf {
        let script = "touch begun.$$; i=0; \
             until [ -e go ] || [ $i = 200 ]; do sleep 0.05; i=$((i + 1)); done; \
             echo '{\"status\": {\"token\": \"t\"}}'";
        let kubeconfig = serde_json::json!({
            "current-context": "c",
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
            "clusters": [{ "name": "c", "cluster": { "server": "http://192.0.2.1" } }],
            "users": [{ "name": "u", "user": { "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "interactiveMode": "Never",
                "command": "sh",
                "args": ["-c", format!("cd '{}'; {script}", folder.display())],
            } } }],
        });
        let path = folder.join("kubeconfig");
        fs::write(&path, kubeconfig.to_string()).unwrap();
        path
    }

    #[tokio::test]
    async fn a_blocked_program_blocks_no_thread_and_is_not_started_twice() {
        let folder = tempfile::tempdir().unwrap();
        let patience = Duration::from_millis(300);
        let kubeconfig = Some(kubeconfig(folder.path()));
        let connector = Connector { kubeconfig, patience, making: RefCell::default() };
        for _ in 0..2 {
            let mut ticks = 0;
            let beside = async {
                loop {
                    sleep(Duration::from_millis(10)).await;
                    ticks += 1;
                }
            };
            let error = tokio::select! {
                made = connector.client() => made.err().expect("no client yet"),
                () = beside => unreachable!(),
            };
            assert!(error.is::<NoAnswer>(), "{error:#}");
            let expected = "the program \"sh\", which gets credentials, has not answered in 0 s";
            assert_eq!(format!("{error:#}"), expected);
            assert!(ticks > 5, "{ticks}");
        }
        let begun = || {
            let names =
                fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.to_string_lossy().starts_with("begun")).count()
        };
        assert_eq!(begun(), 1);
        fs::write(folder.path().join("go"), "").unwrap();
        let connector = Connector { patience: Duration::from_secs(20), ..connector };
        connector.client().await.expect("the client that was in the making");
    }
}
