//! What a failed insert means: try again, find the bad row, or stop.

use claims_runtime::SinkError;
use clickhouse::error::Error;

/// ClickHouse's error codes that say something about the content of a block. Everything that isn't listed here or in
/// [`FATAL_CODES`] is tried again, under the runtime's deadline: a code we don't know must never cost a record.
const POISON_CODES: &[u32] = &[
    6,   // CANNOT_PARSE_TEXT
    26,  // CANNOT_PARSE_QUOTED_STRING
    27,  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
    38,  // CANNOT_PARSE_DATE
    41,  // CANNOT_PARSE_DATETIME
    53,  // TYPE_MISMATCH
    69,  // ARGUMENT_OUT_OF_BOUND
    70,  // CANNOT_CONVERT_TYPE
    72,  // CANNOT_PARSE_NUMBER
    117, // INCORRECT_DATA
    131, // TOO_LARGE_STRING_SIZE
    321, // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE
    349, // CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN
    376, // CANNOT_PARSE_UUID
    407, // DECIMAL_OVERFLOW
    469, // VIOLATED_CONSTRAINT
];

/// Error codes that waiting doesn't mend: the table isn't there or isn't ours any more. A restart makes it anew.
const FATAL_CODES: &[u32] = &[
    8,  // THERE_IS_NO_COLUMN
    10, // NOT_FOUND_COLUMN_IN_BLOCK
    16, // NO_SUCH_COLUMN_IN_TABLE
    20, // NUMBER_OF_COLUMNS_DOESNT_MATCH
    47, // UNKNOWN_IDENTIFIER
    60, // UNKNOWN_TABLE
    81, // UNKNOWN_DATABASE
];

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It may go through later: network, timeouts, too many parts, memory, read-only, and passwords that somebody is
    /// just changing.
    Transient,
    /// The content was refused.
    Poison,
    /// Going on makes no sense.
    Fatal,
}

impl Class {
    /// Whether waiting may help.
    pub fn is_transient(self) -> bool {
        self == Class::Transient
    }

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Transient => "transient",
            Class::Poison => "poison",
            Class::Fatal => "fatal",
        }
    }

    /// The same as the runtime wants to hear it.
    pub fn with_detail(self, detail: String) -> SinkError {
        match self {
            Class::Transient => SinkError::Transient(detail),
            Class::Poison => SinkError::Poison(detail),
            Class::Fatal => SinkError::Fatal(detail),
        }
    }
}

/// What an error of the client or the server means.
pub fn classify(error: &Error) -> Class {
    match error {
        Error::BadResponse(_) => match error_code(error) {
            Some(code) if POISON_CODES.contains(&code) => Class::Poison,
            Some(code) if FATAL_CODES.contains(&code) => Class::Fatal,
            // Also what a proxy says in between, which has no code.
            _ => Class::Transient,
        },
        // The client could not write these rows in RowBinary, or the configured URL is of no use.
        Error::Unsupported(_) | Error::InvalidParams(_) | Error::SchemaMismatch(_) => Class::Fatal,
        Error::SequenceMustHaveLength
        | Error::Custom(_)
        | Error::VariantDiscriminatorIsOutOfBound(_)
        | Error::InvalidTagEncoding(_) => Class::Poison,
        _ => Class::Transient,
    }
}

/// ClickHouse's error code in a refusal: `Code: 252. DB::Exception: …`.
pub fn error_code(error: &Error) -> Option<u32> {
    let Error::BadResponse(text) = error else { return None };
    let (_, after) = text.split_once("Code: ")?;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// A refusal without what may hold values of the data: only the code, its name, and the column if one is named.
/// ClickHouse quotes the offending text in its messages, and those go to logs and dead letters.
pub fn describe(error: &Error) -> String {
    let Error::BadResponse(text) = error else { return error.to_string() };
    let Some(code) = error_code(error) else {
        return format!("an answer that is not ClickHouse's: {}", text.chars().take(200).collect::<String>());
    };
    match code {
        code if POISON_CODES.contains(&code) => match error_name(text) {
            Some(name) => format!("ClickHouse refused the content: code {code} ({name})"),
            None => format!("ClickHouse refused the content: code {code}"),
        },
        _ => format!("ClickHouse: {}", text.chars().take(500).collect::<String>()),
    }
}

/// The name in `… (TOO_MANY_PARTS) (version …)`: the last bracket that holds only capitals and underscores.
fn error_name(text: &str) -> Option<&str> {
    let is_name = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    text.split('(').filter_map(|part| part.split_once(')').map(|(word, _)| word)).rfind(is_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Error {
        Error::BadResponse(text.to_owned())
    }

    #[test]
    fn codes_decide() {
        let cases = [
            ("Code: 252. DB::Exception: Too many parts (300). (TOO_MANY_PARTS)", Class::Transient),
            (
                "Code: 241. DB::Exception: (total) memory limit exceeded (MEMORY_LIMIT_EXCEEDED)",
                Class::Transient,
            ),
            ("Code: 164. DB::Exception: Cannot execute query in readonly mode. (READONLY)", Class::Transient),
            ("Code: 516. DB::Exception: Authentication failed (AUTHENTICATION_FAILED)", Class::Transient),
            ("Code: 159. DB::Exception: Timeout exceeded (TIMEOUT_EXCEEDED)", Class::Transient),
            ("Code: 243. DB::Exception: no space (NOT_ENOUGH_SPACE)", Class::Transient),
            ("Code: 60. DB::Exception: Table t.event_log does not exist. (UNKNOWN_TABLE)", Class::Fatal),
            ("Code: 81. DB::Exception: Database t does not exist. (UNKNOWN_DATABASE)", Class::Fatal),
            ("Code: 16. DB::Exception: No such column (NO_SUCH_COLUMN_IN_TABLE)", Class::Fatal),
            (
                "Code: 27. DB::Exception: Cannot parse input (CANNOT_PARSE_INPUT_ASSERTION_FAILED)",
                Class::Poison,
            ),
            ("Code: 407. DB::Exception: Decimal overflow (DECIMAL_OVERFLOW)", Class::Poison),
            ("Code: 99999. DB::Exception: from the future", Class::Transient),
            ("<html>502 Bad Gateway</html>", Class::Transient),
            ("Code: ", Class::Transient),
        ];
        for (text, class) in cases {
            assert_eq!(classify(&refused(text)), class, "{text}");
        }
        assert_eq!(classify(&Error::TimedOut), Class::Transient);
        assert_eq!(classify(&Error::Network("reset".into())), Class::Transient);
        assert_eq!(classify(&Error::Unsupported("scheme".into())), Class::Fatal);
    }

    #[test]
    fn a_refusal_of_content_is_described_without_the_content() {
        let error = refused(
            "Code: 27. DB::Exception: Cannot parse input: expected 'a' before: 'jane@example.org': (at row 1)\n. \
             (CANNOT_PARSE_INPUT_ASSERTION_FAILED) (version 26.7)",
        );
        assert_eq!(
            describe(&error),
            "ClickHouse refused the content: code 27 (CANNOT_PARSE_INPUT_ASSERTION_FAILED)"
        );
    }
}
