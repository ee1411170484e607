//! A page of a list view: buckets newest first, the shards of a bucket merged.

use super::{ClaimReader, ListItem, ReadError, failed, types, unreadable};
use crate::places::{Bucket, ListView};
use chrono::DateTime;
use claims_schemas::Timestamp;
use futures::future::try_join_all;
use scylla::{statement::prepared::PreparedStatement, value::CqlTimestamp};
use std::{collections::VecDeque, str::FromStr};

/// The most rows that a page may ask for.
pub const MAX_PAGE_ROWS: usize = 5_000;
/// Buckets that one page looks at, at most.
const MAX_BUCKETS_PER_PAGE: usize = 128;
/// Buckets read side by side while they turn out to be nearly empty, at most.
const MAX_BUCKETS_AT_ONCE: usize = 8;
/// Rows of the partition index read for one page, at most; a bucket has up to eight.
const MAX_PARTITIONS_PER_PAGE: i32 = 1_024;
/// Rows asked of a shard beyond its even part of the page: shards are only about even.
const SPARE_ROWS: usize = 4;

/// What to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListQuery<'a> {
    /// Whose claims.
    pub tenant_id: &'a str,
    /// Which view.
    pub view: ListView,
    /// The status, agent or customer; empty for [`ListView::Created`].
    pub key: &'a str,
    /// Only claims created at or after this.
    pub created_from: Option<Timestamp>,
    /// Only claims created before this.
    pub created_before: Option<Timestamp>,
    /// Rows wanted, 1 to [`MAX_PAGE_ROWS`].
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<&'a Cursor>,
}

impl<'a> ListQuery<'a> {
    /// The newest claims of a view under a key.
    pub fn newest(tenant_id: &'a str, view: ListView, key: &'a str, limit: usize) -> Self {
        Self { tenant_id, view, key, created_from: None, created_before: None, limit, after: None }
    }

    /// The same from where a page ended.
    pub fn after(self, cursor: &'a Cursor) -> Self {
        Self { after: Some(cursor), ..self }
    }
}

/// Claims of a list, newest first, and where to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The claims. May be fewer than asked for although there are more.
    pub items: Vec<ListItem>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<Cursor>,
}

/// A place in a list. Its text form is opaque to callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    bucket: i32,
    /// The last row given; `None`: begin with the bucket.
    last: Option<(i64, String)>,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.bucket)?;
        match &self.last {
            Some((at, claim_id)) => write!(f, ".{at}.{claim_id}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Cursor {
    type Err = ReadError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || ReadError::Query("the cursor is not one that a page gave".into());
        let mut parts = text.splitn(3, '.');
        let bucket = parts.next().and_then(|b| b.parse().ok()).ok_or_else(bad)?;
        let last = match (parts.next(), parts.next()) {
            (None, None) => None,
            (Some(at), Some(id)) if !id.is_empty() => Some((at.parse().map_err(|_| bad())?, id.to_owned())),
            _ => return Err(bad()),
        };
        Ok(Self { bucket, last })
    }
}

/// The statements of a list view.
pub(super) struct ListStatements {
    pub from_start: PreparedStatement,
    pub after: PreparedStatement,
    pub one: PreparedStatement,
}

/// Their texts: a partition from its start, a partition after a row, and one row.
pub(super) fn statements(keyspace: &str, view: ListView) -> [String; 3] {
    let key = view.key_column().unwrap_or("tenant_id");
    let select = format!(
        "SELECT {} FROM {keyspace}.{} WHERE tenant_id = ?{} AND bucket = ? AND shard = ? AND ",
        types::LIST_COLUMNS,
        view.table(),
        if view.key_column().is_some() { format!(" AND {key} = ?") } else { String::new() },
    );
    [
        format!("{select} created_at < ? AND created_at >= ? LIMIT ?"),
        format!("{select} (created_at, claim_id) < (?, ?) AND (created_at) >= (?) LIMIT ?"),
        format!("{select} created_at = ? AND claim_id = ?"),
    ]
}

pub(super) fn checked_limit(limit: usize) -> Result<i32, ReadError> {
    match i32::try_from(limit) {
        Ok(rows) if (1..=MAX_PAGE_ROWS).contains(&limit) => Ok(rows),
        _ => Err(ReadError::Query(format!("limit {limit}: ask for 1 to {MAX_PAGE_ROWS} rows"))),
    }
}

