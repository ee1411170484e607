//! The product's processes, and their supervisor: what ends is started again, as systemd or Kubernetes would.

use super::links::Links;
use anyhow::{Context, Result, ensure};
use claims_verifier::pipeline::{Pipeline, Running};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A process that ended is started again after this long.
const RESTART_PAUSE: Duration = Duration::from_millis(300);
/// The processes are looked at this often.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes events over HTTP.
    Ingress,
    /// Writes the CQL views and the state topic.
    CurrentState,
    /// Writes to ClickHouse.
    Analytics,
    /// Writes the audit trail.
    Audit,
}

impl Role {
    /// Those with a consumer group.
    pub const PROCESSORS: [Self; 3] = [Self::CurrentState, Self::Analytics, Self::Audit];
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Ingress, Self::CurrentState, Self::Analytics, Self::Audit];

    /// The name that `claims run` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::CurrentState => "current-state",
            Self::Analytics => "analytics",
            Self::Audit => "audit",
        }
    }

    /// The variable of a setting of its runtime.
    pub fn runtime_variable(self, setting: &str) -> String {
        self.variable(&format!("RUNTIME__{setting}"))
    }

    /// The variable of a setting of its own.
    pub fn variable(self, setting: &str) -> String {
        format!("CLAIMS_{}__{setting}", self.name().to_uppercase().replace('-', "_"))
    }
}

/// A process: a role, and which of several with that role.
pub type Who = (Role, usize);

/// How a process ended without our doing.
#[derive(Debug, Clone)]
pub struct Exit {
    /// Whose process it was.
    pub role: Role,
    /// The exit status, and the end of its log.
    pub detail: String,
}

#[derive(Debug)]
struct Worker {
    settings: Vec<(String, String)>,
    running: Option<Running>,
    /// The supervisor starts it again.
    is_wanted: bool,
    /// It was killed by us.
    is_killed: bool,
    ended: Option<Instant>,
}

#[derive(Debug, Default)]
struct State {
    workers: BTreeMap<Who, Worker>,
    exits: Vec<Exit>,
    kills: u64,
    peaks_mib: BTreeMap<&'static str, u64>,
}

/// All processes of a round.
#[derive(Debug)]
pub struct Crew {
    pipeline: Pipeline,
    links: Arc<Links>,
    state: Mutex<State>,
}

impl Crew {
    /// Nobody yet. The pipeline's settings hold for every process.
    pub fn new(pipeline: Pipeline, links: Arc<Links>) -> Self {
        Self { pipeline, links, state: Mutex::default() }
    }

    /// Starts a process with settings of its own, until [`Self::set`] changes them.
    pub fn start(&self, who: Who, settings: Vec<(String, String)>) -> Result<()> {
        let running = self.spawn(who, &settings)?;
        let worker =
            Worker { settings, running: Some(running), is_wanted: true, is_killed: false, ended: None };
        self.lock().workers.insert(who, worker);
        Ok(())
    }

    /// From its next start on it has these settings of its own.
    pub fn set(&self, who: Who, settings: Vec<(String, String)>) {
        if let Some(worker) = self.lock().workers.get_mut(&who) {
            worker.settings = settings;
        }
    }

    fn spawn(&self, (role, instance): Who, settings: &[(String, String)]) -> Result<Running> {
        let mut pipeline = self.pipeline.clone();
        pipeline.settings.extend(self.links.settings(instance)?);
        pipeline.settings.extend(settings.iter().cloned());
        pipeline.spawn(&format!("{}-{instance}", role.name()), &["run", role.name()])
    }

    /// `kill -9`; the supervisor starts it again.
    pub fn kill(&self, who: Who) -> Result<()> {
        let mut state = self.lock();
        state.kills += 1;
        let worker = state.workers.get_mut(&who).context("no such process")?;
        worker.is_killed = true;
        // It may have ended by itself a moment ago; the supervisor tells the two apart by the status.
        worker.running.as_ref().map_or(Ok(()), |running| running.signal(Signal::SIGKILL))
    }

    /// Any other signal.
    pub fn signal(&self, who: Who, signal: Signal) -> Result<()> {
        let mut state = self.lock();
        let worker = state.workers.get_mut(&who).context("no such process")?;
        if signal == Signal::SIGTERM {
            worker.is_killed = true;
        }
        worker.running.as_ref().with_context(|| format!("{who:?} does not run"))?.signal(signal)
    }

    /// Whether the process is there, wanted or on its way out.
    pub fn has(&self, who: Who) -> bool {
        self.lock().workers.contains_key(&who)
    }

    /// SIGTERM; it must end with exit code 0 in time, and is not started again.
    pub async fn stop(&self, who: Who) -> Result<()> {
        let worker = self.lock().workers.remove(&who).context("no such process")?;
        let Some(mut running) = worker.running else { return Ok(()) };
        let peak = running.look().map(|_| running.peak_rss_mib())?;
        self.note_peak(who.0, peak);
        let log = running.log.clone();
        let status = running.stop().await.with_context(|| format!("see {}", log.display()))?;
        ensure!(
            status.success(),
            "{} ended with {status} after SIGTERM; see {}",
            who.0.name(),
            log.display()
        );
        Ok(())
    }

    /// `kill -9` without a new start.
    pub fn remove(&self, who: Who) -> Result<()> {
        self.kill(who)?;
        let worker = self.lock().workers.remove(&who);
        worker.and_then(|worker| worker.running).map_or(Ok(()), Running::kill)
    }

    /// Stops all side by side.
    pub async fn stop_all(&self) -> Result<()> {
        let all: Vec<Who> = self.lock().workers.keys().copied().collect();
        // Ingress last: nothing comes in any more, but it shall not be missed.
        let results = futures::future::join_all(all.into_iter().map(|who| self.stop(who))).await;
        results.into_iter().collect()
    }

    /// Looks after the processes until it is dropped.
    pub async fn supervise(&self) -> Result<()> {
        loop {
            self.look()?;
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn look(&self) -> Result<()> {
        let mut guard = self.lock();
        let State { workers, exits, peaks_mib, .. } = &mut *guard;
        for (&who, worker) in workers.iter_mut() {
            if let Some(running) = &mut worker.running {
                let status = running.look()?;
                let peak = peaks_mib.entry(who.0.name()).or_default();
                *peak = (*peak).max(running.peak_rss_mib());
                let Some(status) = status else { continue };
                if !worker.is_killed {
                    exits.push(Exit {
                        role: who.0,
                        detail: format!("{status}; the end of its log:\n{}", running.log_tail(12)),
                    });
                }
                worker.running = None;
                worker.ended = Some(Instant::now());
            }
            let is_due = worker.ended.is_some_and(|ended| ended.elapsed() >= RESTART_PAUSE);
            if worker.running.is_none() && worker.is_wanted && is_due {
                worker.running = Some(self.spawn(who, &worker.settings)?);
                worker.is_killed = false;
                worker.ended = None;
            }
        }
        Ok(())
    }

    fn note_peak(&self, role: Role, mib: u64) {
        let mut state = self.lock();
        let peak = state.peaks_mib.entry(role.name()).or_default();
        *peak = (*peak).max(mib);
    }

    /// Processes that ended without our doing.
    pub fn exits(&self) -> Vec<Exit> {
        self.lock().exits.clone()
    }

    /// How often `kill -9` was sent.
    pub fn kills(&self) -> u64 {
        self.lock().kills
    }

    /// The most resident memory of any process of each role, in MiB.
    pub fn peaks_mib(&self) -> BTreeMap<&'static str, u64> {
        self.lock().peaks_mib.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
