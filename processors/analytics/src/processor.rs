//! The pure half: a record in, at most one row out. It holds no state: what a claim's events amount to is worked out by
//! ClickHouse's views.

use crate::{NAME, row::EventRow};
use claims_runtime::{Payload, ProcessError, Processor, Record, Rows};
use claims_schemas::{DecodeError, SchemaCache, Timestamp, validate::validate_view, view::EventView};

/// Dead-letter reason: the bytes are no event.
pub const REASON_MALFORMED: &str = "malformed";
/// Dead-letter reason: an amount or a time doesn't fit the table's types.
pub const REASON_NOT_STORABLE: &str = "not-storable";

/// Turns records of the events topic into rows.
#[derive(Debug)]
pub struct AnalyticsProcessor {
    schemas: SchemaCache,
    /// Where a row is encoded before its size is known.
    scratch: Vec<u8>,
}

impl AnalyticsProcessor {
    /// `schemas`: the cache that the stage's resolver fills.
    pub fn new(schemas: SchemaCache) -> Self {
        Self { schemas, scratch: Vec::new() }
    }
}

/// The row of an event that holds to the rules.
fn row(event: &EventView<'_>, record: &Record<'_>, scratch: &mut Vec<u8>) -> Result<EventRow, ProcessError> {
    // The broker's clock, not ours: a replay years later must refuse what was refused at first.
    validate_view(event, Timestamp(record.appended_at_ms))
        .map_err(|error| ProcessError::Poison { reason: error.reason, detail: error.to_string() })?;
    EventRow::new(event, record.origin, record.appended_at_ms, scratch)
        .map_err(|error| ProcessError::Poison { reason: REASON_NOT_STORABLE, detail: error.to_string() })
}

