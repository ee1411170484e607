//! One input from beginning to end: rows in, events and dead letters out, everything counted.

use crate::{
    publisher::{PublishError, Publisher, Sender},
    records::{Emitted, Records},
    rejects::{Reject, RejectCounts},
    source::{Batch, RowSource, SourceError, Step, ahead::ReadAhead},
};
use claims_schemas::{Event, json};
use std::{
    io::{self, Write},
    sync::Arc,
};

/// Rows taken per step; progress is told after each.
const ROWS_PER_STEP: u64 = 512;
/// A step ends earlier with so many bytes of rows, which bounds what is held at one time: the rows of a step, and what
/// was made of four of them when importing into Kafka (three read ahead, one being handed over). Only a case of many
/// rows is held as a whole.
const ROW_BYTES_PER_STEP: usize = 4 * 1024 * 1024;

/// What became of the rows of an input. `rows_read` = rows with events + rows without a change + rows rejected.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Rows read, whatever became of them.
    pub rows_read: u64,
    /// Rows refused, each of them a dead letter.
    pub rows_rejected: u64,
    /// Rows that were in order and say nothing new.
    pub rows_without_change: u64,
    /// Events emitted; one row may give several.
    pub events_emitted: u64,
    /// Refused rows by reason.
    pub rejected_by_reason: RejectCounts,
}

impl Counts {
    /// Rows that gave at least one event.
    pub fn rows_imported(&self) -> u64 {
        self.rows_read - self.rows_rejected - self.rows_without_change
    }
}

/// Why an import ended early. What was emitted before stays; repeating the import is safe.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Reading can't go on.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Kafka didn't take the events.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// Writing events to a file or to standard output failed.
    #[error("writing events: {0}")]
    Write(#[from] io::Error),
    /// The system gives no thread to read with.
    #[error("starting a thread: {0}")]
    Thread(io::Error),
    /// A row was refused, and `--strict` asks to stop then.
    #[error("stopped at the first refused row: {0}")]
    Strict(Reject),
}

/// Where events and refused rows go.
pub trait Target {
    /// An empty batch that holds events in the form in which this target takes them.
    fn batch(&self) -> Batch {
        Batch::default()
    }
    /// Takes an event.
    fn event(&mut self, event: &Event) -> Result<(), ImportError>;
    /// Takes events as records, from the one at `next` on, which is then the place of the first that it did not
    /// take. Asked only of a target whose [`batch`](Self::batch) holds such.
    fn records(&mut self, _records: &Records, _next: &mut usize) -> Result<(), ImportError> {
        Err(io::Error::from(io::ErrorKind::Unsupported).into())
    }
    /// Takes a refused row.
    fn reject(&mut self, reject: &Reject) -> Result<(), ImportError>;
}

/// Events into Kafka, refused rows into the dead-letter topic. The caller flushes the sender afterwards.
#[derive(Debug)]
pub struct KafkaTarget {
    /// The way into Kafka.
    pub sender: Sender,
    /// The input's name, for the dead letters.
    pub source_name: String,
}

impl Target for KafkaTarget {
    fn batch(&self) -> Batch {
        Batch::of_records(self.sender.format())
    }

    fn records(&mut self, records: &Records, next: &mut usize) -> Result<(), ImportError> {
        Ok(self.sender.send_records(records, next)?)
    }

    fn event(&mut self, event: &Event) -> Result<(), ImportError> {
        Ok(self.sender.send(event)?)
    }

    fn reject(&mut self, reject: &Reject) -> Result<(), ImportError> {
        Ok(self.sender.send_reject(&self.source_name, reject)?)
    }
}

/// Events as canonical NDJSON, to look at or to read in again; nothing touches Kafka.
pub struct NdjsonTarget<W> {
    out: W,
    /// Events still to be written; the rest is only counted.
    remaining_events: u64,
}

impl<W: Write> NdjsonTarget<W> {
    /// Writes at most `max_events` events to `out`.
    pub fn new(out: W, max_events: u64) -> Self {
        Self { out, remaining_events: max_events }
    }

