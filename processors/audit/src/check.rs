//! Following one chain, segment by segment, and noting what doesn't hold. Pure.

use crate::{
    chain::{self, Digest},
    record::{RecordKind, TrailRecord},
    segment::{
        SegmentError, SegmentMeta,
        read::{ClaimFilter, Columns, SegmentFile},
    },
    store::SegmentStore,
    verify::{Anchor, ChainReport, Finding, FindingKind, MAX_FINDINGS_NAMED},
};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};

/// The records that a lookup wants.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub tenant_id: Option<String>,
    pub claim_id: String,
}

/// A wanted record, where it was found, and whether it holds.
#[derive(Debug, Clone)]
pub(crate) struct Match {
    pub record: TrailRecord,
    pub segment: Arc<str>,
    pub holds: bool,
}

/// The state of one chain's check.
#[derive(Debug, Clone)]
pub(crate) struct Checker {
    report: ChainReport,
    next_sequence: u64,
    /// The last segment could not be read: where the chain goes on is not known, only what the next one says.
    lost: bool,
    /// Positions that must have these hashes.
    anchors: BTreeMap<u64, Digest>,
    wanted: Option<Wanted>,
    matches: Vec<Match>,
}

impl Checker {
    pub fn new(topic: &str, partition: i32, anchors: &[Anchor]) -> Self {
        let hash = chain::genesis(topic, partition);
        let end = Anchor { topic: topic.to_owned(), partition, position: 0, hash };
        let here =
            |anchor: &&Anchor| anchor.topic == topic && anchor.partition == partition && anchor.position > 0;
        Self {
            anchors: anchors.iter().filter(here).map(|anchor| (anchor.position, anchor.hash)).collect(),
            report: ChainReport {
                topic: topic.to_owned(),
                partition,
                segments: 0,
                records: 0,
                events: 0,
                tombstones: 0,
                erased: 0,
                first_offset: None,
                last_offset: None,
                end,
                findings: Vec::new(),
                findings_total: 0,
            },
            next_sequence: 0,
            lost: false,
            wanted: None,
            matches: Vec::new(),
        }
    }

    /// Keeps these records as they come by.
    pub fn wanting(mut self, wanted: Wanted) -> Self {
        self.wanted = Some(wanted);
        self
    }

    /// The wanted records found so far, in the order of the chain; taken out.
    pub fn take_matches(&mut self) -> Vec<Match> {
        std::mem::take(&mut self.matches)
    }

    pub fn topic(&self) -> &str {
        &self.report.topic
    }

    pub fn partition(&self) -> i32 {
        self.report.partition
    }

    fn path(&self, sequence: u64) -> Arc<str> {
        SegmentStore::segment_path(self.topic(), self.partition(), sequence).into()
    }

    fn find(&mut self, finding: Finding) {
        self.report.findings_total += 1;
        if self.report.findings.len() < MAX_FINDINGS_NAMED {
            self.report.findings.push(finding);
        }
    }

    fn find_in(&mut self, kind: FindingKind, path: &str, detail: String) {
        self.find(Finding { kind, segment: Some(path.to_owned()), position: None, offset: None, detail });
    }

    fn find_at(&mut self, kind: FindingKind, path: &str, record: &TrailRecord, detail: &str) {
        self.find(Finding {
            kind,
            segment: Some(path.to_owned()),
            position: Some(record.position),
            offset: Some(record.entry.offset),
            detail: detail.to_owned(),
        });
    }

    pub fn strangers(&mut self, paths: Vec<String>) {
        for path in paths {
            self.find_in(FindingKind::Stranger, &path, "it has no place in a chain".to_owned());
        }
    }

    /// A segment that can't be read.
    pub fn unreadable(&mut self, sequence: u64, detail: &str) {
        self.missing_before(sequence);
        self.next_sequence = sequence + 1;
        self.lost = true;
        let path = self.path(sequence);
        self.find_in(FindingKind::Unreadable, &path, detail.to_owned());
    }

    fn missing_before(&mut self, sequence: u64) {
        if sequence <= self.next_sequence {
            return;
        }
        let first = self.path(self.next_sequence);
        let detail = match sequence - self.next_sequence {
            1 => "it is gone".to_owned(),
            gone => format!("it and the {} after it are gone", gone - 1),
        };
        self.find_in(FindingKind::MissingSegment, &first, detail);
        self.lost = true;
    }

