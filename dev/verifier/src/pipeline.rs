//! The command `claims` as child processes: run it, start and kill processors, wait until they have caught up.

use crate::namespace::{Namespace, REQUEST_TIMEOUT};
use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
    topic_partition_list::Offset,
};
use std::{
    io::{BufRead as _, BufReader, Lines},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

/// The processors, by the names that `claims run` takes.
pub const PROCESSORS: [&str; 3] = ["current-state", "analytics", "audit"];

/// A processor must have flushed, committed and gone this long after SIGTERM.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// A process that was just started, on a machine busy with starting others, is given so long before it is told to stop.
const START_LIMIT: Duration = Duration::from_secs(5);

/// The command `claims`, pointed at one namespace.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// Where it runs.
    pub namespace: Namespace,
    /// Further settings for every `claims` started, as environment variables.
    pub settings: Vec<(String, String)>,
    binary: PathBuf,
}

/// The group's offsets. A cluster that sees its first group makes the topic for them then, and says "not coordinator"
/// meanwhile.
fn committed_offsets(consumer: &BaseConsumer, wanted: &TopicPartitionList) -> Result<TopicPartitionList> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    loop {
        let result = consumer.committed_offsets(wanted.clone(), REQUEST_TIMEOUT);
        let code = result.as_ref().err().and_then(|error| error.rdkafka_error_code());
        match code {
            Some(
                RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress,
            ) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            _ => return Ok(result?),
        }
    }
}

/// What a running command prints. It waits while nobody reads, and ends with this.
#[derive(Debug)]
pub struct OutputLines {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl OutputLines {
    fn of(command: &mut Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let stdout = child.stdout.take().context("no standard output")?;
        Ok(Self { child, lines: BufReader::new(stdout).lines() })
    }
}

impl Iterator for OutputLines {
    type Item = std::io::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.lines.next()
    }
}

impl Drop for OutputLines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One running processor.
#[derive(Debug)]
pub struct Running {
    /// Its name.
    pub processor: String,
    /// Its log.
    pub log: PathBuf,
    child: Child,
    peak_rss_kib: u64,
}

impl Pipeline {
    /// The pipeline of a namespace, with the `claims` built beside the running program.
    pub fn new(namespace: Namespace) -> Result<Self> {
        let me = std::env::current_exe()?;
        let binary = me
            .ancestors()
            .skip(1)
            .take(2)
            .map(|dir| dir.join("claims"))
            .find(|path| path.is_file())
            .with_context(|| {
                format!("no `claims` beside {}; run `cargo build -p claims-cli`", me.display())
            })?;
        Ok(Self::of_build(namespace, binary))
    }

    /// The pipeline of a namespace with a certain build of `claims`.
    pub fn of_build(namespace: Namespace, claims: PathBuf) -> Self {
        Self { namespace, settings: Vec::new(), binary: claims }
    }

