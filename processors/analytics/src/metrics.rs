//! Names of metrics and log fields.

/// Counter: rows handed to ClickHouse, by `status`.
pub const PROJECTION_UPDATES_TOTAL: &str = "projection_updates_total";
/// Histogram: seconds that one insert took, by `status`.
pub const INSERT_DURATION_SECONDS: &str = "clickhouse_insert_duration_seconds";
/// Counter: inserts that failed, by `class` and ClickHouse's error `code`.
pub const INSERT_ERRORS_TOTAL: &str = "clickhouse_insert_errors_total";

/// Label: the service.
pub const LABEL_SERVICE: &str = "service";
/// Label: the projection.
pub const LABEL_PROJECTION_TYPE: &str = "projection_type";
/// Label: `ok` or `error`.
pub const LABEL_STATUS: &str = "status";
/// Label: `transient`, `poison` or `fatal`.
pub const LABEL_CLASS: &str = "class";
/// Label: ClickHouse's error code, 0 if there is none.
pub const LABEL_CODE: &str = "code";

/// Value of [`LABEL_STATUS`].
pub const STATUS_OK: &str = "ok";
/// Value of [`LABEL_STATUS`].
pub const STATUS_ERROR: &str = "error";
