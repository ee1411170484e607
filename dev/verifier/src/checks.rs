//! Every comparison of one run: each view against the model, and the views' row counts against each other.

use crate::{
    claim::Claims,
    compare::compare,
    model::Model,
    pipeline::Pipeline,
    views::{audit, clickhouse, cql, topics},
};
use anyhow::{Context, Result};

/// Differences told per view.
const MOST_DIFFERENCES: usize = 5;

/// One comparison.
#[derive(Debug)]
pub struct Check {
    /// The view.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// Its checksum over all claims, where it has one row a claim.
    pub checksum: String,
    /// What is wrong; empty when it agrees.
    pub problems: Vec<String>,
}

impl Check {
    /// A check by a row count.
    pub fn count(name: &str, rows: u64, wanted: u64) -> Self {
        let problems = if rows == wanted { vec![] } else { vec![format!("{rows} rows, should be {wanted}")] };
        Self { name: name.to_owned(), rows, checksum: String::new(), problems }
    }

    fn claims(name: &str, found: &Claims, model: &Claims) -> Self {
        let comparison = compare(name, found, model, MOST_DIFFERENCES);
        Self {
            name: name.to_owned(),
            rows: found.len() as u64,
            checksum: comparison.checksum,
            problems: comparison.differences,
        }
    }
}

/// All checks. `records` is how many event records were acknowledged, copies included.
pub async fn all(pipeline: &Pipeline, model: &Model, records: u64) -> Result<Vec<Check>> {
    let namespace = &pipeline.namespace;
    let claims = model.claims()?;
    let events = model.distinct_events();
    let mut checks = Vec::new();

    let session = namespace.cql_session().await?;
    let by_id = cql::claims(&session, &namespace.name).await?;
    checks.push(Check::claims("CQL claim_by_id", &by_id, &claims));
    for place in cql::PLACES {
        let places = cql::places(&session, &namespace.name, place).await?;
        checks.push(place.check(&places, &claims));
    }
    let timelines = cql::timelines(&session, &namespace.name).await?;
    checks.push(timelines.check("CQL claim_timeline", &model.timelines()));

    let latest = clickhouse::claims(namespace).await?;
    checks.push(Check::claims("ClickHouse latest", &latest, &claims));
    let (rows, distinct) = clickhouse::events(namespace).await?;
    checks.push(Check::count("ClickHouse events", rows, events));
    checks.push(Check::count("ClickHouse events, distinct", distinct, events));

    let state = topics::claims(namespace).await?;
    let mut living = claims;
    living.retain(|_, claim| claim.status != "ERASED");
    checks.push(Check::claims("topic claims.state.v1", &state, &living));
    checks.push(audit::check(pipeline, records)?);
    let superseded = topics::dead_letters(namespace, "current-state", "superseded").await?;
    checks.push(Check::count("dead letters: superseded", superseded, model.superseded));
    Ok(checks)
}

/// Dead letters of refused rows, of all imports so far.
pub fn refused_rows(pipeline: &Pipeline) -> Result<u64> {
    let mut letters = 0;
    topics::each_record(&pipeline.namespace, &pipeline.namespace.dead_letters_topic(), |message| {
        letters += u64::from(topics::header(message, "processor").as_deref() == Some("ingress"));
        Ok(())
    })?;
    Ok(letters)
}

/// Every row of an import is imported, without a change, or refused; every refused one is a dead letter. `summary` is
/// what `claims ingest --json` printed, `refused_before` the [`refused_rows`] of earlier imports.
pub fn rows(pipeline: &Pipeline, summary: &serde_json::Value, refused_before: u64) -> Result<Vec<Check>> {
    let count = |name: &str| {
        summary
            .get(name)
            .and_then(serde_json::Value::as_u64)
            .with_context(|| format!("no {name} in {summary}"))
    };
    let rejected = count("rows_rejected")?;
    let told = count("rows_imported")? + count("rows_without_change")? + rejected;
    let letters = refused_rows(pipeline)? - refused_before;
    Ok(vec![
        Check::count("rows accounted for", told, count("rows_read")?),
        Check::count("dead letters: refused rows", letters, rejected),
    ])
}

/// All checks must agree.
pub async fn assert_agree(pipeline: &Pipeline, model: &Model, records: u64) -> Result<()> {
    let checks = all(pipeline, model, records).await?;
    let problems: Vec<String> = checks
        .iter()
        .flat_map(|check| check.problems.iter().map(move |problem| format!("{}: {problem}", check.name)))
        .collect();
    anyhow::ensure!(problems.is_empty(), "views and model differ:\n{}", problems.join("\n"));
    Ok(())
}
