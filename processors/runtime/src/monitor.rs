//! Progress of one stage: lag, metrics, health, and the verdict that it is stalled.

use crate::{
    StageError,
    delivery::Delivered,
    health::{PartitionStatus, StageHealth, StageState, StageStatus},
    ledger::OffsetLedger,
    metrics::StageMetrics,
    pauses::{Pauses, Standstill},
    ranges::Inconsistency,
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How often health and gauges are brought up to date.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);
/// How often one and the same complaint is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Watches one stage.
pub(crate) struct Monitor {
    processor: &'static str,
    pub metrics: StageMetrics,
    health: Arc<StageHealth>,
    stall_timeout: Duration,
    highs: BTreeMap<i32, i64>,
    last_progress: Instant,
    last_report: Option<Instant>,
    records_completed: u64,
    complaints: BTreeMap<&'static str, Complaint>,
    pub assigned_once: bool,
    pub stopping: bool,
}

struct Complaint {
    text: String,
    logged_at: Instant,
}

/// What the loop holds just now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Records in the open batch, or batches not acknowledged.
    pub is_holding: bool,
    pub bytes: usize,
}

impl Monitor {
    pub fn new(processor: &'static str, health: Arc<StageHealth>, stall_timeout: Duration) -> Self {
        Self {
            processor,
            metrics: StageMetrics::new(processor),
            health,
            stall_timeout,
            highs: BTreeMap::new(),
            last_progress: Instant::now(),
            last_report: None,
            records_completed: 0,
            complaints: BTreeMap::new(),
            assigned_once: false,
            stopping: false,
        }
    }

    /// Something was completed, or is known to be repeated under a deadline of its own.
    pub fn progress(&mut self) {
        self.last_progress = Instant::now();
    }

    pub fn completed(
        &mut self,
        records: u64,
        oldest_append_ms: i64,
        dispatched: Instant,
        delivered: &Delivered,
    ) {
        self.progress();
        self.records_completed += records;
        let age_ms = (chrono::Utc::now().timestamp_millis() - oldest_append_ms).max(0);
        self.metrics.event_duration.record_many(age_ms as f64 / 1_000.0, records as usize);
        self.metrics.batch_duration.record(dispatched.elapsed().as_secs_f64());
        self.metrics.events.increment(records);
        self.metrics.batches.increment(1);
        self.metrics.sink_retries.increment(delivered.retries);
        for &(reason, count) in &delivered.dead_letters {
            self.metrics.dead_letters(reason, count);
            tracing::warn!(processor = self.processor, reason, count, "records were dead-lettered");
        }
    }

    pub fn high(&mut self, partition: i32, offset: i64) {
        let high = self.highs.entry(partition).or_insert(offset);
        *high = offset.max(*high);
    }

    pub fn revoked(&mut self, partition: i32) {
        self.highs.remove(&partition);
        self.metrics.lag(partition, 0);
    }

    /// What was read, sent and committed doesn't fit together.
    pub fn inconsistent(&mut self, found: impl IntoIterator<Item = Inconsistency>) {
        for Inconsistency { kind, partition, detail } in found {
            self.metrics.inconsistency(kind.as_str());
            tracing::error!(
                processor = self.processor,
                partition,
                kind = kind.as_str(),
                "inconsistent: {detail}"
            );
        }
    }

    /// Something is wrong and being waited out; logged once per interval, shown in the health until it is withdrawn.
    pub fn complain(&mut self, topic: &'static str, text: String) {
        let now = Instant::now();
        let due = self.complaints.get(topic).is_none_or(|c| now - c.logged_at >= LOG_INTERVAL);
        if due {
            tracing::warn!(processor = self.processor, about = topic, "{text}");
        }
        let logged_at = if due { now } else { self.complaints.get(topic).map_or(now, |c| c.logged_at) };
        self.complaints.insert(topic, Complaint { text, logged_at });
    }

    pub fn withdraw(&mut self, topic: &'static str) {
        if self.complaints.remove(topic).is_some() {
            tracing::info!(processor = self.processor, about = topic, "it works again");
        }
    }

