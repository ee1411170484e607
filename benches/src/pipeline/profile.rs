//! Flame graphs: where the CPU of a stage's own processes goes, by `perf`.
//!
//! A profiled run is one more than those that count, so that no figure is of a process that is being sampled.

use super::child::Program;
use anyhow::{Context, Result, bail, ensure};
use inferno::{
    collapse::{
        Collapse,
        perf::{Folder, Options as FolderOptions},
    },
    flamegraph::{self, Options},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    cell::RefCell,
    collections::HashMap,
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Samples per second and thread: no divisor of anything that happens at regular intervals.
const FREQUENCY: &str = "499";
/// Stacks are unwound from copies of so many bytes of each: production builds, and librdkafka, keep no frame pointers.
const CALL_GRAPH: &str = "dwarf,16384";
/// The samples of a longer span would take gigabytes.
const SPAN_S: &str = "30";
/// Functions named of each process.
const MOST_FUNCTIONS: usize = 10;
/// Characters of their names.
const NAME_CHARS: usize = 100;
const INSTALL: &str = "flame graphs need Linux perf (Debian: apt-get install linux-perf)";
const PERMIT: &str =
    "perf must be allowed to look at processes: run as root, or sysctl kernel.perf_event_paranoid=1";

/// An error that says what is missing, unless processes can be profiled here.
pub fn check() -> Result<()> {
    let mut probe = Command::new("perf");
    probe.args(["record", "--output", "/dev/null", "--call-graph", CALL_GRAPH, "--", "true"]);
    let output = probe.stdin(Stdio::null()).output().context(INSTALL)?;
    ensure!(output.status.success(), "{PERMIT}\n{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Profiles the processes of one run.
pub struct Profiler {
    stage: &'static str,
    pictures: PathBuf,
    scratch: PathBuf,
    recordings: RefCell<Vec<Recording>>,
}

/// `perf` at work on one process.
struct Recording {
    name: String,
    data: PathBuf,
    perf: Child,
}

/// What was seen of one process.
#[derive(Debug)]
pub struct Profile {
    /// The flame graph.
    pub picture: PathBuf,
    /// Functions with the most own time, and their shares of all samples.
    pub top: Vec<(String, f64)>,
}

impl Profiler {
    /// Of a stage; pictures go to one folder, what is sampled to another.
    pub fn new(stage: &'static str, pictures: &Path, scratch: &Path) -> Result<Self> {
        fs::create_dir_all(pictures)?;
        fs::create_dir_all(scratch)?;
        let (pictures, scratch) = (pictures.to_owned(), scratch.to_owned());
        Ok(Self { stage, pictures, scratch, recordings: RefCell::default() })
    }

    /// Begins to sample.
    pub fn start(&self, programs: &[Program]) -> Result<()> {
        for program in programs {
            let name = match programs {
                [_] => self.stage.to_owned(),
                _ => format!("{}-{}", self.stage, program.name()),
            };
            let data = self.scratch.join(format!("{name}.perf"));
            let mut perf = Command::new("perf");
            perf.args(["record", "--quiet", "-F", FREQUENCY, "--call-graph", CALL_GRAPH, "-p"])
                .arg(program.pid().to_string())
                .arg("--output")
                .arg(&data)
                .args(["--", "sleep", SPAN_S])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(File::create(data.with_extension("log"))?);
            self.recordings.borrow_mut().push(Recording { name, data, perf: perf.spawn().context(INSTALL)? });
        }
        Ok(())
    }

    /// Ends sampling; the processes may go now.
    pub fn stop(&self) -> Result<()> {
        for recording in self.recordings.borrow_mut().iter_mut() {
            if recording.perf.try_wait()?.is_none() {
                kill(Pid::from_raw(i32::try_from(recording.perf.id())?), Signal::SIGINT)?;
                recording.perf.wait()?;
            }
        }
        Ok(())
    }

    /// Draws what was sampled.
    pub fn finish(self) -> Result<Vec<Profile>> {
        self.stop()?;
        self.recordings.take().iter().map(|recording| recording.draw(&self.pictures)).collect()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.perf.kill();
        let _ = self.perf.wait();
        let _ = fs::remove_file(&self.data);
    }
}

impl Recording {
    fn draw(&self, pictures: &Path) -> Result<Profile> {
        let stacks = self.stacks().with_context(|| {
            let said = fs::read_to_string(self.data.with_extension("log")).unwrap_or_default();
            format!("no profile of {}: {}", self.name, said.trim())
        })?;
        let picture = pictures.join(format!("{}.svg", self.name));
        let mut options = Options::default();
        options.title.clone_from(&self.name);
        options.count_name = "samples".to_owned();
        flamegraph::from_lines(&mut options, stacks.lines(), File::create(&picture)?)?;
        Ok(Profile { picture, top: top(&stacks) })
    }

    /// Every stack on a line of its own, with its number of samples.
    fn stacks(&self) -> Result<String> {
        let mut script = Command::new("perf");
        // Inlined functions would be looked up one by one, for minutes; they count to those that they are in.
        script.args(["script", "--no-inline", "--force", "--input"]).arg(&self.data);
        let mut script = script.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let output = BufReader::new(script.stdout.take().context("perf script prints nothing")?);
        let mut stacks = Vec::new();
        let collapsed = Folder::from(FolderOptions::default()).collapse(output, &mut stacks);
        let status = script.wait()?;
        collapsed?;
        if !status.success() || stacks.is_empty() {
            bail!("perf script ended with {status}, {} bytes", stacks.len());
        }
        Ok(String::from_utf8(stacks)?)
    }
}

/// The functions that were running themselves in most samples.
fn top(stacks: &str) -> Vec<(String, f64)> {
    let (mut own, mut all) = (HashMap::<&str, u64>::new(), 0);
    for line in stacks.lines() {
        let Some((stack, count)) = line.rsplit_once(' ') else { continue };
        let count = count.parse().unwrap_or(0);
        let function = stack.rsplit(';').next().unwrap_or(stack);
        *own.entry(function).or_default() += count;
        all += count;
    }
    let mut own: Vec<(&str, u64)> = own.into_iter().collect();
    own.sort_by_key(|&(name, count)| (std::cmp::Reverse(count), name));
    own.truncate(MOST_FUNCTIONS);
    let share = |count: u64| count as f64 / all.max(1) as f64;
    own.into_iter().map(|(name, count)| (shortened(name), share(count))).collect()
}

fn shortened(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS {
        return name.to_owned();
    }
    name.chars().take(NAME_CHARS).chain(['…']).collect()
}

impl Profile {
    /// On the terminal.
    pub fn print(&self) {
        println!("{}, functions with the most own time:", self.picture.display());
        for (name, share) in &self.top {
            println!("  {:>5.1} %  {name}", share * 100.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write as _, time::Duration};

    #[test]
    fn own_time_is_that_of_the_last_function() {
        let stacks = "main;a;b 3\nmain;a 2\nmain;c;b 4\nmain 1\n";
        assert_eq!(top(stacks), [("b".to_owned(), 0.7), ("a".to_owned(), 0.2), ("main".to_owned(), 0.1)]);
        assert!(top("").is_empty());
        let many: String = (0..20).map(|n| format!("main;f{n} {n}\n")).collect();
        assert_eq!(top(&many).len(), MOST_FUNCTIONS);
        assert_eq!(shortened(&"ä".repeat(200)).chars().count(), NAME_CHARS + 1);
    }

    #[test]
    fn a_busy_process_has_a_flame_graph() {
        let folder = tempfile::tempdir().unwrap();
        if let Err(error) = check() {
            assert!(error.to_string().contains("perf"), "{error:#}");
            // Not by a macro that prints: what those print of a test that passes isn't shown.
            let _ = writeln!(std::io::stderr(), "SKIPPED, NOT TESTED: flame graphs: {error:#}");
            return;
        }
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        let program = Program::start("busy", command, folder.path()).unwrap();
        // On a busy machine perf takes a while to begin.
        let profile = |span_ms| {
            let profiler = Profiler::new("busy", folder.path(), &folder.path().join("scratch")).unwrap();
            profiler.start(std::slice::from_ref(&program)).unwrap();
            std::thread::sleep(Duration::from_millis(span_ms));
            profiler.finish().ok()
        };
        let profiles = [300, 2_000, 10_000].into_iter().find_map(profile).unwrap();
        let picture = fs::read_to_string(&profiles[0].picture).unwrap();
        assert!(picture.contains("<svg") && picture.contains("samples"), "{picture}");
        assert!(!profiles[0].top.is_empty());
        assert!(!folder.path().join("scratch/busy.perf").exists());
    }
}
