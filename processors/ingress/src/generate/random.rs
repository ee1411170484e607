//! Integer draws from a seeded stream; nothing here depends on a platform's floating point.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

#[derive(Debug)]
pub(super) struct Random(ChaCha8Rng);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Evenly from 0 to `n - 1`; 0 for `n` = 0.
    pub(super) fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.0.next_u64()) * u128::from(n)) >> 64) as u64
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// From `low` to `high`, each doubling as likely as the next: many short ones, few long ones.
    pub(super) fn between_log(&mut self, low: u64, high: u64) -> u64 {
        let (low, high) = (low.max(1), high.max(low).max(1));
        let doublings = u64::from((high / low).ilog2()) + 1;
        let from = low << self.below(doublings);
        (from + self.below(from)).min(high)
    }

    /// An index below `n`, index k about twice as likely as index 2k: few get most of it, as with real customers.
    pub(super) fn skewed(&mut self, n: u64) -> u64 {
        self.between_log(1, n.max(1)) - 1
    }

    pub(super) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}
