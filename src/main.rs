//! The command: arguments, log, dispatch. The work is in the library.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sluice::admin::limits::LimitsQuery;
use sluice::cli::{Check, Class, Cli, Command, Explain, Run};
use sluice::config::{Config, ConfigError};
use sluice::control::translate::{Installation, OwnPlace, Plan, build};
use sluice::control::{api, files};
use sluice::logging::{self, LoggingError};
use sluice::policy::Layers;
use sluice::reach::Reach;
use sluice::routing::{RouteKey, Snapshot};
use sluice::termination::TicketKeys;
use sluice::{app, explain, routing};

/// Faults found, no route, or a failure at work.
const FAILED: u8 = 1;
/// Wrong usage or configuration; clap ends with the same.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Not locked: the access log writes there too.
    let mut out = UntilClosed(io::stdout());
    let done = dispatch(&cli.command, &mut out).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    done.unwrap_or_else(|error| {
        // Nobody is left to tell if stderr is closed or stalled.
        logging::last_line(&format!("error: {error:#}"));
        ExitCode::from(if is_misuse(&error) { MISUSED } else { FAILED })
    })
}

fn dispatch(command: &Command, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run(args),
        Command::Check(args) => check(args, out),
        Command::Explain(args) => explain(args, out),
        Command::Crds => crds(out),
    }
}

fn run(args: &Run) -> anyhow::Result<ExitCode> {
    let startup = app::Startup::new()?;
    startup.run(Config::load(&args.flags, |name| std::env::var_os(name))?)?;
    Ok(ExitCode::SUCCESS)
}

fn check(args: &Check, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    require_paths(&args.paths)?;
    let faults = files::check(&args.paths, &installation(&args.class, args.listeners.clone()));
    for fault in &faults {
        writeln!(out, "{fault}")?;
    }
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

fn explain(args: &Explain, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let name =
        explain::server_name(&args.sni).map_err(|error| Misuse(format!("--sni: {error}")))?;
    let mut fetched = None;
    let (snapshot, told, states) = match &args.admin {
        Some(url) => {
            let (report, unreadable) = app::single_threaded()?.block_on(explain::fetch(url))?;
            let (snapshot, invalid) = report.snapshot();
            unreadable.iter().chain(&invalid).for_each(warn_of);
            let states = report.states().map(|(key, at, state)| (key, at, state.to_owned()));
            let (told, states) = (report.told().collect(), states.collect());
            fetched = Some(report);
            (snapshot, told, states)
        }
        None => {
            let (snapshot, told) = offline(args)?;
            (snapshot, told, Vec::new())
        }
    };
    let query = explain::Query {
        name,
        alpn: args.alpn.clone(),
        listener: args.listener.clone(),
        source: args.source_ip,
    };
    let mut explanation = explain::explain(&explain::table(snapshot), &query);
    told.iter().for_each(|(route, message)| explanation.add_told(route, message));
    states.iter().for_each(|(route, at, state)| explanation.add_state(route, *at, state));
    if let Some(report) = &fetched {
        explanation.take_report(report);
    }
    if let Some(winner) = &explanation.winner {
        let name = query.name.as_deref();
        explanation.endpoint = routing::settled_endpoint(&winner.route, query.source, name);
        if let (Some(url), Some(source)) = (&args.admin, query.source) {
            let query = LimitsQuery { route: winner.route.spec.key.clone(), source };
            let report = app::single_threaded()?.block_on(explain::fetch_limits(url, &query))?;
            explanation.exceeded = report.unwrap_or_default().exceeded;
        }
    }
    writeln!(out, "{explanation}")?;
    Ok(if explanation.found() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// What an installation with every listener that the routes name would serve, and what their
/// conditions would say.
fn offline(args: &Explain) -> anyhow::Result<(Snapshot, Vec<(RouteKey, String)>)> {
    require_paths(&args.routes)?;
    let loaded = files::load(&args.routes);
    loaded.faults.iter().for_each(warn_of);
    let named = loaded.resources.routes.iter().flat_map(|route| &route.spec.listeners);
    let listeners = named.map(ToString::to_string).chain(args.listener.clone()).collect();
    let Plan { snapshot, statuses, .. } =
        build(&loaded.resources, &installation(&args.class, listeners));
    let told = statuses.into_iter().flat_map(|status| {
        status
            .conditions
            .map(|condition| (RouteKey::of_rule(status.object.clone(), 0), condition.message))
    });
    Ok((snapshot, told.collect()))
}

/// Says that a fault makes the answer incomplete.
fn warn_of(fault: &impl Display) {
    // If stderr is closed, nobody reads it.
    let _ = writeln!(io::stderr(), "warning: left out: {fault}");
}

fn crds(out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    out.write_all(api::crds().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn installation(class: &Class, listeners: Vec<String>) -> Installation {
    Installation {
        class: class.class.clone(),
        require_class: class.require_class,
        layers: Layers::default(),
        listeners,
        reach: Reach { local_addresses: true, ..Reach::default() },
        machine: vec![],
        place: OwnPlace::default(),
        own_services: vec![],
        tcp_listeners: vec![],
        hostnames_below: class.hostnames_below,
        // Certificates are checked whether or not the installation terminates TLS.
        termination: Some(TicketKeys::default()),
    }
}

/// A path that is not there is more likely a slip of the hand than a fault of the manifests.
fn require_paths(paths: &[PathBuf]) -> Result<(), Misuse> {
    match paths.iter().find(|path| !path.exists()) {
        Some(path) => Err(Misuse(format!("{} does not exist", path.display()))),
        None => Ok(()),
    }
}

/// The command was given something that it cannot be given.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misuse(String);

fn is_misuse(error: &anyhow::Error) -> bool {
    let filter = |error: &LoggingError| matches!(error, LoggingError::Filter { .. });
    error.is::<ConfigError>() || error.downcast_ref().is_some_and(filter) || error.is::<Misuse>()
}

/// Drops what is written after the reader has gone: `sluice crds | head -1` is no failure.
struct UntilClosed<W>(W);

impl<W: Write> Write for UntilClosed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Failing(io::ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn only_a_closed_pipe_is_no_failure() {
        let mut closed = UntilClosed(Failing(io::ErrorKind::BrokenPipe));
        closed.write_all(b"text").unwrap();
        closed.flush().unwrap();
        let mut full = UntilClosed(Failing(io::ErrorKind::StorageFull));
        assert!(full.write_all(b"text").is_err());
        assert!(full.flush().is_err());
    }
}
