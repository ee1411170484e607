//! A program under measurement, and what it and the services have cost.

use super::interrupt;
use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::{Pid, SysconfVar, sysconf},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use xtask::services::{layout::Layout, native};

/// A program must have ended this long after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// CPU and memory of a process and its children.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Seconds of CPU, user and system.
    pub cpu_s: f64,
    /// The most resident memory of any of them, in MiB.
    pub peak_mib: u64,
}

/// A running program, killed when dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    log: PathBuf,
    child: Child,
    may_finish: bool,
}

impl Program {
    /// Starts a command; what it prints goes to a file in `folder`.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let log = folder.join(format!("{name}.log"));
        let file = fs::File::create(&log).with_context(|| format!("write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start {}", command.get_program().to_string_lossy()))?;
        Ok(Self { name: name.to_owned(), log, child, may_finish: false })
    }

    /// An error with the last lines of its log if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.log_tail()),
        }
    }

    /// The same of a program that ends when it is done: it may not fail.
    pub fn check_unfinished(&mut self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        // Without waiting for it: what it has cost can be read until then.
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(pid), look)? {
            WaitStatus::StillAlive => Ok(()),
            WaitStatus::Exited(_, 0) if self.may_finish => Ok(()),
            _ => self.check(),
        }
    }

    /// A program that ends by itself.
    pub fn finishing(mut self) -> Self {
        self.may_finish = true;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end; an error unless it succeeds within `limit`.
    pub fn wait(mut self, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            interrupt::check()?;
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "{} ended with {status}:\n{}", self.name, self.log_tail());
                return Ok(());
            }
            ensure!(begun.elapsed() < limit, "{} is not done after {} s", self.name, limit.as_secs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it has printed a line.
    pub fn has_said(&self, line: &str) -> Result<bool> {
        Ok(fs::read_to_string(&self.log)?.lines().any(|said| said == line))
    }

    /// What it has printed.
    pub fn said(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// What it has cost so far, with its children.
    pub fn usage(&self) -> Usage {
        usage_of_tree(self.child.id())
    }

    /// What it holds of memory now, in MiB.
    pub fn rss_mib(&self) -> u64 {
        status_mib(self.child.id(), "VmRSS:").unwrap_or(0)
    }

    /// SIGTERM, and its end, with exit code 0.
    pub fn stop(self) -> Result<()> {
        let (name, log) = (self.name.clone(), self.log.clone());
        let status = self.terminate()?;
        ensure!(status.success(), "{name} ended with {status} after SIGTERM; see {}", log.display());
        Ok(())
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.check()?;
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let begun = Instant::now();
        while begun.elapsed() < STOP_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("{} is still there {} s after SIGTERM", self.name, STOP_LIMIT.as_secs())
    }

    fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU seconds of each native service so far, by its name; none with Docker.
pub fn services_cpu_s() -> Result<BTreeMap<&'static str, f64>> {
    let layout = Layout::discover()?;
    let running = native::status(&layout).into_iter();
    Ok(running
        .filter_map(|status| Some((status.service, cpu_s(u32::try_from(status.pid?).ok()?)?)))
        .collect())
}

/// Bytes that have gone over the loopback network.
pub fn loopback_bytes() -> Option<u64> {
    received_bytes(&fs::read_to_string("/proc/net/dev").ok()?, "lo")
}

fn received_bytes(devices: &str, name: &str) -> Option<u64> {
    let (_, numbers) =
        devices.lines().filter_map(|line| line.split_once(':')).find(|(device, _)| device.trim() == name)?;
    numbers.split_whitespace().next()?.parse().ok()
}

/// What the machine's processors have done since it started, in ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Processors {
    all: u64,
    idle: u64,
    waiting: u64,
    stolen: u64,
}

/// Of the machine's time on all its processors; each from 0 to 1, and 0 where the kernel doesn't say.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shares {
    /// Nothing to do.
    pub idle: f64,
    /// Nothing to do until a disk has answered.
    pub disk_wait: f64,
    /// Something to do, and the host of a virtual machine let it wait.
    pub stolen: f64,
}

