//! The command: arguments, log, dispatch. The work is in the library.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use sluice::cli::{Check, Cli, Command, Explain, Run};
use sluice::config::{Config, ConfigError};
use sluice::logging::{self, LoggingError};

/// Faults found, no route, or a failure at work.
const FAILED: u8 = 1;
/// Wrong usage or configuration; clap ends with the same.
const MISUSED: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = UntilClosed(io::stdout().lock());
    let done = dispatch(&cli.command, &mut out).and_then(|code| {
        out.flush()?;
        Ok(code)
    });
    done.unwrap_or_else(|error| {
        // Nobody is left to tell if stderr is closed; eprintln would panic.
        let _ = writeln!(io::stderr(), "error: {error:#}");
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
    let config = Config::load(&args.flags, |name| std::env::var_os(name))?;
    logging::init(&config.log)?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        config = config.in_force(),
        "the configuration in force"
    );
    anyhow::bail!("this build cannot run")
}

fn check(_args: &Check, _out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this build cannot check")
}

fn explain(_args: &Explain, _out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this build cannot explain")
}

fn crds(_out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    anyhow::bail!("this build has no custom resource definitions")
}

fn is_misuse(error: &anyhow::Error) -> bool {
    error.is::<ConfigError>() || error.is::<LoggingError>()
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
