//! Rows that can't become events: where they stood, why they were refused, and how they look as dead letters.

use std::collections::BTreeMap;

/// Of a refused row this much is kept, in bytes; the dead letters of the processors keep as much.
pub const MAX_PAYLOAD_BYTES: usize = 256 * 1024;

/// The stable words for why a row was refused; metrics are counted by them.
pub mod reason {
    /// The line or record is longer than `ingress.max_line_bytes`.
    pub const TOO_LONG: &str = "too-long";
    /// The bytes aren't UTF-8.
    pub const INVALID_UTF8: &str = "invalid-utf8";
    /// The line isn't JSON.
    pub const INVALID_JSON: &str = "invalid-json";
    /// JSON, but not an event: a field is unknown, missing, or of the wrong kind.
    pub const INVALID_EVENT: &str = "invalid-event";
    /// A quote where none may be, or one that is never closed.
    pub const BROKEN_QUOTING: &str = "broken-quoting";
    /// The last record ends in the middle.
    pub const TRUNCATED: &str = "truncated-record";
    /// Other than the header's number of columns.
    pub const COLUMN_COUNT: &str = "column-count";
    /// A column that the mapping needs is empty.
    pub const MISSING_VALUE: &str = "missing-value";
    /// A date that none of the formats reads, or that doesn't exist.
    pub const INVALID_DATE: &str = "invalid-date";
    /// Not an amount of money.
    pub const INVALID_AMOUNT: &str = "invalid-amount";
    /// Not the number, the truth value or the urgency that the mapping needs.
    pub const INVALID_VALUE: &str = "invalid-value";
    /// A value that the mapping's table doesn't list.
    pub const UNMAPPED_VALUE: &str = "unmapped-value";
    /// The case's rows don't stand together.
    pub const CASE_NOT_CONTIGUOUS: &str = "case-not-contiguous";
    /// A case has more rows, or one row more events, than there is room for.
    pub const TOO_MANY: &str = "too-many";
}

/// One refused row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The line (from 1) on which the row begins.
    pub line: u64,
    /// One of the words in [`reason`], or of `claims_schemas::validate`.
    pub reason: &'static str,
    /// The field or column at fault.
    pub field: Option<String>,
    /// What was wrong, in words, without personal data.
    pub detail: String,
    /// The row as it stood, perhaps cut.
    pub payload: Vec<u8>,
    /// How long the row was, in bytes.
    pub original_bytes: u64,
}

impl std::fmt::Display for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}: ", self.line, self.reason)?;
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.detail)
    }
}

/// Why a row was refused, before its place is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// As in [`Reject::reason`].
    pub reason: &'static str,
    /// As in [`Reject::field`].
    pub field: Option<String>,
    /// As in [`Reject::detail`].
    pub detail: String,
}

impl RowError {
    /// An error without a field.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self { reason, field: None, detail: detail.into() }
    }

    /// An error of one field or column.
    pub fn of(reason: &'static str, field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { reason, field: Some(field.into()), detail: detail.into() }
    }

    /// The same with its place and the row itself, of which at most [`MAX_PAYLOAD_BYTES`] are kept.
    pub fn at(self, line: u64, payload: &[u8]) -> Reject {
        Reject {
            line,
            reason: self.reason,
            field: self.field,
            detail: self.detail,
            payload: payload[..payload.len().min(MAX_PAYLOAD_BYTES)].to_vec(),
            original_bytes: payload.len() as u64,
        }
    }
}

/// How many rows were refused, by reason.
pub type RejectCounts = BTreeMap<&'static str, u64>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_row_the_beginning_is_kept() {
        let row = vec![b'x'; MAX_PAYLOAD_BYTES + 1];
        let reject = RowError::new(reason::INVALID_JSON, "").at(1, &row);
        assert_eq!(reject.payload.len(), MAX_PAYLOAD_BYTES);
        assert_eq!(reject.original_bytes, row.len() as u64);
        let of_processors = claims_runtime::RuntimeSettings::default().max_dead_letter_payload_bytes;
        assert_eq!(MAX_PAYLOAD_BYTES, of_processors);
    }
}