    /// The same pipeline with one more setting, such as `CLAIMS_ANALYTICS__RUNTIME__MAX_BATCH_RECORDS`.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same pipeline with another build of `claims`.
    pub fn with_binary(mut self, binary: &Path) -> Self {
        self.binary = binary.to_owned();
        self
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .current_dir(&self.namespace.dir)
            .envs(self.namespace.environment())
            .envs(self.settings.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// Runs `claims ARGS` to its end and gives what it printed, whatever its exit code.
    pub fn output(&self, args: &[&str]) -> Result<Output> {
        self.command(args).output().with_context(|| format!("run claims {}", args.join(" ")))
    }

    /// Runs `claims ARGS`, which must succeed; its standard output.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        let output = self.output(args)?;
        if !output.status.success() {
            bail!(
                "claims {} ended with {}\n{}{}",
                args.join(" "),
                output.status,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs `claims ARGS`, which must succeed and print JSON; its progress bars show on this terminal.
    pub fn run_json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let output = self.command(args).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("claims {} ended with {}", args.join(" "), output.status);
        }
        let text = String::from_utf8(output.stdout)?;
        serde_json::from_str(&text)
            .with_context(|| format!("claims {} printed no JSON: {text}", args.join(" ")))
    }

    /// Starts `claims ARGS` and gives what it prints line by line, while it goes on.
    pub fn lines(&self, args: &[&str]) -> Result<OutputLines> {
        OutputLines::of(&mut self.command(args)).with_context(|| format!("start claims {}", args.join(" ")))
    }

    /// Starts `claims ARGS` in the background, its output in `log`.
    pub fn spawn(&self, name: &str, args: &[&str]) -> Result<Running> {
        let logs = self.namespace.dir.join("logs");
        std::fs::create_dir_all(&logs)?;
        let log = logs.join(format!("{name}.log"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let child = self
            .command(args)
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("start claims {}", args.join(" ")))?;
        Ok(Running { processor: name.to_owned(), log, child, peak_rss_kib: 0 })
    }

    /// Starts a processor, its output in a log file of its own.
    pub fn start(&self, processor: &str) -> Result<Running> {
        self.spawn(processor, &["run", processor])
    }

    /// Sets up topics and schemas.
    pub fn prepare(&self) -> Result<()> {
        self.run(&["topics", "apply"])?;
        self.run(&["schemas", "register"])?;
        Ok(())
    }

    /// Records of the events topic that the processor has not committed yet, and records in all.
    pub fn lag(&self, processor: &str) -> Result<(u64, u64)> {
        let consumer: BaseConsumer =
            self.namespace.kafka_client().set("group.id", self.namespace.group(processor)).create()?;
        let topic = self.namespace.events_topic.clone();
        let mut wanted = TopicPartitionList::new();
        for partition in 0..self.namespace.partitions {
            wanted.add_partition(&topic, partition);
        }
        let committed = committed_offsets(&consumer, &wanted)?;
        let (mut lag, mut total) = (0, 0);
        for element in committed.elements() {
            let (low, high) = consumer.fetch_watermarks(&topic, element.partition(), REQUEST_TIMEOUT)?;
            let next = match element.offset() {
                Offset::Offset(next) => next,
                _ => low,
            };
            lag += u64::try_from(high - next).unwrap_or(0);
            total += u64::try_from(high - low).unwrap_or(0);
        }
        Ok((lag, total))
    }

    /// Waits until every processor has committed all there is; `progress` gets (processor, lag). Gives for each how
    /// long it took.
    pub async fn wait_until_caught_up(
        &self,
        running: &mut [Running],
        limit: Duration,
        mut progress: impl FnMut(&str, u64),
    ) -> Result<Vec<(String, Duration)>> {
        let start = Instant::now();
        let mut done: Vec<(String, Duration)> = Vec::new();
        while done.len() < running.len() {
            for process in running.iter_mut() {
                process.check()?;
                if done.iter().any(|(name, _)| *name == process.processor) {
                    continue;
                }
                let (lag, _) = self.lag(&process.processor)?;
                progress(&process.processor, lag);
                if lag == 0 {
                    done.push((process.processor.clone(), start.elapsed()));
                }
            }
            if start.elapsed() > limit {
                bail!("after {} s there is lag left; done: {done:?}", limit.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(done)
    }
}

impl Running {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Notes its memory; an error with the end of its log if it has died.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.look()? {
            bail!("{} ended with {status}; the end of its log:\n{}", self.processor, self.log_tail(20));
        }
        Ok(())
    }

    /// Notes its memory; how it ended, if it has.
    pub fn look(&mut self) -> Result<Option<ExitStatus>> {
        self.peak_rss_kib = self.peak_rss_kib.max(peak_rss_kib(self.child.id()).unwrap_or(0));
        Ok(self.child.try_wait()?)
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// The most memory it has held (resident), in MiB, as of the last look.
    pub fn peak_rss_mib(&self) -> u64 {
        self.peak_rss_kib / 1024
    }

    /// `kill -9`.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, as soon as the process catches it, and its exit status; an error if it takes longer than [`SHUTDOWN_LIMIT`].
    pub async fn stop(mut self) -> Result<ExitStatus> {
        self.check()?;
        let asked = Instant::now();
        while !catches_sigterm(self.child.id()) && asked.elapsed() < START_LIMIT {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.signal(Signal::SIGTERM)?;
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if start.elapsed() > SHUTDOWN_LIMIT {
                bail!("{} is still there {} s after SIGTERM", self.processor, SHUTDOWN_LIMIT.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Running {
    /// Nothing that a run started outlives it.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process has come so far as to catch SIGTERM: until then it ends by the signal itself.
fn catches_sigterm(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    caught & (1 << (Signal::SIGTERM as u32 - 1)) != 0
}

fn peak_rss_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of 1 KiB each: more than a pipe holds, and the reader's buffer.
    const MANY_LINES: u64 = 4_096;

    #[test]
    fn a_command_goes_no_further_than_its_lines_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let noted = folder.path().join("noted");
        // A byte in the file for every line that it got rid of.
        let script = format!(
            "n=0; while [ $n -lt {MANY_LINES} ]; do n=$((n+1)); printf '%01023d\\n' $n; echo >> \"$0\"; done"
        );
        let mut lines =
            OutputLines::of(Command::new("sh").args(["-c", script.as_str()]).arg(&noted)).unwrap();
        let lines_noted = || std::fs::metadata(&noted).map_or(0, |file| file.len());
        assert_eq!(lines.next().unwrap().unwrap().trim_start_matches('0'), "1");
        let mut before = 0;
        let waits_at = loop {
            std::thread::sleep(Duration::from_millis(300));
            let now = lines_noted();
            if now > 0 && now == before {
                break now;
            }
            before = now;
        };
        assert!(waits_at < MANY_LINES, "all {waits_at} lines are written, and one was read");
        assert_eq!(lines.count() as u64, MANY_LINES - 1);
        assert_eq!(lines_noted(), MANY_LINES);
    }

    #[test]
    fn a_command_ends_with_its_reader() {
        let mut lines = OutputLines::of(Command::new("seq").arg("1000000000")).unwrap();
        let first: Vec<String> = lines.by_ref().take(3).collect::<std::io::Result<_>>().unwrap();
        assert_eq!(first, ["1", "2", "3"]);
        let pid = lines.child.id();
        drop(lines);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        let few = OutputLines::of(Command::new("seq").arg("2")).unwrap();
        assert_eq!(few.count(), 2);
    }

    #[test]
    fn a_process_is_seen_to_catch_the_signal() {
        let mut deaf = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!catches_sigterm(deaf.id()));
        deaf.kill().unwrap();
        deaf.wait().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", "trap 'exit 0' TERM; read _"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while !catches_sigterm(child.id()) {
            assert!(begun.elapsed() < START_LIMIT);
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
