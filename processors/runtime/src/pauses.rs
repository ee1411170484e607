//! Which partitions are paused, and why. Pure: says what to pause and resume next.

use std::collections::{BTreeMap, BTreeSet};

/// Why one partition stands still while others go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standstill {
    /// It waits for a writer's schema.
    Schema { schema_id: u32 },
    /// It holds what this build doesn't know.
    Upgrade { offset: i64, what: String },
}

/// The book of pauses.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    assigned: BTreeSet<i32>,
    standing: BTreeMap<i32, Standstill>,
    back_pressure: bool,
    /// Held back to keep a replay's rate.
    throttled: BTreeSet<i32>,
    /// What the client was told.
    paused: BTreeSet<i32>,
    /// Newly assigned: whether the client still has them paused from before isn't known.
    fresh: BTreeSet<i32>,
}

impl Pauses {
    /// A partition was assigned. librdkafka remembers a pause over a reassignment, so it is told afresh.
    pub fn assigned(&mut self, partition: i32) {
        self.assigned.insert(partition);
        self.fresh.insert(partition);
    }

    /// A partition goes. Answers whether the client must be told to resume it first.
    pub fn revoked(&mut self, partition: i32) -> bool {
        self.assigned.remove(&partition);
        self.standing.remove(&partition);
        self.fresh.remove(&partition);
        self.throttled.remove(&partition);
        self.paused.remove(&partition)
    }

    pub fn assigned_count(&self) -> usize {
        self.assigned.len()
    }

    pub fn set_back_pressure(&mut self, on: bool) {
        self.back_pressure = on;
    }

    pub fn set_throttled(&mut self, partitions: impl IntoIterator<Item = i32>) {
        self.throttled = partitions.into_iter().collect();
    }

    pub fn back_pressure(&self) -> bool {
        self.back_pressure
    }

    pub fn stand(&mut self, partition: i32, why: Standstill) {
        self.standing.insert(partition, why);
    }

    pub fn go_on(&mut self, partition: i32) {
        self.standing.remove(&partition);
    }

    pub fn standstill(&self, partition: i32) -> Option<&Standstill> {
        self.standing.get(&partition)
    }

    pub fn standing(&self) -> impl Iterator<Item = (i32, &Standstill)> {
        self.standing.iter().map(|(&partition, why)| (partition, why))
    }

    /// Whether any partition stands still: asked for every record.
    #[inline]
    pub fn any_standing(&self) -> bool {
        !self.standing.is_empty()
    }

    pub fn paused(&self) -> usize {
        self.paused.len()
    }

    /// What to pause and what to resume now; counted as done.
    pub fn changes(&mut self) -> (Vec<i32>, Vec<i32>) {
        let wanted =
            |p: &i32| self.back_pressure || self.standing.contains_key(p) || self.throttled.contains(p);
        let pause: Vec<i32> =
            self.assigned.iter().copied().filter(|p| wanted(p) && !self.paused.contains(p)).collect();
        let resume: Vec<i32> = self.paused.union(&self.fresh).copied().filter(|p| !wanted(p)).collect();
        self.fresh.clear();
        self.paused.extend(&pause);
        self.paused.retain(|p| !resume.contains(p));
        (pause, resume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_resumes_when_no_reason_is_left() {
        let mut pauses = Pauses::default();
        pauses.assigned(1);
        pauses.assigned(2);
        assert_eq!(pauses.changes(), (vec![], vec![1, 2]), "a pause of an earlier assignment is lifted");
        pauses.stand(1, Standstill::Schema { schema_id: 7 });
        assert_eq!(pauses.changes(), (vec![1], vec![]));
        pauses.set_back_pressure(true);
        assert_eq!(pauses.changes(), (vec![2], vec![]));
        pauses.go_on(1);
        assert_eq!(pauses.changes(), (vec![], vec![]));
        pauses.set_back_pressure(false);
        assert_eq!(pauses.changes(), (vec![], vec![1, 2]));
        pauses.set_throttled([2]);
        assert_eq!(pauses.changes(), (vec![2], vec![]));
        pauses.set_throttled([]);
        assert_eq!(pauses.changes(), (vec![], vec![2]));
        assert!(!pauses.revoked(1));
        pauses.stand(2, Standstill::Upgrade { offset: 3, what: String::new() });
        assert_eq!(pauses.changes(), (vec![2], vec![]));
        assert!(pauses.revoked(2), "the client must forget the pause");
        assert_eq!(pauses.changes(), (vec![], vec![]));
    }
}
