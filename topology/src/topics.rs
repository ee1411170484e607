//! Names of the topics and of the headers that every record carries; comparing the specs with a broker.
//!
//! - [`spec`]: what each topic must look like.
//! - [`plan`]: the comparison, pure.
//! - [`admin`]: asking the broker, and changing it.

pub mod admin;
pub mod plan;
pub mod spec;

pub use admin::{Applied, TopicsError, apply, ensure, observe, plan_for};
pub use plan::{Change, ObservedTopic, Plan, TopicPlan, plan};
pub use spec::{TopicSpec, specs};

/// Claim events: compacted, keyed per event, partitioned by claim.
pub const EVENTS: &str = "claims.events.v1";
/// Current state of every claim: compacted, keyed by claim.
pub const STATE: &str = "claims.state.v1";
/// Records that a stage refused, with the reason.
pub const DEAD_LETTERS: &str = "claims.dead-letters.v1";

/// Header of every event record: the event type's name.
pub const HEADER_EVENT_TYPE: &str = "event-type";
/// Header of every event record: the tenant.
pub const HEADER_TENANT: &str = "tenant";
/// Header of every event record: the correlation id.
pub const HEADER_CORRELATION_ID: &str = "correlation-id";
/// Header: W3C trace context.
pub const HEADER_TRACEPARENT: &str = "traceparent";
