//! `claims dead-letters`: what was refused, from where, and why.

use crate::{
    output,
    reader::{Polled, Reader},
};
use anyhow::{Context, bail};
use claims_ingress::publisher::{HEADER_SOURCE_FILE, HEADER_SOURCE_LINE};
use claims_runtime::dead_letter::{
    HEADER_DETAIL, HEADER_FAILED_AT_MS, HEADER_OFFSET, HEADER_PARTITION, HEADER_PROCESSOR, HEADER_REASON,
    HEADER_TOPIC,
};
use claims_topology::Config;
use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};
use serde::Serialize;
use serde_json::json;
use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    io::{self, Write},
    process::ExitCode,
    str::FromStr,
    time::{Duration, Instant},
};

/// List or show refused records
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A refused record keeps its key and its payload (cut if it is very large), with headers that say where it stood, who \
refused it and why. Payloads may hold personal data and are printed only when asked for.

Examples:
  claims dead-letters list
  claims dead-letters list --summary
  claims dead-letters list --processor analytics --reason malformed --json
  claims dead-letters show 0:17
  claims dead-letters show 0:17 --payload record.bin")]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the latest refused records
    List {
        /// Only what this processor refused
        #[arg(long)]
        processor: Option<String>,
        /// Only what was refused for this reason, such as malformed
        #[arg(long)]
        reason: Option<String>,
        /// The latest so many of them
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// Count them by processor and reason instead
        #[arg(long)]
        summary: bool,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one refused record with all its headers
    Show {
        /// Its place in the dead-letter topic, as listed
        #[arg(value_name = "PARTITION:OFFSET")]
        place: Place,
        /// Write the payload as it stands into this file (`-`: standard output, and nothing else)
        #[arg(long, value_name = "FILE")]
        payload: Option<String>,
        /// Print it as JSON
        #[arg(long, conflicts_with = "payload")]
        json: bool,
    },
}

/// `PARTITION:OFFSET`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    partition: i32,
    offset: i64,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_once(':')
            .and_then(|(partition, offset)| {
                let place = Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? };
                (place.partition >= 0 && place.offset >= 0).then_some(place)
            })
            .ok_or_else(|| format!("{text:?} is not PARTITION:OFFSET, such as 0:17"))
    }
}

const POLL_WAIT: Duration = Duration::from_millis(100);
/// Of a detail, so much is shown in the list.
const MAX_DETAIL_CHARS: usize = 100;

/// One refused record, without its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Letter {
    partition: i32,
    offset: i64,
    key: Option<String>,
    payload_bytes: Option<usize>,
    headers: BTreeMap<String, String>,
}

impl Letter {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(text),
            payload_bytes: message.payload().map(<[u8]>::len),
            headers: headers
                .map(|header| (header.key.to_owned(), header.value.map(text).unwrap_or_default()))
                .collect(),
        }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn matches(&self, processor: Option<&str>, reason: Option<&str>) -> bool {
        processor.is_none_or(|wanted| wanted == self.header(HEADER_PROCESSOR))
            && reason.is_none_or(|wanted| wanted == self.header(HEADER_REASON))
    }

    /// Where the record stood: a place in a topic, or a line of an input.
    fn origin(&self) -> String {
        if let Some(topic) = self.headers.get(HEADER_TOPIC) {
            return format!("{topic} {}:{}", self.header(HEADER_PARTITION), self.header(HEADER_OFFSET));
        }
        match (self.headers.get(HEADER_SOURCE_FILE), self.headers.get(HEADER_SOURCE_LINE)) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            (Some(file), None) => file.clone(),
            _ => String::new(),
        }
    }

    fn failed_at(&self) -> String {
        let at =
            self.header(HEADER_FAILED_AT_MS).parse().ok().and_then(chrono::DateTime::from_timestamp_millis);
        at.map_or_else(String::new, |at| at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
    }
}

