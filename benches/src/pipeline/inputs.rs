//! The inputs of several stages, each made once.

use super::{input::Input, room, stage::Content};
use anyhow::{Context, Result};
use std::{
    collections::{HashMap, hash_map::Entry},
    path::Path,
};

/// What an input holds, how many events, and the partitions of its topic.
pub type Key = (Content, u64, i32);

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
        room::check(folder, events, content.room())?;
        if let Entry::Vacant(place) = self.0.entry((content, events, partitions)) {
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
