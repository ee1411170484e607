//! The plan of a replay: made of what Kafka says, shown in words, refused where it can't be done soundly.

use super::selection::PartitionSet;
use crate::{output, reader::Reader};
use anyhow::{anyhow, bail};
use claims_runtime::replay::{PartitionFacts, PartitionMove, ReplayPlan, ReplayTarget};
use claims_topology::{Config, graph, kafka::group_id};
use serde::{Serialize, Serializer, ser::SerializeSeq};

/// A processor's part of the replay.
#[derive(Debug, Clone, Serialize)]
pub struct Planned {
    /// Its name.
    pub processor: &'static str,
    /// Its consumer group.
    pub group: String,
    /// The topic that it reads.
    pub topic: String,
    /// What happens to its offsets.
    #[serde(rename = "partitions", serialize_with = "moves")]
    pub plan: ReplayPlan,
    /// Read again, at most.
    pub records_again: i64,
    /// Left out, at most.
    pub records_left_out: i64,
    /// Whether the offsets are set.
    pub applied: bool,
    /// Processes in which it was stopped and started again.
    pub restarted: Vec<String>,
    /// How long it took until the processor was where it had been, if that was waited for.
    pub seconds: Option<f64>,
}

#[derive(Serialize)]
struct ShownMove {
    partition: i32,
    from: Option<i64>,
    to: i64,
    records_again: i64,
    records_left_out: i64,
    until: Option<i64>,
    max_records_per_s: Option<u32>,
    remarks: Vec<String>,
}

fn moves<S: Serializer>(plan: &ReplayPlan, serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(plan.moves.len()))?;
    for planned in &plan.moves {
        list.serialize_element(&ShownMove {
            partition: planned.partition,
            from: planned.from,
            to: planned.to,
            records_again: planned.records_again,
            records_left_out: planned.records_left_out,
            until: planned.replay.as_ref().map(|replay| replay.until),
            max_records_per_s: planned.replay.as_ref().and_then(|replay| replay.max_records_per_s),
            remarks: remarks(planned),
        })?;
    }
    list.end()
}

fn remarks(planned: &PartitionMove) -> Vec<String> {
    planned.remarks.iter().map(ToString::to_string).collect()
}

/// A processor by the name that lives as long as the program.
pub fn known(processor: &str) -> anyhow::Result<&'static str> {
    let found = graph::CONSUMERS.iter().copied().find(|name| *name == processor);
    found.ok_or_else(|| anyhow!("no processor {processor} reads events"))
}

/// Makes the plan of one processor. Blocks.
pub fn make(
    config: &Config,
    processor: &'static str,
    id: String,
    target: ReplayTarget,
    max_records_per_s: Option<u32>,
    only: Option<&PartitionSet>,
    accept_log_start: bool,
) -> anyhow::Result<Planned> {
    let topic = config.topics.events.clone();
    let group = group_id(&config.kafka, processor);
    let reader = Reader::new(&config.kafka, &group)?;
    let all = reader.partitions(&topic)?;
    let partitions = match only {
        None => all,
        Some(only) => only.of(&all).map_err(|error| anyhow!("--partitions: {error}"))?,
    };
    let topic_id = reader.topic_id(&topic)?;
    let committed = reader.committed_with_notes(&topic, &partitions)?;
    let bounds = reader.bounds(&topic, &partitions)?;
    let at_time = match target {
        ReplayTarget::Time { at_ms } => reader.offsets_at(&topic, &partitions, at_ms)?,
        _ => Default::default(),
    };
    let facts: Vec<PartitionFacts> = bounds
        .iter()
        .map(|(&partition, bounds)| {
            let (committed, note) = committed.get(&partition).cloned().unwrap_or_default();
            PartitionFacts {
                partition,
                committed,
                note,
                low: bounds.start,
                high: bounds.end,
                at_time: at_time.get(&partition).copied(),
            }
        })
        .collect();
    let mut plan = ReplayPlan::new(id, topic_id, target, max_records_per_s, &facts)?;
    if accept_log_start {
        plan = plan.accepting_log_start(&facts);
    }
    let (records_again, records_left_out) = (plan.records_again(), plan.records_left_out());
    Ok(Planned {
        processor,
        group,
        topic,
        plan,
        records_again,
        records_left_out,
        applied: false,
        restarted: Vec::new(),
        seconds: None,
    })
}

