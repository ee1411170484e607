//! Processes that outlive this one: started, found again by their record, stopped.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::logs;

/// What is known of a started service, kept in `.claims/run/<service>.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Process id.
    pub pid: i32,
    /// When the process started, in clock ticks after boot: with the boot id it tells a reused pid from ours.
    pub start_ticks: u64,
    /// Which boot of the machine that was.
    pub boot_id: String,
    /// When it was started, UTC, RFC 3339.
    pub started_at: String,
    /// The ports it listens on, the clients' one first.
    pub ports: Vec<u16>,
}

impl Record {
    /// Reads a record; `None` when there is none or it cannot be understood.
    pub fn load(path: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
    }

    /// Whether the very process of this record still runs.
    pub fn is_alive(&self) -> bool {
        self.boot_id == boot_id() && start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// How long the process has been running.
    pub fn uptime(&self) -> Option<Duration> {
        let started = chrono::DateTime::parse_from_rfc3339(&self.started_at).ok()?;
        (chrono::Utc::now() - started.to_utc()).to_std().ok()
    }

    fn save(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Written aside and renamed, so that a reader never sees half of it.
        let fresh = path.with_extension("json.new");
        fs::write(&fresh, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&fresh, path)?;
        Ok(())
    }
}

/// Starts `command` in a process group of its own with its output in `log`, and records it in `run_file`.
pub fn start(mut command: Command, log: &Path, run_file: &Path, ports: Vec<u16>) -> Result<Record> {
    let out = logs::open_for_append(log)?;
    let child = command
        .stdin(Stdio::null())
        .stderr(out.try_clone()?)
        .stdout(out)
        // Not in the terminal's foreground group: Ctrl-C here must not reach the services.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    let pid = i32::try_from(child.id()).context("the process id is out of range")?;
    let Some(start_ticks) = start_ticks(pid) else {
        bail!("it ended at once:\n{}", logs::tail(log, 20));
    };
    let record =
        Record { pid, start_ticks, boot_id: boot_id(), started_at: chrono::Utc::now().to_rfc3339(), ports };
    record.save(run_file)?;
    Ok(record)
}

/// Asks a process to end and, after `grace`, ends it. Returns whether it had to be killed.
pub fn stop(record: &Record, grace: Duration) -> Result<bool> {
    let pid = Pid::from_raw(record.pid);
    for (signal, bound) in [(Signal::SIGTERM, grace), (Signal::SIGKILL, Duration::from_secs(10))] {
        if !record.is_alive() {
            return Ok(false);
        }
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {pid}"))?;
        let deadline = Instant::now() + bound;
        while Instant::now() < deadline {
            if !record.is_alive() {
                return Ok(signal == Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    bail!("process {pid} does not end")
}

/// Field 22 of `/proc/<pid>/stat`, `None` when there is no such process or it is a zombie.
fn start_ticks(pid: i32) -> Option<u64> {
    parse_start_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_start_ticks(stat: &str) -> Option<u64> {
    // The command in parentheses may hold spaces and parentheses: everything after the last one is plain.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Resident memory of a process in bytes.
pub fn resident_bytes(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_survives_odd_command_names_and_skips_zombies() {
        let tail = (0..18).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(parse_start_ticks(&format!("7 (a) b) c) S {tail} 4242 0")), Some(4242));
        assert_eq!(parse_start_ticks(&format!("7 (a) Z {tail} 4242 0")), None);
        assert_eq!(parse_start_ticks("7 (a"), None);
    }

    #[test]
    fn a_process_is_recorded_found_again_and_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let run_file = folder.path().join("run/x.json");
        let mut command = Command::new("sleep");
        command.arg("60");
        let record = start(command, &folder.path().join("x.log"), &run_file, vec![1]).unwrap();
        assert_eq!(Record::load(&run_file), Some(record.clone()));
        assert!(record.is_alive());
        assert!(resident_bytes(record.pid).is_some());
        let reused = Record { start_ticks: record.start_ticks + 1, ..record.clone() };
        assert!(!reused.is_alive(), "a reused pid must not count as ours");
        assert!(!stop(&record, Duration::from_secs(5)).unwrap());
        assert!(!record.is_alive());
    }

    #[test]
    fn what_ignores_a_request_to_end_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready");
        let mut command = Command::new("bash");
        command
            .arg("-c")
            .arg(format!("trap '' TERM; touch {}; while :; do sleep 0.1; done", ready.display()));
        let record =
            start(command, &folder.path().join("x.log"), &folder.path().join("x.json"), vec![]).unwrap();
        while !ready.exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(stop(&record, Duration::from_millis(200)).unwrap());
    }
}
