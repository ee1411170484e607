//! Readers: bytes of a file become events, rows without a change, and rejects; every row is accounted for.

pub mod ahead;
pub mod csv_rows;
pub mod input;
pub mod legacy;
pub mod lines;
pub mod ndjson;

use crate::{
    mapping::Mapping,
    records::{Emitted, RecordFormat, Records},
    rejects::Reject,
};
use claims_topology::config::IngressConfig;
use std::io::{self, Read};

pub use input::Input;

/// What a reader found in some rows. Reused from call to call.
#[derive(Debug, Default)]
pub struct Batch {
    /// Events, in the order to publish them.
    pub events: Emitted,
    /// Refused rows.
    pub rejects: Vec<Reject>,
    /// Rows read, whatever became of them.
    pub rows_read: u64,
    /// Rows that were in order and say nothing new.
    pub rows_without_change: u64,
    /// Bytes of the rows read, as far as they were kept.
    pub row_bytes: usize,
}

impl Batch {
    /// A batch that holds events as their records.
    pub fn of_records(format: RecordFormat) -> Self {
        Self { events: Emitted::Records(Records::new(format)), ..Self::default() }
    }

    /// Another one of the same form, empty.
    pub fn another(&self) -> Self {
        Self { events: self.events.another(), ..Self::default() }
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.events.clear();
        self.rejects.clear();
        self.rows_read = 0;
        self.rows_without_change = 0;
        self.row_bytes = 0;
    }

    pub(crate) fn count_row(&mut self, bytes: usize) {
        self.rows_read += 1;
        self.row_bytes += bytes;
    }
}

/// How far to read at one go.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// About so many rows.
    pub max_rows: u64,
    /// About so many bytes of rows: a few long rows hold as much memory as many short ones.
    pub max_row_bytes: usize,
    /// The first refused row ends the step; the batch holds nothing of the rows at or after it.
    pub stop_at_reject: bool,
}

impl Step {
    /// Whether the batch holds all that this step is for.
    pub(crate) fn is_over(&self, batch: &Batch) -> bool {
        batch.rows_read >= self.max_rows
            || batch.row_bytes >= self.max_row_bytes
            || (self.stop_at_reject && !batch.rejects.is_empty())
    }
}

/// Why reading can't go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The input broke.
    #[error("reading {name} after line {line}: {error}")]
    Io {
        /// The input's name.
        name: String,
        /// The last whole line.
        line: u64,
        /// What the system said.
        error: io::Error,
    },
    /// The file as a whole doesn't fit.
    #[error("{name}: {detail}")]
    Unfit {
        /// The input's name.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// Reads an input row by row.
pub trait RowSource: Send {
    /// Reads on and appends to the (empty) batch what was found, until the step is over; `false` once the input has
    /// ended.
    fn fill(&mut self, batch: &mut Batch, step: Step) -> Result<bool, SourceError>;
}

/// How the rows of an input are written.
#[derive(Debug, Clone)]
pub enum Format {
    /// NDJSON in our own form.
    Canonical,
    /// NDJSON of the older system.
    Legacy,
    /// CSV, by a mapping.
    Csv(Box<Mapping>),
}

/// A reader for an input; `config` says the default tenant and how long a line may be.
pub fn open(
    input: Input,
    format: &Format,
    config: &IngressConfig,
) -> Result<Box<dyn RowSource>, SourceError> {
    let (tenant, max_line_bytes) = (&config.default_tenant, config.max_line_bytes);
    let dialect = match format {
        Format::Csv(mapping) => return mapping.open(input, tenant, max_line_bytes),
        Format::Canonical => ndjson::Dialect::Canonical,
        Format::Legacy => ndjson::Dialect::Legacy(legacy::LegacyNumbering::default()),
    };
    Ok(Box::new(ndjson::NdjsonSource::new(input, dialect, tenant, max_line_bytes)))
}

/// Lines of an input.
pub struct LineReader {
    input: Input,
    splitter: lines::LineSplitter,
    piece: Vec<u8>,
    lines: u64,
    ended: bool,
}

impl LineReader {
    /// Lines of at most `max_line_bytes`.
    pub fn new(input: Input, max_line_bytes: usize) -> Self {
        let splitter = lines::LineSplitter::new(max_line_bytes);
        Self { input, splitter, piece: vec![0; 128 * 1024], lines: 0, ended: false }
    }

    /// The input's name.
    pub fn name(&self) -> &str {
        &self.input.name
    }

    /// The next line; `None` at the end.
    pub fn next_line(&mut self) -> Result<Option<lines::Line<'_>>, SourceError> {
        loop {
            if let Some(found) = self.splitter.find() {
                let line = self.splitter.line(found);
                self.lines = line.number;
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(None);
            }
            match self.input.read(&mut self.piece) {
                Ok(0) => {
                    self.ended = true;
                    self.splitter.finish();
                }
                Ok(count) => self.splitter.feed(&self.piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(SourceError::Io { name: self.input.name.clone(), line: self.lines, error });
                }
            }
        }
    }
}
