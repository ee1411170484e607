//! A database per test, events by hand, and the views as rows.

use crate::model::{Claim, Key};
use claims_analytics::{ClickHouseSink, EventRow, schema};
use claims_runtime::{Batch, Origin, Sink, testing};
use claims_schemas::{Event, EventData, Timestamp};
use claims_topology::config::ClickHouseConfig;
use clickhouse::{Client, Row};
use serde::Deserialize;
use std::collections::HashMap;
use uuid::Uuid;

/// A fresh database; dropped by [`Database::drop`].
pub struct Database {
    pub config: ClickHouseConfig,
    pub client: Client,
}

impl Database {
    /// Without tables.
    pub async fn empty() -> Self {
        let url = claims_topology::Config::default().analytics.clickhouse.url;
        let database = format!("it_{}", Uuid::new_v4().simple());
        let config = ClickHouseConfig { url, database, ..ClickHouseConfig::default() };
        let answer = schema::server_client(&config).query_raw("SELECT 1").execute().await;
        assert!(answer.is_ok(), "no ClickHouse at {}: {answer:?}; run `cargo xtask up`", config.url);
        let client = schema::database_client(&config).with_validation(true);
        Self { config, client }
    }

    /// With this build's tables and views.
    pub async fn migrated() -> Self {
        let database = Self::empty().await;
        schema::apply(&database.config).await.expect("the schema applies");
        database
    }

    /// As a process that died after its first statement leaves it.
    pub async fn migrate_first_statement_only(&self) {
        let create = format!("CREATE DATABASE {}", self.config.database);
        schema::server_client(&self.config).query_raw(&create).execute().await.expect("a database");
        let first = schema::MIGRATIONS[0].sql.trim_end().trim_end_matches(';');
        self.execute(first).await;
    }

    /// A sink of its own replay epoch, as a restarted process has.
    pub fn sink(&self) -> ClickHouseSink {
        ClickHouseSink::new(&self.config)
    }

