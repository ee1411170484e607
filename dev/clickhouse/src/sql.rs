//! The little SQL this server must understand: what kind of statement it is, and where its FORMAT clause stands.

/// What a statement needs from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// INSERT whose data comes with the request: the statement without its FORMAT clause, and the format.
    InsertData {
        /// `INSERT INTO t (a, b)`, without FORMAT.
        sql: String,
        /// The data's format.
        format: String,
    },
    /// A SELECT without a FORMAT clause of its own.
    Select,
    /// Anything else: the engine handles it whole.
    Other,
}

/// Classifies a statement. `has_data` tells whether a request body follows it.
pub fn classify(sql: &str, has_data: bool) -> Statement {
    let words = words(sql);
    let is = |index: usize, text: &str| words.get(index).is_some_and(|word| word.is(sql, text));
    if is(0, "INSERT") {
        if !has_data {
            return Statement::Other;
        }
        if let Some(at) = words.iter().rposition(|word| word.is(sql, "FORMAT")) {
            // Only a name may follow: `… FORMAT RowBinary`.
            return match words.get(at + 1) {
                Some(name) if at + 2 == words.len() => Statement::InsertData {
                    sql: sql[..words[at].start].trim_end().to_owned(),
                    format: sql[name.start..name.end].to_owned(),
                },
                _ => Statement::Other,
            };
        }
        if let Some(last) = words.last()
            && last.is(sql, "VALUES")
        {
            return Statement::InsertData {
                sql: sql[..last.start].trim_end().to_owned(),
                format: "Values".to_owned(),
            };
        }
        return Statement::Other;
    }
    if (is(0, "SELECT") || is(0, "WITH")) && !words.iter().any(|word| word.is(sql, "FORMAT")) {
        return Statement::Select;
    }
    Statement::Other
}

/// A bare word at nesting depth 0, outside quotes and comments.
#[derive(Debug, Clone, Copy)]
struct Word {
    start: usize,
    end: usize,
}

impl Word {
    fn is(self, sql: &str, text: &str) -> bool {
        sql[self.start..self.end].eq_ignore_ascii_case(text)
    }
}

fn words(sql: &str) -> Vec<Word> {
    let bytes = sql.as_bytes();
    let mut found = Vec::new();
    let mut depth = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'"' | b'`') => at = after_quoted(bytes, at, quote),
            b'-' if bytes.get(at + 1) == Some(&b'-') => {
                at = find(bytes, at, b"\n");
            }
            b'/' if bytes.get(at + 1) == Some(&b'*') => {
                at = find(bytes, at + 2, b"*/");
            }
            b'(' => {
                depth += 1;
                at += 1;
            }
            b')' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            byte if byte.is_ascii_alphanumeric() || byte == b'_' => {
                let start = at;
                while bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
                    at += 1;
                }
                if depth == 0 {
                    found.push(Word { start, end: at });
                }
            }
            _ => at += 1,
        }
    }
    found
}

/// The position after the closing quote; quotes are escaped by doubling or by a backslash.
fn after_quoted(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        if bytes[at] == b'\\' {
            at += 2;
        } else if bytes[at] == quote {
            return at + 1;
        } else {
            at += 1;
        }
    }
    bytes.len()
}

/// The position after the next occurrence of `what`, the end when there is none.
fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    bytes
        .get(from..)
        .and_then(|rest| rest.windows(what.len()).position(|window| window == what))
        .map_or(bytes.len(), |found| from + found + what.len())
}

/// A string literal of the engine.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A quoted identifier of the engine.
pub fn identifier(text: &str) -> String {
    format!("`{}`", text.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insert(sql: &str, format: &str) -> Statement {
        Statement::InsertData { sql: sql.into(), format: format.into() }
    }

    #[test]
    fn the_format_of_an_insert_is_cut_off() {
        assert_eq!(
            classify("INSERT INTO db.t(`a`,`format`) FORMAT RowBinary", true),
            insert("INSERT INTO db.t(`a`,`format`)", "RowBinary")
        );
        assert_eq!(
            classify("insert into t settings x='FORMAT y' format CSVWithNames ", true),
            insert("insert into t settings x='FORMAT y'", "CSVWithNames")
        );
        assert_eq!(classify("INSERT INTO t VALUES", true), insert("INSERT INTO t", "Values"));
        assert_eq!(
            classify("/* FORMAT */ INSERT -- FORMAT A\n INTO t FORMAT TSV", true),
            insert("/* FORMAT */ INSERT -- FORMAT A\n INTO t", "TSV")
        );
    }

    #[test]
    fn inserts_that_bring_their_own_data_are_left_whole() {
        assert_eq!(classify("INSERT INTO t FORMAT CSV 1,2", false), Statement::Other);
        assert_eq!(classify("INSERT INTO t VALUES (1)", false), Statement::Other);
        assert_eq!(classify("INSERT INTO t SELECT 1", true), Statement::Other);
    }

    #[test]
    fn selects_with_and_without_a_format() {
        assert_eq!(classify("SELECT 'FORMAT' AS `format`", false), Statement::Select);
        assert_eq!(classify(" with 1 as x select x", false), Statement::Select);
        assert_eq!(classify("SELECT 1 FORMAT JSON", false), Statement::Other);
        assert_eq!(classify("SHOW TABLES", false), Statement::Other);
        assert_eq!(classify("SELECT (SELECT 'it''s \\' FORMAT')", false), Statement::Select);
    }

    #[test]
    fn quoting_survives_quotes_and_backslashes() {
        assert_eq!(quoted(r"a'b\c"), r"'a\'b\\c'");
        assert_eq!(identifier("a`b"), r"`a\`b`");
    }
}
