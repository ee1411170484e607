//! `claims schemas`: this build's schemas and the registry.

use crate::{exit::FOUND, output};
use claims_topology::{
    Config,
    registry::{self, COMPATIBILITY, Compatibility, SubjectCheck},
};
use serde_json::{Value, json};
use std::process::ExitCode;

/// Check, register or show this build's schemas
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Schemas are registered under <topic>-value with compatibility BACKWARD_TRANSITIVE: a new one must read everything \
written before.

Examples:
  claims schemas check
  claims schemas register
  claims schemas show --registered")]
pub struct SchemasArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Say whether this build's schemas are registered, and if not whether they could be; exit code 3 if not
    Check {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Register this build's schemas and set their subjects' compatibility
    Register {
        /// Print the ids as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print this build's schemas
    Show {
        /// Print the registry's latest versions instead
        #[arg(long)]
        registered: bool,
    },
}

/// Runs the command.
pub async fn run(args: SchemasArgs, config: &Config) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Check { json } => check(config, json).await,
        Action::Register { json } => register(config, json).await,
        Action::Show { registered } => show(config, registered).await,
    }
}

async fn check(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let checks = registry::check(config).await?;
    let in_order = checks.iter().all(SubjectCheck::is_in_order);
    if json {
        output::json(&json!({ "in_order": in_order, "subjects": checks }))?;
    } else {
        for check in &checks {
            output::line(check_text(check))?;
        }
    }
    Ok(ExitCode::from(if in_order { 0 } else { FOUND }))
}

fn check_text(check: &SubjectCheck) -> String {
    let mut text = format!("{}: ", check.subject);
    match &check.compatibility {
        Compatibility::Registered { id, version } => {
            text.push_str(&format!("registered as version {version}, id {id}"));
        }
        Compatibility::Registrable => {
            text.push_str("not registered, and can be: `claims schemas register`");
        }
        Compatibility::Incompatible { differences } => {
            text.push_str("not registered, and can't be: it would not read what was written before");
            for difference in differences {
                text.push_str(&format!("\n  {difference}"));
            }
        }
    }
    match check.compatibility_level.as_deref() {
        Some(COMPATIBILITY) => {}
        Some(level) => text.push_str(&format!("\n  compatibility is {level}, should be {COMPATIBILITY}")),
        None if check.latest_version.is_some() => {
            text.push_str(&format!("\n  compatibility is not set, should be {COMPATIBILITY}"));
        }
        None => {}
    }
    text
}

async fn register(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    registry::ensure_registered(config).await?;
    // What is said is what the registry says now.
    let checks = registry::check(config).await?;
    if json {
        output::json(&checks)?;
    } else {
        for check in &checks {
            output::line(check_text(check))?;
        }
    }
    Ok(ExitCode::from(if checks.iter().all(SubjectCheck::is_in_order) { 0 } else { FOUND }))
}

async fn show(config: &Config, registered: bool) -> anyhow::Result<ExitCode> {
    let schemas: Vec<(String, Option<String>)> = if registered {
        registry::describe(config).await?
    } else {
        let ours = registry::our_schemas(config).into_iter();
        ours.map(|ours| (ours.subject, Some(ours.schema.to_owned()))).collect()
    };
    let mut object = serde_json::Map::new();
    for (subject, schema) in schemas {
        let schema = schema.as_deref().map(serde_json::from_str::<Value>).transpose()?;
        object.insert(subject, schema.unwrap_or(Value::Null));
    }
    output::json(&object)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_in_words() {
        let check = |compatibility, level: Option<&str>, latest_version| SubjectCheck {
            subject: "claims.events.v1-value".into(),
            compatibility,
            compatibility_level: level.map(str::to_owned),
            latest_version,
        };
        let texts = [
            check(Compatibility::Registered { id: 7, version: 2 }, Some(COMPATIBILITY), Some(2)),
            check(Compatibility::Registered { id: 7, version: 2 }, Some("NONE"), Some(2)),
            check(Compatibility::Registrable, None, None),
            check(
                Compatibility::Incompatible { differences: vec!["customer_id at /fields/3".into()] },
                None,
                Some(4),
            ),
        ]
        .map(|check| check_text(&check));
        insta::assert_snapshot!(texts.join("\n"));
    }
}
