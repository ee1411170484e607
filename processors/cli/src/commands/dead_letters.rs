//! `claims dead-letters`: what was refused, from where, why, and putting it back.

use crate::{
    dead_letters::{
        book::{Book, Case, CaseState, Filter},
        discard::discard,
        letter::{Identity, Letter, Place, time_text},
        retry::Retrier,
        topic::{POLL_WAIT, each_letter, letters_at, reader},
    },
    exit::{FOUND, Usage},
    output,
    reader::Polled,
};
use anyhow::{Context, bail};
use claims_runtime::{
    dead_letter::{HEADER_DETAIL, HEADER_PROCESSOR, HEADER_REASON, HEADER_TIMESTAMP_MS},
    retry::{Retried, RetryRequest},
};
use claims_topology::Config;
use serde::Serialize;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    process::ExitCode,
    time::Instant,
};

/// List, show, retry or discard refused records
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A refused record keeps its key and its payload (cut if it is very large), with headers that say where it stood, who \
refused it and why. Payloads may hold personal data and are printed only when asked for. A record that was refused \
more than once by one processor is listed once.

A retry has the running processor read the record again where it stands in its topic, and write its effect; no offset \
moves, and nothing is doubled. Rows of a file have no such place: mend the file and import it again.

Examples:
  claims dead-letters list
  claims dead-letters list --summary
  claims dead-letters list --processor analytics --reason malformed --since 2h --json
  claims dead-letters show 0:17
  claims dead-letters show 0:17 --payload record.bin
  claims dead-letters retry 0:17
  claims dead-letters retry --processor current-state --reason unknown-schema --dry-run
  claims dead-letters discard --processor ingress --until 2025-07-08T00:00:00Z")]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the latest refused records that are open
    List {
        #[command(flatten)]
        filter: Filter,
        /// Those that were retried or discarded, too
        #[arg(long)]
        all: bool,
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
    /// Give refused records to their processors once more; exit code 3 if some were refused again
    Retry {
        #[command(flatten)]
        chosen: Chosen,
        /// Base URL of the status server of a process that runs the processor (default: the processor's `listen`); may be
        /// given more than once
        #[arg(long, value_name = "URL")]
        control: Vec<String>,
    },
    /// Note that refused records were looked at and are done with
    Discard {
        #[command(flatten)]
        chosen: Chosen,
    },
}

/// What is retried or discarded: named ones, or all open ones that a filter lets through.
#[derive(Debug, clap::Args)]
struct Chosen {
    /// Places in the dead-letter topic, as listed
    #[arg(value_name = "PARTITION:OFFSET")]
    places: Vec<Place>,
    #[command(flatten)]
    filter: Filter,
    /// Only say which they are
    #[arg(long)]
    dry_run: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Of a detail, so much is shown in the list.
const MAX_DETAIL_CHARS: usize = 100;
/// Retries or discards whose dead letters are held in memory at once.
const MAX_AT_ONCE: usize = 1_000;

/// Runs the command.
pub async fn run(args: DeadLettersArgs, config: Config) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::List { filter, all, limit, summary, json } => {
            tokio::task::spawn_blocking(move || {
                let book = read(&config, Book::default(), &filter)?;
                if summary { count(&book, all, json) } else { list(&config, &book, all, limit, json) }
            })
            .await??;
        }
        Action::Show { place, payload, json } => {
            tokio::task::spawn_blocking(move || show(&config, place, payload.as_deref(), json)).await??;
        }
        Action::Retry { chosen, control } => return settle(config, chosen, Some(control)).await,
        Action::Discard { chosen } => return settle(config, chosen, None).await,
    }
    Ok(ExitCode::SUCCESS)
}

fn read(config: &Config, mut book: Book, filter: &Filter) -> anyhow::Result<Book> {
    each_letter(config, |letter| book.enter(&letter, filter))?;
    Ok(book)
}

/// One line of the list.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    letter: Letter,
    refused: u32,
    retries: u32,
    state: CaseState,
    settled_at: Option<String>,
}

impl Line {
    fn of(case: &Case, letter: Letter) -> Self {
        let state = case.state();
        let settled_at = (state != CaseState::Open).then(|| case.settled_at_ms().map(time_text)).flatten();
        Self { letter, refused: case.refused, retries: case.retries, state, settled_at }
    }
}