/// Creation times wanted, in milliseconds: from, and before.
#[derive(Clone, Copy)]
struct Span {
    from_ms: i64,
    before_ms: i64,
}

pub(super) async fn page(reader: &ClaimReader, query: &ListQuery<'_>) -> Result<Page, ReadError> {
    checked_limit(query.limit)?;
    // The years that a bucket can name; CQL compares, so any bounds beyond the data do.
    let span = Span {
        from_ms: query.created_from.map_or(i64::MIN, |at| at.0),
        before_ms: query.created_before.map_or(i64::MAX, |at| at.0),
    };
    let (buckets, mut more) = buckets(reader, query).await?;
    let mut items = Vec::with_capacity(query.limit);
    let mut at_once = 1;
    let mut rest = buckets.as_slice();
    while !rest.is_empty() && items.len() < query.limit {
        let (now, later) = rest.split_at(at_once.min(rest.len()));
        let wanted = query.limit - items.len();
        let read =
            try_join_all(now.iter().map(|bucket| read_bucket(reader, query, span, bucket, wanted))).await?;
        for (bucket, rows) in now.iter().zip(read) {
            let room = query.limit - items.len();
            let full = rows.len() >= room;
            items.extend(rows.into_iter().take(room));
            if full {
                let last = items
                    .last()
                    .map(|item: &ListItem| (item.created_at.timestamp_millis(), item.claim_id.clone()));
                return Ok(Page { items, next: Some(Cursor { bucket: bucket.bucket, last }) });
            }
        }
        rest = later;
        // Nearly empty buckets are common in a queue that drains: look at more of them at once.
        at_once = (at_once * 2).min(MAX_BUCKETS_AT_ONCE);
    }
    if let (Some(next), true) = (rest.first(), items.len() >= query.limit) {
        more = Some(next.bucket);
    }
    Ok(Page { items, next: more.map(|bucket| Cursor { bucket, last: None }) })
}

/// A bucket and the shards that exist in it.
struct BucketShards {
    bucket: i32,
    shards: Vec<i16>,
}

/// The buckets to look at, newest first, and the one to go on with after them.
async fn buckets(
    reader: &ClaimReader,
    query: &ListQuery<'_>,
) -> Result<(Vec<BucketShards>, Option<i32>), ReadError> {
    let bucket_of = |at: Timestamp| query.view.bucket(Some(at)).0;
    let newest = match (query.after, query.created_before) {
        (Some(cursor), _) => cursor.bucket,
        (None, Some(before)) if before.to_datetime().is_some() => bucket_of(before),
        _ => i32::MAX,
    };
    let oldest = match query.created_from {
        Some(from) if from.to_datetime().is_some() => bucket_of(from),
        // Claims whose creation isn't known are in no span.
        _ if query.created_before.is_some() => Bucket::UNKNOWN.0 + 1,
        _ => Bucket::UNKNOWN.0,
    };
    let values = (query.tenant_id, query.view.table(), query.key, newest, oldest, MAX_PARTITIONS_PER_PAGE);
    let result = reader.session.execute_unpaged(&reader.partitions, values).await.map_err(failed)?;
    let result = result.into_rows_result().map_err(unreadable)?;
    let mut buckets: Vec<BucketShards> = Vec::new();
    let mut partitions = 0;
    for row in result.rows::<(i32, i16)>().map_err(unreadable)? {
        let (bucket, shard) = row.map_err(unreadable)?;
        partitions += 1;
        match buckets.last_mut() {
            Some(last) if last.bucket == bucket => last.shards.push(shard),
            _ => buckets.push(BucketShards { bucket, shards: vec![shard] }),
        }
    }
    let mut next = None;
    if partitions == MAX_PARTITIONS_PER_PAGE && buckets.len() > 1 {
        // The last bucket may have more shards than were read.
        next = buckets.pop().map(|cut| cut.bucket);
    }
    if buckets.len() > MAX_BUCKETS_PER_PAGE {
        next = Some(buckets[MAX_BUCKETS_PER_PAGE].bucket);
        buckets.truncate(MAX_BUCKETS_PER_PAGE);
    }
    Ok((buckets, next))
}

