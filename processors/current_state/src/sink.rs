//! The half of the stage that does I/O: the tables and the state topic, both before a batch counts as written.

use crate::{cql::CqlSink, processor::ClaimWrite, retried::RetriedLookup, state_topic::StatePublisher};
use claims_runtime::{Batch, Origin, Sink, SinkError};
use std::sync::Arc;

/// Writes a batch to the CQL tables and to the state topic.
pub struct CurrentStateSink {
    tables: CqlSink,
    states: StatePublisher,
    retried: Option<Arc<RetriedLookup>>,
}

impl CurrentStateSink {
    /// A sink over both.
    pub fn new(tables: CqlSink, states: StatePublisher) -> Self {
        Self { tables, states, retried: None }
    }

    /// The same, which looks up what was given again as partitions are assigned.
    pub fn with_retried(mut self, retried: RetriedLookup) -> Self {
        self.retried = Some(Arc::new(retried));
        self
    }
}

impl Sink for CurrentStateSink {
    type Row = Arc<ClaimWrite>;

    async fn assigned(&self, partitions: &[i32]) -> Result<(), SinkError> {
        match &self.retried {
            Some(retried) => retried.look_up(partitions).await,
            None => Ok(()),
        }
    }

    fn folded<'a>(&self, row: &'a Self::Row) -> &'a [Origin] {
        &row.origins
    }

    async fn write(&self, batch: &Batch<Self::Row>) -> Result<(), SinkError> {
        // One batch at a time (the default): in the state topic the later state must come last.
        let (tables, states) = tokio::join!(self.tables.write(&batch.rows), self.states.publish(batch));
        // A final error wins over a refusal, and that over a passing one: all of them repeat the whole batch.
        match (tables, states) {
            (Ok(()), Ok(())) => Ok(()),
            (Err(fatal @ SinkError::Fatal(_)), _) | (_, Err(fatal @ SinkError::Fatal(_))) => Err(fatal),
            (Err(poison @ SinkError::Poison(_)), _) | (_, Err(poison @ SinkError::Poison(_))) => Err(poison),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }
}
