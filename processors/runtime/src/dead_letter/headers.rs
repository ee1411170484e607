//! Names of a dead letter's headers. Numbers are written in decimal.

/// Topic of the refused record.
pub const HEADER_TOPIC: &str = "original-topic";
/// Partition of the refused record.
pub const HEADER_PARTITION: &str = "original-partition";
/// Offset of the refused record.
pub const HEADER_OFFSET: &str = "original-offset";
/// When the broker appended the refused record, milliseconds since the Unix epoch.
pub const HEADER_TIMESTAMP_MS: &str = "original-timestamp-ms";
/// The processor that refused it.
pub const HEADER_PROCESSOR: &str = "processor";
/// Why, as a stable word.
pub const HEADER_REASON: &str = "reason";
/// Why, in words.
pub const HEADER_DETAIL: &str = "detail";
/// The schema id in the payload's framing, where it has one.
pub const HEADER_SCHEMA_ID: &str = "schema-id";
/// When it was refused, milliseconds since the Unix epoch.
pub const HEADER_FAILED_AT_MS: &str = "failed-at-ms";
/// `true` where the payload was cut.
pub const HEADER_PAYLOAD_TRUNCATED: &str = "payload-truncated";
/// The payload's original length in bytes, where it was cut.
pub const HEADER_PAYLOAD_ORIGINAL_BYTES: &str = "payload-original-bytes";
/// `true` where the key was cut.
pub const HEADER_KEY_TRUNCATED: &str = "key-truncated";
/// `true` where some of the original headers were left out.
pub const HEADER_HEADERS_TRUNCATED: &str = "headers-truncated";
/// Each of the record's own headers is carried under its name with this prefix.
pub const ORIGINAL_HEADER_PREFIX: &str = "original-header.";
