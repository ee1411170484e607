//! The envelope of every claim event, and the data of each event type.
//!
//! Field and type names are those of `avro/claim_event.avsc`; a test holds the two together.

use crate::Text;
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A point in time: milliseconds since the Unix epoch, UTC. On the wire an Avro `timestamp-millis`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The same instant for chrono; `None` outside chrono's range (about ±262,000 years).
    pub fn to_datetime(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_millis(self.0)
    }

    /// The present moment by the machine's clock.
    pub fn now() -> Self {
        Self(Utc::now().timestamp_millis())
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(at: DateTime<Utc>) -> Self {
        Self(at.timestamp_millis())
    }
}

/// One immutable fact about one claim: the envelope and its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Whose claim it is; part of every key of every view.
    pub tenant_id: String,
    /// Unique per event; for imports a UUIDv5 of tenant, source, case, version and content.
    pub event_id: Uuid,
    /// The claim, unique within its tenant.
    pub claim_id: String,
    /// Sequence number within the claim, from 1; unique and increasing, given by the claim's one writer.
    pub version: u64,
    /// When it happened in the business.
    pub occurred_at: Timestamp,
    /// When this pipeline took it in. Copies of one event may differ in it.
    pub recorded_at: Timestamp,
    /// Ties together what belongs to one business transaction.
    pub correlation_id: String,
    /// The event or command that caused this one.
    pub causation_id: Option<String>,
    /// Who did it, if known.
    pub user_id: Option<String>,
    /// The system of record that owns the claim. `None`: the command side, whose versions have no gaps.
    pub source: Option<String>,
    /// What happened.
    pub data: EventData,
}

impl Event {
    /// The name of what happened.
    pub fn event_type(&self) -> EventType {
        self.data.event_type()
    }

    /// The key of the event's record: `tenant:claim_id:event_id`, unique per event, so that compaction removes
    /// only copies and erased events.
    pub fn record_key(&self) -> String {
        format!("{}:{}:{}", self.tenant_id, self.claim_id, self.event_id)
    }

    /// What the partition is chosen from: `tenant:claim_id`, so that a claim's events stay in order.
    pub fn partition_key(&self) -> String {
        format!("{}:{}", self.tenant_id, self.claim_id)
    }
}

macro_rules! event_types {
    ($($name:ident),* $(,)?) => {
        /// The name of an event type; the same as the branch of the Avro union.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum EventType { $($name),* }

        impl EventType {
            /// Every event type, in the order of the Avro union.
            pub const ALL: &'static [EventType] = &[$(EventType::$name),*];

            /// The name as written in Avro, headers and views.
            pub const fn as_str(self) -> &'static str {
                match self { $(EventType::$name => stringify!($name)),* }
            }
        }

        /// What happened. The variants are the branches of the Avro union, by name and in its order.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[allow(missing_docs)]
        pub enum EventData { $($name($name)),* }

        impl EventData {
            /// The name of the variant.
            pub const fn event_type(&self) -> EventType {
                match self { $(EventData::$name(_) => EventType::$name),* }
            }
        }

        $(impl From<$name> for EventData {
            fn from(data: $name) -> Self { EventData::$name(data) }
        })*
    };
}

event_types!(
    ClaimCreated,
    ClaimAssigned,
    ClaimReassigned,
    ClaimProcessingStarted,
    ClaimResolved,
    ClaimClosed,
    ClaimReopened,
    ClaimNoteAdded,
    ClaimErased,
);

impl std::fmt::Display for EventType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for EventType {
    type Err = UnknownEventType;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|t| t.as_str() == name)
            .ok_or_else(|| UnknownEventType(name.to_owned()))
    }
}

/// A name that no event type of this build has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown event type {0:?}; known are ClaimCreated, ClaimAssigned, ClaimReassigned, ClaimProcessingStarted, ClaimResolved, ClaimClosed, ClaimReopened, ClaimNoteAdded, ClaimErased"
)]
pub struct UnknownEventType(pub String);

/// How pressing a claim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Urgency {
    Low,
    Medium,
    High,
    Critical,
}

impl Urgency {
    /// The name as written in Avro, JSON and the views.
    pub const fn as_str(self) -> &'static str {
        match self {
            Urgency::Low => "low",
            Urgency::Medium => "medium",
            Urgency::High => "high",
            Urgency::Critical => "critical",
        }
    }
}

/// An amount of money, at most 14 digits before and 4 after the point (Avro decimal, precision 18, scale 4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// The amount.
    pub amount: Decimal,
    /// ISO 4217 code; `None`: the source doesn't say.
    #[serde(default)]
    pub currency: Option<Text>,
}

/// A customer has made a claim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ClaimCreated {
    pub customer_id: String,
    #[serde(default)]
    pub customer_name: Option<String>,
    #[serde(default)]
    pub customer_email: Option<String>,
    pub claim_type: String,
    #[serde(default)]
    pub title: Option<String>,
    pub description: String,
    #[serde(default)]
    pub product_id: Option<String>,
    #[serde(default)]
    pub order_id: Option<String>,
    pub urgency: Urgency,
    #[serde(default)]
    pub claimed: Option<Money>,
}

/// The claim has got its first agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ClaimAssigned {
    pub agent_id: String,
    pub agent_name: String,
    #[serde(default)]
    pub assignment_reason: Option<String>,
    #[serde(default)]
    pub estimated_resolution_time: Option<Timestamp>,
}

/// The claim has passed to another agent; its status stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ClaimReassigned {
    pub agent_id: String,
    pub agent_name: String,
    #[serde(default)]
    pub previous_agent_id: Option<String>,
    #[serde(default)]
    pub reason: Option<String>,
}

/// Somebody works on the claim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ClaimProcessingStarted {
    pub processed_by: String,
    #[serde(default)]
    pub note: Option<String>,
}

/// The claim has an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ClaimResolved {
    pub resolution: String,
    /// replacement, refund, repair, rejection, explanation, …
    pub resolution_type: String,
    #[serde(default)]
    pub customer_satisfaction: Option<String>,
    #[serde(default)]
    pub follow_up_required: bool,
    #[serde(default)]
    pub replacement_tracking: Option<String>,
    /// What was paid.
    #[serde(default)]
    pub settled: Option<Money>,
}

/// The claim is done with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ClaimClosed {
    #[serde(default)]
    pub closed_by: Option<String>,
    #[serde(default)]
    pub reason: Option<String>,
}

/// A resolved or closed claim is worked on again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ClaimReopened {
    #[serde(default)]
    pub reopened_by: Option<String>,
    #[serde(default)]
    pub reason: Option<String>,
}

/// A remark, or a note that the claim waits for somebody; its status stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ClaimNoteAdded {
    #[serde(default)]
    pub author: Option<String>,
    pub note: String,
    /// For example `awaiting_customer`, `awaiting_vendor`.
    #[serde(default)]
    pub kind: Option<String>,
}

/// The claim's personal data is erased. Terminal.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ClaimErased {
    #[serde(default)]
    pub requested_by: Option<String>,
    #[serde(default)]
    pub reason: Option<String>,
}
