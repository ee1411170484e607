//! Watching the groups' committed offsets all through a round: who went on, and who stood still.

use super::crew::Role;
use anyhow::Result;
use claims_verifier::namespace::Namespace;
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    topic_partition_list::Offset,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Offsets are asked for this often.
const INTERVAL: Duration = Duration::from_millis(250);
/// One question may take this long.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What each group had committed at a moment, as records over all partitions.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    committed: BTreeMap<Role, u64>,
}

/// Offsets of every group, sampled by a thread of its own until it is dropped.
#[derive(Debug)]
pub struct Watch {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to watch.
    pub fn start(namespace: &Namespace) -> Result<Self> {
        let mut consumers: Vec<(Role, BaseConsumer)> = Vec::new();
        for role in Role::PROCESSORS {
            let mut config = namespace.kafka_client();
            config.set("group.id", namespace.group(role.name())).set("log_level", "0");
            consumers.push((role, config.create()?));
        }
        let mut wanted = TopicPartitionList::new();
        for partition in 0..namespace.partitions {
            wanted.add_partition(&namespace.events_topic, partition);
        }
        let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (taken, asked) = (Arc::clone(&samples), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut committed: BTreeMap<Role, u64> = BTreeMap::new();
            while !asked.load(Ordering::Relaxed) {
                for (role, consumer) in &consumers {
                    if let Ok(offsets) = consumer.committed_offsets(wanted.clone(), TIMEOUT) {
                        committed.insert(*role, sum(&offsets));
                    }
                }
                let sample = Sample { at: Instant::now(), committed: committed.clone() };
                taken.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
                std::thread::sleep(INTERVAL);
            }
        });
        Ok(Self { samples, stop, thread: Some(thread) })
    }

    /// Records that a group has committed, as of the last look.
    pub fn committed(&self, role: Role) -> u64 {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.last().and_then(|sample| sample.committed.get(&role).copied()).unwrap_or(0)
    }

    /// The longest that a group committed nothing new within a span of time.
    pub fn longest_standstill(&self, role: Role, from: Instant, to: Instant) -> Duration {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let within = samples.iter().filter(|sample| sample.at >= from && sample.at <= to);
        standstill(
            within.map(|sample| (sample.at, sample.committed.get(&role).copied().unwrap_or(0))),
            from,
            to,
        )
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn sum(offsets: &TopicPartitionList) -> u64 {
    let committed = offsets.elements().into_iter().filter_map(|element| match element.offset() {
        Offset::Offset(offset) => u64::try_from(offset).ok(),
        _ => None,
    });
    committed.sum()
}

fn standstill(points: impl Iterator<Item = (Instant, u64)>, from: Instant, to: Instant) -> Duration {
    let (mut longest, mut since, mut best) = (Duration::ZERO, from, None);
    for (at, committed) in points {
        if best.is_some_and(|best| committed > best) {
            longest = longest.max(at.duration_since(since));
            since = at;
        }
        best = best.max(Some(committed));
    }
    longest.max(to.saturating_duration_since(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_time_without_a_commit_is_found() {
        let from = Instant::now();
        let at = |ms: u64| from + Duration::from_millis(ms);
        let longest = |points: &[(u64, u64)], end: u64| {
            standstill(points.iter().map(|&(ms, n)| (at(ms), n)), from, at(end)).as_millis()
        };
        assert_eq!(longest(&[(100, 5), (200, 6), (300, 6), (900, 7)], 1_000), 700);
        assert_eq!(longest(&[(100, 5), (200, 6)], 1_000), 800);
        assert_eq!(longest(&[], 1_000), 1_000);
        // An offset that jumps back is no progress, and neither is the way back up.
        assert_eq!(longest(&[(100, 5), (200, 9), (300, 2), (400, 9)], 500), 300);
    }
}
