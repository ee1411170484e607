//! Recomputing every chain of a store, and naming the place of whatever doesn't hold.
//!
//! One segment is in memory at a time. A finding doesn't end the check: it goes on from what the trail itself says, so
//! that one changed byte is one finding and not a million.

use crate::{
    chain::Digest,
    check::Checker,
    store::{SegmentStore, StoreError},
};
use serde::{Deserialize, Serialize};

/// Findings of one chain that a report names; the rest is only counted.
pub const MAX_FINDINGS_NAMED: usize = 100;

/// What to verify.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Only this topic; `None`: all.
    pub topic: Option<String>,
    /// Only this partition; `None`: all.
    pub partition: Option<i32>,
    /// Ends of chains noted earlier (in an older report): each chain must still pass through them. That is what
    /// finds segments cut off at the end, and a chain written anew from the beginning.
    pub anchors: Vec<Anchor>,
}

/// Where a chain stood at some time: note it in another place, and compare later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Place of the chain's last record; 0: no record.
    pub position: u64,
    /// The chain's hash there.
    pub hash: Digest,
}

/// What a check of a store found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The store.
    pub store: String,
    /// Whether every chain holds.
    pub holds: bool,
    /// Records in all chains.
    pub records: u64,
    /// Segments in all chains.
    pub segments: u64,
    /// One per topic and partition, ascending.
    pub chains: Vec<ChainReport>,
    /// Objects that have no place in the store.
    pub strangers: Vec<String>,
}

impl Report {
    /// Where the chains stand, to be kept elsewhere.
    pub fn anchors(&self) -> Vec<Anchor> {
        self.chains.iter().map(|chain| chain.end.clone()).collect()
    }
}

/// One chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainReport {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// Segments read.
    pub segments: u64,
    /// Records read.
    pub records: u64,
    /// Of them, events.
    pub events: u64,
    /// Of them, tombstones.
    pub tombstones: u64,
    /// Of them, erased.
    pub erased: u64,
    /// Offset of the first record.
    pub first_offset: Option<i64>,
    /// Offset of the last record.
    pub last_offset: Option<i64>,
    /// Where the chain stands.
    pub end: Anchor,
    /// What doesn't hold, with its place; at most [`MAX_FINDINGS_NAMED`].
    pub findings: Vec<Finding>,
    /// How many findings there are in all.
    pub findings_total: u64,
}

/// What kind of thing doesn't hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// The file is no readable segment: cut off, overwritten, of a newer format.
    Unreadable,
    /// A segment is gone.
    MissingSegment,
    /// The file is a segment, but of another place.
    Misplaced,
    /// A record's content is not what was hashed.
    ContentChanged,
    /// A record's own hash doesn't follow from the one before: something of it, or before it, was changed.
    ChainBroken,
    /// Records are gone, or there are more than there should be.
    PositionGap,
    /// Offsets don't ascend.
    OffsetOrder,
    /// What the file says of itself is not what its rows say.
    Metadata,
    /// The file's lookup by claim would not find a claim that is in it.
    Index,
    /// An anchor noted earlier isn't on the chain.
    Anchor,
    /// An object that has no place in the chain's folders.
    Stranger,
}

/// One thing that doesn't hold, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// The object, under the store's root.
    pub segment: Option<String>,
    /// The record's place in the chain.
    pub position: Option<u64>,
    /// The record's offset.
    pub offset: Option<i64>,
    /// In words.
    pub detail: String,
}

/// Verifies a store. An error means that the store could not be read, not that the trail is bad.
pub async fn verify(store: &SegmentStore, options: &VerifyOptions) -> Result<Report, StoreError> {
    let mut report = Report {
        store: store.name().to_owned(),
        holds: true,
        records: 0,
        segments: 0,
        chains: Vec::new(),
        strangers: Vec::new(),
    };
    let mut topics = store.topics().await?;
    topics.extend(options.anchors.iter().map(|anchor| anchor.topic.clone()));
    topics.sort_unstable();
    topics.dedup();
    topics.retain(|topic| options.topic.as_ref().is_none_or(|wanted| wanted == topic));
    for topic in &topics {
        let (mut partitions, strangers) = store.partitions(topic).await?;
        report.strangers.extend(strangers);
        let anchors = options.anchors.iter().filter(|anchor| anchor.topic == *topic);
        partitions.extend(anchors.filter(|anchor| anchor.position > 0).map(|anchor| anchor.partition));
        partitions.sort_unstable();
        partitions.dedup();
        partitions.retain(|partition| options.partition.is_none_or(|wanted| wanted == *partition));
        for &partition in &partitions {
            let chain = verify_chain(store, topic, partition, &options.anchors).await?;
            report.records += chain.records;
            report.segments += chain.segments;
            report.chains.push(chain);
        }
    }
    report.holds = report.strangers.is_empty() && report.chains.iter().all(|c| c.findings_total == 0);
    Ok(report)
}

async fn verify_chain(
    store: &SegmentStore,
    topic: &str,
    partition: i32,
    anchors: &[Anchor],
) -> Result<ChainReport, StoreError> {
    let mut checker = Checker::new(topic, partition, anchors);
    let folders = store.folders(topic, partition).await?;
    checker.strangers(folders.strangers);
    for folder in folders.numbers {
        let segments = store.segments(topic, partition, folder).await?;
        checker.strangers(segments.strangers);
        for sequence in segments.numbers {
            checker = check_segment(store, checker, sequence).await?;
        }
    }
    Ok(checker.finish())
}

/// Reads and checks one whole segment.
pub(crate) async fn check_segment(
    store: &SegmentStore,
    mut checker: Checker,
    sequence: u64,
) -> Result<Checker, StoreError> {
    let bytes = match store.get(checker.topic(), checker.partition(), sequence).await {
        Ok(bytes) => bytes,
        Err(error @ StoreError::TooLarge { .. }) => {
            checker.unreadable(sequence, &error.to_string());
            return Ok(checker);
        }
        Err(error) => return Err(error),
    };
    // On a thread of its own: it keeps a core busy, and should the reader panic on a file made to break it, the
    // segment counts as unreadable and the check goes on.
    let fallback = checker.clone();
    let checked = tokio::task::spawn_blocking(move || {
        checker.segment(sequence, bytes);
        checker
    })
    .await;
    Ok(checked.unwrap_or_else(|_| {
        let mut checker = fallback;
        checker.unreadable(sequence, "the Parquet reader gave up");
        checker
    }))
}