/// A target that is meant to go back is ahead of unread records where a processor lags: they are left out on purpose only.
pub fn refuse_a_jump(target: ReplayTarget, planned: &Planned) -> anyhow::Result<()> {
    let is_asked_for = match target {
        ReplayTarget::End => true,
        ReplayTarget::Shift(by) => by > 0,
        ReplayTarget::Beginning | ReplayTarget::Offset(_) | ReplayTarget::Time { .. } => false,
    };
    if is_asked_for || planned.records_left_out == 0 {
        return Ok(());
    }
    let forward = planned.plan.moves.iter().filter(|moved| moved.records_left_out > 0);
    let partitions: Vec<String> = forward.map(|moved| moved.partition.to_string()).collect();
    bail!(
        "{} has not read up to {} records before that (partition {}), and would leave them out. Nothing was changed; if they \
         are to be left out, add --allow-skip",
        planned.processor,
        planned.records_left_out,
        partitions.join(", ")
    );
}

/// The audit holds every record, or says that it doesn't: it can't jump over any that its trail lacks.
pub async fn refuse_what_is_unsound(config: &Config, planned: &Planned) -> anyhow::Result<()> {
    let forward: Vec<_> = planned.plan.moves.iter().filter(|planned| planned.records_left_out > 0).collect();
    if planned.processor != claims_audit::processor::NAME || forward.is_empty() {
        return Ok(());
    }
    let partitions: Vec<i32> = forward.iter().map(|planned| planned.partition).collect();
    let ends = claims_audit::next_offsets(config, &partitions).await?;
    for planned in forward {
        let end = ends.get(&planned.partition).copied().unwrap_or(0);
        if planned.to > end.max(planned.from.unwrap_or(0)) {
            bail!(
                "the audit can't leave records out: its trail of partition {} ends before offset {end}, and would have a \
                 hole up to {}. Nothing was changed; move it to {end} at most",
                planned.partition,
                planned.to
            );
        }
    }
    Ok(())
}

/// What leaving records out does to a processor's views.
fn harm(processor: &str) -> &'static str {
    match processor {
        "current-state" => {
            "their claims are folded, but keep the rows they had until they change again, lists may show them twice, and \
             timelines lack these events; a replay from the beginning mends that"
        }
        "analytics" => {
            "they are missing in events, latest and the statistics until a replay from before them"
        }
        _ => "they are in the trail already, and are not compared with it",
    }
}

/// The plans as a table, with what to know about them.
pub fn text(plans: &[Planned]) -> String {
    let or_none = |offset: Option<i64>| offset.map_or_else(|| "none".to_owned(), |offset| offset.to_string());
    let rows = plans.iter().flat_map(|planned| {
        let sum = vec![
            planned.processor.to_owned(),
            "all".to_owned(),
            String::new(),
            String::new(),
            planned.records_again.to_string(),
            planned.records_left_out.to_string(),
            String::new(),
        ];
        let each = planned.plan.moves.iter().map(|moved| {
            vec![
                planned.processor.to_owned(),
                moved.partition.to_string(),
                or_none(moved.from),
                moved.to.to_string(),
                moved.records_again.to_string(),
                moved.records_left_out.to_string(),
                remarks(moved).join("; "),
            ]
        });
        each.chain([sum]).collect::<Vec<_>>()
    });
    let header = ["processor", "partition", "from", "to", "read again", "left out", "remarks"];
    let mut text = output::table(&header, rows);
    text.push_str("\nCounts are of offsets: records at most, as compaction leaves gaps.");
    for planned in plans.iter().filter(|planned| planned.records_left_out > 0) {
        text.push_str(&format!(
            "\n{} leaves out up to {} records: {}.",
            planned.processor,
            planned.records_left_out,
            harm(planned.processor)
        ));
    }
    text
}

