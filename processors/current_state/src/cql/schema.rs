//! Keyspace and tables. Every statement is repeatable, and two processes may start at once.

use super::errors;
use crate::places::{ListView, SHARDS};
use claims_runtime::SinkError;
use claims_topology::config::CqlConfig;
use scylla::client::session::Session;

/// Version of the tables' layout ([`SHARDS`] and the buckets included). Tables of another version are refused.
pub const LAYOUT_VERSION: i32 = 1;

/// Deleted rows are kept this long, in seconds, so that a replica that was away hears of them: with more than one
/// replica, repair runs more often than that. It also bounds how late a paused process's stale write may arrive.
pub const GC_GRACE_SECONDS: u32 = 86_400;

/// The claim itself.
pub const CLAIM_BY_ID: &str = "claim_by_id";
/// What happened to a claim, in words.
pub const CLAIM_TIMELINE: &str = "claim_timeline";
/// Which partitions of the list views exist.
pub const CLAIM_LIST_PARTITIONS: &str = "claim_list_partitions";
/// The layout's version.
pub const CLAIMS_LAYOUT: &str = "claims_layout";

/// Which topic the rows were made from.
pub const CLAIMS_SOURCE_TOPIC: &str = "claims_source_topic";

/// Makes what is missing.
pub async fn ensure(session: &Session, config: &CqlConfig) -> Result<(), SinkError> {
    let keyspace = checked_keyspace(&config.keyspace)?;
    let mut statements = vec![format!(
        "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = \
         {{'class': 'NetworkTopologyStrategy', 'replication_factor': {}}}",
        config.replication_factor
    )];
    statements.extend(tables(keyspace));
    for statement in statements {
        session.query_unpaged(statement, ()).await.map_err(|e| errors::setup("make the tables", &e))?;
    }
    check_layout(session, keyspace).await
}

/// A keyspace name is put into statements as it stands.
pub fn checked_keyspace(keyspace: &str) -> Result<&str, SinkError> {
    let mut chars = keyspace.chars();
    let ok = chars.next().is_some_and(|c| c.is_ascii_lowercase())
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && keyspace.len() <= 48;
    if ok {
        Ok(keyspace)
    } else {
        Err(SinkError::Fatal(format!(
            "cql.keyspace {keyspace:?}: use 1 to 48 of a-z, 0-9 and _, with a letter first"
        )))
    }
}

async fn check_layout(session: &Session, keyspace: &str) -> Result<(), SinkError> {
    let read = format!("SELECT version FROM {keyspace}.{CLAIMS_LAYOUT} WHERE name = 'current-state'");
    let result = session.query_unpaged(read, ()).await.map_err(|e| errors::setup("read the layout", &e))?;
    let found = result
        .into_rows_result()
        .map_err(|e| SinkError::Fatal(e.to_string()))?
        .maybe_first_row::<(i32,)>()
        .map_err(|e| SinkError::Fatal(e.to_string()))?;
    match found {
        Some((LAYOUT_VERSION,)) => Ok(()),
        Some((other,)) => Err(SinkError::Fatal(format!(
            "keyspace {keyspace} holds views of layout {other}, this build writes layout {LAYOUT_VERSION}; \
             give it a keyspace of its own"
        ))),
        None => {
            let write = format!("INSERT INTO {keyspace}.{CLAIMS_LAYOUT} (name, version) VALUES (?, ?)");
            session
                .query_unpaged(write, ("current-state", LAYOUT_VERSION))
                .await
                .map(drop)
                .map_err(|e| errors::setup("record the layout", &e))
        }
    }
}

fn tables(keyspace: &str) -> Vec<String> {
    let options = format!(
        "compaction = {{'class': 'LeveledCompactionStrategy'}} AND gc_grace_seconds = {GC_GRACE_SECONDS}"
    );
    let mut tables = vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.{CLAIM_BY_ID} (
                tenant_id text, claim_id text,
                status text, status_since timestamp, source text,
                customer_id text, customer_name text, customer_email text,
                claim_type text, title text, description text, product_id text, order_id text, urgency text,
                claimed_amount decimal, claimed_currency text,
                agent_id text, agent_name text, estimated_resolution_at timestamp,
                resolution text, resolution_type text, customer_satisfaction text, follow_up_required boolean,
                replacement_tracking text, settled_amount decimal, settled_currency text,
                created_at timestamp, resolved_at timestamp, closed_at timestamp, updated_at timestamp,
                reopen_count int, reassignment_count int, note_count int,
                version bigint, revision bigint,
                PRIMARY KEY ((tenant_id, claim_id))
            ) WITH {options} AND comment = 'One row per claim: its current state'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.{CLAIM_TIMELINE} (
                tenant_id text, claim_id text, version bigint,
                event_id uuid, event_type text, occurred_at timestamp, actor text, words text,
                PRIMARY KEY ((tenant_id, claim_id), version)
            ) WITH {options} AND comment = 'What happened to a claim, when, and by whom'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.{CLAIM_LIST_PARTITIONS} (
                tenant_id text, view_name text, key text, bucket int, shard smallint,
                PRIMARY KEY ((tenant_id, view_name, key), bucket, shard)
            ) WITH CLUSTERING ORDER BY (bucket DESC, shard ASC) AND {options}
              AND comment = 'Which partitions of the list views exist'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.{CLAIMS_LAYOUT} (name text PRIMARY KEY, version int)
             WITH comment = 'Version of the layout of the tables'"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.{CLAIMS_SOURCE_TOPIC} (topic text PRIMARY KEY, topic_id text)
             WITH comment = 'Which topic the rows were made from'"
        ),
    ];
    tables.extend(ListView::ALL.map(|view| list_table(keyspace, view, &options)));
    tables
}

fn list_table(keyspace: &str, view: ListView, options: &str) -> String {
    let key = view.key_column().map_or_else(String::new, |column| format!("{column}, "));
    format!(
        "CREATE TABLE IF NOT EXISTS {keyspace}.{} (
            tenant_id text, bucket int, shard smallint, created_at timestamp, claim_id text,
            status text, customer_id text, agent_id text, agent_name text, claim_type text, title text, urgency text,
            claimed_amount decimal, claimed_currency text, updated_at timestamp, revision bigint,
            PRIMARY KEY ((tenant_id, {key}bucket, shard), created_at, claim_id)
        ) WITH CLUSTERING ORDER BY (created_at DESC, claim_id DESC) AND {options}
          AND comment = 'One row per claim; bucket: creation time, shard: one of {SHARDS}'",
        view.table()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyspace_names_that_could_break_a_statement_are_refused() {
        assert!(checked_keyspace("claims_2").is_ok());
        for bad in ["", "Claims", "1a", "a;b", "a b", "é", &"a".repeat(49)] {
            assert!(checked_keyspace(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_tenant_is_in_every_partition_key() {
        for table in tables("k")
            .iter()
            .filter(|t| ![CLAIMS_LAYOUT, CLAIMS_SOURCE_TOPIC].iter().any(|own| t.contains(own)))
        {
            assert!(table.contains("PRIMARY KEY ((tenant_id, "), "{table}");
        }
    }
}
