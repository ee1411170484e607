//! Replays under way in the assigned partitions, and the rates that they keep to. Pure: time comes from outside.
//!
//! A token bucket per partition. While every assigned partition is being replayed, the loop just takes no records when
//! the buckets are empty; a pause would make librdkafka drop what it has fetched. Where others are live, the replayed
//! ones are paused instead, so that the live ones don't wait with them.

use crate::replay::ReplayNote;
use std::collections::BTreeMap;

/// A partition may take this much of a second's records at once: less and it would be paused all the time.
const BURST_MS: u64 = 1_000;
/// A paused partition goes on when this much of a second's records may be taken.
const RESUME_MS: u64 = 500;

/// The book of replays.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    replays: BTreeMap<i32, Replaying>,
}

#[derive(Debug)]
struct Replaying {
    note: ReplayNote,
    bucket: Option<Bucket>,
}

/// What a record taken means for its partition's replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Took {
    /// Nothing.
    Within,
    /// The partition's rate is used up.
    Last,
    /// It lies beyond the replay, which is through.
    Beyond {
        /// The replay's id.
        replay: String,
    },
}

/// Tokens in thousandths of a record, so that whole milliseconds count.
#[derive(Debug)]
struct Bucket {
    records_per_s: i64,
    tokens: i64,
    filled_at_ms: u64,
    is_paused: bool,
}

impl Bucket {
    /// Adds what has come in since; gives back what there is no room for.
    fn fill(&mut self, now_ms: u64) -> i64 {
        let elapsed_ms = now_ms.saturating_sub(self.filled_at_ms).min(BURST_MS) as i64;
        self.filled_at_ms = now_ms;
        let more = self.records_per_s * elapsed_ms;
        more - self.add(more)
    }

    /// Adds as much as there is room for; how much that was. There is room for two records at least: with one, what
    /// comes in beyond it before it is taken would be lost, and a rate of one record a second never reached.
    fn add(&mut self, tokens: i64) -> i64 {
        let capacity = (self.records_per_s * BURST_MS as i64).max(2_000);
        let added = tokens.min(capacity - self.tokens).max(0);
        self.tokens += added;
        added
    }

    fn is_empty(&self) -> bool {
        self.tokens < 1_000
    }
}

impl Throttle {
    /// A partition was assigned, with the replay that its commit tells of; reading begins at `start`.
    pub fn assigned(&mut self, partition: i32, note: Option<ReplayNote>, start: i64, now_ms: u64) {
        match note.filter(|note| start < note.until) {
            None => {
                self.replays.remove(&partition);
            }
            Some(note) => {
                let bucket = note.max_records_per_s.map(|rate| Bucket {
                    records_per_s: i64::from(rate.max(1)),
                    tokens: 0,
                    filled_at_ms: now_ms,
                    is_paused: false,
                });
                self.replays.insert(partition, Replaying { note, bucket });
            }
        }
    }

    pub fn revoked(&mut self, partition: i32) {
        self.replays.remove(&partition);
    }

    /// The replay that a commit of this offset still tells of.
    pub fn note(&self, partition: i32, next_offset: i64) -> Option<&ReplayNote> {
        self.replays.get(&partition).map(|replaying| &replaying.note).filter(|note| next_offset < note.until)
    }

