//! The environment of tests against a real Kubernetes API: etcd and kube-apiserver, nothing mocked.
//!
//! # Writing a test
//!
//! A test is a function that panics if it fails, listed by [`quick`] or [`slow`] in its module's
//! `tests()`; one that is not listed is dead code, which clippy refuses. Filters, `--ignored`,
//! `--exact` and the like work as with any test.
//!
//! ```ignore
//! pub(crate) fn tests() -> Vec<Trial> {
//!     vec![quick!(a_route_is_accepted), slow!(an_outage_is_survived)]
//! }
//!
//! fn a_route_is_accepted() {
//!     let api = ApiServer::shared();
//!     let namespace = api.namespace("accepted");
//!     succeeded(api.admin().apply("apiVersion: ..."));
//!     let answer = succeeded(api.admin().kubectl(&["get", "sni", "-n", &namespace]));
//! }
//! ```
//!
//! * [`ApiServer::shared`] is one server for all tests of the binary, with the CRDs of `crds/`.
//!   Tests run at the same time, so each has namespaces of its own. A namespace is never deleted:
//!   there is no controller that would empty it.
//! * [`ApiServer::start`] gives a test its own, without CRDs, for outages and what else would
//!   disturb others. It takes about three seconds and 400 MB.
//! * [`Proxy`] is a way to an API server that can be cut, slow, silent or in trouble, for one test
//!   alone.
//! * [`Tunnel`] is a proxy that is asked for a way to it, by CONNECT or SOCKS5.
//! * [`CertManager`] is cert-manager's controllers, on an API server that a test has started for itself.
//! * [`ApiServer::service_account`] gives the kubeconfig of a user with no right but a
//!   ClusterRole's.
//!
//! # The sandbox
//!
//! The API server refuses endpoints in 127.0.0.0/8, so the tests need other addresses that are this
//! machine's. Before the first test the binary therefore runs itself again in namespaces of its own
//! ([`sandbox`]), where all of 198.18.0.0/16 and, if there is IPv6, fd00:198:18::/64 can be bound
//! and dialled. libtest has no place to do that (it runs tests on threads, and a process with
//! threads cannot enter a user namespace), which is why this binary has a `main` and libtest-mimic
//! in place of libtest.
//!
//! In the sandbox the temporary folder is a file system in memory, ports are nobody else's, `HOME`
//! is empty and no kubeconfig or proxy is in the environment. When the test binary ends, in
//! whatever way, the kernel kills every process in the sandbox and drops the network and the files
//! with it.

macro_rules! quick {
    ($test:ident) => {
        testkit::trial(module_path!(), stringify!($test), $test)
    };
}

/// A test that takes longer than about two seconds.
macro_rules! slow {
    ($test:ident) => {
        $crate::support::quick!($test).with_ignored_flag(true)
    };
}

pub(crate) use {quick, slow};

mod api_server;
mod cert_manager;
mod dns;
mod kubectl;
mod process;
mod proxy;
mod sandbox;
pub(crate) mod tunnel;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

pub(crate) use api_server::ApiServer;
pub(crate) use cert_manager::CertManager;
pub(crate) use dns::DnsServer;
pub(crate) use kubectl::{Kubeconfig, succeeded};
pub(crate) use proxy::{Mode, Proxy};
pub(crate) use testkit::{PATIENCE, within};
pub(crate) use tunnel::Tunnel;

/// Runs the tests that the arguments select, in the sandbox.
pub(crate) fn run<const N: usize>(modules: [Vec<Trial>; N]) -> ExitCode {
    let arguments = Arguments::from_args();
    let tests: Vec<Trial> = modules.into_iter().flatten().collect();
    let idle = |test| arguments.is_filtered_out(test) || arguments.is_ignored(test);
    if arguments.list || tests.iter().all(idle) || sandbox::entered() {
        libtest_mimic::run(&arguments, tests).exit_code()
    } else {
        sandbox::run()
    }
}
