//! A claim's current state: what the fold makes of a set of events.

use crate::{
    Text,
    events::{Money, Timestamp, Urgency},
};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// The versions of a claim's events; those of most claims stand in it.
pub type SeenVersions = SmallVec<[SeenVersion; 8]>;

/// Where a claim stands in its lifecycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Status {
    /// Events are known, but none that sets a status (its creation is still to come).
    Unknown,
    Created,
    Assigned,
    Processing,
    Resolved,
    Closed,
    /// Terminal: the claim's data was erased.
    Erased,
}

impl Status {
    /// Every status, in lifecycle order.
    pub const ALL: &'static [Status] = &[
        Status::Unknown,
        Status::Created,
        Status::Assigned,
        Status::Processing,
        Status::Resolved,
        Status::Closed,
        Status::Erased,
    ];

    /// The name as written in the views: `CREATED`, `ASSIGNED`, …
    pub const fn as_str(self) -> &'static str {
        match self {
            Status::Unknown => "UNKNOWN",
            Status::Created => "CREATED",
            Status::Assigned => "ASSIGNED",
            Status::Processing => "PROCESSING",
            Status::Resolved => "RESOLVED",
            Status::Closed => "CLOSED",
            Status::Erased => "ERASED",
        }
    }
}

/// A value and the version of the event that last set it; version 0: never set. The higher version wins, which is
/// what makes the fold independent of order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Versioned<T> {
    /// The version of the event that set the value, 0 if none has.
    pub version: u64,
    /// The value it set; may be a cleared one.
    pub value: T,
}

/// One folded event: its version, and a fingerprint of its id to tell a copy from a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenVersion {
    /// The event's version.
    pub version: u64,
    /// Both halves of the event's id, xored.
    pub event_id_fingerprint: u64,
}

/// The current state of one claim. What each event type sets, and what erasing clears: see [`crate::fold`].
#[derive(Debug, Clone, PartialEq, Default)]
#[allow(missing_docs)]
pub struct ClaimState {
    pub tenant_id: Text,
    pub claim_id: Text,
    /// The versions folded so far, ascending; their number is the [`revision`](Self::revision).
    pub seen: SeenVersions,
    pub status: Versioned<Option<Status>>,
    /// When the event that set the status occurred.
    pub status_since: Timestamp,
    /// The source that the event with the highest version came from.
    pub source: Option<Text>,
    pub customer_id: Versioned<Option<Text>>,
    pub customer_name: Versioned<Option<Text>>,
    pub customer_email: Versioned<Option<Text>>,
    pub claim_type: Versioned<Option<Text>>,
    pub title: Versioned<Option<Text>>,
    pub description: Versioned<Option<Text>>,
    pub product_id: Versioned<Option<Text>>,
    pub order_id: Versioned<Option<Text>>,
    pub urgency: Versioned<Option<Urgency>>,
    pub claimed: Versioned<Option<Money>>,
    pub agent_id: Versioned<Option<Text>>,
    pub agent_name: Versioned<Option<Text>>,
    pub estimated_resolution_at: Versioned<Option<Timestamp>>,
    pub resolution: Versioned<Option<Text>>,
    pub resolution_type: Versioned<Option<Text>>,
    pub customer_satisfaction: Versioned<Option<Text>>,
    pub follow_up_required: Versioned<Option<bool>>,
    pub replacement_tracking: Versioned<Option<Text>>,
    pub settled: Versioned<Option<Money>>,
    /// When it was created, last resolved and last closed in the business.
    pub created_at: Versioned<Option<Timestamp>>,
    pub resolved_at: Versioned<Option<Timestamp>>,
    pub closed_at: Versioned<Option<Timestamp>>,
    /// When the event with the highest version occurred.
    pub updated_at: Versioned<Option<Timestamp>>,
    pub reopen_count: u32,
    pub reassignment_count: u32,
    pub note_count: u32,
}

impl ClaimState {
    /// Number of distinct versions folded: the stamp of every write to a view.
    pub fn revision(&self) -> u64 {
        self.seen.len() as u64
    }

    /// The highest version folded, 0 if none.
    pub fn version(&self) -> u64 {
        self.seen.last().map_or(0, |s| s.version)
    }

    /// The status, `Unknown` while no event has set one.
    pub fn status(&self) -> Status {
        self.status.value.unwrap_or(Status::Unknown)
    }
}
