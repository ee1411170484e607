//! `claims tail`: events as they come, decoded.

use crate::{
    decoder::Decoder,
    exit::NoTopic,
    output,
    reader::{Polled, Reader},
};
use claims_schemas::{Event, EventType, json};
use claims_topology::{
    Config,
    topics::{HEADER_EVENT_TYPE, HEADER_TENANT},
};
use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::Duration,
};

/// Show events as they come, decoded
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Reads without a consumer group: no processor notices. With --json each event is a line of canonical NDJSON, which \
`claims ingest` takes.

Examples:
  claims tail
  claims tail --type ClaimResolved --tenant acme
  claims tail --claim claim_67890 --from-beginning --no-follow
  claims tail --from-beginning --no-follow --json > events.ndjson")]
pub struct TailArgs {
    /// Only this tenant's events
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Only this claim's events
    #[arg(long, value_name = "ID")]
    claim: Option<String>,
    /// Only events of this type, such as ClaimResolved; may be given more than once
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<EventType>,
    /// Begin with the oldest event in the topic instead of the next one
    #[arg(long)]
    from_beginning: bool,
    /// Stop at what is the end of the topic now
    #[arg(long)]
    no_follow: bool,
    /// Stop after so many events
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print canonical JSON, one event a line
    #[arg(long)]
    json: bool,
}

const POLL_WAIT: Duration = Duration::from_millis(100);
/// Of an event's data, so much is shown on its line.
const MAX_DATA_CHARS: usize = 160;

