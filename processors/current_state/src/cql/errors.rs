//! Which failures pass, which are the row's fault, and which are final.

use claims_runtime::SinkError;
use scylla::errors::{DbError, ExecutionError, PrepareError, RequestAttemptError};

/// A failed write.
pub fn classify(error: &ExecutionError) -> SinkError {
    match error {
        ExecutionError::BadQuery(bad) => SinkError::Poison(format!("a row can't be sent: {bad}")),
        ExecutionError::LastAttemptError(attempt) => attempt_error(attempt),
        ExecutionError::PrepareError(error) => prepare(error),
        ExecutionError::EmptyPlan => SinkError::Fatal(error.to_string()),
        // No connection, no answer in time, no metadata: the database is away.
        _ => SinkError::Transient(error.to_string()),
    }
}

/// A statement that can't be prepared.
pub fn prepare(error: &PrepareError) -> SinkError {
    match error {
        PrepareError::AllAttemptsFailed { first_attempt } => match attempt_error(first_attempt) {
            // There is no row yet that could be at fault.
            SinkError::Poison(detail) => SinkError::Fatal(tables_differ(&detail)),
            other => other,
        },
        PrepareError::ConnectionPoolError(_) => SinkError::Transient(error.to_string()),
        _ => SinkError::Fatal(error.to_string()),
    }
}

/// A failure before the first row: only an absent database passes.
pub fn setup(doing: &str, error: &ExecutionError) -> SinkError {
    match classify(error) {
        SinkError::Transient(detail) => SinkError::Transient(format!("could not {doing}: {detail}")),
        SinkError::Poison(detail) | SinkError::Fatal(detail) => {
            SinkError::Fatal(format!("could not {doing}: {detail}"))
        }
    }
}

/// The message for tables that aren't as this build made them.
pub fn tables_differ(detail: &str) -> String {
    format!("the tables are not as this build needs them ({detail}); were they dropped or altered?")
}

fn attempt_error(error: &RequestAttemptError) -> SinkError {
    match error {
        RequestAttemptError::DbError(db, message) => db_error(db, message),
        RequestAttemptError::SerializationError(_) | RequestAttemptError::CqlRequestSerialization(_) => {
            SinkError::Poison(format!("a row can't be sent: {error}"))
        }
        RequestAttemptError::RepreparedIdChanged { .. } | RequestAttemptError::RepreparedIdMissingInBatch => {
            SinkError::Fatal(tables_differ(&error.to_string()))
        }
        _ => SinkError::Transient(error.to_string()),
    }
}

fn db_error(error: &DbError, message: &str) -> SinkError {
    let detail = format!("{error}: {message}");
    match error {
        DbError::Invalid => SinkError::Poison(detail),
        DbError::SyntaxError
        | DbError::AuthenticationError
        | DbError::Unauthorized
        | DbError::ConfigError
        | DbError::AlreadyExists { .. }
        | DbError::FunctionFailure { .. }
        | DbError::ProtocolError => SinkError::Fatal(detail),
        // Unavailable, overloaded, timeouts, failures, rate limits, starting up, unprepared, anything unknown.
        _ => SinkError::Transient(detail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scylla::statement::Consistency;
    use std::time::Duration;

    fn attempt(db: DbError) -> ExecutionError {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(db, "said the server".into()))
    }

    #[test]
    fn what_passes_is_tried_again() {
        let unavailable = DbError::Unavailable { consistency: Consistency::One, required: 1, alive: 0 };
        for error in [
            attempt(unavailable),
            attempt(DbError::Overloaded),
            attempt(DbError::IsBootstrapping),
            attempt(DbError::ServerError),
            attempt(DbError::TruncateError),
            ExecutionError::RequestTimeout(Duration::from_secs(1)),
        ] {
            assert!(matches!(classify(&error), SinkError::Transient(_)), "{error}");
        }
    }

    #[test]
    fn what_the_row_is_to_blame_for_is_poison() {
        let SinkError::Poison(detail) = classify(&attempt(DbError::Invalid)) else { panic!() };
        assert!(detail.contains("said the server"));
    }

    #[test]
    fn what_waiting_does_not_mend_is_fatal() {
        for db in
            [DbError::Unauthorized, DbError::AuthenticationError, DbError::SyntaxError, DbError::ConfigError]
        {
            assert!(matches!(classify(&attempt(db)), SinkError::Fatal(_)));
        }
    }

    #[test]
    fn nothing_is_poison_before_the_first_row() {
        assert!(matches!(setup("make the tables", &attempt(DbError::Invalid)), SinkError::Fatal(_)));
    }
}
