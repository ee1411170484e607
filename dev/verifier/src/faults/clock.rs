//! The wall clock of a process, shifted: `dev/clock` is preloaded into it and reads the shift from a file.

use anyhow::{Context, Result, ensure};
use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

const LIBRARY: &str = "libclaims_dev_clock.so";
/// What `dev/clock` reads the file's place from.
const VARIABLE: &str = "CLAIMSTREAM_CLOCK_FILE";
/// The file: the shift in milliseconds, and how often a process was told a shifted time.
const ANSWERS_AT: u64 = 8;

/// The clock of every process started with its settings.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    path: PathBuf,
    file: File,
}

impl Clock {
    /// A clock that tells the true time, its file in a folder.
    pub fn make(folder: &Path) -> Result<Self> {
        let program = std::env::current_exe()?;
        let library = program.with_file_name(LIBRARY);
        ensure!(library.is_file(), "{} is missing; `cargo xtask faults` builds it", library.display());
        std::fs::create_dir_all(folder)?;
        let path = folder.join("clock");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.with_context(|| format!("make {}", path.display()))?;
        file.write_all_at(&[0; 16], 0)?;
        Ok(Self { library, path, file })
    }

    /// The environment of a process that shall have it.
    pub fn settings(&self) -> Vec<(String, String)> {
        let pairs = [("LD_PRELOAD", &self.library), (VARIABLE, &self.path)];
        pairs.into_iter().map(|(name, path)| (name.to_owned(), path.display().to_string())).collect()
    }

    /// From now on it is wrong by so many milliseconds.
    pub fn shift(&self, by_ms: i64) -> Result<()> {
        Ok(self.file.write_all_at(&by_ms.to_ne_bytes(), 0)?)
    }

    /// From now on it is right.
    pub fn make_true(&self) -> Result<()> {
        self.shift(0)
    }

    /// How often a process was told a wrong time.
    pub fn shifted_answers(&self) -> Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, ANSWERS_AT)?;
        Ok(u64::from_ne_bytes(bytes))
    }
}
