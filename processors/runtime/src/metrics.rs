//! Names of the runtime's metrics, and the handles of one stage. Everything is counted per batch, nothing per record.

use ::metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use std::{thread, time::Duration};

/// Records that are durable in the sink, or dead-lettered. Label `processor`.
pub const EVENTS_PROCESSED: &str = "events_processed_total";
/// From the broker's append of a batch's oldest record to its durability, in seconds, counted once for each of the
/// batch's records: an upper bound. Label `processor`.
pub const EVENT_PROCESSING_DURATION: &str = "event_processing_duration_seconds";
/// One batch from its dispatch to its acknowledgement, in seconds. Label `processor`.
pub const BATCH_DURATION: &str = "batch_delivery_duration_seconds";
/// Records in the topic that aren't durable yet. Labels `processor`, `partition`; 0 after the partition has gone.
pub const LAG_RECORDS: &str = "projection_lag_records";
/// Batches acknowledged. Label `processor`.
pub const BATCHES: &str = "batches_total";
/// Memory of open and unacknowledged batches, in bytes. Label `processor`.
pub const BYTES_IN_FLIGHT: &str = "bytes_in_flight";
/// Failed attempts of the sink that were repeated. Label `processor`.
pub const SINK_RETRIES: &str = "sink_retries_total";
/// Dead letters written. Labels `processor`, `reason`.
pub const DEAD_LETTERS: &str = "dead_letters_total";
/// Refused records given to their processor once more. Labels `processor`, `outcome`.
pub const DEAD_LETTER_RETRIES: &str = "dead_letter_retries_total";
/// What doesn't fit together and never should: see [`crate::ranges`]. Labels `processor`, `kind`.
pub const INCONSISTENCIES: &str = "claims_inconsistencies_total";
/// Assignments and revocations. Labels `processor`, `kind`.
pub const REBALANCES: &str = "rebalances_total";
/// Partitions paused just now. Label `processor`.
pub const PAUSED_PARTITIONS: &str = "paused_partitions";
/// 1 while partitions wait for the schema registry. Label `processor`.
pub const WAITING_FOR_REGISTRY: &str = "waiting_for_schema_registry";
/// Commits that Kafka refused; they are repeated. Label `processor`.
pub const COMMIT_FAILURES: &str = "offset_commit_failures_total";

/// Label: the processor's name.
pub const LABEL_PROCESSOR: &str = "processor";
/// Label: the partition's number.
pub const LABEL_PARTITION: &str = "partition";
/// Label: why a record was dead-lettered.
pub const LABEL_REASON: &str = "reason";
/// Label: `applied`, `already-there` or `refused`.
pub const LABEL_OUTCOME: &str = "outcome";
/// Label: `assign`, `revoke` or `lost`; or the kind of an inconsistency.
pub const LABEL_KIND: &str = "kind";

const DURATION_BUCKETS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 600.0, 3600.0];
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Installs the process's Prometheus recorder and returns what renders its text. Once per process.
pub fn install() -> Result<impl Fn() -> String + Clone + Send + Sync + 'static, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("duration_seconds".into()), &DURATION_BUCKETS)?
        .install_recorder()?;
    describe();
    let upkeep = handle.clone();
    // Without it histograms grow between two scrapes. The thread lives as long as the recorder: until the process ends.
    let _ = thread::Builder::new().name("metrics-upkeep".into()).spawn(move || {
        loop {
            thread::sleep(UPKEEP_INTERVAL);
            upkeep.run_upkeep();
        }
    });
    Ok(move || handle.render())
}

fn describe() {
    describe_counter!(EVENTS_PROCESSED, "Records durable in the sink or dead-lettered");
    describe_histogram!(
        EVENT_PROCESSING_DURATION,
        Unit::Seconds,
        "From append to durability, per batch's oldest"
    );
    describe_histogram!(BATCH_DURATION, Unit::Seconds, "One batch from dispatch to acknowledgement");
    describe_gauge!(LAG_RECORDS, "Records in the topic that aren't durable yet");
    describe_counter!(BATCHES, "Batches acknowledged");
    describe_gauge!(BYTES_IN_FLIGHT, Unit::Bytes, "Memory of open and unacknowledged batches");
    describe_counter!(SINK_RETRIES, "Failed attempts of the sink that were repeated");
    describe_counter!(DEAD_LETTERS, "Dead letters written");
    describe_counter!(DEAD_LETTER_RETRIES, "Refused records given to their processor once more");
    describe_counter!(INCONSISTENCIES, "What doesn't fit together and never should");
    describe_counter!(REBALANCES, "Assignments and revocations");
    describe_gauge!(PAUSED_PARTITIONS, "Partitions paused just now");
    describe_gauge!(WAITING_FOR_REGISTRY, "1 while partitions wait for the schema registry");
    describe_counter!(COMMIT_FAILURES, "Commits that Kafka refused; they are repeated");
}

/// The metrics of one stage.
pub(crate) struct StageMetrics {
    processor: &'static str,
    pub events: Counter,
    pub event_duration: Histogram,
    pub batch_duration: Histogram,
    pub batches: Counter,
    pub bytes_in_flight: Gauge,
    pub sink_retries: Counter,
    pub paused_partitions: Gauge,
    pub waiting_for_registry: Gauge,
    pub commit_failures: Counter,
}

impl StageMetrics {
    pub fn new(processor: &'static str) -> Self {
        Self {
            processor,
            events: counter!(EVENTS_PROCESSED, LABEL_PROCESSOR => processor),
            event_duration: histogram!(EVENT_PROCESSING_DURATION, LABEL_PROCESSOR => processor),
            batch_duration: histogram!(BATCH_DURATION, LABEL_PROCESSOR => processor),
            batches: counter!(BATCHES, LABEL_PROCESSOR => processor),
            bytes_in_flight: gauge!(BYTES_IN_FLIGHT, LABEL_PROCESSOR => processor),
            sink_retries: counter!(SINK_RETRIES, LABEL_PROCESSOR => processor),
            paused_partitions: gauge!(PAUSED_PARTITIONS, LABEL_PROCESSOR => processor),
            waiting_for_registry: gauge!(WAITING_FOR_REGISTRY, LABEL_PROCESSOR => processor),
            commit_failures: counter!(COMMIT_FAILURES, LABEL_PROCESSOR => processor),
        }
    }

    pub fn lag(&self, partition: i32, records: i64) {
        gauge!(LAG_RECORDS, LABEL_PROCESSOR => self.processor, LABEL_PARTITION => partition.to_string())
            .set(records as f64);
    }

    pub fn dead_letters(&self, reason: &'static str, count: u64) {
        counter!(DEAD_LETTERS, LABEL_PROCESSOR => self.processor, LABEL_REASON => reason).increment(count);
    }

    pub fn inconsistency(&self, kind: &'static str) {
        counter!(INCONSISTENCIES, LABEL_PROCESSOR => self.processor, LABEL_KIND => kind).increment(1);
    }

    pub fn rebalance(&self, kind: &'static str) {
        counter!(REBALANCES, LABEL_PROCESSOR => self.processor, LABEL_KIND => kind).increment(1);
    }
}