    pub async fn execute(&self, sql: &str) {
        self.client.query_raw(sql).execute().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    pub async fn number(&self, sql: &str) -> u64 {
        self.client.query_raw(sql).fetch_one::<u64>().await.unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// Any answer as JSON rows.
    pub async fn json(&self, sql: &str) -> Vec<serde_json::Value> {
        let mut cursor = self.client.query_raw(sql).fetch_bytes("JSONEachRow").expect("a query");
        let bytes = cursor.collect().await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let text = std::str::from_utf8(&bytes).expect("JSON is UTF-8");
        text.lines().map(|line| serde_json::from_str(line).expect("a row")).collect()
    }

    pub async fn drop(self) {
        let sql = format!("DROP DATABASE {} SYNC", self.config.database);
        schema::server_client(&self.config).query_raw(&sql).execute().await.expect("the database goes");
    }

    /// The view `latest`, by claim.
    pub async fn latest(&self) -> HashMap<Key, Claim> {
        let rows: Vec<LatestRow> =
            self.client.query_raw("SELECT * FROM latest").fetch_all().await.expect("the view answers");
        let count = rows.len();
        let claims: HashMap<Key, Claim> = rows.into_iter().map(LatestRow::into_claim).collect();
        assert_eq!(claims.len(), count, "a claim has two rows");
        claims
    }

    /// What identifies the rows of the view `events`, sorted.
    pub async fn events(&self) -> Vec<EventKey> {
        self.client
            .query_raw(
                "SELECT tenant_id, claim_id, version, event_id, event_type, occurred_at, topic_partition, topic_offset \
                 FROM events ORDER BY tenant_id, claim_id, version",
            )
            .fetch_all()
            .await
            .expect("the view answers")
    }
}

/// What identifies a row of the view `events`.
#[derive(Debug, Clone, PartialEq, Eq, Row, Deserialize)]
pub struct EventKey {
    pub tenant_id: String,
    pub claim_id: String,
    pub version: u64,
    #[serde(with = "clickhouse::serde::uuid")]
    pub event_id: Uuid,
    pub event_type: String,
    pub occurred_at: i64,
    pub topic_partition: i32,
    pub topic_offset: i64,
}

impl EventKey {
    pub fn of(origin: Origin, event: &Event) -> Self {
        Self {
            tenant_id: event.tenant_id.clone(),
            claim_id: event.claim_id.clone(),
            version: event.version,
            event_id: event.event_id,
            event_type: event.event_type().as_str().into(),
            occurred_at: event.occurred_at.0,
            topic_partition: origin.partition,
            topic_offset: origin.offset,
        }
    }
}

/// The rows that the view `events` must have.
pub fn expected_events(log: &[(Origin, Event)]) -> Vec<EventKey> {
    crate::model::winners(log)
        .into_values()
        .flat_map(|events| events.into_values().map(|(origin, event)| EventKey::of(origin, &event)))
        .collect()
}

#[derive(Debug, Row, Deserialize)]
struct LatestRow {
    tenant_id: String,
    claim_id: String,
    status: String,
    status_since: i64,
    version: u64,
    revision: u64,
    source: Option<String>,
    customer_id: Option<String>,
    customer_name: Option<String>,
    customer_email: Option<String>,
    claim_type: Option<String>,
    title: Option<String>,
    description: Option<String>,
    product_id: Option<String>,
    order_id: Option<String>,
    urgency: Option<String>,
    claimed_amount: Option<i64>,
    claimed_currency: Option<String>,
    agent_id: Option<String>,
    agent_name: Option<String>,
    estimated_resolution_at: Option<i64>,
    resolution: Option<String>,
    resolution_type: Option<String>,
    customer_satisfaction: Option<String>,
    follow_up_required: Option<bool>,
    replacement_tracking: Option<String>,
    settled_amount: Option<i64>,
    settled_currency: Option<String>,
    created_at: Option<i64>,
    resolved_at: Option<i64>,
    closed_at: Option<i64>,
    updated_at: i64,
    reopen_count: u64,
    reassignment_count: u64,
    note_count: u64,
}

impl LatestRow {
    fn into_claim(self) -> (Key, Claim) {
        let claim = Claim {
            status: self.status,
            status_since: self.status_since,
            version: self.version,
            revision: self.revision,
            source: self.source,
            customer_id: self.customer_id,
            customer_name: self.customer_name,
            customer_email: self.customer_email,
            claim_type: self.claim_type,
            title: self.title,
            description: self.description,
            product_id: self.product_id,
            order_id: self.order_id,
            urgency: self.urgency,
            claimed: self.claimed_amount.map(|amount| (amount, self.claimed_currency)),
            agent_id: self.agent_id,
            agent_name: self.agent_name,
            estimated_resolution_at: self.estimated_resolution_at,
            resolution: self.resolution,
            resolution_type: self.resolution_type,
            customer_satisfaction: self.customer_satisfaction,
            follow_up_required: self.follow_up_required,
            replacement_tracking: self.replacement_tracking,
            settled: self.settled_amount.map(|amount| (amount, self.settled_currency)),
            created_at: self.created_at,
            resolved_at: self.resolved_at,
            closed_at: self.closed_at,
            updated_at: self.updated_at,
            reopen_count: self.reopen_count,
            reassignment_count: self.reassignment_count,
            note_count: self.note_count,
        };
        ((self.tenant_id, self.claim_id), claim)
    }
}

/// 2025-01-01 00:00:00 UTC.
pub const T0: i64 = 1_735_689_600_000;
/// One day.
pub const DAY_MS: i64 = 86_400_000;

/// An event of tenant `t`, some days after `T0` (as many as its version, up to 999), with an id of its own.
pub fn event(claim_id: &str, version: u64, data: impl Into<EventData>) -> Event {
    Event {
        tenant_id: "t".into(),
        event_id: Uuid::new_v4(),
        claim_id: claim_id.into(),
        version,
        occurred_at: Timestamp(T0 + i64::try_from(version % 1_000).expect("small") * DAY_MS),
        recorded_at: Timestamp(T0 + 400 * DAY_MS),
        correlation_id: format!("corr-{claim_id}"),
        causation_id: None,
        user_id: None,
        source: None,
        data: data.into(),
    }
}

/// The log of partition 0 with these events at offsets 0, 1, …
pub fn log(events: impl IntoIterator<Item = Event>) -> Vec<(Origin, Event)> {
    events.into_iter().zip(0..).map(|(event, offset)| (Origin { partition: 0, offset }, event)).collect()
}

/// A batch of a part of the log.
pub fn batch(id: u64, part: &[(Origin, Event)]) -> Batch<EventRow> {
    let rows = part.iter().map(|(origin, event)| {
        let appended_at_ms = T0 + 400 * DAY_MS + origin.offset;
        let row = EventRow::new(&event.into(), *origin, appended_at_ms, &mut vec![]);
        (*origin, row.expect("a storable event"))
    });
    testing::batch(id, rows)
}

/// Writes the log in batches of `rows` rows.
pub async fn write(sink: &ClickHouseSink, log: &[(Origin, Event)], rows: usize) {
    for (part, id) in log.chunks(rows).zip(1..) {
        sink.write(&batch(id, part)).await.expect("the batch is written");
    }
}
