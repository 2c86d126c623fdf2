//! The table of settings: the one place that says each setting's name, meaning, syntax and default.
//!
//! A setting's name is its path in the configuration file, `drain.delay`; the flag `--drain-delay`
//! and the environment variable `SLUICE_DRAIN_DELAY` are made from it.

use super::listen;
use super::setting::{Setting, many, object, one, switch};
use super::values::{
    access_log, boolean, checks_per_second, class, dns_server, duration, duration_unless_zero,
    existing_path, folder, hostnames_below, lease, lease_duration, log_format, log_level,
    max_hello, max_hellos, namespace, network, own_service, place, source, store, store_each,
    store_policy, ticket_keys, timeout, when_full, workers, zero_or_duration,
};
use crate::duration::display;
use crate::policy::{Layers, Policy, Timeout, built_in};

/// The setting that only flags and environment have: which file the others are in.
pub(super) const FILE: &str = "config";

/// What [`FILE`] is.
pub(super) const FILE_HELP: &str = "The configuration file: YAML, each setting by its name";

/// All settings but [`FILE`], in the order of the help and the log.
pub(super) const SETTINGS: &[Setting] = &[
    one(
        "source",
        "SOURCE",
        "The source of routes, kubernetes or files; by default files if routes are given, else \
         kubernetes inside a cluster or with a kubeconfig",
        |config, given| store(&mut config.source, given, source),
        |config| config.source.as_str().to_owned(),
    ),
    one(
        "kubeconfig",
        "FILE",
        "The kubeconfig for the API server, outside a cluster",
        |config, given| store(&mut config.kubeconfig, given, |text| existing_path(text).map(Some)),
        |config| config.kubeconfig.iter().map(|path| path.display().to_string()).collect(),
    )
    .beaten_by("KUBECONFIG"),
    many(
        "namespaces",
        "NAMESPACE",
        "A namespace that is watched; all if none is given; repeatable",
        |config, given| store_each(&mut config.namespaces, given, namespace),
        |config| commas(config.namespaces.iter()),
    ),
    one(
        "stateDir",
        "DIR",
        "A folder for the saved table, which sluice serves if it starts while the API server is \
         away",
        |config, given| store(&mut config.state_dir, given, |text| folder(text).map(Some)),
        |config| config.state_dir.iter().map(|path| path.display().to_string()).collect(),
    ),
    many(
        "dns.servers",
        "ADDRESS[:PORT]",
        "A DNS server for the names of backends; by default those of /etc/resolv.conf; repeatable",
        |config, given| store_each(&mut config.dns_servers, given, dns_server),
        |config| commas(config.dns_servers.iter()),
    ),
    many(
        "addresses.allow",
        "NETWORK",
        "A network that the addresses of backends may be in, such as 10.0.0.0/8; any if none is \
         given; repeatable",
        |config, given| store_each(&mut config.addresses.allow, given, network),
        |config| commas(config.addresses.allow.iter()),
    ),
    many(
        "addresses.deny",
        "NETWORK",
        "A network that they must not be in, even if it is allowed; repeatable",
        |config, given| store_each(&mut config.addresses.deny, given, network),
        |config| commas(config.addresses.deny.iter()),
    ),
    many(
        "ownServices",
        "NAMESPACE/NAME",
        "A Service that leads to this installation, to which no route may lead; repeatable",
        |config, given| store_each(&mut config.own_services, given, own_service),
        |config| commas(config.own_services.iter()),
    ),
    one(
        "node",
        "NAME",
        "The node that this process runs on: endpoints that are meant for it come first",
        |config, given| store(&mut config.node, given, |text| place(text).map(Some)),
        |config| config.node.clone().unwrap_or_default(),
    ),
    one(
        "zone",
        "NAME",
        "The zone that this process runs in: endpoints that are meant for it come next",
        |config, given| store(&mut config.zone, given, |text| place(text).map(Some)),
        |config| config.zone.clone().unwrap_or_default(),
    ),
    many(
        "routes",
        "PATH",
        "A file, or a folder without its sub-folders, of SniRoute, Service and EndpointSlice \
         manifests; repeatable",
        |config, given| store_each(&mut config.routes, given, existing_path),
        |config| commas(config.routes.iter().map(|path| path.display())),
    ),
    many(
        "listen",
        "[NAME=][tls://|tcp://]ADDRESS:PORT",
        "An address for clients; [::] is IPv6 only; routes refer to NAME, by default https; repeatable",
        |config, given| {
            config.listeners = listen::parse(given)?;
            Ok(())
        },
        |config| commas(config.listeners.iter()),
    ),
    one(
        "admin",
        "ADDRESS:PORT",
        "The address of the admin port: metrics, probes and the active routes",
        |config, given| store(&mut config.admin, given, listen::parse_address),
        |config| config.admin.to_string(),
    ),
    one(
        "class",
        "CLASS",
        "The class of this installation: it serves the routes with this className",
        |config, given| store(&mut config.class, given, class),
        |config| config.class.clone(),
    ),
    switch(
        "requireClass",
        "Ignore routes without a class",
        |config, given| store(&mut config.require_class, given, boolean),
        |config| config.require_class.to_string(),
    ),
    one(
        "hostnames.below",
        "Owner|Anyone",
        "Which namespaces may claim hostnames below a wildcard: only its owner, or anyone",
        |config, given| store(&mut config.hostnames_below, given, hostnames_below),
        |config| config.hostnames_below.as_str().to_owned(),
    ),
    switch(
        "writeStatus",
        "Write the status of routes, and Events on them, to the API server",
        |config, given| store(&mut config.write_status, given, boolean),
        |config| config.write_status.to_string(),
    ),
    one(
        "lease",
        "[NAMESPACE/]NAME",
        "The Lease of the replica that writes; by default sluice-CLASS in the replica's namespace",
        |config, given| store(&mut config.lease, given, |text| lease(text).map(Some)),
        |config| config.lease.iter().map(ToString::to_string).collect(),
    ),
    one(
        "leaseDuration",
        "DURATION",
        "How long a replica that has ended abruptly keeps that Lease, 1s to 1h",
        |config, given| store(&mut config.lease_duration, given, lease_duration),
        |config| display(config.lease_duration).to_string(),
    ),
    switch(
        "terminate",
        "Let routes serve TLS (tls.mode: Terminate), with certificates and keys from Secrets",
        |config, given| store(&mut config.terminate, given, boolean),
        |config| config.terminate.to_string(),
    ),
    switch(
        "resumption",
        "Let clients of such routes resume TLS sessions, by tickets",
        |config, given| store(&mut config.resumption, given, boolean),
        |config| config.resumption.to_string(),
    ),
    one(
        "ticketKeys",
        "[NAMESPACE/]NAME",
        "The Secret with the keys of these tickets, which the replicas share; without it, each has its \
         own",
        |config, given| store(&mut config.ticket_keys, given, ticket_keys),
        |config| config.ticket_keys.iter().map(ToString::to_string).collect(),
    ),
    one(
        "workers",
        "NUMBER",
        "Threads of the data plane, 1 to 1024; by default one for each CPU",
        |config, given| store(&mut config.workers, given, workers),
        |config| config.workers.to_string(),
    ),
    object(
        "policy",
        |config, given| {
            store_policy(&mut config.policy, given)?;
            config.policy.health.check().map_err(|fault| format!("health.{fault}").into())
        },
        |config| policy_text(&config.policy),
    ),
    object(
        "policyCeiling",
        |config, given| {
            store_policy(&mut config.policy_ceiling, given)?;
            Layers::check_ceiling(&config.policy_ceiling).map_err(|error| error.to_string().into())
        },
        |config| policy_text(&config.policy_ceiling),
    ),
    one(
        "timeouts.hello",
        "DURATION",
        "How long a client may take to send its ClientHello",
        |config, given| store(&mut config.timeouts.hello, given, duration),
        |config| display(config.timeouts.hello).to_string(),
    ),
    one(
        "timeouts.handshake",
        "DURATION",
        "How long a client may take for the TLS handshake with a route that terminates TLS",
        |config, given| store(&mut config.timeouts.handshake, given, duration),
        |config| display(config.timeouts.handshake).to_string(),
    ),
    one(
        "timeouts.connect",
        "DURATION",
        "How long one attempt to connect to one endpoint may take",
        |config, given| store(&mut config.policy.timeouts.connect, given, timeout),
        |config| shown(config.policy.timeouts.connect, built_in().timeouts.connect),
    ),
    one(
        "timeouts.idle",
        "DURATION",
        "How long a connection may go without a byte in either direction",
        |config, given| store(&mut config.policy.timeouts.idle, given, timeout),
        |config| shown(config.policy.timeouts.idle, built_in().timeouts.idle),
    ),
    one(
        "timeouts.stall",
        "DURATION",
        "How long a client may acknowledge less than 64 KiB while data waits for it; 0s is for ever",
        |config, given| store(&mut config.timeouts.stall, given, duration_unless_zero),
        |config| display(config.timeouts.stall.unwrap_or_default()).to_string(),
    ),
    one(
        "timeouts.max",
        "DURATION",
        "The maximum of a route's own timeouts; 0s is no limit",
        |config, given| store(&mut config.timeouts.max, given, duration_unless_zero),
        |config| display(config.timeouts.max.unwrap_or_default()).to_string(),
    ),
    one(
        "maxHello",
        "BYTES",
        "The largest ClientHello, 512 to 65536 bytes",
        |config, given| store(&mut config.max_hello, given, max_hello),
        |config| config.max_hello.to_string(),
    ),
    one(
        "maxHellos",
        "NUMBER",
        "How many connections may have an incomplete ClientHello, and how many an incomplete TLS \
         handshake; 0 is a quarter of all",
        |config, given| store(&mut config.max_hellos, given, max_hellos),
        |config| config.max_hellos.unwrap_or_default().to_string(),
    ),
    one(
        "healthChecks.perSecond",
        "NUMBER",
        "How many active health checks may begin in a second, 1 to 10000",
        |config, given| store(&mut config.checks_per_second, given, checks_per_second),
        |config| config.checks_per_second.to_string(),
    ),
    one(
        "whenFull",
        "Fair|Refuse",
        "A new client when the process is full: takes the place of the idlest connection of the \
         client that has most, or is refused",
        |config, given| store(&mut config.when_full, given, when_full),
        |config| config.when_full.as_str().to_owned(),
    ),
    one(
        "drain.delay",
        "DURATION",
        "How long after SIGTERM new connections are still accepted",
        |config, given| store(&mut config.drain.delay, given, zero_or_duration),
        |config| display(config.drain.delay).to_string(),
    ),
    one(
        "drain.timeout",
        "DURATION",
        "How long connections may take to end after that, before they are reset",
        |config, given| store(&mut config.drain.timeout, given, zero_or_duration),
        |config| display(config.drain.timeout).to_string(),
    ),
    one(
        "accessLog",
        "off|errors|all",
        "The connections in the access log",
        |config, given| store(&mut config.access_log, given, access_log),
        |config| config.access_log.as_str().to_owned(),
    ),
    switch(
        "accessLogStart",
        "Write a line to the access log also when the upstream is connected",
        |config, given| store(&mut config.access_log_start, given, boolean),
        |config| config.access_log_start.to_string(),
    ),
    one(
        "log.level",
        "FILTER",
        "What is logged: off, error, warn, info, debug, trace, or TARGET=LEVEL, with commas",
        |config, given| store(&mut config.log.level, given, log_level),
        |config| config.log.level.clone(),
    )
    // The common variable of Rust programs, which an operator tries first.
    .beaten_by("RUST_LOG"),
    one(
        "log.format",
        "auto|json|text",
        "The form of a log line; auto is text on a terminal, JSON elsewhere",
        |config, given| store(&mut config.log.format, given, log_format),
        |config| config.log.format.as_str().to_owned(),
    ),
];

fn shown(given: Option<Timeout>, default: Option<Timeout>) -> String {
    given.or(default).map(|timeout| timeout.to_string()).unwrap_or_default()
}

fn policy_text(policy: &Policy) -> String {
    match *policy == Policy::default() {
        true => String::new(),
        false => {
            // Lists of thousands of networks are no matter of the log.
            let without = Policy { access: None, ..policy.clone() };
            let text = serde_json::to_string(&without).unwrap_or_default();
            policy.access.iter().fold(text, |text, access| format!("{text} access: {access}"))
        }
    }
}

fn commas(items: impl Iterator<Item = impl ToString>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::setting::variable;

    /// For a Service `sluice` or `sluice-admin`, Kubernetes puts `SLUICE_SERVICE_HOST`,
    /// `SLUICE_PORT`, `SLUICE_PORT_8443_TCP_ADDR`, `SLUICE_ADMIN_PORT` and the like into every pod.
    #[test]
    fn no_variable_is_one_that_kubernetes_sets_for_a_service() {
        for name in SETTINGS.iter().map(|setting| setting.name).chain([FILE]) {
            let variable = variable(name) + "_";
            assert!(!variable.contains("_PORT_") && !variable.contains("_SERVICE_"), "{variable}");
        }
    }
}
