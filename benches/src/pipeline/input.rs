//! What stages read: files of events, and topics that hold them, made once and read by every round.

use super::{
    bulk,
    offsets::keys_of,
    stage::{Content, LIVE_BATCH_RECORDS},
};
use anyhow::{Context, Result, ensure};
use claims_verifier::{model::Model, namespace::Namespace, pipeline::Pipeline};
use serde::Deserialize;
use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};
use xtask::services::layout::Layout;

/// Events of each claim in a topic of live order.
const LIVE_EVENTS_PER_CLAIM: u64 = 5;
/// So many times more events are generated than are kept of them: shorter claims are left out.
const LIVE_SURPLUS: u64 = 3;
const SEED: &str = "7";
/// A case becomes a claim and its resolution.
const EVENTS_PER_CASE: u64 = 2;
const CASES_MAPPING: &str = "mappings/tsa_claims.toml";

/// A file of events, a topic with the same, and what views must make of them.
pub struct Input {
    /// Where the topic is; views are made in namespaces of their own.
    pub namespace: Namespace,
    /// What the file holds.
    pub content: Content,
    /// The file that is imported.
    pub file: PathBuf,
    /// Records in the topic.
    pub records: u64,
    /// Events among them that every view must hold.
    pub distinct: u64,
    /// Events that hold a version which another holds: dead letters of current-state.
    pub superseded: u64,
    /// What [`keys_of`] says of the topic.
    pub keys: (u64, usize),
    /// What must come out; nothing is known of content that is in bulk.
    pub model: Model,
}

/// The part of an event that its order hangs on.
#[derive(Deserialize)]
struct Head {
    tenant_id: String,
    claim_id: String,
    version: u64,
}

impl Input {
    /// Makes a file, and imports it into a topic.
    pub async fn make(content: Content, events: u64, partitions: i32, folder: &Path) -> Result<Self> {
        let name = format!("bench_{content:?}_{events}_{partitions}").to_lowercase();
        let namespace = Namespace::new(&name, &folder.join(&name), partitions)?;
        namespace.reset().await?;
        let pipeline = Pipeline::new(namespace.clone())?;
        pipeline.prepare()?;
        let file = namespace.dir.join("input");
        let mut input = Self {
            namespace,
            content,
            file,
            records: 0,
            distinct: 0,
            superseded: 0,
            keys: (0, 0),
            model: Model::default(),
        };
        match content {
            Content::AsHappened => generate(&pipeline, events, &input.file)?,
            Content::Live => {
                let all = input.namespace.dir.join("all.ndjson");
                generate(&pipeline, events * LIVE_SURPLUS, &all)?;
                interleave(&all, &input.file, events)?;
                std::fs::remove_file(all)?;
            }
            Content::Cases => std::fs::write(&input.file, claims_benches::cases(events / EVENTS_PER_CASE))?,
            Content::Bulk => input.distinct = bulk::produce(&input.namespace, events).await?,
        }
        if content != Content::Bulk {
            input.import(&pipeline)?;
            input.keys = keys_of(&input.namespace, &input.namespace.events_topic)?;
        }
        input.records = super::offsets::records_in(&input.namespace, &input.namespace.events_topic)?;
        let (records, sent) = (input.records, input.model.events_in.max(input.distinct));
        ensure!(records == sent, "{records} records in the topic, {sent} events were sent");
        Ok(input)
    }

    fn import(&mut self, pipeline: &Pipeline) -> Result<()> {
        let arguments = self.ingest_arguments()?;
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let accepted = self.namespace.dir.join("accepted.ndjson");
        pipeline
            .run(&[&arguments[..], &["--dry-run", "--output", &accepted.display().to_string()]].concat())?;
        pipeline.run(&arguments)?;
        self.model = Model::from_ndjson(&accepted)?;
        (self.distinct, self.superseded) = (self.model.distinct_events(), self.model.superseded);
        Ok(())
    }