fn list(config: &Config, book: &Book, all: bool, limit: usize, json: bool) -> anyhow::Result<()> {
    let wanted = book.wanted(all);
    let shown = &wanted[wanted.len().saturating_sub(limit)..];
    let mut letters = letters_at(config, &shown.iter().filter_map(|(_, case)| case.place()).collect())?;
    let lines: Vec<Line> =
        shown.iter().filter_map(|(_, case)| Some(Line::of(case, letters.remove(&case.place()?)?))).collect();
    if json {
        return output::json(&lines);
    }
    if lines.is_empty() {
        return Ok(output::line(if all { "no dead letters" } else { "no open dead letters" })?);
    }
    output::line(list_text(&lines, all))?;
    if wanted.len() > lines.len() {
        output::line(format_args!("… the latest {} of {}; see --limit", lines.len(), wanted.len()))?;
    }
    Ok(())
}

fn list_text(lines: &[Line], all: bool) -> String {
    let mut header = vec!["place", "refused at", "times", "by", "reason", "from", "detail"];
    if all {
        header.insert(3, "state");
    }
    let rows = lines.iter().map(|line| {
        let letter = &line.letter;
        let mut row = vec![
            letter.place().to_string(),
            time_text(letter.failed_at_ms()),
            line.refused.to_string(),
            letter.header(HEADER_PROCESSOR).to_owned(),
            letter.header(HEADER_REASON).to_owned(),
            output::short(&letter.origin(), MAX_DETAIL_CHARS),
            output::short(letter.header(HEADER_DETAIL), MAX_DETAIL_CHARS),
        ];
        if all {
            let at = line.settled_at.as_deref().map_or(String::new(), |at| format!(" {at}"));
            row.insert(3, format!("{}{at}", line.state.as_str()));
        }
        row
    });
    output::table(&header, rows)
}

fn count(book: &Book, all: bool, json: bool) -> anyhow::Result<()> {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (identity, case) in book.wanted(all) {
        *counts.entry((processor_of(identity), book.reason_of(case))).or_default() += 1;
    }
    if json {
        let counts: Vec<_> = counts
            .iter()
            .map(|((processor, reason), count)| json!({ "processor": processor, "reason": reason, "count": count }))
            .collect();
        return output::json(&counts);
    }
    let rows = counts
        .into_iter()
        .map(|((processor, reason), count)| vec![processor.to_owned(), reason.to_owned(), count.to_string()]);
    Ok(output::line(output::table(&["by", "reason", "count"], rows))?)
}

fn processor_of(identity: &Identity) -> &str {
    match identity {
        Identity::Record { processor, .. } | Identity::Row { processor, .. } => processor,
        Identity::Letter(_) => "",
    }
}

/// What became of one case.
#[derive(Debug, Serialize)]
struct Settled {
    place: Place,
    processor: String,
    from: String,
    outcome: &'static str,
    detail: String,
}

/// Retries (with where to ask) or discards.
async fn settle(config: Config, chosen: Chosen, control: Option<Vec<String>>) -> anyhow::Result<ExitCode> {
    let Chosen { places, filter, dry_run, json } = chosen;
    if places.is_empty() == filter.is_empty() {
        return Err(
            Usage("name the places, or filter by --processor, --reason, --since, --until or --key").into()
        );
    }
    let named = places.clone();
    let shared = config.clone();
    let book =
        tokio::task::spawn_blocking(move || read(&shared, Book::looking_for(&named), &filter)).await??;
    let mut cases: Vec<_> = match places.is_empty() {
        true => book.wanted(false),
        false => places
            .iter()
            .map(|&place| book.at(place))
            .collect::<Result<_, _>>()
            .map_err(anyhow::Error::msg)?,
    };
    // By offset: the audit appends in that order only.
    cases.sort_by_key(|(identity, _)| *identity);
    cases.dedup_by_key(|(identity, _)| *identity);
    let mut done = Vec::new();
    for cases in cases.chunks(MAX_AT_ONCE) {
        let wanted = cases.iter().filter_map(|(_, case)| case.place()).collect();
        let (shared, letters) = (config.clone(), move |config: Config| letters_at(&config, &wanted));
        let letters = tokio::task::spawn_blocking(move || letters(shared)).await??;
        let open: Vec<(&Identity, &Letter)> = cases
            .iter()
            .filter_map(|(identity, case)| Some((*identity, case, letters.get(&case.place()?)?)))
            .filter_map(|(identity, case, letter)| {
                if case.state() == CaseState::Open {
                    return Some((identity, letter));
                }
                let at = case.settled_at_ms().map(time_text).unwrap_or_default();
                let detail = format!("{} at {at}; nothing to do", case.state().as_str());
                done.push(settled(letter, "settled-before", detail));
                None
            })
            .collect();
        match &control {
            _ if dry_run => {
                done.extend(open.iter().map(|(_, letter)| settled(letter, "would-do", String::new())))
            }
            Some(control) => {
                let retrier = Retrier::new(&config, control)?;
                for (identity, letter) in open {
                    done.push(retry(&retrier, identity, letter).await);
                }
            }
            None => {
                let letters: Vec<Letter> = open.iter().map(|(_, letter)| (*letter).clone()).collect();
                discard(&config, &letters).await?;
                done.extend(letters.iter().map(|letter| settled(letter, "discarded", String::new())));
            }
        }
    }
    report(&done, json)
}

