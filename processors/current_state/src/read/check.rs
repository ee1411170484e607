//! Whether the rows of a claim in all tables are what its events make: for checks of a running system.

use super::{ClaimReader, ClaimView, ListItem, MAX_PAGE_ROWS, ReadError, failed, unreadable};
use crate::{
    claim::Claim,
    cql::{rows::decimal, schema},
    places::{Place, places, shard},
};
use chrono::{DateTime, Utc};
use claims_schemas::{ClaimState, EventType, Status, Text, Timestamp, state::SeenVersion};
use scylla::value::CqlTimestamp;

/// How a claim is not as its events make it in one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDifference {
    /// The table.
    pub table: &'static str,
    /// What differs; no values: they may be personal data.
    pub what: String,
}

const MISSING: &str = "it is missing";

impl ClaimReader {
    /// Compares everything that the tables hold of a claim with what its events make. `None` if all is as it must be in
    /// a table. Reads one row for every place that the claim has ever stood in.
    pub async fn differences(&self, claim: &Claim) -> Result<Vec<TableDifference>, ReadError> {
        let (row, lists, timeline) = tokio::try_join!(
            self.row_differs(claim),
            self.lists_differ(claim),
            self.timeline_differs(claim)
        )?;
        Ok(row.into_iter().chain(lists).chain(timeline).collect())
    }

    async fn row_differs(&self, claim: &Claim) -> Result<Option<TableDifference>, ReadError> {
        let wanted = ClaimView::of(&claim.state);
        let what = match self.claim(&wanted.tenant_id, &wanted.claim_id).await? {
            None => MISSING.to_owned(),
            Some(row) => row.differing_columns(&wanted).join(", "),
        };
        Ok(difference(schema::CLAIM_BY_ID, what))
    }

    async fn lists_differ(&self, claim: &Claim) -> Result<Vec<TableDifference>, ReadError> {
        let now = places(&claim.state);
        let mut found = Vec::new();
        for place in &now {
            let what = match self.row_at(&claim.state, place).await? {
                None => MISSING.to_owned(),
                Some(row) => row.differing_columns(&ListItem::of(&claim.state, place)).join(", "),
            };
            found.extend(difference(place.view.table(), what));
        }
        for place in claim.history.left(&claim.state) {
            if self.row_at(&claim.state, &place).await?.is_some() {
                let what = format!("it still stands where it stood before (bucket {})", place.bucket().0);
                found.extend(difference(place.view.table(), what));
            }
        }
        Ok(found)
    }

    async fn timeline_differs(&self, claim: &Claim) -> Result<Option<TableDifference>, ReadError> {
        let state = &claim.state;
        let mut found = Vec::with_capacity(state.seen.len());
        let mut erasures = 0;
        let mut after_version = 0;
        loop {
            let page = self.timeline(&state.tenant_id, &state.claim_id, after_version, MAX_PAGE_ROWS).await?;
            for entry in &page {
                let version = u64::try_from(entry.version).unwrap_or(0);
                after_version = after_version.max(version);
                erasures += usize::from(entry.event_type.as_deref() == Some(EventType::ClaimErased.as_str()));
                found.extend(entry.event_id.map(|id| SeenVersion::of(version, &id)));
            }
            if page.len() < MAX_PAGE_ROWS {
                break;
            }
        }
        let what = match state.status() {
            // What is left tells of the erasure, and of nothing else.
            Status::Erased if erasures > 0 && erasures == found.len() => String::new(),
            Status::Erased => format!("{} entries besides its erasure", found.len() - erasures),
            _ if found == state.seen.as_slice() => String::new(),
            _ => {
                let right = found.iter().filter(|entry| state.seen.contains(entry)).count();
                format!("{right} of {} entries are as in the log", state.seen.len())
            }
        };
        Ok(difference(schema::CLAIM_TIMELINE, what))
    }

    /// The claim's row at one place of a list view.
    async fn row_at(&self, state: &ClaimState, place: &Place) -> Result<Option<ListItem>, ReadError> {
        let statement = &self.lists[place.view as usize].one;
        let (tenant, claim, bucket) = (state.tenant_id.as_str(), state.claim_id.as_str(), place.bucket().0);
        let (shard, created_at) = (shard(claim), CqlTimestamp(place.clustering_ms()));
        let result = match place.view.key_column() {
            Some(_) => {
                let values = (tenant, place.key.as_str(), bucket, shard, created_at, claim);
                self.session.execute_unpaged(statement, values).await
            }
            None => self.session.execute_unpaged(statement, (tenant, bucket, shard, created_at, claim)).await,
        };
        let result = result.map_err(failed)?;
        result.into_rows_result().map_err(unreadable)?.maybe_first_row().map_err(unreadable)
    }
}

fn difference(table: &'static str, what: String) -> Option<TableDifference> {
    (!what.is_empty()).then_some(TableDifference { table, what })
}

impl ListItem {
    /// The row of a claim in this state at one of its places.
    pub fn of(state: &ClaimState, place: &Place) -> Self {
        let text = |text: &Option<Text>| text.as_ref().map(Text::to_string);
        let at = |at: Timestamp| DateTime::<Utc>::from_timestamp_millis(at.0);
        Self {
            tenant_id: state.tenant_id.to_string(),
            bucket: place.bucket().0,
            shard: shard(&state.claim_id),
            created_at: at(Timestamp(place.clustering_ms())).unwrap_or_default(),
            claim_id: state.claim_id.to_string(),
            status: state.status().as_str().to_owned(),
            customer_id: text(&state.customer_id.value),
            agent_id: text(&state.agent_id.value),
            agent_name: text(&state.agent_name.value),
            claim_type: text(&state.claim_type.value),
            title: text(&state.title.value),
            urgency: state.urgency.value.map(|urgency| urgency.as_str().to_owned()),
            claimed_amount: state.claimed.value.as_ref().map(|money| decimal(money.amount)),
            claimed_currency: state.claimed.value.as_ref().and_then(|money| text(&money.currency)),
            updated_at: state.updated_at.value.and_then(at),
            revision: state.revision() as i64,
        }
    }

    /// Names of the columns in which two rows differ.
    pub fn differing_columns(&self, other: &Self) -> Vec<&'static str> {
        super::compare::differing_columns!(self, other, tenant_id bucket shard created_at claim_id status customer_id
            agent_id agent_name claim_type title urgency claimed_amount claimed_currency updated_at revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::ListView;

    #[test]
    fn a_row_of_a_list_differs_in_what_differs() {
        let place = Place { view: ListView::Status, key: "UNKNOWN".into(), created_at: None };
        let row = ListItem::of(&ClaimState::empty("t", "c"), &place);
        assert_eq!((row.bucket, row.status.as_str(), row.created_at), (0, "UNKNOWN", DateTime::UNIX_EPOCH));
        let other = ListItem { revision: 3, title: Some("x".into()), ..row.clone() };
        assert_eq!(row.differing_columns(&other), ["title", "revision"]);
    }
}
