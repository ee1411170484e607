//! What `POST /v1/events` answers.

use crate::{metrics, rejects::RowError};
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

/// Callers are asked to wait this long before they try again.
const RETRY_AFTER_S: u64 = 1;

/// Everything is in Kafka.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Accepted {
    /// Events that Kafka has acknowledged.
    pub accepted: u64,
}

/// Why the request ended before its last event. Sending it again as a whole is safe: an event that is in Kafka
/// already has the same id again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Refused {
    /// A stable word: `invalid-json`, `invalid-event`, …, `too-large`, `busy`, `kafka-away`, `stopping`.
    pub reason: String,
    /// What was wrong, in words.
    pub detail: String,
    /// The line of the body (from 1), or the place in the array, of the event at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Events before it that Kafka has acknowledged.
    pub accepted: u64,
}

/// Why a request ends early, and the status that says so.
#[derive(Debug)]
pub(super) enum Ending {
    /// An event is bad.
    Bad { line: u64, error: RowError },
    /// The body can't be read.
    Unreadable(String),
    /// The body, or an event in it, is too large.
    TooLarge(String),
    /// Kafka can't keep up.
    Busy(&'static str),
    /// Kafka is away, or did not acknowledge.
    Away(String),
    /// The server is to stop, and the body still comes.
    Stopping,
}

impl Ending {
    /// The answer, `accepted` events being in Kafka.
    pub(super) fn answer(self, accepted: u64) -> Response {
        let (status, reason, detail) = match &self {
            Self::Bad { error, .. } => {
                ::metrics::counter!(metrics::REJECTED, "reason" => error.reason).increment(1);
                (StatusCode::BAD_REQUEST, error.reason, error.detail.clone())
            }
            Self::Unreadable(detail) => (StatusCode::BAD_REQUEST, "unreadable", detail.clone()),
            Self::TooLarge(detail) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail.clone()),
            Self::Busy(detail) => (StatusCode::TOO_MANY_REQUESTS, "busy", (*detail).to_owned()),
            Self::Away(detail) => (StatusCode::SERVICE_UNAVAILABLE, "kafka-away", detail.clone()),
            Self::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server stops".to_owned()),
        };
        let (line, field) = match self {
            Self::Bad { line, error } => (Some(line), error.field),
            _ => (None, None),
        };
        let body = Refused { reason: reason.to_owned(), detail, line, field, accepted };
        let mut response = (status, Json(body)).into_response();
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        counted(response)
    }
}

/// The answer to a request that went through.
pub(super) fn accepted(accepted: u64) -> Response {
    counted((StatusCode::ACCEPTED, Json(Accepted { accepted })).into_response())
}

fn counted(response: Response) -> Response {
    let status = response.status().as_u16().to_string();
    ::metrics::counter!(metrics::HTTP_REQUESTS, "status" => status).increment(1);
    response
}
