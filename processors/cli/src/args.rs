//! What can be said on the command line.

use crate::commands::{
    audit::AuditArgs, completions::CompletionsArgs, config::ConfigArgs, dead_letters::DeadLettersArgs,
    generate::GenerateArgs, ingest::IngestArgs, lag::LagArgs, replay::ReplayArgs, run::RunArgs,
    schemas::SchemasArgs, tail::TailArgs, topics::TopicsArgs, topology::TopologyArgs, verify::VerifyArgs,
};
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Claim events into Kafka, and from there into views: current state, analytics, audit trail.
#[derive(Debug, Parser)]
#[command(
    name = "claims",
    version,
    max_term_width = 110,
    after_help = "\
Exit codes:
  0  done, nothing to report
  1  failed; the message says what, where, and what to do
  2  wrong usage, or a configuration that can't be used
  3  done, and something was found: topics or schemas that differ, a broken trail, too much lag

Configuration, later ones win: defaults; claims.toml (or --config); CLAIMS_<SECTION>__<KEY>, such as \
CLAIMS_KAFKA__BOOTSTRAP_SERVERS; --set section.key=value. `claims config show` prints the result.

Examples:
  claims topics apply && claims schemas register
  claims generate --events 200000
  claims run all
  claims lag --watch"
)]
pub struct Args {
    /// Configuration file (default: ./claims.toml if it is there)
    #[arg(long, global = true, value_name = "FILE", env = "CLAIMS_CONFIG", hide_env_values = true)]
    pub config: Option<PathBuf>,

    /// One setting, such as kafka.bootstrap_servers=broker:9092; may be given more than once
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
#[allow(missing_docs, clippy::large_enum_variant)]
pub enum Command {
    Run(RunArgs),
    Ingest(IngestArgs),
    Generate(GenerateArgs),
    Topics(TopicsArgs),
    Schemas(SchemasArgs),
    Topology(TopologyArgs),
    Replay(ReplayArgs),
    Lag(LagArgs),
    Tail(TailArgs),
    Audit(AuditArgs),
    DeadLetters(DeadLettersArgs),
    Verify(VerifyArgs),
    Config(ConfigArgs),
    Completions(CompletionsArgs),
}

impl Command {
    /// Whether it runs until it is stopped, so that its log is what one reads of it.
    pub fn is_service(&self) -> bool {
        matches!(self, Command::Run(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn help_of_every_command() {
        // The snapshot must not depend on the terminal.
        let mut command = Args::command().term_width(100);
        command.build();
        insta::assert_snapshot!("help", command.render_long_help());
        for name in [
            "run",
            "topics",
            "schemas",
            "topology",
            "replay",
            "lag",
            "tail",
            "dead-letters",
            "verify",
            "config",
        ] {
            let help = command.find_subcommand_mut(name).unwrap().render_long_help();
            insta::assert_snapshot!(format!("help-{name}"), help);
        }
    }
}
