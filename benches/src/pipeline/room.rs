//! The machine: whether there is room for a run, and what it is.

use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::statvfs;
use std::{fs, path::Path};

/// Beside what grows with the events: services and processes.
const LEAST_BYTES: u64 = 3 * 1024 * 1024 * 1024;

/// What an event takes at one time, at most: in files, in Kafka and in the views of a run.
#[derive(Debug, Clone, Copy)]
pub struct PerEvent {
    /// On disk, in bytes.
    pub disk: u64,
    /// In memory, in bytes.
    pub memory: u64,
}

/// What is needed at one time beside the services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// On disk, in bytes.
    pub disk: u64,
    /// In memory, in bytes.
    pub memory: u64,
}

impl Needs {
    /// Of so many events.
    pub fn of(events: u64, per_event: PerEvent) -> Self {
        let of = |bytes: u64| events.saturating_mul(bytes);
        Self { disk: of(per_event.disk), memory: of(per_event.memory) }
    }
}

impl std::ops::Add for Needs {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let Self { disk, memory } = self;
        Self { disk: disk.saturating_add(other.disk), memory: memory.saturating_add(other.memory) }
    }
}

/// An error where a run would run out of disk or memory.
pub fn check(folder: &Path, needs: Needs) -> Result<()> {
    fs::create_dir_all(folder)?;
    let disk = statvfs(folder).with_context(|| format!("the disk of {}", folder.display()))?;
    enough("disk space", disk.blocks_available() * disk.fragment_size(), needs.disk)?;
    enough("memory", available_memory()?, needs.memory)
}

fn enough(what: &str, there: u64, for_events: u64) -> Result<()> {
    let needed = LEAST_BYTES.saturating_add(for_events);
    let mib = |bytes: u64| bytes / 1024 / 1024;
    ensure!(
        there >= needed,
        "too little {what}: {} MiB free, {} MiB needed; free some, or ask for fewer events",
        mib(there),
        mib(needed)
    );
    Ok(())
}

fn available_memory() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    Ok(field(&text, "MemAvailable:").context("/proc/meminfo says nothing of MemAvailable")? * 1024)
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Processor, cores and load, in a sentence.
pub fn machine() -> Result<String> {
    let text = fs::read_to_string("/proc/cpuinfo")?;
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("an unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism()?;
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split_whitespace().nth(2).unwrap_or("?").to_owned();
    Ok(format!("{cores} cores of {model}; load over the 15 minutes before: {load}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let needs = Needs::of(1 << 40, PerEvent { disk: 1_000, memory: 1 }) + Needs::default();
        let error = check(folder.path(), needs).unwrap_err().to_string();
        assert!(error.starts_with("too little disk space: ") && error.contains("fewer events"), "{error}");
        assert!(enough("memory", LEAST_BYTES + 10, 10).is_ok());
        assert!(enough("memory", LEAST_BYTES + 9, 10).is_err());
        assert_eq!(field("MemTotal: 5 kB\nMemAvailable:   42 kB\n", "MemAvailable:"), Some(42));
        assert!(machine().unwrap().contains("cores of"));
    }
}
