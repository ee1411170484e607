//! Reading the dead-letter topic.

use super::letter::{Letter, Place};
use crate::reader::{Polled, Reader};
use anyhow::bail;
use claims_topology::Config;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// One wait for the next record.
pub const POLL_WAIT: Duration = Duration::from_millis(100);

/// A reader of the topic.
pub fn reader(config: &Config) -> anyhow::Result<Reader> {
    Reader::new(&config.kafka, &format!("{}.dead-letters", config.kafka.group_prefix))
}

/// Gives every entry, from the topic's beginning to its present end.
pub fn each_letter(config: &Config, take: impl FnMut(Letter)) -> anyhow::Result<()> {
    let reader = reader(config)?;
    let partitions = reader.partitions(&config.topics.dead_letters)?;
    let bounds = reader.bounds(&config.topics.dead_letters, &partitions)?;
    let ranges = bounds.into_iter().map(|(partition, bounds)| (partition, (bounds.start, bounds.end)));
    each_in(&reader, &config.topics.dead_letters, ranges.collect(), take)
}

/// The entries at these places; those that are gone are left out.
pub fn letters_at(config: &Config, places: &BTreeSet<Place>) -> anyhow::Result<BTreeMap<Place, Letter>> {
    let mut ranges: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
    for &Place { partition, offset } in places {
        let range = ranges.entry(partition).or_insert((offset, offset + 1));
        *range = (range.0.min(offset), range.1.max(offset + 1));
    }
    let mut found = BTreeMap::new();
    each_in(&reader(config)?, &config.topics.dead_letters, ranges, |letter| {
        if places.contains(&letter.place()) {
            found.insert(letter.place(), letter);
        }
    })?;
    Ok(found)
}

/// Gives every entry of these ranges of offsets (the end is not in it).
fn each_in(
    reader: &Reader,
    topic: &str,
    mut ranges: BTreeMap<i32, (i64, i64)>,
    mut take: impl FnMut(Letter),
) -> anyhow::Result<()> {
    ranges.retain(|_, (start, end)| start < end);
    if ranges.is_empty() {
        return Ok(());
    }
    reader.start(topic, &ranges.iter().map(|(&partition, &(start, _))| (partition, start)).collect())?;
    let mut deadline = Instant::now() + reader.timeout();
    while !ranges.is_empty() {
        match reader.poll(POLL_WAIT)? {
            Polled::Record(message) => {
                deadline = Instant::now() + reader.timeout();
                let letter = Letter::of(&message);
                let Some(&(_, end)) = ranges.get(&letter.partition) else { continue };
                if letter.offset + 1 >= end {
                    ranges.remove(&letter.partition);
                    reader.pause(topic, letter.partition)?;
                }
                if letter.offset < end {
                    take(letter);
                }
            }
            Polled::End(partition) => {
                ranges.remove(&partition);
            }
            Polled::Nothing if Instant::now() > deadline => {
                let timeout = reader.timeout();
                bail!("no further record of {topic} within {timeout:?}; Kafka has stopped answering");
            }
            Polled::Nothing => {}
        }
    }
    Ok(())
}
