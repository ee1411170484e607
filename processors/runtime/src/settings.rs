//! The limits of a stage. Every one has a default; every name ends in its unit.

use serde::{Deserialize, Serialize};

/// Limits of one processor's runtime.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeSettings {
    /// A batch is closed at this many records …
    pub max_batch_records: usize,
    /// … or this many bytes held …
    pub max_batch_bytes: usize,
    /// … or when its first record is this old.
    pub max_batch_age_ms: u64,
    /// Partitions pause above this many bytes in open and unacknowledged batches …
    pub pause_above_bytes: usize,
    /// … and resume below this many.
    pub resume_below_bytes: usize,
    /// A batch that keeps failing for passing reasons ends the process after this long.
    pub sink_retry_deadline_ms: u64,
    /// First wait between two tries; doubles up to `sink_retry_max_backoff_ms`.
    pub sink_retry_min_backoff_ms: u64,
    /// Longest wait between two tries.
    pub sink_retry_max_backoff_ms: u64,
    /// How long a revoked partition or a shutdown may wait for its batches.
    pub drain_timeout_ms: u64,
    /// Offsets are committed this often, and at every drain.
    pub commit_interval_ms: u64,
    /// With records waiting and none completed for this long, the stage counts as stalled.
    pub stall_timeout_ms: u64,
    /// The part of a dead letter's payload beyond this is cut.
    pub max_dead_letter_payload_bytes: usize,
    /// Static membership: the consumer's `group.instance.id`; also names the slot of the local store.
    pub instance_id: Option<String>,
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        Self {
            max_batch_records: 50_000,
            max_batch_bytes: 32 * 1024 * 1024,
            max_batch_age_ms: 200,
            pause_above_bytes: 96 * 1024 * 1024,
            resume_below_bytes: 48 * 1024 * 1024,
            sink_retry_deadline_ms: 300_000,
            sink_retry_min_backoff_ms: 100,
            sink_retry_max_backoff_ms: 5_000,
            drain_timeout_ms: 8_000,
            commit_interval_ms: 1_000,
            stall_timeout_ms: 120_000,
            max_dead_letter_payload_bytes: 256 * 1024,
            instance_id: None,
        }
    }
}
