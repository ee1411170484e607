//! The seeded choices of a round. A generator of our own, so that a seed means the same round in every build.

use std::time::Duration;

/// SplitMix64: small, and good enough to choose moments and victims.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same choices.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of a suite's round: the first round's is the suite's own, so that `--seed S --rounds 1` repeats it.
    pub fn round_seed(seed: u64, round: u64) -> u64 {
        if round == 0 { seed } else { Self(seed.wrapping_add(round)).next() >> 16 }
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` up to and without `high`; `low` where there is none.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low).max(1);
        low + self.next() % span
    }

    /// A time between two numbers of milliseconds.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// True so many times out of a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.between(0, 100) < percent
    }

    /// One of several; `None` of none.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        let index = usize::try_from(self.between(0, of.len() as u64)).unwrap_or(0);
        of.get(index).copied()
    }

    /// Puts them in a chance order.
    pub fn shuffle<T>(&mut self, of: &mut [T]) {
        for last in (1..of.len()).rev() {
            let with = usize::try_from(self.between(0, last as u64 + 1)).unwrap_or(0);
            of.swap(last, with);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_choices_and_the_first_round_has_the_suites_own() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            (random.between(5, 9), random.millis(1, 100), random.pick(&[1, 2, 3]), random.percent(50))
        };
        assert_eq!(draw(7), draw(7));
        assert!((0..200).map(|seed| draw(seed).0).all(|n| (5..9).contains(&n)));
        assert_eq!(Random::round_seed(42, 0), 42);
        let seeds: std::collections::HashSet<_> = (0..100).map(|n| Random::round_seed(42, n)).collect();
        assert_eq!(seeds.len(), 100);
    }

    #[test]
    fn a_shuffle_keeps_all() {
        let mut numbers: Vec<u32> = (0..20).collect();
        Random::new(3).shuffle(&mut numbers);
        assert_ne!(numbers, (0..20).collect::<Vec<_>>());
        numbers.sort_unstable();
        assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    }
}
