//! The statements, prepared. The order of bind markers is the order of fields in [`rows`](super::rows).

use super::{
    errors,
    rows::Op,
    schema::{CLAIM_BY_ID, CLAIM_LIST_PARTITIONS, CLAIM_TIMELINE},
};
use crate::places::ListView;
use claims_runtime::SinkError;
use scylla::{client::session::Session, statement::prepared::PreparedStatement};

/// Every statement of the sink.
pub struct Statements {
    claim: PreparedStatement,
    lists: Vec<PreparedStatement>,
    deletes: Vec<PreparedStatement>,
    partition: PreparedStatement,
    timeline: PreparedStatement,
    erase_timeline: PreparedStatement,
}

const CLAIM_COLUMNS: &str = "tenant_id, claim_id, status, status_since, source, customer_id, customer_name, \
    customer_email, claim_type, title, description, product_id, order_id, urgency, claimed_amount, claimed_currency, \
    agent_id, agent_name, estimated_resolution_at, resolution, resolution_type, customer_satisfaction, \
    follow_up_required, replacement_tracking, settled_amount, settled_currency, created_at, resolved_at, closed_at, \
    updated_at, reopen_count, reassignment_count, note_count, version, revision";

const LIST_COLUMNS: &str = "tenant_id, bucket, shard, created_at, claim_id, status, customer_id, agent_id, agent_name, \
    claim_type, title, urgency, claimed_amount, claimed_currency, updated_at, revision";

const TIMELINE_COLUMNS: &str =
    "tenant_id, claim_id, version, event_id, event_type, occurred_at, actor, words";

fn insert(keyspace: &str, table: &str, columns: &str) -> String {
    let markers = vec!["?"; columns.split(',').count()].join(", ");
    format!("INSERT INTO {keyspace}.{table} ({columns}) VALUES ({markers}) USING TIMESTAMP ?")
}

fn delete(keyspace: &str, view: ListView) -> String {
    let key = view.key_column().map_or_else(String::new, |column| format!(" AND {column} = ?"));
    format!(
        "DELETE FROM {keyspace}.{} USING TIMESTAMP ? WHERE tenant_id = ?{key} AND bucket = ? AND shard = ? \
         AND created_at = ? AND claim_id = ?",
        view.table()
    )
}

impl Statements {
    /// Prepares them all; fails where a table is missing or other than this build needs it.
    pub async fn prepare(session: &Session, keyspace: &str) -> Result<Self, SinkError> {
        let prepare = async |text: String| {
            let mut statement = session.prepare(text).await.map_err(|e| errors::prepare(&e))?;
            // Stamps make every write repeatable, so the driver may try another node by itself.
            statement.set_is_idempotent(true);
            Ok::<_, SinkError>(statement)
        };
        let mut lists = Vec::new();
        let mut deletes = Vec::new();
        for view in ListView::ALL {
            lists.push(prepare(insert(keyspace, view.table(), LIST_COLUMNS)).await?);
            deletes.push(prepare(delete(keyspace, view)).await?);
        }
        Ok(Self {
            claim: prepare(insert(keyspace, CLAIM_BY_ID, CLAIM_COLUMNS)).await?,
            lists,
            deletes,
            partition: prepare(insert(
                keyspace,
                CLAIM_LIST_PARTITIONS,
                "tenant_id, view_name, key, bucket, shard",
            ))
            .await?,
            timeline: prepare(insert(keyspace, CLAIM_TIMELINE, TIMELINE_COLUMNS)).await?,
            erase_timeline: prepare(format!(
                "DELETE FROM {keyspace}.{CLAIM_TIMELINE} USING TIMESTAMP ? WHERE tenant_id = ? AND claim_id = ?"
            ))
            .await?,
        })
    }

    /// The statement that belongs to an operation.
    pub fn of(&self, op: &Op<'_>) -> &PreparedStatement {
        match op {
            Op::Claim(_) => &self.claim,
            Op::List(view, _) => &self.lists[*view as usize],
            Op::Delete(view, _) => &self.deletes[*view as usize],
            Op::DeleteCreated(_) => &self.deletes[ListView::Created as usize],
            Op::Partition(_) => &self.partition,
            Op::Timeline(_) => &self.timeline,
            Op::EraseTimeline(_) => &self.erase_timeline,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_for_every_column_and_the_stamp() {
        let text = insert("k", "t", "a, b, c");
        assert_eq!(text, "INSERT INTO k.t (a, b, c) VALUES (?, ?, ?) USING TIMESTAMP ?");
    }

    #[test]
    fn views_index_their_statements() {
        for (i, view) in ListView::ALL.into_iter().enumerate() {
            assert_eq!(view as usize, i);
        }
    }
}
