//! Everything that the trail holds of one claim.
//!
//! Of a segment that doesn't hold the claim only the end of the file is read: its Bloom filter says so, and its own
//! account must fit its neighbours'. The segments that hold it are read whole, and every hash in them is recomputed.

use crate::{
    check::{Checker, Match, Wanted},
    record::RecordKind,
    segment::read::SegmentTail,
    store::{SegmentStore, StoreError},
    verify::{Finding, check_segment},
};
use chrono::{DateTime, SecondsFormat};
use futures::{StreamExt, TryStreamExt};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// File ends that are read at the same time.
const MAX_CONCURRENT_READS: usize = 8;

/// Which claim.
#[derive(Debug, Clone)]
pub struct ShowOptions {
    /// The topic whose chains are looked through.
    pub topic: String,
    /// Only this tenant's; `None`: of every tenant that has a claim of this name.
    pub tenant_id: Option<String>,
    /// The claim.
    pub claim_id: String,
}

/// A claim's records, and whether what was read of the chains holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClaimTrail {
    /// The claim.
    pub claim_id: String,
    /// Its records in the order of the log.
    pub records: Vec<ShownRecord>,
    /// Whether the segments with these records hold, record by record, and the segments of the partition link up.
    /// `verify` recomputes the rest of the chain as well.
    pub holds: bool,
    /// What doesn't hold.
    pub findings: Vec<Finding>,
    /// Segments looked at.
    pub segments: u64,
    /// Of them, those that were read whole.
    pub segments_read: u64,
}

/// One record of a claim. Without its payload: that is in the segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownRecord {
    /// Whose claim it is.
    pub tenant_id: Option<String>,
    /// Event or tombstone.
    pub kind: RecordKind,
    /// Name of the event type.
    pub event_type: Option<String>,
    /// The event's sequence number within the claim.
    pub version: Option<i64>,
    /// The event's id.
    pub event_id: Option<String>,
    /// When it happened in the business.
    pub occurred_at: Option<Instant>,
    /// When the broker appended it.
    pub appended_at: Instant,
    /// When the trail took it.
    pub processed_at: Instant,
    /// From the append to the trail, milliseconds.
    pub latency_ms: i64,
    /// From the event to the trail, milliseconds.
    pub since_occurred_ms: Option<i64>,
    /// The topic's partition.
    pub partition: i32,
    /// The record's offset there.
    pub offset: i64,
    /// The record's place in the chain.
    pub position: u64,
    /// The segment that holds it.
    pub segment: String,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// The same event stands at this offset already.
    pub copy_of_offset: Option<i64>,
    /// Another event stands at this offset with the same version: this one is superseded.
    pub superseded_by_offset: Option<i64>,
    /// The content was erased.
    pub erased: bool,
    /// Whether its hashes hold.
    pub holds: bool,
}

/// Milliseconds since the Unix epoch; shown and serialised as RFC 3339 where that can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub i64);

impl std::fmt::Display for Instant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match DateTime::from_timestamp_millis(self.0) {
            Some(at) => f.write_str(&at.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => write!(f, "{} ms", self.0),
        }
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Looks a claim up. An error means that the store could not be read.
pub async fn show(store: &SegmentStore, options: &ShowOptions) -> Result<ClaimTrail, StoreError> {
    let mut trail = ClaimTrail {
        claim_id: options.claim_id.clone(),
        records: Vec::new(),
        holds: true,
        findings: Vec::new(),
        segments: 0,
        segments_read: 0,
    };
    let (partitions, _) = store.partitions(&options.topic).await?;
    for partition in partitions {
        look_through(store, options, partition, &mut trail).await?;
    }
    trail.holds = trail.findings.is_empty();
    Ok(trail)
}

async fn look_through(
    store: &SegmentStore,
    options: &ShowOptions,
    partition: i32,
    trail: &mut ClaimTrail,
) -> Result<(), StoreError> {
    let topic = options.topic.as_str();
    let wanted = Wanted { tenant_id: options.tenant_id.clone(), claim_id: options.claim_id.clone() };
    let mut checker = Checker::new(topic, partition, &[]).wanting(wanted);
    let mut matches = Vec::new();
    for folder in store.folders(topic, partition).await?.numbers {
        let sequences = store.segments(topic, partition, folder).await?.numbers;
        let mut tails = futures::stream::iter(sequences)
            .map(|sequence| async move { Ok((sequence, store.get_tail(topic, partition, sequence).await?)) })
            .buffered(MAX_CONCURRENT_READS);
        while let Some((sequence, tail)) = tails.try_next().await? {
            trail.segments += 1;
            let told =
                tokio::task::spawn_blocking(move || SegmentTail::parse(tail.object_bytes, &tail.bytes));
            match told.await {
                Ok(Ok(Some(tail))) if !tail.claims.may_hold(&options.claim_id) => {
                    checker.tail(sequence, &tail.meta);
                }
                // It may hold the claim, its end is long, or it can't be read: the whole file tells.
                _ => {
                    trail.segments_read += 1;
                    checker = check_segment(store, checker, sequence).await?;
                    matches.append(&mut checker.take_matches());
                }
            }
        }
    }
    // A partition without the claim says nothing of it, whatever state it is in.
    let report = checker.finish();
    let unreadable = report.findings.iter().any(|f| f.kind == crate::verify::FindingKind::Unreadable);
    if !matches.is_empty() || unreadable {
        trail.findings.extend(report.findings);
    }
    trail.records.extend(shown(matches));
    Ok(())
}

fn shown(matches: Vec<Match>) -> Vec<ShownRecord> {
    let mut by_event: BTreeMap<(Option<String>, String), i64> = BTreeMap::new();
    let mut by_version: BTreeMap<(Option<String>, i64), (i64, Option<String>)> = BTreeMap::new();
    matches
        .into_iter()
        .map(|Match { record, segment, holds }| {
            let (latency_ms, erased) = (record.latency_ms(), record.is_erased());
            let entry = record.entry;
            let content = entry.content.unwrap_or_default();
            let (offset, tenant) = (entry.offset, entry.tenant_id.clone());
            let is_event = entry.kind == RecordKind::Event;
            let first = content
                .event_id
                .clone()
                .filter(|_| is_event)
                .map(|event_id| *by_event.entry((tenant.clone(), event_id)).or_insert(offset));
            let copy_of_offset = first.filter(|first| *first != offset);
            let superseded_by_offset = entry.version.filter(|_| !erased).and_then(|version| {
                let first =
                    by_version.entry((tenant, version)).or_insert_with(|| (offset, content.event_id.clone()));
                (first.1 != content.event_id).then_some(first.0)
            });
            ShownRecord {
                tenant_id: entry.tenant_id,
                kind: entry.kind,
                event_type: entry.event_type.map(|name| name.into_owned()),
                version: entry.version,
                event_id: content.event_id,
                occurred_at: content.occurred_at_ms.map(Instant),
                appended_at: Instant(entry.appended_at_ms),
                processed_at: Instant(record.processed_at_ms),
                latency_ms,
                since_occurred_ms: content
                    .occurred_at_ms
                    .map(|occurred| record.processed_at_ms.saturating_sub(occurred)),
                partition: entry.partition,
                offset,
                position: record.position,
                segment: segment.to_string(),
                correlation_id: content.correlation_id,
                copy_of_offset,
                superseded_by_offset,
                erased,
                holds,
            }
        })
        .collect()
}