impl Processors {
    /// So far; `None` where the kernel doesn't say.
    pub fn now() -> Option<Self> {
        Self::of(&fs::read_to_string("/proc/stat").ok()?)
    }

    /// Of the line with all processors: user, nice, system, idle, waiting for disks, interrupts, soft ones, stolen. What
    /// follows is within these.
    fn of(stat: &str) -> Option<Self> {
        let numbers = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> =
            numbers.split_ascii_whitespace().take(8).map_while(|n| n.parse().ok()).collect();
        let &[_, _, _, idle, waiting, _, _, stolen] = ticks.as_slice() else { return None };
        Some(Self { all: ticks.iter().sum(), idle, waiting, stolen })
    }

    /// The shares of the time since `earlier`.
    pub fn shares_since(self, earlier: Self) -> Shares {
        let all = self.all.saturating_sub(earlier.all).max(1) as f64;
        let share = |now: u64, then: u64| now.saturating_sub(then) as f64 / all;
        Shares {
            idle: share(self.idle, earlier.idle),
            disk_wait: share(self.waiting, earlier.waiting),
            stolen: share(self.stolen, earlier.stolen),
        }
    }
}

fn usage_of_tree(pid: u32) -> Usage {
    let mut usage = Usage { cpu_s: cpu_s(pid).unwrap_or(0.0), peak_mib: peak_mib(pid).unwrap_or(0) };
    for child in children(pid) {
        let of_child = usage_of_tree(child);
        usage.cpu_s += of_child.cpu_s;
        usage.peak_mib = usage.peak_mib.max(of_child.peak_mib);
    }
    usage
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Of a process and of those of its children that have ended and were waited for.
fn cpu_s(pid: u32) -> Option<f64> {
    let ticks_per_s = sysconf(SysconfVar::CLK_TCK).ok().flatten()?;
    Some(cpu_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)? as f64 / ticks_per_s as f64)
}

/// Fields 14 to 17 of `/proc/<pid>/stat`. The command in parentheses may hold anything: everything after the last one
/// is plain.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<u64> =
        rest.split_ascii_whitespace().skip(11).take(4).map_while(|f| f.parse().ok()).collect();
    (fields.len() == 4).then(|| fields.iter().sum())
}

fn peak_mib(pid: u32) -> Option<u64> {
    status_mib(pid, "VmHWM:")
}

fn status_mib(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_that_of_the_process_and_its_ended_children() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 20 0 99";
        assert_eq!(cpu_ticks(stat), Some(11 + 12 + 13 + 14));
        assert_eq!(cpu_ticks("7 (a"), None);
    }

    #[test]
    fn what_the_host_has_taken_is_told_from_rest() {
        let of = |stat| Processors::of(stat).unwrap();
        let before = of("cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 1 0 0 0 0 0 0 0 0 0\n");
        let now = of("cpu  40 0 20 100 20 0 0 20 35 0\n");
        assert_eq!(now.shares_since(before), Shares { idle: 0.3, disk_wait: 0.1, stolen: 0.2 });
        assert_eq!(now.shares_since(now), Shares::default());
        assert_eq!(Processors::of("cpu  1 2 3\n"), None);
    }

    #[test]
    fn the_loopback_network_is_counted_once() {
        let devices = "Inter-|   Receive\n face |bytes\n    lo: 420 3 0\n  eth0:7 1 0\n";
        assert_eq!((received_bytes(devices, "lo"), received_bytes(devices, "eth0")), (Some(420), Some(7)));
        assert_eq!(received_bytes(devices, "eth1"), None);
    }

    #[test]
    fn a_program_is_measured_with_its_children() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sh -c 'while :; do :; done' & echo ready; wait"]);
        let mut program = Program::start("busy", command, folder.path()).unwrap();
        let begun = Instant::now();
        while program.usage().cpu_s < 0.05 {
            program.check().unwrap();
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(program.has_said("ready").unwrap());
        for child in children(program.child.id()) {
            kill(Pid::from_raw(child as i32), Signal::SIGKILL).unwrap();
        }
    }
}
