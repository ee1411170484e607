//! Against the services that `cargo xtask up` starts. Every test has topics and subjects of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod fake_registry;
mod registry;
mod resolver;
mod topics;

use claims_topology::Config;

/// A configuration with names that nobody else uses.
fn config() -> Config {
    let run = uuid::Uuid::new_v4().simple().to_string();
    let mut config = Config::for_dev_services();
    config.topics.events = format!("it.{run}.events");
    config.topics.state = format!("it.{run}.state");
    config.topics.dead_letters = format!("it.{run}.dead-letters");
    config.topics.partitions = 3;
    config
}

/// What to do when a service is away: part of each test's failure.
const UP: &str = "run `cargo xtask up`";
