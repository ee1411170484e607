//! `claims config`: the configuration that holds.

use crate::output;
use claims_topology::Config;
use std::{path::Path, process::ExitCode};

/// Check or show the configuration that holds
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Secrets are shown as ***. An unknown key or a value that can't be used ends any command with exit code 2.

Examples:
  claims config check --config /etc/claims.toml
  claims config show
  claims config show --json | jq .kafka
  CLAIMS_TOPICS__PARTITIONS=12 claims config show")]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Read the configuration from all its places and say whether it can be used
    Check,
    /// Print the configuration that holds, as TOML
    Show {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command; that there is a configuration means that it can be used.
pub fn run(args: &ConfigArgs, config: &Config, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Check => match file {
            Some(file) => output::line(format_args!("{}: fine", file.display()))?,
            None => output::line("no configuration file; defaults and environment: fine")?,
        },
        Action::Show { json: true } => output::json(config)?,
        Action::Show { json: false } => {
            match file {
                Some(file) => output::line(format_args!("# with {}", file.display()))?,
                None => output::line("# without a configuration file")?,
            }
            output::line(toml::to_string(config)?.trim_end())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
