//! ClickHouse: `latest` and `events`, over HTTP as tab-separated text.

use crate::{
    claim::{Claim, Claims},
    namespace::Namespace,
};
use anyhow::{Context, Result, ensure};

/// Columns of `latest` in the order in which they are read; times as milliseconds.
const COLUMNS: &str = "tenant_id, claim_id, status, version, revision, customer_id, claim_type, urgency, description, \
    agent_id, resolution_type, claimed_amount, settled_amount, toUnixTimestamp64Milli(created_at), \
    toUnixTimestamp64Milli(resolved_at), toUnixTimestamp64Milli(closed_at), toUnixTimestamp64Milli(updated_at), \
    reopen_count, reassignment_count, note_count, \
    customer_name, customer_email, title, product_id, order_id, agent_name, resolution";

/// All claims of `latest`.
pub async fn claims(namespace: &Namespace) -> Result<Claims> {
    let sql = format!("SELECT {COLUMNS} FROM {}.latest FORMAT TSV", namespace.name);
    let text = namespace.clickhouse_sql(&sql).await?;
    let mut claims = Claims::new();
    for line in text.lines() {
        let (key, claim) = row(line).with_context(|| format!("row of latest: {line}"))?;
        ensure!(claims.insert(key.clone(), claim).is_none(), "claim {key:?} has two rows in latest");
    }
    Ok(claims)
}

/// Rows of `events`, and how many differ in (tenant, claim, version).
pub async fn events(namespace: &Namespace) -> Result<(u64, u64)> {
    let sql = format!(
        "SELECT count(), uniqExact(tenant_id, claim_id, version) FROM {}.events FORMAT TSV",
        namespace.name
    );
    let text = namespace.clickhouse_sql(&sql).await?;
    let (rows, distinct) = text.trim().split_once('\t').context("two counts")?;
    Ok((rows.parse()?, distinct.parse()?))
}

/// Rows that the server was given since its start, for any table, without those of its own logs, of which some may be from
/// before its start: only differences mean anything. Of the copies of a row `events` shows one; here all count.
pub async fn rows_inserted(namespace: &Namespace) -> Result<i64> {
    let sql = "SELECT toInt64((SELECT sum(value) FROM system.events WHERE event = 'InsertedRows')) - \
               toInt64((SELECT sum(ifNull(total_rows, 0)) FROM system.tables \
               WHERE database = 'system' AND engine LIKE '%MergeTree')) FORMAT TSV";
    Ok(namespace.clickhouse_sql(sql).await?.trim().parse()?)
}

/// Events among the rows that the server was given since it had been given `before`: without those of the database's other
/// tables, which are few and have no copies.
pub async fn events_inserted(namespace: &Namespace, before: i64) -> Result<u64> {
    let sql = format!(
        "SELECT sum(ifNull(total_rows, 0)) FROM system.tables \
         WHERE database = '{}' AND name NOT IN ('event_log', 'events', 'latest') FORMAT TSV",
        namespace.name
    );
    let beside: i64 = namespace.clickhouse_sql(&sql).await?.trim().parse()?;
    let now = rows_inserted(namespace).await?;
    u64::try_from(now - before - beside).with_context(|| {
        format!("ClickHouse counts {now} rows, after {before} and {beside}: was it started anew meanwhile?")
    })
}

fn row(line: &str) -> Result<((String, String), Claim)> {
    let cells: Vec<Option<String>> =
        line.split('\t').map(|cell| (cell != "\\N").then(|| unescape(cell))).collect();
    ensure!(cells.len() == 27, "{} columns", cells.len());
    let text = |i: usize| cells[i].clone();
    let required = |i: usize| cells[i].clone().with_context(|| format!("column {i} is NULL"));
    let number = |i: usize| -> Result<u64> { Ok(required(i)?.parse()?) };
    let time =
        |i: usize| -> Result<Option<i64>> { text(i).map(|t| t.parse().map_err(Into::into)).transpose() };
    let amount = |i: usize| text(i).map(|t| t.parse()).transpose();
    let claim = Claim {
        status: required(2)?,
        version: number(3)?,
        revision: number(4)?,
        customer_id: text(5),
        claim_type: text(6),
        urgency: text(7),
        description: text(8),
        agent_id: text(9),
        resolution_type: text(10),
        claimed_amount: amount(11)?,
        settled_amount: amount(12)?,
        created_at: time(13)?,
        resolved_at: time(14)?,
        closed_at: time(15)?,
        updated_at: time(16)?,
        reopen_count: number(17)?,
        reassignment_count: number(18)?,
        note_count: number(19)?,
        customer_name: text(20),
        customer_email: text(21),
        title: text(22),
        product_id: text(23),
        order_id: text(24),
        agent_name: text(25),
        resolution: text(26),
    };
    Ok(((required(0)?, required(1)?), claim))
}

/// The escapes of ClickHouse's TabSeparated format.
fn unescape(cell: &str) -> String {
    let mut text = String::with_capacity(cell.len());
    let mut chars = cell.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => text.push('\t'),
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('0') => text.push('\0'),
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some(other) => text.push(other),
            None => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(r"a\tb\\n\'c\nd"), "a\tb\\n'c\nd");
    }
}