/// Runs the command.
pub async fn run(args: DeadLettersArgs, config: Config) -> anyhow::Result<ExitCode> {
    tokio::task::spawn_blocking(move || match args.action {
        Action::List { processor, reason, limit, summary, json } => {
            let chosen = |letter: &Letter| letter.matches(processor.as_deref(), reason.as_deref());
            if summary { count(&config, chosen, json) } else { list(&config, chosen, limit, json) }
        }
        Action::Show { place, payload, json } => show(&config, place, payload.as_deref(), json),
    })
    .await??;
    Ok(ExitCode::SUCCESS)
}

fn list(config: &Config, chosen: impl Fn(&Letter) -> bool, limit: usize, json: bool) -> anyhow::Result<()> {
    let mut letters = VecDeque::new();
    each_letter(config, |letter| {
        if chosen(&letter) {
            letters.push_back(letter);
        }
        if letters.len() > limit {
            letters.pop_front();
        }
    })?;
    if json {
        return output::json(&letters);
    }
    if letters.is_empty() {
        return Ok(output::line("no dead letters")?);
    }
    Ok(output::line(list_text(letters.make_contiguous()))?)
}

fn list_text(letters: &[Letter]) -> String {
    let rows = letters.iter().map(|letter| {
        vec![
            format!("{}:{}", letter.partition, letter.offset),
            letter.failed_at(),
            letter.header(HEADER_PROCESSOR).to_owned(),
            letter.header(HEADER_REASON).to_owned(),
            output::short(&letter.origin(), MAX_DETAIL_CHARS),
            output::short(letter.header(HEADER_DETAIL), MAX_DETAIL_CHARS),
        ]
    });
    output::table(&["place", "refused at", "by", "reason", "from", "detail"], rows)
}

fn count(config: &Config, chosen: impl Fn(&Letter) -> bool, json: bool) -> anyhow::Result<()> {
    let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
    each_letter(config, |letter| {
        if chosen(&letter) {
            let key = (letter.header(HEADER_PROCESSOR).to_owned(), letter.header(HEADER_REASON).to_owned());
            *counts.entry(key).or_default() += 1;
        }
    })?;
    if json {
        let counts: Vec<_> = counts
            .iter()
            .map(|((processor, reason), count)| json!({ "processor": processor, "reason": reason, "count": count }))
            .collect();
        return output::json(&counts);
    }
    let rows =
        counts.into_iter().map(|((processor, reason), count)| vec![processor, reason, count.to_string()]);
    Ok(output::line(output::table(&["by", "reason", "count"], rows))?)
}

/// Reads the dead-letter topic from its beginning to its present end.
fn each_letter(config: &Config, mut take: impl FnMut(Letter)) -> anyhow::Result<()> {
    let topic = &config.topics.dead_letters;
    let reader = reader(config)?;
    let partitions = reader.partitions(topic)?;
    let bounds = reader.bounds(topic, &partitions)?;
    let mut open: BTreeMap<i32, i64> = bounds
        .iter()
        .filter(|(_, bounds)| bounds.start < bounds.end)
        .map(|(&partition, bounds)| (partition, bounds.end))
        .collect();
    reader.start(topic, &bounds.iter().map(|(&partition, bounds)| (partition, bounds.start)).collect())?;
    let mut deadline = Instant::now() + reader.timeout();
    while !open.is_empty() {
        match reader.poll(POLL_WAIT)? {
            Polled::Record(message) => {
                deadline = Instant::now() + reader.timeout();
                if open.get(&message.partition()).is_some_and(|&end| message.offset() + 1 >= end) {
                    open.remove(&message.partition());
                }
                take(Letter::of(&message));
            }
            Polled::End(partition) => {
                open.remove(&partition);
            }
            Polled::Nothing if Instant::now() > deadline => {
                bail!(
                    "no further record of {topic} within {:?}; Kafka has stopped answering",
                    reader.timeout()
                );
            }
            Polled::Nothing => {}
        }
    }
    Ok(())
}

