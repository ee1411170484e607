//! The runtime that every processor stands on. It knows Kafka and never a database.
//!
//! `topic → consumer loop → Processor → Batcher → Sink → OffsetLedger → commit`
//!
//! - [`record`]: what a processor is given.
//! - [`processor`]: the pure, synchronous half of a stage ([`Processor`], [`ProcessError`], [`Rows`]).
//! - [`sink`]: the half that does I/O ([`Sink`], [`SinkError`], [`Batch`]).
//! - [`membership`]: whether a batch's partitions are still this process's ([`Membership`]).
//! - [`resolver`]: fetching writers' schemas.
//! - [`settings`]: the limits of a stage, from the configuration.
//! - [`stage`]: running a stage against Kafka ([`run_stage`]).
//! - [`control`]: stopping and starting stages from outside.
//! - [`retry`]: giving a refused record to its processor once more.
//! - [`health`], [`status`], [`metrics`]: how a stage fares, and the HTTP server that tells it.
//! - [`dead_letter`]: what refused records look like in the dead-letter topic.
//! - [`ledger`], [`batcher`]: which offsets may be committed, and when a batch is closed.
//! - [`ranges`]: a check that what was read, sent and committed fits together.
//! - [`committed_offsets`], [`describe_topic`]: what a group has committed, and which topic that is.
//! - [`replay`]: planning an offset reset, and what a commit tells of it.
//! - [`testing`]: running any processor without services.

mod arena;
pub mod batcher;
pub mod control;
pub mod dead_letter;
mod delivery;
mod dispatch;
mod event_loop;
pub mod health;
mod kafka;
pub mod ledger;
mod mailbox;
pub mod membership;
pub mod metrics;
mod monitor;
mod offsets;
mod parking;
mod pauses;
mod pipeline;
pub mod processor;
pub mod ranges;
mod rebalance;
pub mod record;
pub mod replay;
pub mod resolver;
pub mod retry;
#[cfg(feature = "sabotage")]
pub mod sabotage;
pub mod settings;
pub mod sink;
pub mod stage;
pub mod status;
pub mod testing;
mod throttle;
mod topic_id;
mod upkeep;
mod worker;

pub use membership::{Confirmation, Membership};
pub use offsets::committed_offsets;
pub use processor::{Effect, ProcessError, Processor, Rows};
pub use record::{Headers, Origin, OwnedRecord, Payload, Record};
pub use resolver::{ResolveError, SchemaResolver};
pub use settings::RuntimeSettings;
pub use sink::{Batch, PartitionRange, Sink, SinkError};
pub use stage::{Shutdown, ShutdownTrigger, StageConfig, StageError, run_stage};
pub use topic_id::{TopicDescription, TopicIdError, describe_topic};
