//! The settings: three layers, one name, and errors that say where and what.

mod faults;
mod layers;
mod settings;

use std::ffi::OsString;

use clap::Parser;
use sluice::cli::{Cli, Command};
use sluice::config::{Config, ConfigError};

/// Loads with a configuration file `sluice.yaml` and, unless a layer has some, routes; or with
/// Kubernetes, if a layer has what only that takes.
fn load(file: &str, variables: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
    let given =
        file.contains("routes:") || variables.iter().any(|(name, _)| *name == "SLUICE_ROUTES");
    let mut flags: Vec<_> = flags.to_vec();
    if file.contains("stateDir:")
        || variables.iter().any(|(name, _)| *name == "SLUICE_STATE_DIR")
        || flags.contains(&"--state-dir")
    {
        flags.extend(["--source", "kubernetes"]);
    } else if !given && !flags.contains(&"--routes") {
        flags.extend(["--routes", "src"]);
    }
    load_alone(file, variables, &flags)
}

/// [`load`], with no routes but those that are given.
fn load_alone(
    file: &str,
    variables: &[(&str, &str)],
    flags: &[&str],
) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sluice.yaml");
    std::fs::write(&path, file).unwrap();
    let flags = [flags, &["--config", path.to_str().unwrap()]].concat();
    parse(variables, &flags).map_err(|error| without_folder(error, folder.path()))
}

fn parse(variables: &[(&str, &str)], flags: &[&str]) -> Result<Config, ConfigError> {
    let arguments = ["sluice", "run"].iter().chain(flags);
    let Command::Run(run) = Cli::try_parse_from(arguments).unwrap().command else { unreachable!() };
    let variable = |name: &str| {
        let found = variables.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| OsString::from(value))
    };
    Config::load(&run.flags, variable)
}

fn without_folder(error: ConfigError, folder: &std::path::Path) -> ConfigError {
    match error {
        ConfigError::Invalid { place, message } => {
            let folder = format!("{}/", folder.display());
            ConfigError::Invalid { place: place.replace(&folder, ""), message }
        }
        other => other,
    }
}

fn fault(loaded: Result<Config, ConfigError>) -> String {
    loaded.unwrap_err().to_string()
}