/// What was done, a line a processor.
pub fn outcome(plans: &[Planned]) -> String {
    let line = |planned: &Planned| {
        if !planned.applied {
            return format!("{}: nothing was changed (--dry-run)", planned.processor);
        }
        let mut line = format!("{}: offsets set", planned.processor);
        if !planned.restarted.is_empty() {
            line.push_str(&format!(", started again at {}", planned.restarted.join(", ")));
        }
        if let Some(seconds) = planned.seconds {
            let records =
                planned.plan.moves.iter().filter_map(|moved| Some(moved.replay.as_ref()?.until - moved.to));
            let records: i64 = records.sum();
            let rate = records as f64 / seconds.max(0.001);
            line.push_str(&format!(
                ", back where it was after {seconds:.1} s ({records} records, {rate:.0}/s)"
            ));
        }
        line
    };
    plans.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use claims_runtime::replay::CommitNote;

    fn planned(processor: &'static str, target: ReplayTarget) -> Planned {
        let facts = |partition, committed, low, high| PartitionFacts {
            partition,
            committed,
            note: CommitNote::default(),
            low,
            high,
            at_time: None,
        };
        let facts = [facts(0, Some(1_200), 0, 1_500), facts(1, None, 20, 90), facts(2, Some(7), 10, 40)];
        let plan = ReplayPlan::new("id".into(), None, target, Some(500), &facts).unwrap();
        Planned {
            processor,
            group: format!("claims.{processor}"),
            topic: "claims.events.v1".into(),
            records_again: plan.records_again(),
            records_left_out: plan.records_left_out(),
            plan,
            applied: false,
            restarted: Vec::new(),
            seconds: None,
        }
    }

    #[test]
    fn plans_as_a_table() {
        let plans = [
            planned("current-state", ReplayTarget::Offset(30)),
            planned("analytics", ReplayTarget::End),
            planned("audit", ReplayTarget::Beginning),
        ];
        insta::assert_snapshot!(text(&plans));
    }

    #[test]
    fn unread_records_are_left_out_only_on_purpose() {
        let refusal =
            |target| refuse_a_jump(target, &planned("analytics", target)).map_err(|e| e.to_string());
        insta::assert_snapshot!(refusal(ReplayTarget::Offset(30)).unwrap_err());
        // No record of these partitions is as young as that.
        assert!(refusal(ReplayTarget::Time { at_ms: 5 }).unwrap_err().contains("(partition 0, 1, 2)"));
        for target in [ReplayTarget::End, ReplayTarget::Beginning, ReplayTarget::Offset(0)] {
            assert_eq!(refusal(target), Ok(()), "{target:?}");
        }
        let lagging = PartitionFacts {
            partition: 4,
            committed: Some(10),
            note: CommitNote::default(),
            low: 0,
            high: 50,
            at_time: Some(40),
        };
        let mut planned = planned("analytics", ReplayTarget::Beginning);
        for (target, is_refused) in [
            (ReplayTarget::Time { at_ms: 5 }, true),
            (ReplayTarget::Shift(30), false),
            (ReplayTarget::Shift(-5), false),
        ] {
            planned.plan =
                ReplayPlan::new("id".into(), None, target, None, std::slice::from_ref(&lagging)).unwrap();
            planned.records_left_out = planned.plan.records_left_out();
            assert_eq!(refuse_a_jump(target, &planned).is_err(), is_refused, "{target:?}");
        }
    }

    #[test]
    fn a_plan_as_json() {
        insta::assert_json_snapshot!(planned("analytics", ReplayTarget::Offset(1_000)));
    }

    #[test]
    fn outcomes_in_words() {
        let mut done = planned("audit", ReplayTarget::Beginning);
        done.applied = true;
        done.restarted = vec!["http://127.0.0.1:9103".into()];
        done.seconds = Some(4.0);
        insta::assert_snapshot!(outcome(&[planned("analytics", ReplayTarget::Beginning), done]));
    }
}
