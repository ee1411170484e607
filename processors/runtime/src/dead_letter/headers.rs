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

/// On a record that is no dead letter but says what became of one: one of the [resolutions](RESOLUTION_DISCARDED). Such
/// a record has no payload, and names the refused record by the headers above.
pub const HEADER_RESOLUTION: &str = "resolution";
/// How a retry ended: one of the [outcomes](OUTCOME_APPLIED).
pub const HEADER_OUTCOME: &str = "outcome";
/// When it was resolved, milliseconds since the Unix epoch.
pub const HEADER_RESOLVED_AT_MS: &str = "resolved-at-ms";

/// Resolution: a retry is about to be written. Without a [`RESOLUTION_RETRIED`] after it, nobody knows whether it was.
pub const RESOLUTION_RETRY_STARTED: &str = "retry-started";
/// Resolution: the record was given to its processor again; the outcome says what came of it.
pub const RESOLUTION_RETRIED: &str = "retried";
/// Resolution: somebody looked at it and is done with it.
pub const RESOLUTION_DISCARDED: &str = "discarded";

/// Outcome: the record's effect is in the view now.
pub const OUTCOME_APPLIED: &str = "applied";
/// Outcome: the view held the record's effect before.
pub const OUTCOME_ALREADY_THERE: &str = "already-there";
/// Outcome: it was refused once more; the dead letter stays open.
pub const OUTCOME_REFUSED: &str = "refused";
