//! The CQL views, each read whole by a paged scan.

use crate::{
    checks::Check,
    claim::{Claim, ClaimKey, Claims},
    timeline::Timelines,
};
use anyhow::{Context, Result, bail, ensure};
use futures::TryStreamExt;
use rust_decimal::Decimal;
use scylla::{
    client::session::Session,
    statement::Statement,
    value::{CqlValue, Row},
};
use std::collections::HashMap;
use uuid::Uuid;

/// Rows per page of a scan.
const PAGE_ROWS: i32 = 2_000;

/// Columns of `claim_by_id` in the order in which they are read.
const COLUMNS: [&str; 27] = [
    "tenant_id",
    "claim_id",
    "status",
    "version",
    "revision",
    "customer_id",
    "claim_type",
    "urgency",
    "description",
    "agent_id",
    "resolution_type",
    "claimed_amount",
    "settled_amount",
    "created_at",
    "resolved_at",
    "closed_at",
    "updated_at",
    "reopen_count",
    "reassignment_count",
    "note_count",
    "customer_name",
    "customer_email",
    "title",
    "product_id",
    "order_id",
    "agent_name",
    "resolution",
];

/// A list view, and which field of a claim decides where it stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListView {
    /// `claims_by_status`
    Status,
    /// `claims_by_assignee`
    Assignee,
    /// `claims_by_customer`
    Customer,
    /// `claims_by_created`
    Created,
}

/// Every list view.
pub const PLACES: [ListView; 4] =
    [ListView::Status, ListView::Assignee, ListView::Customer, ListView::Created];

impl ListView {
    fn table_and_column(self) -> (&'static str, &'static str) {
        match self {
            ListView::Status => ("claims_by_status", "status"),
            ListView::Assignee => ("claims_by_assignee", "agent_id"),
            ListView::Customer => ("claims_by_customer", "customer_id"),
            ListView::Created => ("claims_by_created", "created_at"),
        }
    }

    /// Where the model says that the claim stands; `None`: nowhere in this view.
    fn wanted(self, claim: &Claim) -> Option<String> {
        match self {
            ListView::Status => Some(claim.status.clone()),
            ListView::Assignee => claim.agent_id.clone(),
            ListView::Customer => claim.customer_id.clone(),
            ListView::Created => claim.created_at.map(|at| at.to_string()),
        }
    }

    /// How many claims don't stand in their place, wherever else they or others stand.
    pub fn missing(self, found: &HashMap<ClaimKey, Vec<String>>, model: &Claims) -> usize {
        let is_missing = |(key, claim): &(&ClaimKey, &Claim)| {
            let stands = |place| found.get(*key).is_some_and(|places| places.contains(&place));
            self.wanted(claim).is_some_and(|place| !stands(place))
        };
        model.iter().filter(is_missing).count()
    }

    /// Each claim stands in its one place, and in no other.
    pub fn check(self, found: &HashMap<ClaimKey, Vec<String>>, model: &Claims) -> Check {
        let (table, _) = self.table_and_column();
        let mut problems = Vec::new();
        for (key, claim) in model {
            let wanted: Vec<String> = self.wanted(claim).into_iter().collect();
            let is = found.get(key).map_or(&[][..], Vec::as_slice);
            if is != wanted && problems.len() < 5 {
                problems.push(format!("{}:{} stands under {is:?}, should be {wanted:?}", key.0, key.1));
            }
        }
        problems.extend(
            found
                .keys()
                .filter(|key| !model.contains_key(*key))
                .take(5)
                .map(|key| format!("{}:{} should not be there", key.0, key.1)),
        );
        let rows = found.values().map(|places| places.len() as u64).sum();
        Check { name: format!("CQL {table}"), rows, checksum: String::new(), problems }
    }
}

/// All claims of `claim_by_id`.
pub async fn claims(session: &Session, keyspace: &str) -> Result<Claims> {
    let sql = format!("SELECT {} FROM {keyspace}.claim_by_id", COLUMNS.join(", "));
    let mut claims = Claims::new();
    scan(session, &sql, |row| {
        let (key, claim) = claim(&row).with_context(|| format!("row of claim_by_id: {row:?}"))?;
        ensure!(claims.insert(key.clone(), claim).is_none(), "claim {key:?} has two rows in claim_by_id");
        Ok(())
    })
    .await?;
    Ok(claims)
}

/// For each claim the places where a list view shows it.
pub async fn places(
    session: &Session,
    keyspace: &str,
    view: ListView,
) -> Result<HashMap<ClaimKey, Vec<String>>> {
    let (table, column) = view.table_and_column();
    let mut places: HashMap<ClaimKey, Vec<String>> = HashMap::new();
    scan(session, &format!("SELECT tenant_id, claim_id, {column} FROM {keyspace}.{table}"), |row| {
        let key = (required(&row, 0)?, required(&row, 1)?);
        let place = match time(&row, 2) {
            Ok(Some(at)) => at.to_string(),
            _ => required(&row, 2)?,
        };
        places.entry(key).or_default().push(place);
        Ok(())
    })
    .await?;
    Ok(places)
}

