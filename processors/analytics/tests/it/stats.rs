//! The statistics views against sums made here from the model's claims.

use crate::{
    model::{self, Claim},
    random::random_log,
    support::{DAY_MS, Database, write},
};
use claims_schemas::EventData;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const OPEN: [&str; 3] = ["CREATED", "ASSIGNED", "PROCESSING"];

/// What customers, agents and claim types have in common.
#[derive(Debug, Default, PartialEq)]
struct Stats {
    claims: u64,
    open: u64,
    resolved: u64,
    closed: u64,
    reopened: u64,
    claimed: BTreeMap<String, i64>,
    settled: BTreeMap<String, i64>,
    /// Milliseconds from creation to resolution, ascending.
    times: Vec<i64>,
}

impl Stats {
    fn add(&mut self, claim: &Claim) {
        self.claims += 1;
        self.open += u64::from(OPEN.contains(&claim.status.as_str()));
        self.resolved += u64::from(claim.status == "RESOLVED");
        self.closed += u64::from(claim.status == "CLOSED");
        self.reopened += u64::from(claim.reopen_count > 0);
        for (sums, amount) in [(&mut self.claimed, &claim.claimed), (&mut self.settled, &claim.settled)] {
            if let Some((amount, currency)) = amount {
                *sums.entry(currency.clone().unwrap_or_default()).or_default() += amount;
            }
        }
        if let (Some(from), Some(to)) = (claim.created_at, claim.resolved_at) {
            let at = self.times.partition_point(|time| *time < to - from);
            self.times.insert(at, to - from);
        }
    }

    fn average_hours(&self) -> Option<f64> {
        let n = self.times.len() as f64;
        (!self.times.is_empty()).then(|| self.times.iter().sum::<i64>() as f64 / n / 3_600_000.0)
    }

    /// The value below which this share of the times lies, between two neighbours in proportion.
    fn quantile_hours(&self, share: f64) -> Option<f64> {
        let last = self.times.len().checked_sub(1)?;
        let place = share * last as f64;
        let (low, high) =
            (self.times[place.floor() as usize] as f64, self.times[place.ceil() as usize] as f64);
        Some((low + (high - low) * place.fract()) / 3_600_000.0)
    }
}

fn by(
    claims: &[(String, Claim)],
    name: impl Fn(&Claim) -> Option<Option<String>>,
) -> BTreeMap<(String, Option<String>), Stats> {
    let mut stats: BTreeMap<_, Stats> = BTreeMap::new();
    for (tenant, claim) in claims {
        if let Some(name) = name(claim) {
            stats.entry((tenant.clone(), name)).or_default().add(claim);
        }
    }
    stats
}

fn close(row: &Value, column: &str, expected: Option<f64>) {
    match (row[column].as_f64(), expected) {
        (None, None) => {}
        (Some(found), Some(expected)) => {
            assert!(
                (found - expected).abs() <= 1e-6 * expected.abs().max(1.0),
                "{column}: {found}, not {expected}"
            );
        }
        (found, expected) => panic!("{column}: {found:?}, not {expected:?}"),
    }
}

fn sums(row: &Value, column: &str) -> BTreeMap<String, i64> {
    let sums = row[column].as_object().expect("a map");
    sums.iter()
        .map(|(currency, amount)| {
            let text = amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
            let amount: rust_decimal::Decimal = text.parse().expect("a number");
            let units = (amount * rust_decimal::Decimal::from(10_000)).normalize();
            (currency.clone(), units.to_string().parse().expect("whole ten-thousandths"))
        })
        .collect()
}

