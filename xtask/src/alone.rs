//! One benchmark at a time: two of them would empty each other's topics and tables, and share the processors.

use anyhow::{Context as _, Result, bail};
use std::{
    fs::{self, File, TryLockError},
    path::Path,
};

/// Where a checkout's benchmarks and soaks keep inputs, logs and what processes leave, below its root.
pub const FOLDER: &str = ".claims/bench";

/// Held for as long as a benchmark runs; the kernel lets go of it when the process ends, however it does.
#[derive(Debug)]
pub struct Alone {
    _file: File,
}

impl Alone {
    /// An error where another benchmark or soak runs in `folder`, which is made if it isn't there.
    pub fn claim(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let path = folder.join("lock");
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => bail!(
                "another benchmark or soak is running here (it holds {}): wait for it, or interrupt it with Ctrl-C",
                path.display()
            ),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_is_refused_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let first = Alone::claim(folder.path()).unwrap();
        let refused = Alone::claim(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("another benchmark or soak is running"), "{refused}");
        drop(first);
        Alone::claim(folder.path()).unwrap();
    }
}