/// All of `claim_timeline`.
pub async fn timelines(session: &Session, keyspace: &str) -> Result<Timelines> {
    let columns = "tenant_id, claim_id, version, event_id, event_type, occurred_at";
    let mut timelines = Timelines::default();
    scan(session, &format!("SELECT {columns} FROM {keyspace}.claim_timeline"), |row| {
        let key = (required(&row, 0)?, required(&row, 1)?);
        let Some(CqlValue::Uuid(event_id)) = cell(&row, 3) else { bail!("{key:?}: no event id") };
        let at = time(&row, 5)?.with_context(|| format!("{key:?}: no time"))?;
        timelines.add(&key, number(&row, 2)?, *event_id, &required(&row, 4)?, at);
        Ok(())
    })
    .await?;
    Ok(timelines)
}

/// Gives `take` the event's id and the words of every entry of `claim_timeline`.
pub async fn timeline_words(
    session: &Session,
    keyspace: &str,
    mut take: impl FnMut(&Uuid, &str),
) -> Result<()> {
    scan(session, &format!("SELECT event_id, words FROM {keyspace}.claim_timeline"), |row| {
        let Some(CqlValue::Uuid(event_id)) = cell(&row, 0) else {
            bail!("a timeline entry without an event id")
        };
        take(event_id, &required(&row, 1)?);
        Ok(())
    })
    .await
}

async fn scan(session: &Session, sql: &str, mut take: impl FnMut(Row) -> Result<()>) -> Result<()> {
    let statement = Statement::new(sql).with_page_size(PAGE_ROWS);
    let mut rows =
        session.query_iter(statement, ()).await.with_context(|| sql.to_owned())?.rows_stream::<Row>()?;
    while let Some(row) = rows.try_next().await.with_context(|| sql.to_owned())? {
        take(row)?;
    }
    Ok(())
}

fn claim(row: &Row) -> Result<(ClaimKey, Claim)> {
    let claim = Claim {
        status: required(row, 2)?,
        version: number(row, 3)?,
        revision: number(row, 4)?,
        customer_id: text(row, 5)?,
        claim_type: text(row, 6)?,
        urgency: text(row, 7)?,
        description: text(row, 8)?,
        agent_id: text(row, 9)?,
        resolution_type: text(row, 10)?,
        claimed_amount: amount(row, 11)?,
        settled_amount: amount(row, 12)?,
        created_at: time(row, 13)?,
        resolved_at: time(row, 14)?,
        closed_at: time(row, 15)?,
        updated_at: time(row, 16)?,
        reopen_count: number(row, 17)?,
        reassignment_count: number(row, 18)?,
        note_count: number(row, 19)?,
        customer_name: text(row, 20)?,
        customer_email: text(row, 21)?,
        title: text(row, 22)?,
        product_id: text(row, 23)?,
        order_id: text(row, 24)?,
        agent_name: text(row, 25)?,
        resolution: text(row, 26)?,
    };
    Ok(((required(row, 0)?, required(row, 1)?), claim))
}

fn cell(row: &Row, i: usize) -> Option<&CqlValue> {
    row.columns.get(i).and_then(Option::as_ref)
}

fn text(row: &Row, i: usize) -> Result<Option<String>> {
    Ok(match cell(row, i) {
        None => None,
        Some(CqlValue::Text(text) | CqlValue::Ascii(text)) => Some(text.clone()),
        Some(other) => bail!("column {i} is {other:?}, not a text"),
    })
}

fn required(row: &Row, i: usize) -> Result<String> {
    text(row, i)?.with_context(|| format!("column {i} is null"))
}

fn number(row: &Row, i: usize) -> Result<u64> {
    Ok(match cell(row, i) {
        Some(CqlValue::BigInt(n)) => u64::try_from(*n)?,
        Some(CqlValue::Int(n)) => u64::try_from(*n)?,
        other => bail!("column {i} is {other:?}, not a number"),
    })
}

fn time(row: &Row, i: usize) -> Result<Option<i64>> {
    Ok(match cell(row, i) {
        None => None,
        Some(CqlValue::Timestamp(at)) => Some(at.0),
        Some(other) => bail!("column {i} is {other:?}, not a timestamp"),
    })
}

fn amount(row: &Row, i: usize) -> Result<Option<Decimal>> {
    let Some(value) = cell(row, i) else {
        return Ok(None);
    };
    let CqlValue::Decimal(decimal) = value else {
        bail!("column {i} is {value:?}, not a decimal");
    };
    let (bytes, scale) = decimal.as_signed_be_bytes_slice_and_exponent();
    let start: i128 = if bytes.first().is_some_and(|byte| *byte >= 0x80) { -1 } else { 0 };
    let unscaled = bytes.iter().fold(start, |sum, byte| (sum << 8) | i128::from(*byte));
    Ok(Some(Decimal::try_from_i128_with_scale(unscaled, u32::try_from(scale)?)?))
}