/// Runs the command.
pub async fn run(args: TailArgs, config: &Config) -> anyhow::Result<ExitCode> {
    let topic = &config.topics.events;
    let reader = Reader::new(&config.kafka, &format!("{}.tail", config.kafka.group_prefix))?;
    let partitions = reader.partitions(topic)?;
    let bounds = reader.bounds(topic, &partitions)?;
    let offsets: BTreeMap<i32, i64> = bounds
        .iter()
        .map(|(&partition, bounds)| (partition, if args.from_beginning { bounds.start } else { bounds.end }))
        .collect();
    let ends: BTreeMap<i32, i64> =
        bounds.iter().map(|(&partition, bounds)| (partition, bounds.end)).collect();
    reader.start(topic, &offsets)?;
    let decoder = Decoder::new(config)?;
    let mut open: BTreeSet<i32> = ends.keys().copied().collect();
    let mut shown = 0;
    while args.limit.is_none_or(|limit| shown < limit) && !(args.no_follow && open.is_empty()) {
        match reader.poll(POLL_WAIT)? {
            Polled::Nothing => {
                // Lets signals and timers have their turn.
                tokio::task::yield_now().await;
                if args.no_follow {
                    ensure_answering(&reader, topic)?;
                }
            }
            Polled::End(partition) => {
                open.remove(&partition);
            }
            Polled::Record(message) => {
                let end = ends.get(&message.partition()).copied().unwrap_or(i64::MAX);
                if message.offset() + 1 >= end {
                    open.remove(&message.partition());
                }
                if args.no_follow && message.offset() >= end {
                    continue;
                }
                shown += u64::from(show(&args, &decoder, &message).await?);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Waiting for what is in the topic already must not become waiting for a broker that is away.
fn ensure_answering(reader: &Reader, topic: &str) -> anyhow::Result<()> {
    match reader.partitions(topic)?.is_empty() {
        true => Err(NoTopic { topic: topic.to_owned() }.into()),
        false => Ok(()),
    }
}

/// Shows a record if it is asked for; whether it was.
async fn show(args: &TailArgs, decoder: &Decoder, message: &BorrowedMessage<'_>) -> anyhow::Result<bool> {
    if !may_match(args, message) {
        return Ok(false);
    }
    let place = format!("{}@{}", message.partition(), message.offset());
    let Some(payload) = message.payload() else {
        if args.json || args.claim.is_some() || !args.types.is_empty() || args.tenant.is_some() {
            return Ok(false);
        }
        output::line(format_args!("{place} tombstone {}", key_text(message)))?;
        return Ok(true);
    };
    match decoder.decode(payload).await? {
        Ok(event) if !matches(args, &event) => Ok(false),
        Ok(event) if args.json => output::json_line(&json::to_value(&event)).map(|()| true),
        Ok(event) => {
            output::line(event_text(&place, &event))?;
            Ok(true)
        }
        Err(why) => {
            eprintln!("{place} can't be decoded: {}", output::short(&why, MAX_DATA_CHARS));
            Ok(false)
        }
    }
}

/// What the headers say, without decoding. A record without them may be anything.
fn may_match(args: &TailArgs, message: &BorrowedMessage<'_>) -> bool {
    let Some(headers) = message.headers() else { return true };
    let value = |name: &str| headers.iter().find(|header| header.key == name).and_then(|header| header.value);
    let tenant_matches = match (&args.tenant, value(HEADER_TENANT)) {
        (Some(wanted), Some(tenant)) => wanted.as_bytes() == tenant,
        _ => true,
    };
    let type_matches = match value(HEADER_EVENT_TYPE) {
        Some(name) if !args.types.is_empty() => {
            args.types.iter().any(|wanted| wanted.as_str().as_bytes() == name)
        }
        _ => true,
    };
    tenant_matches && type_matches
}

fn matches(args: &TailArgs, event: &Event) -> bool {
    args.tenant.as_ref().is_none_or(|tenant| *tenant == event.tenant_id)
        && args.claim.as_ref().is_none_or(|claim| *claim == event.claim_id)
        && (args.types.is_empty() || args.types.contains(&event.event_type()))
}

fn key_text(message: &BorrowedMessage<'_>) -> String {
    message.key().map_or_else(
        || "without a key".to_owned(),
        |key| output::short(&String::from_utf8_lossy(key), MAX_DATA_CHARS),
    )
}

fn event_text(place: &str, event: &Event) -> String {
    let occurred = event.occurred_at.to_datetime().map_or_else(
        || event.occurred_at.0.to_string(),
        |at| at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
    );
    let data = json::to_value(event).get("data").map(|data| data.to_string()).unwrap_or_default();
    let line = format!(
        "{place} {occurred} {} {} v{} {} ",
        event.tenant_id,
        event.claim_id,
        event.version,
        event.event_type()
    );
    output::short(&line, usize::MAX) + &output::short(&data, MAX_DATA_CHARS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use claims_schemas::{
        Timestamp,
        events::{ClaimClosed, EventData},
    };
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        tail: TailArgs,
    }

    fn args(words: &[&str]) -> TailArgs {
        Command::try_parse_from([&["tail"], words].concat()).unwrap().tail
    }

    fn event() -> Event {
        Event {
            tenant_id: "acme".into(),
            event_id: uuid::Uuid::nil(),
            claim_id: "claim_1".into(),
            version: 3,
            occurred_at: Timestamp(1_752_000_000_000),
            recorded_at: Timestamp(0),
            correlation_id: "c".into(),
            causation_id: None,
            user_id: None,
            source: None,
            data: EventData::ClaimClosed(ClaimClosed { closed_by: Some("a\nb".into()), reason: None }),
        }
    }

    #[test]
    fn filters_choose_by_tenant_claim_and_type() {
        assert!(matches(&args(&[]), &event()));
        assert!(matches(
            &args(&["--tenant", "acme", "--claim", "claim_1", "--type", "ClaimClosed"]),
            &event()
        ));
        assert!(!matches(&args(&["--tenant", "other"]), &event()));
        assert!(!matches(&args(&["--claim", "claim_2"]), &event()));
        assert!(!matches(&args(&["--type", "ClaimCreated"]), &event()));
        assert!(matches(&args(&["--type", "ClaimCreated", "--type", "ClaimClosed"]), &event()));
    }

    #[test]
    fn an_unknown_type_is_a_usage_error() {
        assert!(Command::try_parse_from(["tail", "--type", "ClaimEaten"]).is_err());
    }

    #[test]
    fn an_event_is_one_line() {
        let text = event_text("2@17", &event());
        assert!(text.starts_with("2@17 2025-07-08T18:40:00.000Z acme claim_1 v3 ClaimClosed {"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
