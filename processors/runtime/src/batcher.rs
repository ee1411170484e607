//! When the open batch is closed: by records, by bytes, by age. Pure: time comes in as a number.

/// Limits of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// Closed at this many records …
    pub max_records: u64,
    /// … or this many bytes held …
    pub max_bytes: usize,
    /// … or at this age.
    pub max_age_ms: u64,
}

/// Decides when the open batch is closed.
#[derive(Debug)]
pub struct Batcher {
    limits: BatchLimits,
    opened_at_ms: Option<u64>,
}

impl Batcher {
    /// A batcher with no batch open.
    pub fn new(limits: BatchLimits) -> Self {
        Self { limits, opened_at_ms: None }
    }

    /// Whether a batch of this size takes no more. Cheap: asked after every record.
    #[inline]
    pub fn is_full(&self, records: u64, bytes: usize) -> bool {
        records >= self.limits.max_records || bytes >= self.limits.max_bytes
    }

    /// Tells the time, on a clock that never goes back. The first time with records in the batch is when it counts as
    /// opened; so the clock need not be read for every record.
    pub fn tick(&mut self, now_ms: u64, records: u64) {
        match (records, self.opened_at_ms) {
            (0, _) => self.opened_at_ms = None,
            (_, None) => self.opened_at_ms = Some(now_ms),
            _ => {}
        }
    }

    /// Whether the open batch is old enough.
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.due_in_ms(now_ms) == Some(0)
    }

    /// Milliseconds until the open batch is old enough; `None` while there is none.
    pub fn due_in_ms(&self, now_ms: u64) -> Option<u64> {
        self.opened_at_ms.map(|opened| (opened + self.limits.max_age_ms).saturating_sub(now_ms))
    }

    /// The batch was closed.
    pub fn closed(&mut self) {
        self.opened_at_ms = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: BatchLimits = BatchLimits { max_records: 10, max_bytes: 1_000, max_age_ms: 200 };

    #[test]
    fn full_by_records_or_bytes() {
        let batcher = Batcher::new(LIMITS);
        assert!(!batcher.is_full(9, 999));
        assert!(batcher.is_full(10, 0));
        assert!(batcher.is_full(1, 1_000));
    }

    #[test]
    fn an_empty_batch_never_ages() {
        let mut batcher = Batcher::new(LIMITS);
        batcher.tick(0, 0);
        assert_eq!(batcher.due_in_ms(10_000), None);
        assert!(!batcher.is_due(10_000));
    }

    proptest! {
        /// Whatever the rhythm of ticks, a batch is due exactly when its age since the first tick with records is
        /// reached, and never after it was closed.
        #[test]
        fn due_at_its_age(steps in prop::collection::vec((0u64..150, 0u64..3, any::<bool>()), 1..60)) {
            let mut batcher = Batcher::new(LIMITS);
            let (mut now, mut records, mut opened) = (0u64, 0u64, None);
            for (wait, arrived, close) in steps {
                now += wait;
                records += arrived;
                batcher.tick(now, records);
                if records > 0 && opened.is_none() {
                    opened = Some(now);
                }
                prop_assert_eq!(batcher.is_due(now), opened.is_some_and(|at| now - at >= 200));
                if close {
                    batcher.closed();
                    records = 0;
                    opened = None;
                    prop_assert!(!batcher.is_due(now));
                }
            }
        }
    }
}
