//! NDJSON: one event per line, in the canonical form or in the older system's.

use super::{Batch, LineReader, RowSource, SourceError, Step, legacy::LegacyNumbering};
use crate::{
    envelope::Completer,
    rejects::{RowError, reason},
    source::{Input, lines::Line},
};
use claims_schemas::{
    Event,
    json::{self, EventDraft},
};

/// Whose JSON it is.
#[derive(Debug)]
pub enum Dialect {
    /// Our own: what `claims tail --json` and `claims generate` write.
    Canonical,
    /// The older system's.
    Legacy(LegacyNumbering),
}

/// What a line holds.
#[derive(Debug)]
pub enum Parsed {
    /// An event, complete and valid.
    Event(Box<Event>),
    /// Nothing new: an empty line's worth, or a copy of a line before.
    Nothing,
}

/// Turns lines into events; used for files and for HTTP bodies.
#[derive(Debug)]
pub struct LineParser {
    dialect: Dialect,
    completer: Completer,
}

impl LineParser {
    /// A parser; events without a tenant get `default_tenant`.
    pub fn new(dialect: Dialect, default_tenant: &str) -> Self {
        Self { dialect, completer: Completer::new(default_tenant) }
    }

    /// Reads the clock; once per batch.
    pub fn read_clock(&mut self) {
        self.completer.read_clock();
    }

    /// The event on a line.
    pub fn parse(&mut self, line: &Line<'_>) -> Result<Parsed, RowError> {
        if line.too_long {
            let detail = format!("the line has {} bytes, more than ingress.max_line_bytes", line.length);
            return Err(RowError::new(reason::TOO_LONG, detail));
        }
        let value = parse_text(line.trimmed(), line.terminated)?;
        self.event(value)
    }

    /// The event in a JSON value.
    pub fn event(&mut self, value: serde_json::Value) -> Result<Parsed, RowError> {
        let completer = &mut self.completer;
        let event = match &mut self.dialect {
            Dialect::Canonical => Some(completer.complete(draft(value)?)?),
            Dialect::Legacy(numbering) => {
                let tenant = completer.default_tenant().to_owned();
                numbering.translate(value, &tenant, |value| completer.complete(draft(value)?))?
            }
        };
        Ok(event.map_or(Parsed::Nothing, |event| Parsed::Event(Box::new(event))))
    }
}

/// A whole text of JSON.
pub(crate) fn parse_json(text: &[u8]) -> Result<serde_json::Value, RowError> {
    parse_text(text, true)
}

fn parse_text(text: &[u8], terminated: bool) -> Result<serde_json::Value, RowError> {
    let text = std::str::from_utf8(text).map_err(|error| {
        RowError::new(reason::INVALID_UTF8, format!("byte {} is not UTF-8", error.valid_up_to() + 1))
    })?;
    serde_json::from_str(text).map_err(|error| json_error(&error, terminated))
}

fn draft(value: serde_json::Value) -> Result<EventDraft, RowError> {
    json::from_value(value).map_err(|error| RowError::of(reason::INVALID_EVENT, error.field, error.reason))
}

/// serde_json's messages may quote the input; only the kind and the place are told.
fn json_error(error: &serde_json::Error, terminated: bool) -> RowError {
    if error.is_eof() {
        let word = if terminated { reason::INVALID_JSON } else { reason::TRUNCATED };
        return RowError::new(word, format!("the JSON ends in the middle, at column {}", error.column()));
    }
    RowError::new(reason::INVALID_JSON, format!("not JSON at column {}", error.column()))
}

/// NDJSON as a source of rows.
pub struct NdjsonSource {
    lines: LineReader,
    parser: LineParser,
}

impl NdjsonSource {
    /// Reads `input` line by line, at most `max_line_bytes` each.
    pub fn new(input: Input, dialect: Dialect, default_tenant: &str, max_line_bytes: usize) -> Self {
        Self {
            lines: LineReader::new(input, max_line_bytes),
            parser: LineParser::new(dialect, default_tenant),
        }
    }
}

impl RowSource for NdjsonSource {
    fn fill(&mut self, batch: &mut Batch, step: Step) -> Result<bool, SourceError> {
        self.parser.read_clock();
        while !step.is_over(batch) {
            let Some(line) = self.lines.next_line()? else { return Ok(false) };
            if !line.too_long && line.trimmed().iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            batch.count_row(line.bytes.len());
            match self.parser.parse(&line) {
                Ok(Parsed::Event(event)) => batch.events.push(*event),
                Ok(Parsed::Nothing) => batch.rows_without_change += 1,
                Err(error) => {
                    let mut reject = error.at(line.number, line.bytes);
                    reject.original_bytes = line.length;
                    batch.rejects.push(reject);
                }
            }
        }
        Ok(true)
    }
}
