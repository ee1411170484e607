//! The entries of claims' timelines, small enough to hold a million of them.

use crate::{checks::Check, claim::ClaimKey};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Differences told.
const MOST_DIFFERENCES: usize = 5;

/// For each claim how many entries its timeline has, and a checksum over them that doesn't depend on their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timelines(HashMap<ClaimKey, (u64, u64)>);

impl Timelines {
    /// Adds an entry; `occurred_at` in milliseconds since the Unix epoch.
    pub fn add(&mut self, key: &ClaimKey, version: u64, id: uuid::Uuid, event_type: &str, occurred_at: i64) {
        let mut hasher = Sha256::new();
        hasher.update(version.to_be_bytes());
        hasher.update(id.as_bytes());
        hasher.update(occurred_at.to_be_bytes());
        hasher.update(event_type);
        let digest = hasher.finalize().iter().take(8).fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        let (entries, sum) = match self.0.get_mut(key) {
            Some(known) => known,
            None => self.0.entry(key.clone()).or_default(),
        };
        *entries += 1;
        *sum = sum.wrapping_add(digest);
    }

    /// Claims that have not exactly the entries that the model has.
    pub fn differing(&self, model: &Self) -> u64 {
        model.0.iter().filter(|(key, entries)| self.0.get(*key) != Some(entries)).count() as u64
    }

    /// Claims that have fewer entries than the model has.
    pub fn shorter(&self, model: &Self) -> usize {
        let entries = |key| self.entries_of(key);
        model.0.iter().filter(|(key, (wanted, _))| entries(*key) < *wanted).count()
    }

    /// How many entries a claim has.
    pub fn entries_of(&self, key: &ClaimKey) -> u64 {
        self.0.get(key).map_or(0, |(entries, _)| *entries)
    }

    /// Every claim has exactly the entries that the model has.
    pub fn check(&self, name: &str, model: &Self) -> Check {
        let entries = |timeline: Option<&(u64, u64)>| timeline.map_or(0, |(entries, _)| *entries);
        let known = model.0.keys().filter(|key| self.0.get(*key) != model.0.get(*key));
        let unknown = self.0.keys().filter(|key| !model.0.contains_key(*key));
        let problems = known
            .chain(unknown)
            .take(MOST_DIFFERENCES)
            .map(|key| {
                let (is, should) = (entries(self.0.get(key)), entries(model.0.get(key)));
                format!("{}:{} has {is} entries, should have {should}, each as its event says", key.0, key.1)
            })
            .collect();
        let rows = self.0.values().map(|(entries, _)| entries).sum();
        Check { name: name.to_owned(), rows, checksum: String::new(), problems }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timelines(entries: &[(u64, &str)]) -> Timelines {
        let mut timelines = Timelines::default();
        for (version, event_type) in entries {
            let id = uuid::Uuid::from_u128(u128::from(*version));
            timelines.add(&("t".into(), "c".into()), *version, id, event_type, 7);
        }
        timelines
    }

    #[test]
    fn entries_are_compared_by_content_and_not_by_order() {
        let model = timelines(&[(1, "ClaimCreated"), (2, "ClaimClosed")]);
        assert!(timelines(&[(2, "ClaimClosed"), (1, "ClaimCreated")]).check("v", &model).problems.is_empty());
        for wrong in [
            &[(1, "ClaimCreated"), (2, "ClaimReopened")][..],
            &[(1, "ClaimCreated")],
            &[(1, "ClaimCreated"), (2, "ClaimClosed"), (2, "ClaimClosed")],
            &[],
        ] {
            assert_eq!(timelines(wrong).check("v", &model).problems.len(), 1, "{wrong:?}");
        }
        assert_eq!(model.check("v", &Timelines::default()).problems.len(), 1);
        assert_eq!((timelines(&[(9, "ClaimClosed")]).shorter(&model), model.shorter(&model)), (1, 0));
    }
}
