//! The command line. The settings of `run` are made from their table in [`crate::config`].

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::config::{self, Flags};
use crate::routing::HostnamesBelow;

const EXAMPLES: &str = "\
Exit codes: 0 done; 1 faults found, no route, or a failure at work; 2 wrong usage or configuration.

Examples:
  sluice run --source files --routes ./routes
  sluice check ./routes
  sluice explain --sni kafka.example.com --routes ./routes
  sluice crds | kubectl apply -f -";

const RUN_NOTES: &str = "\
Every setting has one name: --drain-delay, SLUICE_DRAIN_DELAY, and drain: {delay: 5s} in the file.
Flags beat environment beats file. RUST_LOG beats SLUICE_LOG_LEVEL, and --log-level beats both.
A variable takes a list with commas. Durations are written 500ms, 5s, 1h30m.
In the file, listen: also takes objects: {name: https, address: '0.0.0.0:8443', protocol: tls,
alerts: true}; alerts tell a refused client why, in TLS, before its connection is closed.";

/// Routes TLS connections by server name: passes them on unopened, or serves the TLS itself where a
/// route says so.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve: route connections until SIGTERM
    #[command(after_help = RUN_NOTES)]
    Run(Run),
    /// Validate manifests, offline: one line for each fault
    Check(Check),
    /// Say which route a connection takes, and why
    Explain(Explain),
    /// Print the custom resource definitions
    Crds,
}

/// `sluice run`.
#[derive(Args, Debug)]
pub struct Run {
    /// The settings that were given as flags.
    #[command(flatten)]
    pub flags: Flags,
}

/// `sluice check`.
#[derive(Args, Debug)]
pub struct Check {
    /// Files and folders of manifests
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// The class of the installation that is to serve them.
    #[command(flatten)]
    pub class: Class,
    /// A listener of that installation; repeatable
    #[arg(long = "listener", value_name = "NAME", default_value = "https")]
    pub listeners: Vec<String>,
}

/// `sluice explain`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("table").args(["routes", "admin"]).required(true)))]
pub struct Explain {
    /// The server name that the client sends; empty if it sends none
    #[arg(long, value_name = "NAME")]
    pub sni: String,
    /// A protocol that the client offers; repeatable
    #[arg(long, value_name = "PROTOCOL")]
    pub alpn: Vec<String>,
    /// The client's address
    #[arg(long, value_name = "IP")]
    pub source_ip: Option<IpAddr>,
    /// The name of the listener that it connects to; without it, the answers of all
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// The class of the installation. Only with `routes`.
    #[command(flatten)]
    pub class: Class,
    /// Files and folders of manifests, to answer from offline
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub routes: Vec<PathBuf>,
    /// The admin port of a running sluice, to answer from what it serves, e.g.
    /// http://127.0.0.1:9901
    #[arg(long, value_name = "URL", conflicts_with_all = ["class", "require_class", "hostnames_below"])]
    pub admin: Option<String>,
}

/// Which routes an installation serves.
#[derive(Args, Debug)]
pub struct Class {
    /// The class of the installation: it serves the routes whose className is this
    #[arg(long, value_name = "CLASS", default_value = "sluice")]
    pub class: String,
    /// It leaves routes alone that name no class
    #[arg(long)]
    pub require_class: bool,
    /// Who may claim hostnames below another namespace's wildcard there
    #[arg(
        long,
        value_name = "Owner|Anyone",
        default_value = "Anyone",
        value_parser = config::hostnames_below
    )]
    pub hostnames_below: HostnamesBelow,
}
