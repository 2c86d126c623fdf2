//! Namespaces of the test binary's own: network, processes, mounts, and users unless it is root's.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// An address of the sandbox, and the networks that are local in it.
pub(super) const ADDRESS: &str = "198.18.0.1";
const NETWORK: &str = "198.18.0.0/16";
const NETWORK_V6: &str = "fd00:198:18::/64";

/// Set inside, to the temporary folder.
const MARK: &str = "SLUICE_TEST_SANDBOX";

/// The folder of Gateway API's CRDs.
pub(super) const GATEWAY_CRDS: &str = "SLUICE_TEST_GATEWAY_CRDS";

/// The folder of cert-manager's program and CRDs; not set where they are not built.
pub(super) const CERT_MANAGER: &str = "SLUICE_TEST_CERT_MANAGER";

/// What would lead a client out of the sandbox, or to somebody's real cluster.
const LEADING_OUT: &[&str] = &[
    "KUBECONFIG",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
];

/// Runs this binary again, with the same arguments, in a sandbox.
///
/// Whoever kills this process kills that one (`--pdeathsig`), and with it, as it is the first of
/// its process namespace, whatever has been started there.
pub(super) fn run() -> ExitCode {
    let (Some(assets), Some(gateway)) = (found("kube.sh", "find"), found("kube.sh", "gateway"))
    else {
        return ExitCode::FAILURE;
    };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sandbox");
    fs::create_dir_all(&folder).expect("a folder to mount on");

    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "unshare", "--net", "--pid", "--kill-child"]);
    command.arg("--mount-proc");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--").arg(env::current_exe().expect("its own path")).args(env::args_os().skip(1));
    for variable in LEADING_OUT {
        command.env_remove(variable);
    }
    command.env(MARK, &folder).env("TMPDIR", &folder).env("HOME", &folder);
    command.env("KUBEBUILDER_ASSETS", assets).env(GATEWAY_CRDS, gateway);

    // Few tests need it, and they are slow.
    if let Some(folder) = found("cert-manager.sh", "find") {
        command.env(CERT_MANAGER, folder);
    }

    let status = command.status().expect("setpriv, of util-linux, runs");
    match status.code() {
        Some(0) => ExitCode::SUCCESS,
        // Tests failed, or what sets the sandbox up, and have said so.
        Some(101) => ExitCode::from(101),
        _ => {
            eprintln!(
                "the sandbox ended, {status}; it takes root, or user namespaces that any user may \
                 make"
            );
            ExitCode::FAILURE
        }
    }
}

/// Whether this process is in the sandbox: then it is the first one there, and sets it up.
pub(super) fn entered() -> bool {
    let Some(folder) = env::var_os(MARK).filter(|_| std::process::id() == 1) else { return false };
    set_up(&["mount", "-t", "tmpfs", "-o", "mode=0700", "sandbox"], Some(&folder.into()));
    set_up(&["ip", "link", "set", "lo", "up"], None);
    set_up(&["ip", "address", "add", &format!("{ADDRESS}/32"), "dev", "lo"], None);
    set_up(&["ip", "route", "add", "local", NETWORK, "dev", "lo"], None);
    // Of IPv6, unlike IPv4, a route alone lets nobody bind. It may be switched off altogether.
    if fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").is_ok() {
        set_up(&["ip", "-6", "route", "add", "local", NETWORK_V6, "dev", "lo"], None);
    }
    true
}

fn set_up(line: &[&str], last: Option<&PathBuf>) {
    let status = Command::new(line[0]).args(&line[1..]).args(last).status();
    assert!(status.as_ref().is_ok_and(|status| status.success()), "{line:?}: {status:?}");
}

/// A folder that the environment provides, or nothing after it has been said what to do.
fn found(script: &str, what: &str) -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/env").join(script);
    let output = Command::new(&script).arg(what).stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    let folder = String::from_utf8(output.stdout).expect("UTF-8");
    output.status.success().then(|| PathBuf::from(folder.trim_end()))
}
