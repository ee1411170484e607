//! Names of the metrics that ingress keeps.

/// Events acknowledged by Kafka.
pub const EVENTS_PUBLISHED: &str = "events_published_total";
/// Events that Kafka refused or didn't take in time.
pub const EVENTS_FAILED: &str = "events_publish_failed_total";
/// Rows or events refused, by `reason`.
pub const REJECTED: &str = "ingress_rejected_total";
/// How often the client's queue was full, so that a sender had to wait.
pub const QUEUE_FULL: &str = "ingress_queue_full_total";
/// HTTP requests, by `status`.
pub const HTTP_REQUESTS: &str = "ingress_http_requests_total";
