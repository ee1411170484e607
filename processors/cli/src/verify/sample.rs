//! Which claims are looked at: all, or a sample of a fixed size, chosen while the log goes by once. Pure.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

/// Claims by `tenant:claim_id`. Of a sample those are kept whose seeded hashes are the lowest. A claim that is among them
/// in the end was so all the time, so everything of it was seen.
#[derive(Debug)]
pub struct Sample<T> {
    seed: u64,
    size: usize,
    claims: BTreeMap<(u64, Vec<u8>), T>,
}

impl<T: Default> Sample<T> {
    /// A sample of at most `size` claims.
    pub fn new(size: usize, seed: u64) -> Self {
        Self { seed, size, claims: BTreeMap::new() }
    }

    fn id(&self, key: &[u8]) -> (u64, Vec<u8>) {
        let mut hasher = DefaultHasher::new();
        (self.seed, key).hash(&mut hasher);
        (hasher.finish(), key.to_vec())
    }

    /// What is kept of a claim; `None` if it isn't in the sample.
    pub fn claim(&mut self, key: &[u8]) -> Option<&mut T> {
        let id = self.id(key);
        if !self.claims.contains_key(&id) {
            let is_full = self.claims.len() >= self.size;
            if is_full && self.claims.last_key_value().is_none_or(|(last, _)| *last < id) {
                return None;
            }
            if is_full {
                self.claims.pop_last();
            }
        }
        Some(self.claims.entry(id).or_default())
    }

    /// What is kept of a claim that is in the sample already.
    pub fn known(&mut self, key: &[u8]) -> Option<&mut T> {
        let id = self.id(key);
        self.claims.get_mut(&id)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &T)> {
        self.claims.iter().map(|((_, key), claim)| (key.as_slice(), claim))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.claims.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn of_a_sampled_claim_everything_was_seen(
            events in proptest::collection::vec(0..40_u8, 0..200),
            size in 0..50_usize,
            seed in any::<u64>(),
        ) {
            let mut totals: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
            let mut sample = Sample::<u32>::new(size, seed);
            for claim in &events {
                *totals.entry(vec![*claim]).or_default() += 1;
                if let Some(count) = sample.claim(&[*claim]) {
                    *count += 1;
                }
            }
            prop_assert_eq!(sample.len(), size.min(totals.len()));
            for (key, count) in sample.iter() {
                prop_assert_eq!(totals[key], *count);
            }
        }
    }
}
