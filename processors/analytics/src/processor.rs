//! The pure half: a record in, at most one row out. It holds no state: what a claim's events amount to is worked out by
//! ClickHouse's views.

use crate::{NAME, row::EventRow};
use claims_runtime::{Payload, ProcessError, Processor, Record, Rows};
use claims_schemas::{DecodeError, Event, SchemaCache, Timestamp, validate::validate};

/// Dead-letter reason: the bytes are no event.
pub const REASON_MALFORMED: &str = "malformed";
/// Dead-letter reason: an amount or a time doesn't fit the table's types.
pub const REASON_NOT_STORABLE: &str = "not-storable";

/// Turns records of the events topic into rows.
#[derive(Debug)]
pub struct AnalyticsProcessor {
    schemas: SchemaCache,
}

impl AnalyticsProcessor {
    /// `schemas`: the cache that the stage's resolver fills.
    pub fn new(schemas: SchemaCache) -> Self {
        Self { schemas }
    }

    fn decode(&self, value: &[u8], appended_at_ms: i64) -> Result<Event, ProcessError> {
        let event = self.schemas.decode(value).map_err(|error| match error {
            DecodeError::Malformed(detail) => ProcessError::Poison { reason: REASON_MALFORMED, detail },
            DecodeError::SchemaMissing(schema_id) => ProcessError::SchemaMissing { schema_id },
            newer @ DecodeError::UpgradeNeeded(_) => ProcessError::UpgradeNeeded(newer.to_string()),
        })?;
        // The broker's clock, not ours: a replay years later must refuse what was refused at first.
        validate(&event, Timestamp(appended_at_ms))
            .map_err(|error| ProcessError::Poison { reason: error.reason, detail: error.to_string() })?;
        Ok(event)
    }
}

impl Processor for AnalyticsProcessor {
    type Row = EventRow;

    fn name(&self) -> &'static str {
        NAME
    }

    fn process(&mut self, record: &Record<'_>, rows: &mut Rows<EventRow>) -> Result<(), ProcessError> {
        let Payload::Value(value) = record.payload else {
            // Lets the log forget an event; the erasure itself is an event of its own.
            return Ok(());
        };
        let event = self.decode(value, record.appended_at_ms)?;
        let row = EventRow::new(event, record.origin, record.appended_at_ms).map_err(|error| {
            ProcessError::Poison { reason: REASON_NOT_STORABLE, detail: error.to_string() }
        })?;
        let bytes = row.bytes();
        rows.push(record.origin, row, bytes);
        Ok(())
    }
}
