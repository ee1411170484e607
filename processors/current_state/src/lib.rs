//! Current state of every claim: local store, CQL views, state topic.
//!
//! `record → decode → fold into the claim → each changed claim once per batch → CQL tables and claims.state.v1`
//!
//! - [`processor`]: the pure half: folds events, closes batches.
//! - [`claim`], [`store`]: what is kept of a claim between batches, and where.
//! - `at_hand`: the claims in memory.
//! - [`places`], [`fields`]: where a claim stands in the list views, and which columns it has ever had.
//! - [`words`]: the timeline in words.
//! - [`cql`]: the tables and how they are written.
//! - [`state_topic`]: the current state as records, for other teams.
//! - [`read`]: reading the views.
//! - [`metrics`]: names of metrics.

mod at_hand;
pub mod claim;
pub mod cql;
pub mod fields;
pub mod metrics;
pub mod places;
pub mod processor;
pub mod read;
pub mod sink;
pub mod state_topic;
pub mod store;
pub mod words;

mod counts;
pub mod retried;
mod run;
mod state_writer;

pub use processor::{ClaimWrite, CurrentState, NAME};
pub use run::{CurrentStateError, run};