/// The newest `wanted` rows of a bucket, merged from its shards.
async fn read_bucket(
    reader: &ClaimReader,
    query: &ListQuery<'_>,
    span: Span,
    bucket: &BucketShards,
    wanted: usize,
) -> Result<Vec<ListItem>, ReadError> {
    let after =
        query.after.filter(|cursor| cursor.bucket == bucket.bucket).and_then(|cursor| cursor.last.clone());
    let step = (wanted / bucket.shards.len() + wanted / (4 * bucket.shards.len()) + SPARE_ROWS).min(wanted);
    let mut streams: Vec<ShardRows> = bucket
        .shards
        .iter()
        .map(|&shard| ShardRows { shard, rows: VecDeque::new(), after: after.clone(), ended: false })
        .collect();
    let mut merged = Vec::with_capacity(wanted.min(1_024));
    while merged.len() < wanted {
        let dry = streams.iter_mut().filter(|s| s.rows.is_empty() && !s.ended);
        try_join_all(dry.map(|stream| stream.fill(reader, query, span, bucket.bucket, step))).await?;
        let newest = streams
            .iter_mut()
            .filter(|s| !s.rows.is_empty())
            .max_by(|a, b| order(a.rows.front()).cmp(&order(b.rows.front())));
        match newest.and_then(|stream| stream.rows.pop_front()) {
            Some(row) => merged.push(row),
            None => break,
        }
    }
    Ok(merged)
}

fn order(row: Option<&ListItem>) -> Option<(DateTime<chrono::Utc>, &str)> {
    row.map(|row| (row.created_at, row.claim_id.as_str()))
}

/// What was read of one partition and not given yet.
struct ShardRows {
    shard: i16,
    rows: VecDeque<ListItem>,
    after: Option<(i64, String)>,
    ended: bool,
}

impl ShardRows {
    async fn fill(
        &mut self,
        reader: &ClaimReader,
        query: &ListQuery<'_>,
        span: Span,
        bucket: i32,
        step: usize,
    ) -> Result<(), ReadError> {
        let statements = &reader.lists[query.view as usize];
        let limit = checked_limit(step)?;
        let from = CqlTimestamp(span.from_ms);
        let (tenant, key, shard) = (query.tenant_id, query.key, self.shard);
        let keyed = query.view.key_column().is_some();
        let session = &reader.session;
        let result = match &self.after {
            None => {
                let before = CqlTimestamp(span.before_ms);
                if keyed {
                    let values = (tenant, key, bucket, shard, before, from, limit);
                    session.execute_unpaged(&statements.from_start, values).await
                } else {
                    let values = (tenant, bucket, shard, before, from, limit);
                    session.execute_unpaged(&statements.from_start, values).await
                }
            }
            Some((at, claim_id)) => {
                let at = CqlTimestamp(*at);
                if keyed {
                    let values = (tenant, key, bucket, shard, at, claim_id.as_str(), from, limit);
                    session.execute_unpaged(&statements.after, values).await
                } else {
                    let values = (tenant, bucket, shard, at, claim_id.as_str(), from, limit);
                    session.execute_unpaged(&statements.after, values).await
                }
            }
        }
        .map_err(failed)?;
        let result = result.into_rows_result().map_err(unreadable)?;
        for row in result.rows().map_err(unreadable)? {
            self.rows.push_back(row.map_err(unreadable)?);
        }
        self.ended = self.rows.len() < step;
        if let Some(last) = self.rows.back() {
            self.after = Some((last.created_at.timestamp_millis(), last.claim_id.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_their_text_form() {
        for cursor in [
            Cursor { bucket: 20_250_708, last: None },
            Cursor { bucket: 0, last: Some((-5, "a.b.c".into())) },
        ] {
            assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
        }
        for bad in ["", "x", "1.", "1.2", "1.2.", "1.x.c"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_are_bounded() {
        assert_eq!(checked_limit(100), Ok(100));
        assert!(checked_limit(0).is_err());
        assert!(checked_limit(MAX_PAGE_ROWS + 1).is_err());
    }
}
