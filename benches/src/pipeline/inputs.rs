//! The inputs of several stages, each made once.

use super::{
    input::Input,
    room::{self, Needs},
    stage::Content,
};
use anyhow::{Context, Result};
use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    path::Path,
};

/// What an input holds, how many events, and the partitions of its topic.
pub type Key = (Content, u64, i32);

/// The most that is needed at one time for stages that read these inputs one after the other, where each is kept for as
/// long as a later one reads it.
pub fn most_needed(stages: &[Vec<Key>]) -> Needs {
    let mut most = Needs::default();
    let mut made = HashSet::new();
    for (number, read) in (1..).zip(stages) {
        made.extend(read.iter().copied());
        let held = made.iter().map(|&(content, events, _)| Needs::of(events, content.room()));
        let held = held.fold(Needs::default(), |all, needs| all + needs);
        most = Needs { disk: most.disk.max(held.disk), memory: most.memory.max(held.memory) };
        made.retain(|key| stages.iter().skip(number).any(|later| later.contains(key)));
    }
    most
}

/// Inputs made so far.
#[derive(Default)]
pub struct Inputs(HashMap<Key, Input>);

impl Inputs {
    /// Makes one, unless it is there.
    pub async fn make(
        &mut self,
        content: Content,
        events: u64,
        partitions: i32,
        folder: &Path,
    ) -> Result<()> {
        if let Entry::Vacant(place) = self.0.entry((content, events, partitions)) {
            room::check(folder, Needs::of(events, content.room()))?;
            place.insert(Input::make(content, events, partitions, folder).await?);
        }
        Ok(())
    }

    /// One that was made.
    pub fn get(&self, content: Content, events: u64, partitions: i32) -> Result<&Input> {
        self.0.get(&(content, events, partitions)).context("an input that was not made")
    }

    /// Removes all others: an input is gigabytes of files, and a model in memory.
    pub async fn keep(&mut self, wanted: &[Key]) -> Result<()> {
        let (kept, gone) = std::mem::take(&mut self.0).into_iter().partition(|(key, _)| wanted.contains(key));
        self.0 = kept;
        let gone: HashMap<_, Input> = gone;
        for input in gone.into_values() {
            input.namespace.reset().await?;
            std::fs::remove_dir_all(&input.namespace.dir)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_later_counts_with_what_is_made() {
        let [large, small, other] =
            [(Content::AsHappened, 100, 6), (Content::AsHappened, 10, 6), (Content::Cases, 50, 6)];
        let of = |events| Needs::of(events, Content::AsHappened.room());
        assert_eq!(most_needed(&[]), Needs::default());
        assert_eq!(most_needed(&[vec![large], vec![large], vec![small]]), of(100));
        assert_eq!(most_needed(&[vec![large], vec![other], vec![large]]), of(150));
        assert_eq!(most_needed(&[vec![large, small], vec![other], vec![small]]), of(110));
    }
}
