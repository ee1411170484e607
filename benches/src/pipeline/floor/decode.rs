//! Consume, and decode into typed structs.

use super::{pump, records, say_done, say_ready};
use anyhow::{Context, Result};
use claims_verifier::namespace::Namespace;
use rdkafka::Message;
use std::{
    collections::HashMap,
    hint::black_box,
    time::{Duration, Instant},
};

const POLL_TIMEOUT: Duration = Duration::from_millis(50);
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

/// On one thread, as the product's runtime does it.
pub async fn run(namespace: &Namespace) -> Result<()> {
    let all = records::read_all(namespace)?;
    let schemas = records::schemas(namespace, &all).await?;
    drop(all);
    let consumer = pump::consumer(namespace)?;
    say_ready();
    let (mut position, mut committed, mut done) = (HashMap::new(), Instant::now(), 0);
    loop {
        if let Some(message) = consumer.poll(POLL_TIMEOUT) {
            let message = message?;
            let value = message.payload().context("a tombstone")?;
            black_box(schemas.decode(value)?);
            position.insert(message.partition(), message.offset() + 1);
            done += 1;
        }
        if committed.elapsed() >= COMMIT_INTERVAL && !position.is_empty() {
            pump::commit(&consumer, &namespace.events_topic, &position)?;
            position.clear();
            committed = Instant::now();
            say_done(done);
        }
    }
}
