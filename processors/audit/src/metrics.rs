//! Names of the metrics of the audit.

/// Records added to the trail.
pub const METRIC_ENTRIES_CREATED: &str = "audit_entries_created_total";
/// Records that came again and were found in the trail as they are.
pub const METRIC_RECORDS_COMPARED: &str = "audit_records_compared_total";
/// Segments written.
pub const METRIC_SEGMENTS_WRITTEN: &str = "audit_segments_written_total";
/// Bytes of the segments written.
pub const METRIC_SEGMENT_BYTES: &str = "audit_segment_bytes_total";
/// Time to hash, encode and store one segment, seconds.
pub const METRIC_SEGMENT_SECONDS: &str = "audit_segment_write_duration_seconds";
