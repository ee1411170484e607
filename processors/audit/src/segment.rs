//! A segment: a Parquet file with some records of one partition, in the order of its chain.
//!
//! - [`schema`](mod@schema): the columns, described in `docs/audit.md`.
//! - [`gather`]: records → columns, hashed.
//! - [`write`](mod@write): columns → file.
//! - [`read`](mod@read): file → records, and what can be told from the end of the file alone.

pub mod gather;
pub mod read;
pub mod schema;
pub mod write;

use crate::chain::{self, Digest};
use parquet::file::metadata::KeyValue;
use std::collections::BTreeMap;

/// The format that this build writes and reads.
pub const FORMAT: &str = "1";

const META_FORMAT: &str = "claims.audit.format";
const META_TOPIC: &str = "claims.audit.topic";
const META_PARTITION: &str = "claims.audit.partition";
const META_SEQUENCE: &str = "claims.audit.sequence";
const META_FIRST_POSITION: &str = "claims.audit.first_position";
const META_RECORDS: &str = "claims.audit.records";
const META_FIRST_OFFSET: &str = "claims.audit.first_offset";
const META_LAST_OFFSET: &str = "claims.audit.last_offset";
const META_PREVIOUS_HASH: &str = "claims.audit.previous_hash";
const META_LAST_HASH: &str = "claims.audit.last_hash";

/// Why a segment can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The file is no readable Parquet file.
    #[error("not a readable Parquet file: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    /// The columns are not those of a segment.
    #[error("not a segment's columns: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// The file's own account of itself is missing or senseless.
    #[error("its metadata entry {key} is {problem}")]
    Meta {
        /// The entry.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A value that no segment holds.
    #[error("row {row}, column {column}: {problem}")]
    Value {
        /// The row in the file, from 0.
        row: usize,
        /// The column's name.
        column: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The caller gave nothing to write, or records in the wrong order.
    #[error("can't be written: {0}")]
    Unwritable(String),
}

/// Where a chain stands: what the next record is appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Sequence number of the next segment, from 0.
    pub next_sequence: u64,
    /// Place of the last record in the chain; 0: none yet.
    pub position: u64,
    /// Offset of the last record; `None`: none yet.
    pub last_offset: Option<i64>,
    /// The chain's hash at the last record.
    pub hash: Digest,
}

impl Head {
    /// The head of a chain without a record.
    pub fn empty(topic: &str, partition: i32) -> Self {
        Self { next_sequence: 0, position: 0, last_offset: None, hash: chain::genesis(topic, partition) }
    }
}

/// A segment's own account of itself, in the file's metadata. Every part can be recomputed from the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentMeta {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The segment's number in its chain, from 0, without gaps.
    pub sequence: u64,
    /// Place of the first record in the chain, from 1.
    pub first_position: u64,
    /// Number of records, at least 1.
    pub records: u64,
    /// Offset of the first record.
    pub first_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// The chain's hash before the first record.
    pub previous_hash: Digest,
    /// The chain's hash at the last record.
    pub last_hash: Digest,
}

impl SegmentMeta {
    /// The head of the chain that ends with this segment.
    pub fn head(&self) -> Head {
        Head {
            next_sequence: self.sequence.saturating_add(1),
            position: self.last_position(),
            last_offset: Some(self.last_offset),
            hash: self.last_hash,
        }
    }

    /// Place of the last record in the chain.
    pub fn last_position(&self) -> u64 {
        self.first_position.saturating_add(self.records).saturating_sub(1)
    }

    fn to_key_values(&self) -> Vec<KeyValue> {
        [
            (META_FORMAT, FORMAT.to_owned()),
            (META_TOPIC, self.topic.clone()),
            (META_PARTITION, self.partition.to_string()),
            (META_SEQUENCE, self.sequence.to_string()),
            (META_FIRST_POSITION, self.first_position.to_string()),
            (META_RECORDS, self.records.to_string()),
            (META_FIRST_OFFSET, self.first_offset.to_string()),
            (META_LAST_OFFSET, self.last_offset.to_string()),
            (META_PREVIOUS_HASH, self.previous_hash.to_string()),
            (META_LAST_HASH, self.last_hash.to_string()),
        ]
        .into_iter()
        .map(|(key, value)| KeyValue::new(key.to_owned(), value))
        .collect()
    }

    fn from_key_values(key_values: Option<&Vec<KeyValue>>) -> Result<Self, SegmentError> {
        let entries: BTreeMap<&str, &str> = key_values
            .into_iter()
            .flatten()
            .filter_map(|kv| Some((kv.key.as_str(), kv.value.as_deref()?)))
            .collect();
        let entries = Entries(entries);
        let format: String = entries.parse(META_FORMAT)?;
        if format != FORMAT {
            let problem = format!("{format:?}, and this build reads {FORMAT:?} only: upgrade it");
            return Err(SegmentError::Meta { key: META_FORMAT, problem });
        }
        Ok(Self {
            topic: entries.parse(META_TOPIC)?,
            partition: entries.parse(META_PARTITION)?,
            sequence: entries.parse(META_SEQUENCE)?,
            first_position: entries.parse(META_FIRST_POSITION)?,
            records: entries.parse(META_RECORDS)?,
            first_offset: entries.parse(META_FIRST_OFFSET)?,
            last_offset: entries.parse(META_LAST_OFFSET)?,
            previous_hash: entries.parse(META_PREVIOUS_HASH)?,
            last_hash: entries.parse(META_LAST_HASH)?,
        })
    }
}

struct Entries<'a>(BTreeMap<&'a str, &'a str>);

impl Entries<'_> {
    fn parse<T: std::str::FromStr>(&self, key: &'static str) -> Result<T, SegmentError> {
        let text =
            self.0.get(key).ok_or_else(|| SegmentError::Meta { key, problem: "missing".to_owned() })?;
        text.parse().map_err(|_| SegmentError::Meta { key, problem: format!("{text:?}") })
    }
}

#[cfg(test)]
#[path = "segment_tests.rs"]
mod tests;
