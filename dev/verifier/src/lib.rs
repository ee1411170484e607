//! Runs the whole pipeline as a user would, by the command `claims`, and compares what the views hold with an
//! independent model of the same input.
//!
//! Nothing here uses the product's fold, codec or sinks: events are read as JSON, views by plain CQL, SQL and Kafka.
//!
//! - [`claim`]: what is compared, one row a claim, and its checksum.
//! - [`model`]: from the input's events to those rows.
//! - [`timeline`]: the entries of claims' timelines.
//! - [`views`]: from CQL, ClickHouse and the state topic to those rows.
//! - [`compare`]: where they differ, in words.
//! - [`checks`]: all of them, for one run.
//! - [`namespace`]: topics, keyspace, database and folders of one run, apart from everybody else's.
//! - [`kafka_tool`]: Kafka's own tool for consumer groups.
//! - [`numbers`]: numbers for people.
//! - [`pipeline`]: the command `claims` as child processes; lag; kill and restart.
//! - [`ports`]: ports for them.

pub mod checks;
pub mod claim;
pub mod compare;
pub mod kafka_tool;
pub mod model;
pub mod namespace;
pub mod numbers;
pub mod pipeline;
pub mod ports;
pub mod timeline;
pub mod views;
