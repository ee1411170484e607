//! What goes over the wire arrives as it was; a second try of a batch adds nothing.

use crate::support::{Database, T0, batch, event, log};
use claims_analytics::EventRow;
use claims_runtime::{Origin, Sink, SinkError};
use claims_schemas::{
    Timestamp,
    events::{ClaimAssigned, ClaimCreated, ClaimReassigned, Money, Urgency},
};
use serde_json::json;
use uuid::Uuid;

#[tokio::test]
async fn every_column_arrives_as_it_was() {
    let database = Database::migrated().await;
    let mut created = event(
        "c\u{e9}\t'\\",
        1,
        ClaimCreated {
            customer_id: "k".into(),
            customer_name: Some("Zoë \u{1f600}".into()),
            customer_email: Some("z@example.org".into()),
            claim_type: "defect".into(),
            title: Some(String::new()),
            description: "line\nline".into(),
            product_id: Some("p".into()),
            order_id: None,
            urgency: Urgency::Critical,
            claimed: Some(Money {
                amount: "99999999999999.9999".parse().expect("a number"),
                currency: Some("USD".into()),
            }),
        },
    );
    created.event_id = Uuid::parse_str("f47ac10b-58cc-4372-a567-0e02b2c3d479").expect("an id");
    (created.causation_id, created.user_id, created.source) =
        (Some("cause".into()), Some("user".into()), Some("crm".into()));
    created.occurred_at = Timestamp(T0 + 1);
    let assigned = event(
        "d",
        2,
        ClaimAssigned {
            agent_id: "a".into(),
            agent_name: "A".into(),
            assignment_reason: Some("skill".into()),
            estimated_resolution_time: Some(Timestamp(-1)),
        },
    );
    let reassigned = event(
        "d",
        u64::MAX >> 1,
        ClaimReassigned {
            agent_id: "b".into(),
            agent_name: "B".into(),
            previous_agent_id: Some("a".into()),
            reason: Some("ill".into()),
        },
    );
    let log: Vec<_> = [created, assigned, reassigned]
        .into_iter()
        .zip([(3, 5), (0, 0), (7, i64::MAX)])
        .map(|(event, (partition, offset))| (Origin { partition, offset }, event))
        .collect();
    let batch = batch_at(&log, T0 + 2);
    database.sink().write(&batch).await.expect("written");
    let rows = database.json("SELECT * FROM events ORDER BY claim_id, version").await;
    assert_eq!(rows.len(), 3);
    let row = |i: usize, names: &[&str]| -> Vec<serde_json::Value> {
        names.iter().map(|name| rows[i][*name].clone()).collect()
    };
    assert_eq!(
        row(0, &["claim_id", "event_id", "customer_name", "title", "description", "order_id", "urgency"]),
        [
            json!("c\u{e9}\t'\\"),
            json!("f47ac10b-58cc-4372-a567-0e02b2c3d479"),
            json!("Zoë \u{1f600}"),
            json!(""),
            json!("line\nline"),
            json!(null),
            json!("critical")
        ]
    );
    assert_eq!(
        database
            .json("SELECT toString(claimed_amount) AS amount, claimed_currency FROM latest WHERE claimed_amount > 0")
            .await,
        [json!({"amount": "99999999999999.9999", "claimed_currency": "USD"})]
    );
    assert_eq!(
        row(0, &["occurred_at", "appended_at", "topic_partition", "causation_id", "user_id", "source"]),
        [
            json!("2025-01-01 00:00:00.001"),
            json!("2025-01-01 00:00:00.002"),
            json!(3),
            json!("cause"),
            json!("user"),
            json!("crm")
        ]
    );
    assert_eq!(
        row(1, &["agent_id", "reason", "estimated_resolution_at", "customer_id", "claimed_amount"]),
        [json!("a"), json!("skill"), json!("1969-12-31 23:59:59.999"), json!(null), json!(null)]
    );
    assert_eq!(row(2, &["previous_agent_id", "reason"]), [json!("a"), json!("ill")]);
    assert_eq!(
        database.number("SELECT version FROM events WHERE topic_offset = 9223372036854775807").await,
        u64::MAX >> 1
    );
    database.drop().await;
}

fn batch_at(log: &[(Origin, claims_schemas::Event)], appended_at_ms: i64) -> claims_runtime::Batch<EventRow> {
    claims_runtime::testing::batch(
        1,
        log.iter().map(|(origin, event)| {
            let row = EventRow::new(&event.into(), *origin, appended_at_ms, &mut vec![]);
            (*origin, row.expect("storable"))
        }),
    )
}

#[tokio::test]
async fn a_second_try_of_a_batch_adds_no_row_and_another_process_adds_only_hidden_ones() {
    let database = Database::migrated().await;
    // Merges would take the copies away before they are counted.
    database.execute("SYSTEM STOP MERGES event_log").await;
    let log = log((1..=50).map(|version| event("c", version, crate::views::assigned("a"))));
    let sink = database.sink();
    let raw = "SELECT count() FROM event_log";
    for attempt in 1..=3 {
        let mut batch = batch(1, &log);
        batch.attempt = attempt;
        sink.write(&batch).await.expect("written");
        assert_eq!(database.number(raw).await, 50, "attempt {attempt}");
    }
    // The halves of a bisected batch keep its id; they are no copies of it.
    sink.write(&batch(1, &log[..25])).await.expect("written");
    assert_eq!(database.number(raw).await, 75);
    database.sink().write(&batch(1, &log)).await.expect("written");
    assert_eq!(database.number(raw).await, 125);
    assert_eq!(database.number("SELECT count() FROM events").await, 50);
    assert_eq!(database.number("SELECT revision FROM latest").await, 50);
    database.drop().await;
}

#[tokio::test]
async fn a_row_that_the_table_refuses_is_poison_and_the_others_go_in() {
    let database = Database::migrated().await;
    database.execute("ALTER TABLE event_log ADD CONSTRAINT good CHECK claim_id != 'bad'").await;
    let log = log(["a", "bad", "b"].map(|claim| event(claim, 1, crate::views::created("secret-customer"))));
    let sink = database.sink();
    let refused = sink.write(&batch(1, &log)).await;
    assert!(
        matches!(&refused, Err(SinkError::Poison(why)) if why.contains("469") && !why.contains("secret")),
        "{refused:?}"
    );
    assert!(matches!(sink.write(&batch(1, &log[1..2])).await, Err(SinkError::Poison(_))));
    sink.write(&batch(1, &log[..1])).await.expect("written");
    sink.write(&batch(1, &log[2..])).await.expect("written");
    assert_eq!(database.number("SELECT count() FROM events").await, 2);
    database.drop().await;
}

#[tokio::test]
async fn an_altered_table_is_never_blamed_on_the_rows_and_a_dropped_one_is_fatal() {
    let database = Database::migrated().await;
    let log = log((1..100).map(|version| event("c", version, crate::views::created("k"))));
    let sink = database.sink();
    // Amounts now read as the lengths of texts.
    database.execute("ALTER TABLE event_log MODIFY COLUMN claimed_amount Nullable(String)").await;
    database.execute("ALTER TABLE event_log ADD CONSTRAINT good CHECK claimed_amount = ''").await;
    let altered = sink.write(&batch(1, &log)).await;
    assert!(!matches!(altered, Ok(()) | Err(SinkError::Poison(_))), "{altered:?}");
    database.execute("DROP TABLE event_log SYNC").await;
    let dropped = sink.write(&batch(1, &log)).await;
    assert!(matches!(&dropped, Err(SinkError::Fatal(why)) if why.contains("start again")), "{dropped:?}");
    database.drop().await;
}
