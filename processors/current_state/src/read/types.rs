//! Rows of the views, as read.

use chrono::{DateTime, Utc};
use scylla::{DeserializeRow, value::CqlDecimal};
use uuid::Uuid;

/// The columns of [`ClaimView`], in its order.
pub(super) const CLAIM_COLUMNS: &str = "tenant_id, claim_id, status, status_since, source, customer_id, customer_name, \
    customer_email, claim_type, title, description, product_id, order_id, urgency, claimed_amount, claimed_currency, \
    agent_id, agent_name, estimated_resolution_at, resolution, resolution_type, customer_satisfaction, \
    follow_up_required, replacement_tracking, settled_amount, settled_currency, created_at, resolved_at, closed_at, \
    updated_at, reopen_count, reassignment_count, note_count, version, revision";

/// The columns of [`ListItem`], in its order.
pub(super) const LIST_COLUMNS: &str = "tenant_id, bucket, shard, created_at, claim_id, status, customer_id, agent_id, \
    agent_name, claim_type, title, urgency, claimed_amount, claimed_currency, updated_at, revision";

/// The columns of [`TimelineItem`], in its order.
pub(super) const TIMELINE_COLUMNS: &str =
    "tenant_id, claim_id, version, event_id, event_type, occurred_at, actor, words";

/// A row of `claim_by_id`: the current state of a claim.
#[derive(Debug, Clone, PartialEq, DeserializeRow)]
#[scylla(flavor = "enforce_order")]
#[allow(missing_docs)]
pub struct ClaimView {
    pub tenant_id: String,
    pub claim_id: String,
    pub status: String,
    pub status_since: Option<DateTime<Utc>>,
    pub source: Option<String>,
    pub customer_id: Option<String>,
    pub customer_name: Option<String>,
    pub customer_email: Option<String>,
    pub claim_type: Option<String>,
    pub title: Option<String>,
    pub description: Option<String>,
    pub product_id: Option<String>,
    pub order_id: Option<String>,
    pub urgency: Option<String>,
    pub claimed_amount: Option<CqlDecimal>,
    pub claimed_currency: Option<String>,
    pub agent_id: Option<String>,
    pub agent_name: Option<String>,
    pub estimated_resolution_at: Option<DateTime<Utc>>,
    pub resolution: Option<String>,
    pub resolution_type: Option<String>,
    pub customer_satisfaction: Option<String>,
    pub follow_up_required: Option<bool>,
    pub replacement_tracking: Option<String>,
    pub settled_amount: Option<CqlDecimal>,
    pub settled_currency: Option<String>,
    pub created_at: Option<DateTime<Utc>>,
    pub resolved_at: Option<DateTime<Utc>>,
    pub closed_at: Option<DateTime<Utc>>,
    pub updated_at: Option<DateTime<Utc>>,
    pub reopen_count: i32,
    pub reassignment_count: i32,
    pub note_count: i32,
    pub version: i64,
    pub revision: i64,
}

/// A row of a list view.
#[derive(Debug, Clone, PartialEq, DeserializeRow)]
#[scylla(flavor = "enforce_order")]
pub struct ListItem {
    /// Whose claim it is.
    pub tenant_id: String,
    /// The time bucket that the row stands in; 0: the creation isn't known yet.
    pub bucket: i32,
    /// The shard that the row stands in.
    pub shard: i16,
    /// When the claim was created; 1970-01-01 in bucket 0.
    pub created_at: DateTime<Utc>,
    /// The claim.
    pub claim_id: String,
    /// Its status.
    pub status: String,
    /// Its customer.
    pub customer_id: Option<String>,
    /// Its agent.
    pub agent_id: Option<String>,
    /// The agent's name.
    pub agent_name: Option<String>,
    /// Its type.
    pub claim_type: Option<String>,
    /// Its title.
    pub title: Option<String>,
    /// How pressing it is.
    pub urgency: Option<String>,
    /// The amount claimed.
    pub claimed_amount: Option<CqlDecimal>,
    /// Its currency.
    pub claimed_currency: Option<String>,
    /// When its newest event occurred.
    pub updated_at: Option<DateTime<Utc>>,
    /// Number of events in it.
    pub revision: i64,
}

/// A row of `claim_timeline`.
#[derive(Debug, Clone, PartialEq, DeserializeRow)]
#[scylla(flavor = "enforce_order")]
pub struct TimelineItem {
    /// Whose claim it is.
    pub tenant_id: String,
    /// The claim.
    pub claim_id: String,
    /// The event's version.
    pub version: i64,
    /// The event.
    pub event_id: Option<Uuid>,
    /// Its type.
    pub event_type: Option<String>,
    /// When it happened.
    pub occurred_at: Option<DateTime<Utc>>,
    /// Who did it, if known.
    pub actor: Option<String>,
    /// What happened, in words.
    pub words: Option<String>,
}
