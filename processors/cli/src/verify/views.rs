//! Comparing claims as the log has them with the views.

use super::{log::Folded, states::States};
use claims_analytics::read::{LatestRow, ViewReader};
use claims_current_state::read::ClaimReader;
use claims_topology::Config;
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use std::collections::BTreeMap;

/// Claims asked for at the same time in CQL.
const MAX_IN_FLIGHT: usize = 64;
/// Claims asked for at once in ClickHouse.
const MAX_CLAIMS_PER_QUERY: usize = 500;

/// One claim that a view doesn't show as the log has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The view.
    pub view: &'static str,
    /// Whose claim it is.
    pub tenant_id: String,
    /// The claim.
    pub claim_id: String,
    /// What differs, without values.
    pub what: String,
}

/// The views that are looked at.
pub struct Views {
    current_state: Option<(ClaimReader, States)>,
    analytics: Option<ViewReader>,
}

impl Views {
    /// Connects to the views of these processors.
    pub async fn connect(config: &Config, processors: &[&str]) -> anyhow::Result<Self> {
        let current_state = match processors.contains(&claims_current_state::NAME) {
            true => Some((ClaimReader::connect(&config.current_state.cql).await?, States::new(config)?)),
            false => None,
        };
        let analytics = processors.contains(&claims_analytics::NAME);
        Ok(Self {
            current_state,
            analytics: analytics.then(|| ViewReader::new(&config.analytics.clickhouse)),
        })
    }

    /// Compares these claims of one partition; answers with what differs.
    pub async fn compare(&self, partition: i32, claims: &[&Folded]) -> anyhow::Result<Vec<Difference>> {
        let mut found = Vec::new();
        if let Some((reader, states)) = &self.current_state {
            found.extend(compare_rows(reader, claims).await?);
            found.extend(states.compare(partition, claims).await?);
        }
        if let Some(reader) = &self.analytics {
            let mut tenants: BTreeMap<&str, Vec<&Folded>> = BTreeMap::new();
            for claim in claims.iter().filter(|claim| !claim.is_unstorable) {
                tenants.entry(&claim.claim.state.tenant_id).or_default().push(claim);
            }
            for (tenant_id, claims) in tenants {
                for claims in claims.chunks(MAX_CLAIMS_PER_QUERY) {
                    found.extend(compare_analytics(reader, tenant_id, claims).await?);
                }
            }
        }
        Ok(found)
    }
}

pub(super) fn difference(view: &'static str, claim: &Folded, what: String) -> Difference {
    let state = &claim.claim.state;
    Difference { view, tenant_id: state.tenant_id.to_string(), claim_id: state.claim_id.to_string(), what }
}

pub(super) const MISSING: &str = "it is missing";

async fn compare_rows(reader: &ClaimReader, claims: &[&Folded]) -> anyhow::Result<Vec<Difference>> {
    let compared: Vec<Vec<Difference>> = futures::stream::iter(claims.iter().copied())
        .map(|claim| async move {
            let found = reader.differences(&claim.claim).await?;
            Ok::<_, anyhow::Error>(
                found.into_iter().map(|found| difference(found.table, claim, found.what)).collect(),
            )
        })
        .buffer_unordered(MAX_IN_FLIGHT)
        .try_collect()
        .await?;
    Ok(compared.into_iter().flatten().collect())
}

async fn compare_analytics(
    reader: &ViewReader,
    tenant_id: &str,
    claims: &[&Folded],
) -> anyhow::Result<Vec<Difference>> {
    let ids: Vec<&str> = claims.iter().map(|claim| claim.claim.state.claim_id.as_str()).collect();
    let (latest, events) = tokio::try_join!(reader.latest(tenant_id, &ids), reader.events(tenant_id, &ids))?;
    let mut found = Vec::new();
    for claim in claims {
        let id = claim.claim.state.claim_id.as_str();
        let what = match latest.get(id) {
            None => Some(MISSING.to_owned()),
            Some(row) => {
                let columns = row.differing_columns(&LatestRow::of(&claim.claim.state));
                (!columns.is_empty()).then(|| columns.join(", "))
            }
        };
        found.extend(what.map(|what| difference("latest", claim, what)));
        let rows = events.get(id).map_or(&[][..], Vec::as_slice);
        if rows != claim.claim.state.seen.as_slice() {
            let what = format!(
                "{} of {} events are as in the log",
                matching(rows, claim),
                claim.claim.state.seen.len()
            );
            found.push(difference("events", claim, what));
        }
    }
    Ok(found)
}

fn matching(rows: &[claims_schemas::state::SeenVersion], claim: &Folded) -> usize {
    rows.iter().filter(|row| claim.claim.state.seen.contains(row)).count()
}