    /// Brings health and gauges up to date, and says whether the stage is stalled.
    pub fn report(&mut self, ledger: &OffsetLedger, pauses: &Pauses, load: Load) -> Result<(), StageError> {
        let now = Instant::now();
        if self.last_report.is_some_and(|last| now - last < REPORT_INTERVAL) {
            return Ok(());
        }
        self.last_report = Some(now);
        let partitions = self.partitions(ledger, pauses);
        let is_behind = partitions.iter().any(|p| p.standstill.is_none() && p.lag_records.unwrap_or(0) > 0);
        if !load.is_holding && !is_behind {
            self.progress();
        }
        let idle = self.last_progress.elapsed();
        let (state, reason) = self.judge(pauses, idle);
        let stalled = idle >= self.stall_timeout && !self.stopping;
        let detail = stalled.then(|| self.stall_detail(&partitions, idle));
        self.metrics.bytes_in_flight.set(load.bytes as f64);
        self.metrics.paused_partitions.set(pauses.paused() as f64);
        self.health.update(StageStatus {
            processor: self.processor.to_owned(),
            state,
            ready: state == StageState::Running && reason.is_none(),
            reason,
            partitions,
            last_progress_age_ms: idle.as_millis() as u64,
            records_completed: self.records_completed,
        });
        match detail {
            Some(detail) => Err(StageError::Stalled { processor: self.processor, detail }),
            None => Ok(()),
        }
    }

    fn partitions(&self, ledger: &OffsetLedger, pauses: &Pauses) -> Vec<PartitionStatus> {
        let status = |partition| {
            let durable = ledger.durable_offset(partition);
            let lag = self.highs.get(&partition).zip(durable).map(|(high, durable)| (high - durable).max(0));
            if let Some(lag) = lag {
                self.metrics.lag(partition, lag);
            }
            PartitionStatus {
                partition,
                lag_records: lag,
                standstill: pauses.standstill(partition).map(ToString::to_string),
            }
        };
        ledger.partitions().into_iter().map(status).collect()
    }

    fn judge(&self, pauses: &Pauses, idle: Duration) -> (StageState, Option<String>) {
        if self.stopping {
            return (StageState::Stopping, Some("asked to stop".into()));
        }
        if idle >= self.stall_timeout / 2 {
            return (StageState::Stalled, Some(format!("no progress for {} ms", idle.as_millis())));
        }
        let mut standing: Vec<_> = pauses.standing().collect();
        standing.sort_by_key(|(_, why)| !matches!(why, Standstill::Upgrade { .. }));
        if let Some((partition, why)) = standing.first() {
            let state = match why {
                Standstill::Upgrade { .. } => StageState::UpgradeNeeded,
                Standstill::Schema { .. } => StageState::WaitingForRegistry,
            };
            return (state, Some(format!("partition {partition}: {why}")));
        }
        if let Some((topic, complaint)) = self.complaints.first_key_value() {
            return (StageState::Retrying, Some(format!("{topic}: {}", complaint.text)));
        }
        match self.assigned_once {
            true => (StageState::Running, None),
            false => (StageState::Starting, Some("no assignment yet".into())),
        }
    }

    fn stall_detail(&self, partitions: &[PartitionStatus], idle: Duration) -> String {
        let behind: Vec<String> = partitions
            .iter()
            .filter(|p| p.lag_records.unwrap_or(0) > 0)
            .map(|p| format!("{} ({} behind)", p.partition, p.lag_records.unwrap_or(0)))
            .collect();
        let complaints: String = self.complaints.values().map(|c| format!("; {}", c.text)).collect();
        format!(
            "nothing was completed for {} ms (`stall_timeout_ms`) while records wait in partitions {}{complaints}",
            idle.as_millis(),
            if behind.is_empty() { "unknown".to_owned() } else { behind.join(", ") },
        )
    }
}

impl std::fmt::Display for Standstill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Schema { schema_id } => write!(f, "waits for schema {schema_id} from the registry"),
            Self::Upgrade { offset, what } => write!(f, "upgrade needed for offset {offset}: {what}"),
        }
    }
}
