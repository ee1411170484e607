//! The columns of a segment.

use crate::chain::SALT_BYTES;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::sync::{Arc, LazyLock};

/// Names of the columns, in their order in the file.
#[allow(missing_docs)]
pub mod column {
    pub const POSITION: &str = "position";
    pub const TOPIC: &str = "topic";
    pub const PARTITION: &str = "partition";
    pub const OFFSET: &str = "offset";
    pub const APPENDED_AT: &str = "appended_at";
    pub const PROCESSED_AT: &str = "processed_at";
    pub const LATENCY_MS: &str = "latency_ms";
    pub const KIND: &str = "kind";
    pub const TENANT_ID: &str = "tenant_id";
    pub const CLAIM_ID: &str = "claim_id";
    pub const EVENT_TYPE: &str = "event_type";
    pub const VERSION: &str = "version";
    pub const KEY: &str = "key";
    pub const VALUE: &str = "value";
    pub const SCHEMA_ID: &str = "schema_id";
    pub const EVENT_ID: &str = "event_id";
    pub const OCCURRED_AT: &str = "occurred_at";
    pub const RECORDED_AT: &str = "recorded_at";
    pub const CORRELATION_ID: &str = "correlation_id";
    pub const CAUSATION_ID: &str = "causation_id";
    pub const USER_ID: &str = "user_id";
    pub const SOURCE: &str = "source";
    pub const TRACEPARENT: &str = "traceparent";
    pub const SALT: &str = "salt";
    pub const CONTENT_HASH: &str = "content_hash";
    pub const CHAIN_HASH: &str = "chain_hash";
}

/// Length of a hash in its column.
pub const HASH_BYTES: i32 = 32;
/// Length of a salt in its column.
pub const SALT_COLUMN_BYTES: i32 = SALT_BYTES as i32;

/// The schema of every segment. Nullable columns are those that some kinds of records don't have, and those that an
/// erasure empties.
pub static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    use column::*;
    let time = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    let must = |name: &str, data_type| Field::new(name, data_type, false);
    let may = |name: &str, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        must(POSITION, DataType::Int64),
        must(TOPIC, DataType::Utf8),
        must(PARTITION, DataType::Int32),
        must(OFFSET, DataType::Int64),
        must(APPENDED_AT, time()),
        must(PROCESSED_AT, time()),
        must(LATENCY_MS, DataType::Int64),
        must(KIND, DataType::Utf8),
        may(TENANT_ID, DataType::Utf8),
        may(CLAIM_ID, DataType::Utf8),
        may(EVENT_TYPE, DataType::Utf8),
        may(VERSION, DataType::Int64),
        may(KEY, DataType::Binary),
        may(VALUE, DataType::Binary),
        may(SCHEMA_ID, DataType::Int64),
        may(EVENT_ID, DataType::Utf8),
        may(OCCURRED_AT, time()),
        may(RECORDED_AT, time()),
        may(CORRELATION_ID, DataType::Utf8),
        may(CAUSATION_ID, DataType::Utf8),
        may(USER_ID, DataType::Utf8),
        may(SOURCE, DataType::Utf8),
        may(TRACEPARENT, DataType::Utf8),
        may(SALT, DataType::FixedSizeBinary(SALT_COLUMN_BYTES)),
        must(CONTENT_HASH, DataType::FixedSizeBinary(HASH_BYTES)),
        must(CHAIN_HASH, DataType::FixedSizeBinary(HASH_BYTES)),
    ]))
});
