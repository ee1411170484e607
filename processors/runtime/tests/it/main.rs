//! The runtime against a real Kafka. Every test has its own topic, dead-letter topic and group.

mod dead_letters;
mod delivery;
mod fixture;
mod progress;
mod rebalance;
mod schemas;
