//! The slots that this process has itself, which a lock on a file can't tell from those of another one.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Folders of the slots whose locks this process has, or is about to give up.
static HELD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn all() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that this process has a slot, for as long as anything of it is left.
pub(super) struct Held(PathBuf);

impl Held {
    /// This process has the slot in `folder` from now on.
    pub fn of(folder: &Path) -> Self {
        all().insert(folder.to_owned());
        Self(folder.to_owned())
    }

    /// Whether anything of a slot in `folder` is left.
    pub fn has(folder: &Path) -> bool {
        all().contains(folder)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        all().remove(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::all;
    use crate::store::{Anew, StateStore, StoreError, StoreIdentity};

    fn identity(topic_id: &str) -> StoreIdentity {
        StoreIdentity { topic: "claims.events.v1".into(), topic_id: topic_id.into(), partitions: 6 }
    }

    #[test]
    fn a_process_that_starts_again_gets_its_own_slot_back() {
        let folder = tempfile::tempdir().unwrap();
        let open = || StateStore::open_again(folder.path(), None, &identity("a"), Anew::Refused);
        let first = open().unwrap();
        let own = first.folder().to_owned();
        let partition = first.partition(3).unwrap();
        // What was started with it may be at work still when the stage has ended.
        let late = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(100));
            drop(partition);
        });
        drop(first);
        assert!(matches!(open(), Err(StoreError::StillOpen(folder)) if folder == own));
        late.join().unwrap();
        let again = open().unwrap();
        assert_eq!(again.folder(), own);
        drop(again);
        // Another process has taken it meanwhile.
        let other = StateStore::open(folder.path(), None, &identity("a")).unwrap();
        assert_eq!(other.folder(), own);
        all().remove(&own);
        assert_ne!(open().unwrap().folder(), own);
    }
}