    /// The arguments with which `claims` imports the file.
    pub fn ingest_arguments(&self) -> Result<Vec<String>> {
        let file = self.file.display().to_string();
        let mut arguments = vec!["ingest".to_owned(), "--format".to_owned()];
        if self.content == Content::Cases {
            let mapping = Layout::discover()?.root.join(CASES_MAPPING).display().to_string();
            arguments.extend(["csv".to_owned(), "--mapping".to_owned(), mapping]);
        } else {
            arguments.push("ndjson".to_owned());
        }
        arguments.push(file);
        Ok(arguments)
    }

    /// Whether between two events of a claim there are more others than a batch holds: then each is a change of its own.
    pub fn is_kept_apart(&self) -> bool {
        self.content == Content::Live && are_kept_apart(self.distinct, self.namespace.partitions)
    }

    /// A namespace of its own for what one round makes of this topic.
    pub fn round(&self, name: &str) -> Result<Namespace> {
        let mut namespace = self.apart(name)?;
        namespace.events_topic.clone_from(&self.namespace.events_topic);
        Ok(namespace)
    }

    /// A namespace of its own with an empty topic.
    pub fn apart(&self, name: &str) -> Result<Namespace> {
        Namespace::new(name, &self.namespace.dir.join(name), self.namespace.partitions)
    }
}

/// Whether so many events of live order have claims enough, in each partition.
pub fn are_kept_apart(events: u64, partitions: i32) -> bool {
    events / LIVE_EVENTS_PER_CLAIM / u64::from(partitions.max(1).unsigned_abs()) > LIVE_BATCH_RECORDS
}

fn generate(pipeline: &Pipeline, events: u64, file: &Path) -> Result<()> {
    let (events, output) = (events.to_string(), file.display().to_string());
    pipeline.run(&["generate", "--events", &events, "--seed", SEED, "--output", &output]).map(drop)
}

/// Of claims that have as many, the first few events each: all first ones, then all second ones, and so on. Between two
/// events of a claim lie as many of others as there are claims.
fn interleave(all: &Path, file: &Path, events: u64) -> Result<()> {
    let mut claims: HashMap<(String, String), usize> = HashMap::new();
    let mut lines: Vec<Vec<Option<String>>> = Vec::new();
    for line in BufReader::new(File::open(all)?).lines() {
        let line = line?;
        let head: Head = serde_json::from_str(&line).context("a generated event")?;
        if head.version > LIVE_EVENTS_PER_CLAIM {
            continue;
        }
        let place = *claims.entry((head.tenant_id, head.claim_id)).or_insert(lines.len());
        if place == lines.len() {
            lines.push(vec![None; LIVE_EVENTS_PER_CLAIM as usize]);
        }
        if let Some(slot) = lines.get_mut(place).and_then(|claim| claim.get_mut(head.version as usize - 1)) {
            slot.get_or_insert(line);
        }
    }
    let whole: Vec<Vec<String>> = lines
        .into_iter()
        .filter_map(|claim| claim.into_iter().collect::<Option<Vec<String>>>())
        .take((events / LIVE_EVENTS_PER_CLAIM) as usize)
        .collect();
    let found = whole.len() as u64 * LIVE_EVENTS_PER_CLAIM;
    ensure!(found >= events * 99 / 100, "only {found} of {events} events in claims that are long enough");
    let mut out = BufWriter::new(File::create(file)?);
    for version in 0..LIVE_EVENTS_PER_CLAIM as usize {
        for line in whole.iter().filter_map(|claim| claim.get(version)) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_order_has_every_claim_between_two_events_of_one() {
        let folder = tempfile::tempdir().unwrap();
        let (all, file) = (folder.path().join("all"), folder.path().join("file"));
        let mut text = String::new();
        for claim in 0..40 {
            // Every fourth is too short; one event of each comes twice.
            for version in [1, 2, 2, 3, 4, 5, 6].into_iter().take(if claim % 4 == 0 { 4 } else { 7 }) {
                text += &format!("{{\"tenant_id\":\"t\",\"claim_id\":\"{claim}\",\"version\":{version}}}\n");
            }
        }
        std::fs::write(&all, text).unwrap();
        interleave(&all, &file, 150).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let heads: Vec<Head> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(heads.len(), 150);
        for (i, head) in heads.iter().enumerate() {
            assert_eq!(head.version as usize, i / 30 + 1);
            assert_eq!(head.claim_id, heads[i % 30].claim_id);
        }
    }
}
