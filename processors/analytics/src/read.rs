//! Reading the views `latest` and `events` of some claims: for checks, not for BI.

use crate::schema::database_client;
use claims_schemas::{ClaimState, Text, Timestamp, events::Money, state::SeenVersion};
use claims_topology::config::ClickHouseConfig;
use clickhouse::{Client, Row, error::Error};
use serde::Deserialize;
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// Columns of [`LatestRow`], in its order.
const LATEST_COLUMNS: &str = "toString(claim_id), toString(status), version, revision, \
    CAST(source AS Nullable(String)), CAST(customer_id AS Nullable(String)), CAST(claim_type AS Nullable(String)), \
    CAST(title AS Nullable(String)), CAST(description AS Nullable(String)), CAST(product_id AS Nullable(String)), \
    CAST(order_id AS Nullable(String)), CAST(urgency AS Nullable(String)), CAST(claimed_amount AS Nullable(String)), \
    CAST(claimed_currency AS Nullable(String)), CAST(agent_id AS Nullable(String)), \
    CAST(agent_name AS Nullable(String)), CAST(resolution AS Nullable(String)), \
    CAST(resolution_type AS Nullable(String)), CAST(settled_amount AS Nullable(String)), \
    CAST(toUnixTimestamp64Milli(created_at) AS Nullable(Int64)), \
    CAST(toUnixTimestamp64Milli(resolved_at) AS Nullable(Int64)), \
    CAST(toUnixTimestamp64Milli(closed_at) AS Nullable(Int64)), \
    CAST(toUnixTimestamp64Milli(updated_at) AS Nullable(Int64)), \
    toUInt64(reopen_count), toUInt64(reassignment_count), toUInt64(note_count)";

/// A row of `latest`; amounts as text, times in milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Row, Deserialize)]
#[allow(missing_docs)]
pub struct LatestRow {
    pub claim_id: String,
    pub status: String,
    pub version: u64,
    pub revision: u64,
    pub source: Option<String>,
    pub customer_id: Option<String>,
    pub claim_type: Option<String>,
    pub title: Option<String>,
    pub description: Option<String>,
    pub product_id: Option<String>,
    pub order_id: Option<String>,
    pub urgency: Option<String>,
    pub claimed_amount: Option<String>,
    pub claimed_currency: Option<String>,
    pub agent_id: Option<String>,
    pub agent_name: Option<String>,
    pub resolution: Option<String>,
    pub resolution_type: Option<String>,
    pub settled_amount: Option<String>,
    pub created_at: Option<i64>,
    pub resolved_at: Option<i64>,
    pub closed_at: Option<i64>,
    pub updated_at: Option<i64>,
    pub reopen_count: u64,
    pub reassignment_count: u64,
    pub note_count: u64,
}

impl LatestRow {
    /// The row of a claim in this state.
    pub fn of(state: &ClaimState) -> Self {
        let text = |text: &Option<Text>| text.as_ref().map(Text::to_string);
        let at = |at: Option<Timestamp>| at.map(|at| at.0);
        let amount = |money: &Option<Money>| money.as_ref().map(|m| m.amount.normalize().to_string());
        Self {
            claim_id: state.claim_id.to_string(),
            status: state.status().as_str().to_owned(),
            version: state.version(),
            revision: state.revision(),
            source: text(&state.source),
            customer_id: text(&state.customer_id.value),
            claim_type: text(&state.claim_type.value),
            title: text(&state.title.value),
            description: text(&state.description.value),
            product_id: text(&state.product_id.value),
            order_id: text(&state.order_id.value),
            urgency: state.urgency.value.map(|urgency| urgency.as_str().to_owned()),
            claimed_amount: amount(&state.claimed.value),
            claimed_currency: state.claimed.value.as_ref().and_then(|m| text(&m.currency)),
            agent_id: text(&state.agent_id.value),
            agent_name: text(&state.agent_name.value),
            resolution: text(&state.resolution.value),
            resolution_type: text(&state.resolution_type.value),
            settled_amount: amount(&state.settled.value),
            created_at: at(state.created_at.value),
            resolved_at: at(state.resolved_at.value),
            closed_at: at(state.closed_at.value),
            updated_at: at(state.updated_at.value),
            reopen_count: u64::from(state.reopen_count),
            reassignment_count: u64::from(state.reassignment_count),
            note_count: u64::from(state.note_count),
        }
    }

    /// Names of the columns in which two rows differ; no values: they may be personal data.
    pub fn differing_columns(&self, other: &Self) -> Vec<&'static str> {
        macro_rules! differing {
            ($($column:ident)*) => {
                [$((stringify!($column), self.$column != other.$column)),*]
            };
        }
        let columns = differing!(
            claim_id status version revision source customer_id claim_type title description product_id order_id urgency
            claimed_amount claimed_currency agent_id agent_name resolution resolution_type settled_amount created_at
            resolved_at closed_at updated_at reopen_count reassignment_count note_count
        );
        columns.into_iter().filter(|(_, differs)| *differs).map(|(column, _)| column).collect()
    }
}

/// Reads the views of one database.
pub struct ViewReader {
    client: Client,
    timeout: Duration,
}

#[derive(Row, Deserialize)]
struct EventsRow {
    claim_id: String,
    versions: Vec<u64>,
    event_ids: Vec<String>,
}

impl ViewReader {
    /// A reader of the configured database.
    pub fn new(config: &ClickHouseConfig) -> Self {
        Self { client: database_client(config), timeout: Duration::from_millis(config.end_timeout_ms) }
    }

    /// The rows of these claims in `latest`, by claim.
    pub async fn latest(
        &self,
        tenant_id: &str,
        claims: &[&str],
    ) -> Result<BTreeMap<String, LatestRow>, Error> {
        let sql = format!("SELECT {LATEST_COLUMNS} FROM latest WHERE tenant_id = ? AND claim_id IN ?");
        let query = self.client.query(&sql).bind(tenant_id).bind(claims).fetch_all::<LatestRow>();
        let rows = tokio::time::timeout(self.timeout, query).await.map_err(|_| Error::TimedOut)??;
        Ok(rows.into_iter().map(|row| (row.claim_id.clone(), row)).collect())
    }

    /// The versions and ids of these claims' rows in `events`, by claim, ascending.
    pub async fn events(
        &self,
        tenant_id: &str,
        claims: &[&str],
    ) -> Result<BTreeMap<String, Vec<SeenVersion>>, Error> {
        let sql = "SELECT toString(claim_id) AS claim, groupArray(version), groupArray(toString(event_id)) FROM events \
                   WHERE tenant_id = ? AND claim_id IN ? GROUP BY claim";
        let query = self.client.query(sql).bind(tenant_id).bind(claims).fetch_all::<EventsRow>();
        let rows = tokio::time::timeout(self.timeout, query).await.map_err(|_| Error::TimedOut)??;
        let seen = |row: EventsRow| {
            let events = row.versions.iter().zip(&row.event_ids);
            let mut seen: Vec<_> = events
                .map(|(&version, id)| SeenVersion::of(version, &id.parse().unwrap_or(Uuid::nil())))
                .collect();
            seen.sort_by_key(|seen| seen.version);
            (row.claim_id, seen)
        };
        Ok(rows.into_iter().map(seen).collect())
    }
}