    /// Flushes and gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Target for NdjsonTarget<W> {
    fn event(&mut self, event: &Event) -> Result<(), ImportError> {
        if self.remaining_events > 0 {
            self.remaining_events -= 1;
            write_ndjson(&mut self.out, event)?;
        }
        Ok(())
    }

    fn reject(&mut self, _reject: &Reject) -> Result<(), ImportError> {
        Ok(())
    }
}

/// Writes an event as one line of canonical NDJSON.
pub fn write_ndjson(out: &mut impl Write, event: &Event) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &json::to_value(event))?;
    out.write_all(b"\n")
}

/// Reads `source` to its end into `target`. `counts` and the refused rows are told to `progress` after every few
/// hundred rows; when the import ends early, `counts` holds what was done until then. `strict`: the first refused row
/// ends the import, and nothing of the rows at or after it is emitted.
pub fn import(
    source: &mut dyn RowSource,
    target: &mut dyn Target,
    strict: bool,
    counts: &mut Counts,
    progress: &mut dyn FnMut(&Counts, &[Reject]),
) -> Result<(), ImportError> {
    let mut batch = target.batch();
    let step = Step { max_rows: ROWS_PER_STEP, max_row_bytes: ROW_BYTES_PER_STEP, stop_at_reject: strict };
    loop {
        batch.clear();
        // A reader may have found rows before it failed: they count.
        let read = source.fill(&mut batch, step);
        take(&batch, target, counts)?;
        progress(counts, &batch.rejects);
        if strict && let Some(reject) = batch.rejects.first() {
            return Err(ImportError::Strict(reject.clone()));
        }
        if !read? {
            return Ok(());
        }
    }
}

/// An import into Kafka on threads of its own: one reads and makes records, the other hands them over. Returns when
/// Kafka has acknowledged everything, or when it ended early; the counts are of what was handed over until then.
///
/// `recorded_at`, and which times lie in the future, go by the clock when a row is read. Kafka is given its events
/// later: up to the delivery timeout later when the broker is stalled.
pub async fn import_into_kafka(
    publisher: &Arc<Publisher>,
    source_name: &str,
    source: Box<dyn RowSource>,
    strict: bool,
    mut progress: impl FnMut(&Counts, &[Reject]) + Send + 'static,
) -> (Counts, Result<(), ImportError>) {
    let mut source = match ReadAhead::new(source) {
        Ok(source) => source,
        Err(error) => return (Counts::default(), Err(ImportError::Thread(error))),
    };
    let mut target = KafkaTarget { sender: publisher.sender(), source_name: source_name.to_owned() };
    let imported = tokio::task::spawn_blocking(move || {
        let mut counts = Counts::default();
        let end = import(&mut source, &mut target, strict, &mut counts, &mut progress);
        (target, counts, end)
    });
    match imported.await {
        Ok((mut target, counts, end)) => {
            let flushed = target.sender.flush().await.map_err(ImportError::from);
            (counts, end.and(flushed))
        }
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

fn take(batch: &Batch, target: &mut dyn Target, counts: &mut Counts) -> Result<(), ImportError> {
    counts.rows_read += batch.rows_read;
    counts.rows_without_change += batch.rows_without_change;
    match &batch.events {
        Emitted::Events(events) => {
            for event in events {
                target.event(event)?;
                counts.events_emitted += 1;
            }
        }
        Emitted::Records(records) => {
            let mut next = 0;
            let taken = target.records(records, &mut next);
            counts.events_emitted += next as u64;
            taken?;
            if let Some(error) = records.failure() {
                return Err(PublishError::Encode(error.clone()).into());
            }
        }
    }
    for reject in &batch.rejects {
        target.reject(reject)?;
        counts.rows_rejected += 1;
        *counts.rejected_by_reason.entry(reject.reason).or_default() += 1;
    }
    Ok(())
}
