//! A row of `event_log` as a program has it that leaves the encoding to the `clickhouse` crate.

use claims_analytics::row::{Columns, NotStorable, storable_amount};
use claims_runtime::Origin;
use claims_schemas::{Event, view::EventView};

/// One event with its coordinates, checked to fit the table's types.
pub struct ReadyRow {
    event: Event,
    origin: Origin,
    appended_at_ms: i64,
    /// Claimed or settled, in units of 10⁻⁴.
    amount: Option<i64>,
}

impl ReadyRow {
    /// The row of an event that stands at `origin`.
    pub fn new(event: Event, origin: Origin, appended_at_ms: i64) -> Result<Self, NotStorable> {
        let amount = storable_amount(&EventView::from(&event))?;
        Ok(Self { event, origin, appended_at_ms, amount })
    }

    /// The row as the table's columns, borrowed.
    pub fn columns(&self) -> Columns<'_> {
        Columns::new(&EventView::from(&self.event), self.origin, self.appended_at_ms, self.amount)
    }
}