    /// Whether nothing is held back, which is all that most runs ever ask.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.replays.is_empty()
    }

    /// A record was taken.
    pub fn took(&mut self, partition: i32, offset: i64) -> Took {
        let Some(replaying) = self.replays.get_mut(&partition) else { return Took::Within };
        if offset >= replaying.note.until {
            let replay = self.replays.remove(&partition).map(|replaying| replaying.note.id);
            return Took::Beyond { replay: replay.unwrap_or_default() };
        }
        match &mut replaying.bucket {
            Some(bucket) => {
                bucket.tokens -= 1_000;
                if bucket.is_empty() { Took::Last } else { Took::Within }
            }
            None => Took::Within,
        }
    }

    /// Fills the buckets. What a full one has no room for goes to the others: Kafka may give one partition's records
    /// for a while, and the rate holds for all of them together.
    pub fn tick(&mut self, now_ms: u64) {
        let mut buckets: Vec<&mut Bucket> =
            self.replays.values_mut().filter_map(|replaying| replaying.bucket.as_mut()).collect();
        let mut spare: i64 = buckets.iter_mut().map(|bucket| bucket.fill(now_ms)).sum();
        for bucket in &mut buckets {
            spare -= bucket.add(spare);
        }
    }

    /// Whether no record at all may be taken now: each of so many assigned partitions keeps to a rate, and together
    /// they have used it up.
    pub fn is_holding(&self, assigned: usize) -> bool {
        let buckets = || self.replays.values().filter_map(|replaying| replaying.bucket.as_ref());
        let count = buckets().count();
        count > 0 && count == assigned && buckets().map(|bucket| bucket.tokens).sum::<i64>() < 1_000
    }

    /// The partitions that must be paused now, where not all of so many assigned ones keep to a rate.
    pub fn pauses(&mut self, assigned: usize) -> Vec<i32> {
        let count = self.replays.values().filter(|replaying| replaying.bucket.is_some()).count();
        let mut paused = Vec::new();
        for (&partition, replaying) in &mut self.replays {
            let Some(bucket) = &mut replaying.bucket else { continue };
            let enough = (bucket.records_per_s * RESUME_MS as i64).max(1_000);
            bucket.is_paused =
                count < assigned && (bucket.is_empty() || (bucket.is_paused && bucket.tokens < enough));
            if bucket.is_paused {
                paused.push(partition);
            }
        }
        paused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn note(until: i64, max_records_per_s: Option<u32>) -> Option<ReplayNote> {
        Some(ReplayNote { id: "r".into(), until, max_records_per_s })
    }

    /// Takes as many records as may be taken, in steps of so many milliseconds; how many there were.
    fn take(throttle: &mut Throttle, partitions: &[i32], steps: u64, step_ms: u64) -> u64 {
        let mut taken = 0;
        for step in 1..=steps {
            throttle.tick(step * step_ms);
            for turn in 0..100_000 {
                if throttle.is_holding(partitions.len()) {
                    break;
                }
                let paused = throttle.pauses(partitions.len());
                let open: Vec<_> = partitions.iter().filter(|p| !paused.contains(p)).collect();
                let Some(&&partition) = open.get(turn % open.len().max(1)) else { break };
                assert!(!matches!(throttle.took(partition, 0), Took::Beyond { .. }));
                taken += 1;
            }
        }
        taken
    }

    proptest! {
        #[test]
        fn replays_keep_to_their_rates_and_use_them(
            rates in proptest::collection::vec(1..500_u32, 1..4),
            step_ms in 1..300_u64,
        ) {
            let mut throttle = Throttle::default();
            let partitions: Vec<i32> = (0..).take(rates.len()).collect();
            for (&partition, &rate) in partitions.iter().zip(&rates) {
                throttle.assigned(partition, note(100, Some(rate)), 0, 0);
            }
            let steps = 20_000 / step_ms;
            let taken = take(&mut throttle, &partitions, steps, step_ms);
            let allowed = u64::from(rates.iter().sum::<u32>()) * steps * step_ms / 1_000;
            let burst = rates.len() as u64;
            prop_assert!(taken <= allowed + burst, "{taken} of {allowed}");
            prop_assert!(taken + burst >= allowed, "{taken} of {allowed}");
        }
    }

    /// A bucket of one record's size lost a tenth of this rate.
    #[test]
    fn one_record_a_second_is_reached_in_steps_that_do_not_divide_it() {
        let mut throttle = Throttle::default();
        throttle.assigned(0, note(100, Some(1)), 0, 0);
        let taken = take(&mut throttle, &[0], 107, 186);
        assert_eq!(taken, 19, "in 19.9 s");
    }

    #[test]
    fn what_one_partition_does_not_use_goes_to_the_others() {
        let mut throttle = Throttle::default();
        for partition in 0..2 {
            throttle.assigned(partition, note(100, Some(1)), 0, 0);
        }
        let mut taken = 0;
        for now_ms in 1..=20_000 {
            throttle.tick(now_ms);
            while !throttle.is_holding(2) {
                throttle.took(0, 0);
                taken += 1;
            }
        }
        assert!((38..=40).contains(&taken), "{taken} of 40 in 20 s, all of partition 0");
    }

    #[test]
    fn live_partitions_go_on_while_a_replayed_one_is_paused() {
        let mut throttle = Throttle::default();
        throttle.assigned(0, note(1_000, Some(10)), 0, 0);
        throttle.assigned(1, None, 0, 0);
        assert!(!throttle.is_holding(2));
        assert_eq!(throttle.pauses(2), [0], "it begins with an empty bucket");
        throttle.tick(400);
        assert_eq!(throttle.pauses(2), [0], "four records are not worth a new fetch");
        throttle.tick(500);
        assert_eq!(throttle.pauses(2), [0; 0]);
        for offset in 0..5 {
            throttle.took(0, offset);
        }
        assert_eq!(throttle.pauses(2), [0]);
        throttle.revoked(1);
        assert!(throttle.is_holding(1), "alone, it is held back without a pause");
        assert_eq!(throttle.pauses(1), [0; 0]);
    }

    #[test]
    fn a_replay_is_over_when_its_end_is_passed() {
        let mut throttle = Throttle::default();
        throttle.assigned(0, note(10, None), 10, 0);
        assert!(throttle.is_idle(), "nothing of it is left to read");
        throttle.assigned(0, note(10, None), 3, 0);
        assert_eq!(throttle.took(0, 8), Took::Within);
        assert!(throttle.note(0, 9).is_some());
        assert!(throttle.note(0, 10).is_none());
        assert_eq!(throttle.took(0, 12), Took::Beyond { replay: "r".into() }, "a compacted log has gaps");
        assert!(throttle.is_idle());
    }
}