async fn compare(
    database: &Database,
    view: &str,
    name: &str,
    expected: &BTreeMap<(String, Option<String>), Stats>,
) {
    let rows = database.json(&format!("SELECT * FROM {view}")).await;
    assert_eq!(rows.len(), expected.len(), "rows of {view}");
    for row in &rows {
        let text = |column: &str| row[column].as_str().map(str::to_owned);
        let key = (text("tenant_id").expect("a tenant"), text(name));
        let stats = expected.get(&key).unwrap_or_else(|| panic!("{view} has {key:?}"));
        for (column, expected) in [
            ("claims", stats.claims),
            ("open_claims", stats.open),
            ("resolved_claims", stats.resolved),
            ("closed_claims", stats.closed),
            ("reopened_claims", stats.reopened),
        ] {
            assert_eq!(row[column].as_u64(), Some(expected), "{view} {key:?} {column}");
        }
        close(row, "avg_resolution_hours", stats.average_hours());
        if row.get("median_resolution_hours").is_some() {
            close(row, "median_resolution_hours", stats.quantile_hours(0.5));
            close(row, "p90_resolution_hours", stats.quantile_hours(0.9));
            assert_eq!(row["with_resolution_time"].as_u64(), Some(stats.times.len() as u64));
        }
        if row.get("claimed_by_currency").is_some() {
            assert_eq!(sums(row, "claimed_by_currency"), stats.claimed, "{view} {key:?}");
            assert_eq!(sums(row, "settled_by_currency"), stats.settled, "{view} {key:?}");
        }
    }
}

#[tokio::test]
async fn customers_agents_types_and_statuses_are_counted_right() {
    let database = Database::migrated().await;
    let log = random_log(23, 500);
    write(&database.sink(), &log, 300).await;
    write(&database.sink(), &log[..200], 77).await;
    let claims: Vec<(String, Claim)> =
        model::latest(&log).into_iter().map(|((tenant, _), claim)| (tenant, claim)).collect();
    let customers = by(&claims, |claim| claim.customer_id.clone().map(Some));
    let agents = by(&claims, |claim| claim.agent_id.clone().map(Some));
    let types = by(&claims, |claim| Some(claim.claim_type.clone()));
    assert!(types.keys().any(|(_, name)| name.is_none()), "some claims have no creation event");
    compare(&database, "customer_stats", "customer_id", &customers).await;
    compare(&database, "agent_stats", "agent_id", &agents).await;
    compare(&database, "claim_type_stats", "claim_type", &types).await;

    let mut statuses: BTreeMap<(String, String), u64> = BTreeMap::new();
    for (tenant, claim) in &claims {
        *statuses.entry((tenant.clone(), claim.status.clone())).or_default() += 1;
    }
    let found: BTreeMap<(String, String), u64> = database
        .json("SELECT * FROM status_counts")
        .await
        .iter()
        .map(|row| {
            let text = |column: &str| row[column].as_str().expect("text").to_owned();
            ((text("tenant_id"), text("status")), row["claims"].as_u64().expect("a count"))
        })
        .collect();
    assert_eq!(found, statuses);
    assert!(statuses.keys().map(|(_, status)| status).collect::<BTreeSet<_>>().len() >= 6, "{statuses:?}");
    database.drop().await;
}

#[tokio::test]
async fn the_daily_flow_counts_each_event_once() {
    let database = Database::migrated().await;
    let log = random_log(29, 400);
    write(&database.sink(), &log, 250).await;
    write(&database.sink(), &log, 90).await;
    let mut expected: BTreeMap<(String, String), [u64; 4]> = BTreeMap::new();
    for ((tenant, _), events) in model::winners(&log) {
        for (_, event) in events.into_values() {
            let column = match event.data {
                EventData::ClaimCreated(_) => 0,
                EventData::ClaimResolved(_) => 1,
                EventData::ClaimClosed(_) => 2,
                EventData::ClaimReopened(_) => 3,
                _ => continue,
            };
            let day =
                chrono::DateTime::from_timestamp_millis(event.occurred_at.0.div_euclid(DAY_MS) * DAY_MS);
            let day = day.expect("in range").format("%Y-%m-%d").to_string();
            expected.entry((tenant.clone(), day)).or_default()[column] += 1;
        }
    }
    let found: BTreeMap<(String, String), [u64; 4]> = database
        .json("SELECT * FROM daily_flow")
        .await
        .iter()
        .map(|row| {
            let text = |column: &str| row[column].as_str().expect("text").to_owned();
            let counts =
                ["created", "resolved", "closed", "reopened"].map(|c| row[c].as_u64().expect("a count"));
            ((text("tenant_id"), text("day")), counts)
        })
        .collect();
    assert_eq!(found, expected);
    database.drop().await;
}