fn show(config: &Config, place: Place, payload: Option<&str>, json: bool) -> anyhow::Result<()> {
    let topic = &config.topics.dead_letters;
    let reader = reader(config)?;
    let missing = || format!("{topic} has no record at {}:{}", place.partition, place.offset);
    let partitions = reader.partitions(topic)?;
    if !partitions.contains(&place.partition) {
        bail!("{}; it has {} partitions", missing(), partitions.len());
    }
    let bounds = reader.bounds(topic, &[place.partition])?[&place.partition];
    if !(bounds.start..bounds.end).contains(&place.offset) {
        bail!("{}; offsets there are {} up to {}", missing(), bounds.start, bounds.end);
    }
    reader.start(topic, &BTreeMap::from([(place.partition, place.offset)]))?;
    let deadline = Instant::now() + reader.timeout();
    while Instant::now() < deadline {
        let message = match reader.poll(POLL_WAIT)? {
            Polled::Record(message) => message,
            Polled::End(_) => bail!(missing()),
            Polled::Nothing => continue,
        };
        if message.offset() != place.offset {
            bail!(missing());
        }
        return match payload {
            Some(file) => write_payload(file, message.payload()),
            None if json => output::json(&Letter::of(&message)),
            None => Ok(output::line(show_text(&Letter::of(&message)))?),
        };
    }
    bail!("{topic} {}:{} could not be read within {:?}", place.partition, place.offset, reader.timeout())
}

fn show_text(letter: &Letter) -> String {
    let payload =
        letter.payload_bytes.map_or_else(|| "null (a tombstone)".to_owned(), |n| format!("{n} bytes"));
    let mut lines = vec![
        format!("place: {}:{}", letter.partition, letter.offset),
        format!("key: {}", letter.key.as_deref().map_or("none".into(), |key| output::short(key, usize::MAX))),
        format!("payload: {payload}"),
    ];
    lines.extend(
        letter.headers.iter().map(|(name, value)| format!("{name}: {}", output::short(value, usize::MAX))),
    );
    lines.join("\n")
}

fn write_payload(file: &str, payload: Option<&[u8]>) -> anyhow::Result<()> {
    let Some(payload) = payload else { bail!("the record is a tombstone: it has no payload") };
    if file == "-" {
        io::stdout().lock().write_all(payload)?;
        return Ok(());
    }
    fs::write(file, payload).with_context(|| format!("writing {file}"))?;
    Ok(output::line(format_args!("{} bytes written to {file}", payload.len()))?)
}

fn reader(config: &Config) -> anyhow::Result<Reader> {
    Reader::new(&config.kafka, &format!("{}.dead-letters", config.kafka.group_prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(offset: i64, headers: &[(&str, &str)]) -> Letter {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Letter { partition: 0, offset, key: None, payload_bytes: Some(9), headers: headers.collect() }
    }

    #[test]
    fn places_are_partition_and_offset() {
        assert_eq!("2:17".parse(), Ok(Place { partition: 2, offset: 17 }));
        for wrong in ["", "2", "2:", ":17", "-1:17", "2:-1", "a:b"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn refused_records_as_a_table() {
        let letters = [
            letter(
                16,
                &[
                    (HEADER_TOPIC, "claims.events.v1"),
                    (HEADER_PARTITION, "3"),
                    (HEADER_OFFSET, "1234"),
                    (HEADER_PROCESSOR, "analytics"),
                    (HEADER_REASON, "malformed"),
                    (HEADER_DETAIL, "the body ends after 3 of 10 bytes"),
                    (HEADER_FAILED_AT_MS, "1752000000000"),
                ],
            ),
            letter(
                17,
                &[
                    (HEADER_PROCESSOR, "ingress"),
                    (HEADER_REASON, "invalid-date"),
                    (HEADER_SOURCE_FILE, "tickets.csv"),
                    (HEADER_SOURCE_LINE, "12"),
                ],
            ),
        ];
        insta::assert_snapshot!(list_text(&letters));
        assert!(letters[0].matches(Some("analytics"), None));
        assert!(!letters[0].matches(Some("analytics"), Some("invalid-date")));
    }
}
