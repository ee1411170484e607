//! The runtime against a real Kafka. Every test has its own topic, dead-letter topic and group.
// The helpers are tests too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod dead_letters;
mod delivery;
mod fixture;
mod membership;
mod progress;
mod rebalance;
mod replay;
mod retry;
mod schemas;
