//! Reading the views: a claim, its timeline, and pages of the list views.
//!
//! A list is read bucket by bucket, newest first. Which buckets and shards exist stands in `claim_list_partitions`; the
//! shards of one bucket are read side by side and merged. What one page may cost is bounded: a page may come back short,
//! with a cursor to go on from.

mod check;
mod compare;
mod list;
mod types;

pub use check::TableDifference;
pub use list::{Cursor, ListQuery, MAX_PAGE_ROWS, Page};
pub use types::{ClaimView, ListItem, TimelineItem};

use crate::{cql, places::ListView};
use claims_runtime::SinkError;
use claims_topology::config::CqlConfig;
use futures::{Stream, StreamExt};
use scylla::{client::session::Session, statement::prepared::PreparedStatement};

/// Why the views could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The database is away, or has no such tables.
    #[error(transparent)]
    Database(#[from] SinkError),
    /// A row is not as this build writes it.
    #[error("the views hold a row that this build can't read: {0}")]
    Row(String),
    /// The question can't be answered.
    #[error("{0}")]
    Query(String),
}

/// Reads the views of one keyspace.
pub struct ClaimReader {
    session: Session,
    keyspace: String,
    claim: PreparedStatement,
    timeline: PreparedStatement,
    partitions: PreparedStatement,
    lists: Vec<list::ListStatements>,
}

impl ClaimReader {
    /// Connects to views that exist already.
    pub async fn connect(config: &CqlConfig) -> Result<Self, ReadError> {
        let keyspace = cql::schema::checked_keyspace(&config.keyspace)?.to_owned();
        let session = cql::connect(config).await?;
        let prepare = async |text: String| {
            let mut statement = session.prepare(text).await.map_err(|e| cql::errors::prepare(&e))?;
            statement.set_is_idempotent(true);
            Ok::<_, ReadError>(statement)
        };
        let claim = prepare(format!(
            "SELECT {} FROM {keyspace}.claim_by_id WHERE tenant_id = ? AND claim_id = ?",
            types::CLAIM_COLUMNS
        ))
        .await?;
        let timeline = prepare(format!(
            "SELECT {} FROM {keyspace}.claim_timeline WHERE tenant_id = ? AND claim_id = ? AND version > ? LIMIT ?",
            types::TIMELINE_COLUMNS
        ))
        .await?;
        let partitions = prepare(format!(
            "SELECT bucket, shard FROM {keyspace}.claim_list_partitions \
             WHERE tenant_id = ? AND view_name = ? AND key = ? AND bucket <= ? AND bucket >= ? LIMIT ?"
        ))
        .await?;
        let mut lists = Vec::new();
        for view in ListView::ALL {
            let [from_start, after, one] = list::statements(&keyspace, view);
            lists.push(list::ListStatements {
                from_start: prepare(from_start).await?,
                after: prepare(after).await?,
                one: prepare(one).await?,
            });
        }
        Ok(Self { session, keyspace, claim, timeline, partitions, lists })
    }

    /// The claim's current state, if it is known.
    pub async fn claim(&self, tenant_id: &str, claim_id: &str) -> Result<Option<ClaimView>, ReadError> {
        let result =
            self.session.execute_unpaged(&self.claim, (tenant_id, claim_id)).await.map_err(failed)?;
        result.into_rows_result().map_err(unreadable)?.maybe_first_row().map_err(unreadable)
    }

    /// What happened to the claim: up to `limit` entries after the event with version `after_version` (0: from the
    /// beginning), by version.
    pub async fn timeline(
        &self,
        tenant_id: &str,
        claim_id: &str,
        after_version: u64,
        limit: usize,
    ) -> Result<Vec<TimelineItem>, ReadError> {
        let after_version = i64::try_from(after_version).unwrap_or(i64::MAX);
        let limit = list::checked_limit(limit)?;
        let values = (tenant_id, claim_id, after_version, limit);
        let result = self.session.execute_unpaged(&self.timeline, values).await.map_err(failed)?;
        let result = result.into_rows_result().map_err(unreadable)?;
        result.rows().map_err(unreadable)?.map(|row| row.map_err(unreadable)).collect()
    }

    /// A page of a list view.
    pub async fn list(&self, query: &ListQuery<'_>) -> Result<Page, ReadError> {
        list::page(self, query).await
    }

    /// Every row of `claim_by_id`, in no order. Reads the whole table: for checks, not for applications.
    pub async fn scan_claims(&self) -> Result<impl Stream<Item = Result<ClaimView, ReadError>>, ReadError> {
        let text = format!("SELECT {} FROM {}.claim_by_id", types::CLAIM_COLUMNS, self.keyspace);
        let rows = self.session.query_iter(text, ()).await.map_err(scan_failed)?;
        Ok(rows.rows_stream().map_err(unreadable)?.map(|row| row.map_err(scan_failed_late)))
    }

    /// Every row of a list view, in no order. Reads the whole table: for checks, not for applications.
    pub async fn scan_list(
        &self,
        view: ListView,
    ) -> Result<impl Stream<Item = Result<ListItem, ReadError>>, ReadError> {
        let text = format!("SELECT {} FROM {}.{}", types::LIST_COLUMNS, self.keyspace, view.table());
        let rows = self.session.query_iter(text, ()).await.map_err(scan_failed)?;
        Ok(rows.rows_stream().map_err(unreadable)?.map(|row| row.map_err(scan_failed_late)))
    }

    /// Every timeline entry, in no order but that of versions within a claim. Reads the whole table: for checks.
    pub async fn scan_timeline(
        &self,
    ) -> Result<impl Stream<Item = Result<TimelineItem, ReadError>>, ReadError> {
        let text = format!("SELECT {} FROM {}.claim_timeline", types::TIMELINE_COLUMNS, self.keyspace);
        let rows = self.session.query_iter(text, ()).await.map_err(scan_failed)?;
        Ok(rows.rows_stream().map_err(unreadable)?.map(|row| row.map_err(scan_failed_late)))
    }
}

fn failed(error: scylla::errors::ExecutionError) -> ReadError {
    ReadError::Database(cql::errors::classify(&error))
}

fn scan_failed(error: scylla::errors::PagerExecutionError) -> ReadError {
    ReadError::Database(SinkError::Transient(error.to_string()))
}

fn scan_failed_late(error: scylla::errors::NextRowError) -> ReadError {
    ReadError::Database(SinkError::Transient(error.to_string()))
}

fn unreadable(error: impl std::fmt::Display) -> ReadError {
    ReadError::Row(error.to_string())
}
