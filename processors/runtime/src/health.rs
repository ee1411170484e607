//! How the stages of this process are. Every running stage reports here; `/health/*` and the command line read it.

use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a stage is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageState {
    /// It waits for its first assignment.
    Starting,
    /// It takes records, or waits for some.
    Running,
    /// It repeats what failed for a passing reason: see the reason.
    Retrying,
    /// Partitions wait for the schema registry.
    WaitingForRegistry,
    /// Partitions hold what this build doesn't know.
    UpgradeNeeded,
    /// Records wait and none was completed for long.
    Stalled,
    /// It was asked to stop and drains.
    Stopping,
    /// It was stopped by request and waits to be started.
    Stopped,
    /// It ended with an error.
    Failed,
}

/// One partition of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: i32,
    /// Records in the log beyond what is durable (more than there are, where the log has gaps); `None` before the
    /// first look.
    pub lag_records: Option<i64>,
    /// Why it stands still, if it does.
    pub standstill: Option<String>,
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageStatus {
    /// The processor's name.
    pub processor: String,
    /// What it is doing.
    pub state: StageState,
    /// Whether it keeps up its work.
    pub ready: bool,
    /// Why it isn't ready.
    pub reason: Option<String>,
    /// Its partitions, ascending.
    pub partitions: Vec<PartitionStatus>,
    /// Milliseconds since a batch was completed or nothing was waiting.
    pub last_progress_age_ms: u64,
    /// Records completed in this run.
    pub records_completed: u64,
}

static STAGES: Mutex<Vec<Arc<StageHealth>>> = Mutex::new(Vec::new());

/// Where one stage reports.
#[derive(Debug)]
pub(crate) struct StageHealth(Mutex<StageStatus>);

impl StageHealth {
    /// Enters a stage into the process's list, in the place of an earlier run of it that failed or was stopped.
    pub fn register(processor: &str) -> Arc<Self> {
        let status = StageStatus {
            processor: processor.to_owned(),
            state: StageState::Starting,
            ready: false,
            reason: Some("no assignment yet".into()),
            partitions: Vec::new(),
            last_progress_age_ms: 0,
            records_completed: 0,
        };
        let health = Arc::new(Self(Mutex::new(status)));
        let mut stages = lock(&STAGES);
        stages.retain(|earlier| {
            let earlier = lock(&earlier.0);
            let is_over = matches!(earlier.state, StageState::Failed | StageState::Stopped);
            earlier.processor != processor || !is_over
        });
        stages.push(Arc::clone(&health));
        drop(stages);
        health
    }

    pub fn update(&self, status: StageStatus) {
        *lock(&self.0) = status;
    }

    /// The stage ended with an error: it goes (back) on the list and stays there.
    pub fn fail(self: &Arc<Self>, reason: String) {
        let mut status = lock(&self.0);
        status.state = StageState::Failed;
        status.ready = false;
        status.reason = Some(reason);
        drop(status);
        self.deregister();
        lock(&STAGES).push(Arc::clone(self));
    }

    /// The stage ended as asked: it leaves the list.
    pub fn deregister(self: &Arc<Self>) {
        lock(&STAGES).retain(|health| !Arc::ptr_eq(health, self));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stage was stopped by request: it stays on the list, as not ready, until it runs again.
pub(crate) fn note_stopped(processor: &str) {
    let health = StageHealth::register(processor);
    let mut status = lock(&health.0);
    status.state = StageState::Stopped;
    status.reason = Some("stopped by request".into());
}

/// Every stage of this process that runs, failed or was stopped by request.
pub fn stages() -> Vec<StageStatus> {
    lock(&STAGES).iter().map(|health| lock(&health.0).clone()).collect()
}

/// Whether no stage failed: otherwise the process should be started again.
pub fn is_live(stages: &[StageStatus]) -> bool {
    !stages.iter().any(|stage| stage.state == StageState::Failed)
}

/// Whether there are stages, and all of them keep up their work.
pub fn is_ready(stages: &[StageStatus]) -> bool {
    !stages.is_empty() && stages.iter().all(|stage| stage.ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_that_runs_again_takes_the_place_of_the_failed_one() {
        let mine =
            || -> Vec<_> { stages().into_iter().filter(|stage| stage.processor == "restarted").collect() };
        StageHealth::register("restarted").fail("the sink is away".into());
        assert!(!is_live(&mine()));
        let again = StageHealth::register("restarted");
        let _beside = StageHealth::register("restarted");
        assert!(is_live(&mine()));
        assert_eq!(mine().len(), 2);
        again.deregister();
        assert_eq!(mine().len(), 1);
    }
}
