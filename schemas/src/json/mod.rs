//! The canonical JSON form of an event: one line of NDJSON, timestamps as RFC 3339, amounts as decimal strings.
//!
//! ```json
//! {"tenant_id":"acme","event_id":"f47ac10b-58cc-4372-a567-0e02b2c3d479","claim_id":"claim_67890",
//!  "event_type":"ClaimClosed","version":5,"occurred_at":"2025-07-08T14:30:00.000Z",
//!  "recorded_at":"2025-07-08T14:30:00.250Z","correlation_id":"trace_xyz789","causation_id":null,"user_id":null,
//!  "source":null,"data":{"closed_by":"agent_smith","reason":null}}
//! ```
//!
//! Written with every field, `null` where there is no value. Read with `tenant_id`, `event_id`, `recorded_at`,
//! `correlation_id` and whatever may be null left out at will; a field that nobody knows is refused, so that a
//! misspelt one is not lost in silence. `"aggregate_type":"claim"` may be given. A time outside the years 0 to 9999
//! is written as milliseconds since 1970, and every time may be given so.

mod line;
mod read;
mod write;

pub use line::{DraftView, LineReader};
pub use read::{from_value, parse_amount};
pub use write::to_value;

use crate::events::{Event, EventData, Timestamp};
use uuid::Uuid;

/// An event as read from JSON: what an outsider may leave out is optional, and ingress fills it in.
#[derive(Debug, Clone, PartialEq)]
pub struct EventDraft {
    /// Whose claim it is; `None`: the tenant of the connection or the configured one.
    pub tenant_id: Option<String>,
    /// `None`: ingress derives one from the content.
    pub event_id: Option<Uuid>,
    /// The claim, unique within its tenant.
    pub claim_id: String,
    /// Sequence number within the claim, from 1.
    pub version: u64,
    /// When it happened in the business.
    pub occurred_at: Timestamp,
    /// `None`: now, when ingress takes it in.
    pub recorded_at: Option<Timestamp>,
    /// `None`: ingress makes one.
    pub correlation_id: Option<String>,
    /// The event or command that caused this one.
    pub causation_id: Option<String>,
    /// Who did it, if known.
    pub user_id: Option<String>,
    /// The system of record that owns the claim; `None`: the command side.
    pub source: Option<String>,
    /// What happened.
    pub data: EventData,
}

impl EventDraft {
    /// The event, with what the draft lacks taken from the arguments.
    pub fn complete(
        self,
        tenant_id: impl FnOnce() -> String,
        event_id: Uuid,
        recorded_at: Timestamp,
        correlation_id: impl FnOnce() -> String,
    ) -> Event {
        Event {
            tenant_id: self.tenant_id.unwrap_or_else(tenant_id),
            event_id: self.event_id.unwrap_or(event_id),
            claim_id: self.claim_id,
            version: self.version,
            occurred_at: self.occurred_at,
            recorded_at: self.recorded_at.unwrap_or(recorded_at),
            correlation_id: self.correlation_id.unwrap_or_else(correlation_id),
            causation_id: self.causation_id,
            user_id: self.user_id,
            source: self.source,
            data: self.data,
        }
    }
}

/// Which field of an event's JSON is wrong, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct JsonError {
    /// The field, with its place: `version`, `data.claimed.amount`.
    pub field: String,
    /// What is wrong with it, without its value.
    pub reason: String,
}