fn undecodable(error: DecodeError) -> ProcessError {
    match error {
        DecodeError::Malformed(detail) => ProcessError::Poison { reason: REASON_MALFORMED, detail },
        DecodeError::SchemaMissing(schema_id) => ProcessError::SchemaMissing { schema_id },
        newer @ DecodeError::UpgradeNeeded(_) => ProcessError::UpgradeNeeded(newer.to_string()),
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
        let Self { schemas, scratch } = self;
        let row = schemas.decode_view(value, |event| row(event, record, scratch)).map_err(undecodable)??;
        let bytes = row.bytes();
        rows.push(record.origin, row, bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{Columns, storable_amount};
    use claims_runtime::testing::{Driver, Outcome, TestRecord};
    use claims_schemas::{
        Event, EventData, Urgency,
        codec::{CLAIM_EVENT_SCHEMA, encode},
        events::{ClaimAssigned, ClaimClosed, ClaimCreated, Money},
    };
    use proptest::prelude::*;
    use uuid::Uuid;

    const SCHEMA_ID: u32 = 5;
    const NOW: i64 = 1_735_689_600_000;

    fn processor() -> AnalyticsProcessor {
        let cache = SchemaCache::default();
        cache.insert(SCHEMA_ID, CLAIM_EVENT_SCHEMA).expect("our schema");
        AnalyticsProcessor::new(cache)
    }

    fn event(version: u64, data: impl Into<EventData>) -> Event {
        Event {
            tenant_id: "t".into(),
            event_id: Uuid::from_u128(u128::from(version)),
            claim_id: "c".into(),
            version,
            occurred_at: Timestamp(NOW),
            recorded_at: Timestamp(NOW),
            correlation_id: "corr".into(),
            causation_id: None,
            user_id: None,
            source: None,
            data: data.into(),
        }
    }

    fn created(amount: &str) -> ClaimCreated {
        ClaimCreated {
            customer_id: "k".into(),
            customer_name: None,
            customer_email: None,
            claim_type: "refund".into(),
            title: None,
            description: "broken".into(),
            product_id: None,
            order_id: None,
            urgency: Urgency::Low,
            claimed: Some(Money { amount: amount.parse().expect("a number"), currency: Some("EUR".into()) }),
        }
    }

    fn record(offset: i64, event: &Event) -> TestRecord {
        let mut value = vec![];
        encode(event, SCHEMA_ID, &mut value).expect("encoded");
        TestRecord::value(2, offset, value).appended_at_ms(NOW)
    }

    fn driver() -> Driver<AnalyticsProcessor> {
        let mut driver = Driver::new(processor());
        driver.assign(2, None).expect("assigned");
        driver
    }

    #[test]
    fn an_event_becomes_a_row_with_its_coordinates() {
        let mut driver = driver();
        let events = [event(1, created("12.5")), event(2, ClaimClosed::default())];
        let records = [record(7, &events[0]), TestRecord::tombstone(2, 8), record(11, &events[1])];
        let rows = driver.run(records, 10).expect("no fatal error");
        assert_eq!(rows.len(), 2);
        let created = Columns {
            tenant_id: "t",
            claim_id: "c",
            version: 1,
            event_id: events[0].event_id,
            event_type: "ClaimCreated",
            occurred_at: NOW,
            recorded_at: NOW,
            correlation_id: "corr",
            customer_id: Some("k"),
            claim_type: Some("refund"),
            description: Some("broken"),
            urgency: Some("low"),
            claimed_amount: Some(125_000),
            claimed_currency: Some("EUR"),
            topic_partition: 2,
            topic_offset: 7,
            appended_at: NOW,
            ..Columns::default()
        };
        assert_eq!(rows[0].1, EventRow::encode(&created, &mut vec![]));
        let closed = Columns {
            tenant_id: "t",
            claim_id: "c",
            version: 2,
            event_id: events[1].event_id,
            event_type: "ClaimClosed",
            occurred_at: NOW,
            recorded_at: NOW,
            correlation_id: "corr",
            topic_partition: 2,
            topic_offset: 11,
            appended_at: NOW,
            ..Columns::default()
        };
        assert_eq!(rows[1].1, EventRow::encode(&closed, &mut vec![]));
        assert!(driver.dead_letters().is_empty());
        assert!(driver.committable().is_empty(), "everything is committed, the tombstone too");
    }

    #[test]
    fn bad_records_are_refused_with_their_reason_and_leave_nothing() {
        let mut driver = driver();
        let good = record(0, &event(1, created("1")));
        assert_eq!(driver.feed(good), Ok(Outcome::Taken));
        let refused = |outcome: Result<Outcome, ProcessError>| match outcome {
            Ok(Outcome::DeadLettered { reason }) => reason,
            other => panic!("not refused: {other:?}"),
        };
        assert_eq!(refused(driver.feed(TestRecord::value(2, 1, "no frame"))), REASON_MALFORMED);
        let mut future = event(2, ClaimClosed::default());
        future.occurred_at = Timestamp(NOW + 100 * 365 * 86_400_000);
        let reason = refused(driver.feed(record(2, &future)));
        assert_ne!(reason, REASON_MALFORMED);
        let estimate = ClaimAssigned {
            agent_id: "a".into(),
            agent_name: "A".into(),
            assignment_reason: None,
            estimated_resolution_time: Some(Timestamp(i64::MAX)),
        };
        refused(driver.feed(record(3, &event(3, estimate))));
        let batch = driver.close_batch().expect("no fatal error").expect("a batch");
        assert_eq!(batch.rows.len(), 1);
        assert_eq!(driver.dead_letters().len(), 3);
    }

    #[test]
    fn a_schema_that_is_not_known_yet_is_asked_for() {
        let mut driver = Driver::new(AnalyticsProcessor::new(SchemaCache::default()));
        driver.assign(2, None).expect("assigned");
        let record = record(0, &event(1, created("1")));
        assert_eq!(driver.feed(record.clone()), Ok(Outcome::SchemaMissing(SCHEMA_ID)));
        driver.processor().schemas.insert(SCHEMA_ID, CLAIM_EVENT_SCHEMA).expect("our schema");
        assert_eq!(driver.feed(record), Ok(Outcome::Taken));
    }

    proptest! {
        #[test]
        fn the_same_records_give_the_same_rows_in_any_batches(sizes in proptest::collection::vec(1_usize..9, 1..4)) {
            let records: Vec<TestRecord> =
                (1..30).map(|n| record(n as i64 * 2, &event(n, created("3.3333")))).collect();
            let whole = driver().run(records.clone(), 1_000).expect("no fatal error");
            for size in sizes {
                prop_assert_eq!(&driver().run(records.clone(), size).expect("no fatal error"), &whole);
            }
        }

        #[test]
        fn amounts_are_exact_or_refused(units in -999_999_999_999_999_999_i64..=999_999_999_999_999_999, scale in 0_u32..9) {
            let amount = rust_decimal::Decimal::new(units, scale);
            let mut data = created("1");
            data.claimed = Some(Money { amount, currency: None });
            let event = event(1, data);
            match storable_amount(&EventView::from(&event)) {
                Ok(stored) => {
                    prop_assert_eq!(stored.map(|units| rust_decimal::Decimal::new(units, 4)), Some(amount));
                }
                Err(error) => {
                    prop_assert_eq!(error.field, "data.claimed.amount");
                    prop_assert!(amount.normalize().scale() > 4 || amount.abs() >= rust_decimal::Decimal::new(10_i64.pow(14), 0));
                }
            }
        }
    }
}
