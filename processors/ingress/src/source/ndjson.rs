//! NDJSON: one event per line, in the canonical form or in the older system's.

use super::{Batch, LineReader, RowSource, SourceError, Step, legacy::LegacyNumbering};
use crate::{
    envelope::Completer,
    records::Emitted,
    rejects::{RowError, reason},
    source::{Input, lines::Line},
};
use claims_schemas::json::{self, EventDraft, LineReader as DraftReader};

/// Whose JSON it is.
#[derive(Debug)]
pub enum Dialect {
    /// Our own: what `claims tail --json` and `claims generate` write.
    Canonical,
    /// The older system's.
    Legacy(LegacyNumbering),
}

/// What a line held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// An event, complete and valid.
    Event,
    /// Nothing new: an empty line's worth, or a copy of a line before.
    Nothing,
}

/// Turns lines into events; used for files and for HTTP bodies.
#[derive(Debug)]
pub struct LineParser {
    dialect: Dialect,
    completer: Completer,
    drafts: DraftReader,
}

impl LineParser {
    /// A parser; events without a tenant get `default_tenant`.
    pub fn new(dialect: Dialect, default_tenant: &str) -> Self {
        Self { dialect, completer: Completer::new(default_tenant), drafts: DraftReader::default() }
    }

    /// Reads the clock; once per batch.
    pub fn read_clock(&mut self) {
        self.completer.read_clock();
    }

    /// Appends the event on a line to `events`.
    pub fn parse(&mut self, line: &Line<'_>, events: &mut Emitted) -> Result<Parsed, RowError> {
        if line.too_long {
            let detail = format!("the line has {} bytes, more than ingress.max_line_bytes", line.length);
            return Err(RowError::new(reason::TOO_LONG, detail));
        }
        let text = line.trimmed();
        if self.is_plain(text, events) {
            return Ok(Parsed::Event);
        }
        let value = parse_text(text, line.terminated)?;
        self.event(value, events)
    }

    /// The quick way, for canonical lines that are in order; `false`: not done, and the longer way says what of it.
    pub(crate) fn is_plain(&mut self, text: &[u8], events: &mut Emitted) -> bool {
        if !matches!(self.dialect, Dialect::Canonical) {
            return false;
        }
        let Some(draft) = self.drafts.read(text) else { return false };
        let Some(event) = self.completer.complete_view(draft) else { return false };
        events.push_view(&event);
        true
    }

    /// Appends the event in a JSON value to `events`.
    pub fn event(&mut self, value: serde_json::Value, events: &mut Emitted) -> Result<Parsed, RowError> {
        let completer = &mut self.completer;
        let event = match &mut self.dialect {
            Dialect::Canonical => Some(completer.complete(draft(value)?)?),
            Dialect::Legacy(numbering) => {
                let tenant = completer.default_tenant().to_owned();
                numbering.translate(value, &tenant, |value| completer.complete(draft(value)?))?
            }
        };
        Ok(match event {
            Some(event) => {
                events.push(event);
                Parsed::Event
            }
            None => Parsed::Nothing,
        })
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
            match self.parser.parse(&line, &mut batch.events) {
                Ok(Parsed::Event) => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Generator, GeneratorSettings};
    use serde_json::Value;

    fn lines() -> Vec<Value> {
        Generator::new(GeneratorSettings { events: 60, seed: 5 })
            .map(|event| json::to_value(&event))
            .collect()
    }

    fn events(emitted: Emitted) -> Vec<claims_schemas::Event> {
        match emitted {
            Emitted::Events(events) => events,
            Emitted::Records(records) => panic!("{records:?}"),
        }
    }

    #[test]
    fn both_ways_fill_in_the_same() {
        let mut parser = LineParser::new(Dialect::Canonical, "default");
        let (mut quick, mut slow) = (Emitted::default(), Emitted::default());
        let may_lack = ["tenant_id", "event_id", "recorded_at", "correlation_id"];
        for line in lines() {
            for left_out in 0..1 << may_lack.len() {
                let mut line = line.clone();
                let fields = line.as_object_mut().unwrap();
                fields.retain(|name, _| {
                    may_lack.iter().position(|lack| lack == name).is_none_or(|at| left_out & (1 << at) == 0)
                });
                assert!(parser.is_plain(line.to_string().as_bytes(), &mut quick), "{line}");
                parser.event(line, &mut slow).unwrap();
            }
        }
        assert_eq!(quick.len(), 60 * 16);
        assert_eq!(events(quick), events(slow));
    }

    #[test]
    fn what_the_rules_refuse_goes_the_longer_way() {
        let mut parser = LineParser::new(Dialect::Canonical, "default");
        let mut emitted = Emitted::default();
        for (field, value) in [
            ("claim_id", Value::from("")),
            ("tenant_id", "a:b".into()),
            ("occurred_at", "2999-01-01T00:00:00Z".into()),
            ("user_id", "a\nb".into()),
            ("version", (1_u64 << 53).into()),
        ] {
            let mut line = lines().remove(0);
            line[field] = value;
            assert!(!parser.is_plain(line.to_string().as_bytes(), &mut emitted), "{field}");
            let error = parser.event(line, &mut emitted).unwrap_err();
            assert_eq!(error.field.as_deref(), Some(field));
        }
        assert!(emitted.is_empty());
    }
}