    /// A segment, read whole: every hash is recomputed.
    pub fn segment(&mut self, sequence: u64, bytes: Bytes) {
        let opened = SegmentFile::open(bytes).and_then(|file| {
            let filter = file.claim_filter()?;
            let records = file.records(Columns::All)?;
            Ok((file, filter, records))
        });
        let (file, filter, records) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.unreadable(sequence, &error.to_string()),
        };
        let path = self.begin(sequence, file.meta());
        self.records(&path, file.meta(), &filter, records);
    }

    /// A segment of which only the end was read: its own account is believed, and must fit its neighbours'.
    pub fn tail(&mut self, sequence: u64, meta: &SegmentMeta) {
        self.begin(sequence, meta);
        self.report.end.position = meta.last_position();
        self.report.end.hash = meta.last_hash;
        self.report.last_offset = Some(meta.last_offset);
    }

    fn begin(&mut self, sequence: u64, meta: &SegmentMeta) -> Arc<str> {
        self.missing_before(sequence);
        self.next_sequence = sequence + 1;
        self.report.segments += 1;
        let path = self.path(sequence);
        if meta.topic != self.report.topic
            || meta.partition != self.report.partition
            || meta.sequence != sequence
        {
            let detail = format!(
                "it is segment {} of topic {}, partition {}",
                meta.sequence, meta.topic, meta.partition
            );
            self.find_in(FindingKind::Misplaced, &path, detail);
        }
        self.link_to(meta, &path);
        path
    }

    /// The segment must go on where the last one ended; if that isn't known, or it doesn't, it is believed.
    fn link_to(&mut self, meta: &SegmentMeta, path: &str) {
        let end = &self.report.end;
        if !self.lost && meta.previous_hash != end.hash {
            let detail =
                format!("it follows hash {}, but the chain stands at {}", meta.previous_hash, end.hash);
            self.find_in(FindingKind::ChainBroken, path, detail);
        }
        if !self.lost && meta.first_position != self.report.end.position + 1 {
            let detail = format!(
                "it begins at position {}, but the chain stands at {}",
                meta.first_position, self.report.end.position
            );
            self.find_in(FindingKind::PositionGap, path, detail);
        }
        self.lost = false;
        self.report.end.hash = meta.previous_hash;
        self.report.end.position = meta.first_position.saturating_sub(1);
    }

    fn records(
        &mut self,
        path: &Arc<str>,
        meta: &SegmentMeta,
        filter: &ClaimFilter,
        records: impl Iterator<Item = Result<TrailRecord, SegmentError>>,
    ) {
        let (mut count, mut first_offset) = (0, None);
        for record in records {
            match record {
                Ok(record) => {
                    count += 1;
                    first_offset.get_or_insert(record.entry.offset);
                    let findings = self.report.findings_total;
                    self.record(path, &record, filter);
                    if self.wants(&record) {
                        let holds = findings == self.report.findings_total;
                        self.matches.push(Match { record, segment: Arc::clone(path), holds });
                    }
                }
                Err(error) => {
                    self.find_in(FindingKind::Unreadable, path, error.to_string());
                    // A batch of rows is lost; the next ones can't be told from shifted ones.
                    self.lost = true;
                    return;
                }
            }
        }
        let end = (self.report.end.position, self.report.last_offset, self.report.end.hash);
        let told = (meta.last_position(), Some(meta.last_offset), meta.last_hash);
        if count != meta.records || first_offset != Some(meta.first_offset) || end != told {
            let detail = format!(
                "it tells of {} records up to position {}, but holds {count} up to position {}",
                meta.records, told.0, end.0
            );
            self.find_in(FindingKind::Metadata, path, detail);
        }
    }

    fn wants(&self, record: &TrailRecord) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| {
            record.entry.claim_id.as_ref() == Some(&wanted.claim_id)
                && wanted.tenant_id.as_ref().is_none_or(|t| record.entry.tenant_id.as_ref() == Some(t))
        })
    }

    fn record(&mut self, path: &str, record: &TrailRecord, filter: &ClaimFilter) {
        let record_hash = chain::record_hash(
            &self.report.topic,
            record.position,
            record.processed_at_ms,
            &record.entry,
            &record.content_hash,
        );
        let report = &mut self.report;
        report.records += 1;
        match record.entry.kind {
            RecordKind::Event => report.events += 1,
            RecordKind::Tombstone => report.tombstones += 1,
        }
        report.erased += u64::from(record.is_erased());
        if record.position != report.end.position + 1 {
            let detail = format!("position {} comes after {}", record.position, report.end.position);
            self.find_at(FindingKind::PositionGap, path, record, &detail);
        }
        if self.report.last_offset.is_some_and(|last| record.entry.offset <= last) {
            self.find_at(
                FindingKind::OffsetOrder,
                path,
                record,
                "its offset does not come after the last one",
            );
        }
        if record.entry.partition != self.report.partition {
            self.find_at(FindingKind::Misplaced, path, record, "it is of another partition");
        }
        if let Some(detail) = content_problem(record) {
            self.find_at(FindingKind::ContentChanged, path, record, detail);
        }
        if record.entry.claim_id.as_ref().is_some_and(|claim| !filter.may_hold(claim)) {
            self.find_at(FindingKind::Index, path, record, "a lookup by claim would not find it");
        }
        if chain::link(&self.report.end.hash, &record_hash) != record.chain_hash {
            let detail = "its hash does not follow from what it says and the hash before it";
            self.find_at(FindingKind::ChainBroken, path, record, detail);
        }
        if self.anchors.remove(&record.position).is_some_and(|hash| hash != record.chain_hash) {
            let detail = "the chain had another hash here when it was noted";
            self.find_at(FindingKind::Anchor, path, record, detail);
        }
        self.report.first_offset.get_or_insert(record.entry.offset);
        self.report.last_offset = Some(record.entry.offset);
        self.report.end.position = record.position;
        self.report.end.hash = record.chain_hash;
    }

    pub fn finish(mut self) -> ChainReport {
        for position in std::mem::take(&mut self.anchors).into_keys() {
            let detail = format!("the chain was noted to reach position {position}, and has no such record");
            self.find(Finding {
                kind: FindingKind::Anchor,
                segment: None,
                position: Some(position),
                offset: None,
                detail,
            });
        }
        self.report
    }
}

/// What is wrong with a record's content against its own salted hash.
fn content_problem(record: &TrailRecord) -> Option<&'static str> {
    match (&record.salt, &record.entry.content) {
        (Some(salt), Some(content)) => (chain::content_hash(salt, content) != record.content_hash)
            .then_some("its content is not what was hashed"),
        (None, Some(_)) => Some("its salt is gone, but there is content: an erasure removes both"),
        // With its salt a record without any field still has a content; see the reader.
        (Some(_), None) | (None, None) => None,
    }
}
