//! `claims topics`: the topics as specified, and as the broker has them.

use crate::{exit::FOUND, output};
use claims_topology::{
    Config,
    topics::{self, Change, ObservedTopic, Plan, TopicPlan, TopicSpec, plan::PARTITIONS_REFUSED},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, process::ExitCode};

/// Compare, make or describe the topics
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Missing topics are made. Settings that differ are shown, and changed only with `apply --yes`. A partition count is \
never changed: it would break the order of a claim's events.

Examples:
  claims topics plan
  claims topics apply
  claims topics apply --yes
  claims topics describe --json")]
pub struct TopicsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show what differs from the specs; exit code 3 if anything does
    Plan {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make missing topics; exit code 3 if settings are left different
    Apply {
        /// Also set drifted settings as specified
        #[arg(long)]
        yes: bool,
        /// Print what was done as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the topics as the broker has them, beside the specs
    Describe {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub async fn run(args: TopicsArgs, config: &Config) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Plan { json } => plan(config, json).await,
        Action::Apply { yes, json } => apply(config, yes, json).await,
        Action::Describe { json } => describe(config, json).await,
    }
}

async fn plan(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let plan = topics::plan_for(config).await?;
    if json {
        output::json(&plan_json(&plan))?;
    } else {
        output::line(plan_text(&plan))?;
    }
    Ok(ExitCode::from(if plan.is_in_order() { 0 } else { FOUND }))
}

async fn apply(config: &Config, yes: bool, json: bool) -> anyhow::Result<ExitCode> {
    let applied = topics::apply(config, yes).await?;
    if json {
        output::json(&applied)?;
    } else {
        for topic in &applied.created {
            output::line(format_args!("{topic}: created"))?;
        }
        for (topic, keys) in &applied.altered {
            output::line(format_args!("{topic}: changed {}", keys.join(", ")))?;
        }
        for topic in &applied.left_drifted {
            output::line(format_args!(
                "{topic}: settings differ and are left as they are; see `claims topics plan`, change with `claims topics apply --yes`"
            ))?;
        }
        if applied == topics::Applied::default() {
            output::line("all topics are as specified")?;
        }
    }
    Ok(ExitCode::from(if applied.left_drifted.is_empty() { 0 } else { FOUND }))
}

async fn describe(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let specs = topics::specs(&config.topics);
    let observed = topics::observe(config).await?;
    if json {
        let topics: Vec<_> = specs.iter().map(|spec| describe_json(spec, observed.get(&spec.name))).collect();
        output::json(&topics)?;
    } else {
        output::line(describe_text(&specs, &observed))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn plan_text(plan: &Plan) -> String {
    let mut lines = Vec::new();
    for (spec, what) in &plan.topics {
        match what {
            TopicPlan::Create => lines.push(format!(
                "{}: missing; `claims topics apply` makes it with {} and {}",
                spec.name,
                counted(spec.partitions, "partition", "partitions"),
                counted(spec.replication_factor, "copy", "copies")
            )),
            TopicPlan::Compare { changes } if changes.is_empty() => {
                lines.push(format!("{}: as specified", spec.name));
            }
            TopicPlan::Compare { changes } => {
                lines.push(format!("{}: differs", spec.name));
                lines.extend(changes.iter().map(|change| format!("  {}", change_text(change))));
            }
        }
    }
    if plan.drifted().next().is_some() {
        lines.push("settings are changed by `claims topics apply --yes` only".to_owned());
    }
    lines.join("\n")
}

fn change_text(change: &Change) -> String {
    match change {
        Change::Setting { key, wanted, actual } => {
            format!("{key}: wanted {wanted}, is {}", actual.as_deref().unwrap_or("not known to the broker"))
        }
        Change::Partitions { wanted, actual } => {
            format!("partitions: wanted {wanted}, is {actual}; refused: {PARTITIONS_REFUSED}")
        }
        Change::ReplicationFactor { wanted, actual } => {
            format!("copies: wanted {wanted}, is {actual}; change them with kafka-reassign-partitions")
        }
    }
}

fn counted(count: i32, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn plan_json(plan: &Plan) -> Value {
    let topics: Vec<_> = plan
        .topics
        .iter()
        .map(|(spec, what)| {
            json!({
                "topic": spec.name,
                "role": spec.role,
                "missing": *what == TopicPlan::Create,
                "changes": what.changes(),
            })
        })
        .collect();
    json!({ "in_order": plan.is_in_order(), "topics": topics })
}

fn describe_json(spec: &TopicSpec, observed: Option<&ObservedTopic>) -> Value {
    json!({
        "topic": spec.name,
        "role": spec.role,
        "purpose": spec.purpose,
        "wanted": {
            "partitions": spec.partitions,
            "replication_factor": spec.replication_factor,
            "settings": spec.settings,
        },
        "actual": observed,
    })
}

fn describe_text(specs: &[TopicSpec], observed: &BTreeMap<String, ObservedTopic>) -> String {
    let mut blocks = Vec::new();
    for spec in specs {
        let Some(topic) = observed.get(&spec.name) else {
            blocks
                .push(format!("{}: {}\n  missing; `claims topics apply` makes it", spec.name, spec.purpose));
            continue;
        };
        let mut keys: Vec<&String> = spec.settings.keys().chain(&topic.set_on_topic).collect();
        keys.sort_unstable();
        keys.dedup();
        let counts = [
            ("partitions", spec.partitions, topic.partitions),
            ("copies", spec.replication_factor, topic.replication_factor),
        ];
        let counts =
            counts.map(|(name, wanted, actual)| vec![name.into(), actual.to_string(), wanted.to_string()]);
        let settings = keys.into_iter().map(|key| {
            let shown = |value: Option<&String>| value.map_or_else(|| "-".to_owned(), String::clone);
            vec![key.clone(), shown(topic.settings.get(key)), shown(spec.settings.get(key))]
        });
        let table = output::table(&["setting", "actual", "wanted"], counts.into_iter().chain(settings));
        let table = table.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n");
        blocks.push(format!("{}: {}\n{table}", spec.name, spec.purpose));
    }
    blocks.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drifted() -> (Vec<TopicSpec>, BTreeMap<String, ObservedTopic>) {
        let specs = topics::specs(&Config::default().topics);
        let mut observed = BTreeMap::new();
        for spec in &specs[..2] {
            let topic = ObservedTopic {
                partitions: spec.partitions,
                replication_factor: spec.replication_factor,
                settings: spec.settings.clone(),
                set_on_topic: spec.settings.keys().cloned().collect(),
            };
            observed.insert(spec.name.clone(), topic);
        }
        let events = observed.get_mut(&specs[0].name).unwrap();
        events.partitions = 3;
        events.settings.insert("max.compaction.lag.ms".into(), "9223372036854775807".into());
        events.settings.insert("retention.bytes".into(), "1000000".into());
        events.set_on_topic.push("retention.bytes".into());
        (specs, observed)
    }

    #[test]
    fn a_plan_shows_missing_drifted_and_refused() {
        let (specs, observed) = drifted();
        insta::assert_snapshot!(plan_text(&topics::plan(&specs, &observed)));
    }

    #[test]
    fn a_description_shows_actual_beside_wanted() {
        let (specs, observed) = drifted();
        insta::assert_snapshot!(describe_text(&specs, &observed));
    }

    #[test]
    fn the_plan_as_json() {
        let (specs, observed) = drifted();
        insta::assert_json_snapshot!(plan_json(&topics::plan(&specs, &observed)));
    }
}