fn settled(letter: &Letter, outcome: &'static str, detail: String) -> Settled {
    let processor = letter.header(HEADER_PROCESSOR).to_owned();
    Settled { place: letter.place(), processor, from: letter.origin(), outcome, detail }
}

async fn retry(retrier: &Retrier<'_>, identity: &Identity, letter: &Letter) -> Settled {
    let Identity::Record { processor, at } = identity else {
        let detail = "it stands in no topic: mend the file and import it again (rows that went through are not doubled), \
                      then discard this";
        return settled(letter, "not-retried", detail.to_owned());
    };
    let request = RetryRequest {
        topic: at.topic.clone(),
        partition: at.partition,
        offset: at.offset,
        appended_at_ms: letter.header(HEADER_TIMESTAMP_MS).parse().ok(),
    };
    match retrier.retry(processor, &request).await {
        Ok(Retried::Applied) => settled(letter, "applied", String::new()),
        Ok(Retried::AlreadyThere) => settled(letter, "already-there", "the view held it before".to_owned()),
        Ok(Retried::Refused { reason, detail }) => {
            settled(letter, "refused-again", format!("{reason}: {detail}"))
        }
        Err(why) => settled(letter, "not-retried", why),
    }
}

/// Prints what was done. Code 1 if some could not be retried at all, else 3 if some were refused again.
fn report(done: &[Settled], json: bool) -> anyhow::Result<ExitCode> {
    if json {
        output::json(&done)?;
    } else if done.is_empty() {
        output::line("no open dead letters of that kind")?;
    } else {
        let rows = done.iter().map(|settled| {
            let detail = output::short(&settled.detail, usize::MAX);
            vec![
                settled.place.to_string(),
                settled.processor.clone(),
                settled.from.clone(),
                settled.outcome.into(),
                detail,
            ]
        });
        output::line(output::table(&["place", "by", "from", "outcome", "detail"], rows))?;
    }
    let any = |outcome| done.iter().any(|settled| settled.outcome == outcome);
    Ok(match (any("not-retried"), any("refused-again")) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(FOUND),
        (false, false) => ExitCode::SUCCESS,
    })
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
        let letter = Letter::of(&message);
        if letter.place() != place {
            bail!(missing());
        }
        return match payload {
            Some(file) => write_payload(file, rdkafka::Message::payload(&message)),
            None if json => output::json(&letter),
            None => Ok(output::line(show_text(&letter))?),
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

#[cfg(test)]
mod tests {
    use super::*;
    use claims_ingress::publisher::{HEADER_SOURCE_FILE, HEADER_SOURCE_LINE};
    use claims_runtime::dead_letter::{HEADER_FAILED_AT_MS, HEADER_OFFSET, HEADER_PARTITION, HEADER_TOPIC};

    fn line(offset: i64, state: CaseState, headers: &[(&str, &str)]) -> Line {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let letter = Letter {
            partition: 0,
            offset,
            key: None,
            payload_bytes: Some(9),
            headers: headers.collect(),
            written_at_ms: 0,
            raw_key: None,
        };
        let settled_at = (state != CaseState::Open).then(|| time_text(1_752_000_100_000));
        Line { letter, refused: 2, retries: 1, state, settled_at }
    }

    #[test]
    fn refused_records_as_a_table() {
        let lines = [
            line(
                16,
                CaseState::Open,
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
            line(
                17,
                CaseState::Discarded,
                &[
                    (HEADER_PROCESSOR, "ingress"),
                    (HEADER_REASON, "invalid-date"),
                    (HEADER_SOURCE_FILE, "tickets.csv"),
                    (HEADER_SOURCE_LINE, "12"),
                ],
            ),
        ];
        insta::assert_snapshot!(list_text(&lines, false));
        insta::assert_snapshot!("refused_records_with_their_states", list_text(&lines, true));
    }
}
