//! CSV records: quoting taken strictly, so that one broken quote costs one line and not the rest of the file.
//!
//! A quoted field may hold line breaks. Where a record's quoting turns out broken, or its quote is never closed,
//! only its first line is refused and reading starts again on the next one.

use super::{Input, LineReader, SourceError, lines::Line};
use crate::rejects::{Reject, RowError, reason};
use memchr::memchr;
use std::collections::VecDeque;

/// How the bytes of a file are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// UTF-8; other bytes are refused.
    #[default]
    Utf8,
    /// ISO 8859-1: every byte is a character.
    Latin1,
}

/// One record, its memory reused from record to record.
#[derive(Debug, Default, Clone)]
pub struct CsvRecord {
    /// The line on which it begins, from 1.
    pub line: u64,
    /// As it stood in the file.
    pub raw: Vec<u8>,
    /// The fields' bytes, while the record is read.
    bytes: Vec<u8>,
    /// The same once they are known to be UTF-8, field by field.
    text: String,
    ends: Vec<usize>,
}

impl CsvRecord {
    /// Number of fields.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// A field without its quotes; empty beyond the last one.
    pub fn field(&self, index: usize) -> &str {
        let Some(end) = self.ends.get(index) else { return "" };
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.text.get(start..*end).unwrap_or("")
    }

    fn clear(&mut self, line: u64) {
        self.line = line;
        self.raw.clear();
        self.bytes.clear();
        self.text.clear();
        self.ends.clear();
    }

    fn push(&mut self, bytes: &[u8], encoding: Encoding) {
        match encoding {
            Encoding::Utf8 => self.bytes.extend_from_slice(bytes),
            Encoding::Latin1 => {
                for byte in bytes {
                    self.bytes.extend_from_slice(char::from(*byte).encode_utf8(&mut [0; 2]).as_bytes());
                }
            }
        }
    }

    fn end_field(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// Takes the bytes as text, or finds the first field that is not UTF-8. The text as a whole may be: a character may
    /// begin in one field and end in the next.
    fn take_text(&mut self) -> Result<(), usize> {
        let text = std::str::from_utf8(&self.bytes)
            .map_err(|error| self.ends.iter().position(|end| *end > error.valid_up_to()).unwrap_or(0))?;
        match self.ends.iter().position(|end| !text.is_char_boundary(*end)) {
            Some(field) => Err(field),
            None => {
                self.text.push_str(text);
                self.bytes.clear();
                Ok(())
            }
        }
    }
}

/// What the reader came upon.
#[derive(Debug)]
pub enum Next {
    /// A record, in the one that was passed.
    Record,
    /// A line or a record that is none.
    Reject(Reject),
    /// The end.
    End,
}

#[derive(Debug, Clone)]
struct OwnedLine {
    number: u64,
    bytes: Vec<u8>,
    length: u64,
    too_long: bool,
    terminated: bool,
}

impl From<Line<'_>> for OwnedLine {
    fn from(line: Line<'_>) -> Self {
        let Line { number, bytes, length, too_long, terminated } = line;
        Self { number, bytes: bytes.to_vec(), length, too_long, terminated }
    }
}

/// Where the parser stands at the end of a line.
#[derive(Debug, PartialEq, Eq)]
enum LineEnd {
    RecordComplete,
    InsideQuotes,
}

/// A quote where none may be.
#[derive(Debug)]
struct BrokenQuoting;

/// Reads records line by line.
pub struct CsvReader {
    lines: LineReader,
    /// Lines read ahead while looking for the end of a quoted field.
    ahead: VecDeque<OwnedLine>,
    delimiter: u8,
    encoding: Encoding,
    max_record_bytes: usize,
    /// Fields that every record must have; `None` until the header is known.
    columns: Option<usize>,
}

impl CsvReader {
    /// Records of at most `max_record_bytes`, fields separated by `delimiter`.
    pub fn new(input: Input, delimiter: u8, encoding: Encoding, max_record_bytes: usize) -> Self {
        Self {
            lines: LineReader::new(input, max_record_bytes),
            ahead: VecDeque::new(),
            delimiter,
            encoding,
            max_record_bytes,
            columns: None,
        }
    }

    /// The input's name.
    pub fn name(&self) -> &str {
        self.lines.name()
    }

    /// From here on every record must have this many fields.
    pub fn expect_columns(&mut self, columns: usize) {
        self.columns = Some(columns);
    }

    /// Reads the next record into `record`.
    pub fn next_record(&mut self, record: &mut CsvRecord) -> Result<Next, SourceError> {
        loop {
            let Some(first) = self.take_line()? else { return Ok(Next::End) };
            if !first.too_long && first.bytes.trim_ascii().is_empty() {
                continue;
            }
            record.clear(first.number);
            return Ok(match self.assemble(&first, record)? {
                Ok(()) => Next::Record,
                Err(error) => {
                    let mut reject = error.at(first.number, &record.raw);
                    reject.original_bytes = reject.original_bytes.max(first.length);
                    Next::Reject(reject)
                }
            });
        }
    }

    fn take_line(&mut self) -> Result<Option<OwnedLine>, SourceError> {
        match self.ahead.pop_front() {
            Some(line) => Ok(Some(line)),
            None => Ok(self.lines.next_line()?.map(OwnedLine::from)),
        }
    }

    /// The record that begins with `first`. On an error `record.raw` holds what is refused; lines read ahead that
    /// are not part of that stay to be read again.
    fn assemble(
        &mut self,
        first: &OwnedLine,
        record: &mut CsvRecord,
    ) -> Result<Result<(), RowError>, SourceError> {
        record.raw.extend_from_slice(&first.bytes);
        if first.too_long {
            let detail = format!("the line has {} bytes, more than ingress.max_line_bytes", first.length);
            return Ok(Err(RowError::new(reason::TOO_LONG, detail)));
        }
        let mut used = 0;
        let mut end = self.parse_line(&first.bytes, false, record);
        while matches!(end, Ok(LineEnd::InsideQuotes)) {
            if self.ahead.len() == used
                && let Some(line) = self.lines.next_line()?
            {
                self.ahead.push_back(line.into());
            }
            let Some(line) = self.ahead.get(used) else {
                return Ok(Err(unclosed(first, used, record)));
            };
            if line.too_long || record.raw.len() + line.bytes.len() > self.max_record_bytes {
                return Ok(Err(unclosed(first, used, record)));
            }
            used += 1;
            let line = std::mem::take(&mut self.ahead[used - 1].bytes);
            record.raw.push(b'\n');
            record.raw.extend_from_slice(&line);
            end = self.parse_line(&line, true, record);
            self.ahead[used - 1].bytes = line;
        }
        if end.is_err() {
            let detail =
                "a quote inside a field must be doubled, and a closing one be followed by a delimiter";
            record.raw.truncate(first.bytes.len());
            return Ok(Err(RowError::new(reason::BROKEN_QUOTING, detail)));
        }
        self.ahead.drain(..used);
        let terminated = used > 0 || first.terminated;
        Ok(self.check(record, terminated))
    }

    fn check(&self, record: &mut CsvRecord, terminated: bool) -> Result<(), RowError> {
        if let Err(field) = record.take_text() {
            let detail = format!("column {} is not UTF-8; csv.encoding may be \"latin-1\"", field + 1);
            return Err(RowError::new(reason::INVALID_UTF8, detail));
        }
        match self.columns {
            Some(columns) if record.len() < columns && !terminated => {
                let detail = format!("the file ends within column {} of {columns}", record.len());
                Err(RowError::new(reason::TRUNCATED, detail))
            }
            Some(columns) if record.len() != columns => {
                let detail = format!("{} columns, the header has {columns}", record.len());
                Err(RowError::new(reason::COLUMN_COUNT, detail))
            }
            _ => Ok(()),
        }
    }

    /// Parses one line into `record`; `inside`: it goes on with a quoted field.
    fn parse_line(
        &self,
        line: &[u8],
        inside: bool,
        record: &mut CsvRecord,
    ) -> Result<LineEnd, BrokenQuoting> {
        let body = line.strip_suffix(b"\r").unwrap_or(line);
        let (mut at, mut in_quotes) = (0, inside);
        loop {
            if !in_quotes && body.get(at) == Some(&b'"') {
                in_quotes = true;
                at += 1;
            }
            if in_quotes {
                loop {
                    let rest = &body[at..];
                    let Some(length) = memchr(b'"', rest) else {
                        record.push(rest, self.encoding);
                        let line_break: &[u8] = if body.len() < line.len() { b"\r\n" } else { b"\n" };
                        record.bytes.extend_from_slice(line_break);
                        return Ok(LineEnd::InsideQuotes);
                    };
                    record.push(&rest[..length], self.encoding);
                    at += length + 1;
                    if body.get(at) != Some(&b'"') {
                        break;
                    }
                    record.bytes.push(b'"');
                    at += 1;
                }
                in_quotes = false;
            } else {
                let rest = &body[at..];
                let length = memchr(self.delimiter, rest).unwrap_or(rest.len());
                record.push(&rest[..length], self.encoding);
                at += length;
            }
            record.end_field();
            match body.get(at) {
                None => return Ok(LineEnd::RecordComplete),
                Some(byte) if *byte == self.delimiter => at += 1,
                Some(_) => return Err(BrokenQuoting),
            }
        }
    }
}

fn unclosed(first: &OwnedLine, lines_after: usize, record: &mut CsvRecord) -> RowError {
    record.raw.truncate(first.bytes.len());
    if lines_after == 0 {
        return RowError::new(reason::TRUNCATED, "the file ends within a quoted field");
    }
    RowError::new(reason::BROKEN_QUOTING, "a quote is opened on this line and never closed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn read_all(bytes: &[u8], columns: usize, max: usize) -> (Vec<Vec<String>>, Vec<Reject>) {
        let input = Input::from_reader("t", None, Cursor::new(bytes.to_vec())).unwrap();
        let mut reader = CsvReader::new(input, b',', Encoding::Utf8, max);
        reader.expect_columns(columns);
        let (mut records, mut rejects, mut record) = (Vec::new(), Vec::new(), CsvRecord::default());
        loop {
            match reader.next_record(&mut record).unwrap() {
                Next::Record => {
                    records.push((0..record.len()).map(|i| record.field(i).to_owned()).collect());
                }
                Next::Reject(reject) => rejects.push(reject),
                Next::End => return (records, rejects),
            }
        }
    }

    fn reasons(rejects: &[Reject]) -> Vec<(u64, &'static str)> {
        rejects.iter().map(|reject| (reject.line, reject.reason)).collect()
    }

    #[test]
    fn quotes_line_breaks_and_carriage_returns() {
        let (records, rejects) =
            read_all(b"\xef\xbb\xbfa,\"b \"\"c\"\", d\"\r\n\r\n\"x\r\ny\",\r\n,\"\"\n", 2, 1000);
        assert_eq!(rejects, []);
        assert_eq!(records, [["a", "b \"c\", d"], ["x\r\ny", ""], ["", ""]]);
    }

    #[test]
    fn a_broken_quote_costs_one_line() {
        let text = b"1,a\n2,\"never closed\n3,c\n4,\"fine, \n really\"\n5,\"x\"y\n6,f\n";
        let (records, rejects) = read_all(text, 2, 1000);
        assert_eq!(records, [["1", "a"], ["3", "c"], ["4", "fine, \n really"], ["6", "f"]]);
        assert_eq!(reasons(&rejects), [(2, reason::BROKEN_QUOTING), (6, reason::BROKEN_QUOTING)]);
        assert_eq!(rejects[0].payload, b"2,\"never closed");
    }

    #[test]
    fn a_quote_never_closed_is_given_up_at_the_end_or_at_the_bound() {
        let rest = "7,plain\n".repeat(40);
        for max in [100, 100_000] {
            let (records, rejects) = read_all(format!("1,\"open\n{rest}").as_bytes(), 2, max);
            assert_eq!(records.len(), 40);
            assert_eq!(reasons(&rejects), [(1, reason::BROKEN_QUOTING)]);
        }
    }

    #[test]
    fn a_cut_off_last_record_is_called_that() {
        for (tail, at) in [("\"x", 2), ("2,\"x, ", 2), ("2", 2)] {
            let (records, rejects) = read_all(format!("1,a\n{tail}").as_bytes(), 2, 1000);
            assert_eq!(records.len(), 1);
            assert_eq!(reasons(&rejects), [(at, reason::TRUNCATED)], "{tail}");
        }
    }

    #[test]
    fn columns_too_many_or_too_few_and_bytes_that_are_no_text() {
        let wide = format!("1{}\n", ",x".repeat(41));
        let (records, rejects) = read_all(&[wide.as_bytes(), b"1\n1,caf\xe9\n2,b\n"].concat(), 2, 1000);
        assert_eq!(records, [["2", "b"]]);
        let expected = [(1, reason::COLUMN_COUNT), (2, reason::COLUMN_COUNT), (3, reason::INVALID_UTF8)];
        assert_eq!(reasons(&rejects), expected);
        assert!(rejects[2].detail.contains("column 2"), "{}", rejects[2].detail);
    }

    #[test]
    fn a_character_that_goes_over_a_delimiter_is_no_text() {
        for row in [b"1,abc\xC3,\xA9def\n".as_slice(), b"1,\"abc\xC3\",\"\xA9def\"\n"] {
            let (records, rejects) = read_all(&[row, b"2,b,c\n"].concat(), 3, 1000);
            assert_eq!(records, [["2", "b", "c"]]);
            assert_eq!(reasons(&rejects), [(1, reason::INVALID_UTF8)]);
            assert!(rejects[0].detail.contains("column 2"), "{}", rejects[0].detail);
        }
    }

    #[test]
    fn a_line_of_ten_megabytes_is_refused_and_the_next_one_read() {
        let text = [b"1,a\n2,".as_slice(), &vec![b'x'; 10_000_000], b"\n3,c\n"].concat();
        let (records, rejects) = read_all(&text, 2, 1 << 20);
        assert_eq!(records.len(), 2);
        assert_eq!(reasons(&rejects), [(2, reason::TOO_LONG)]);
        assert_eq!(rejects[0].original_bytes, 10_000_002);
        assert!(rejects[0].payload.len() <= 4096);
    }

    #[test]
    fn latin_1_is_read_where_it_is_asked_for() {
        let input = Input::from_reader("t", None, Cursor::new(b"caf\xe9;1\n".to_vec())).unwrap();
        let mut reader = CsvReader::new(input, b';', Encoding::Latin1, 100);
        let mut record = CsvRecord::default();
        assert!(matches!(reader.next_record(&mut record).unwrap(), Next::Record));
        assert_eq!((record.field(0), record.field(1)), ("café", "1"));
    }

    proptest! {
        /// Any bytes at all: never a panic, and every line that isn't blank is accounted for.
        #[test]
        fn any_bytes_are_survived(
            bytes in proptest::collection::vec(
                prop_oneof![Just(b'"'), Just(b','), Just(b'\n'), Just(b'a'), any::<u8>()], 0..300),
            max in 1..64_usize,
        ) {
            // Inputs that look compressed are another test's.
            prop_assume!(!bytes.starts_with(&[0x1f, 0x8b]) && !bytes.starts_with(&[0xff, 0xfe])
                && !bytes.starts_with(&[0xfe, 0xff]));
            let (records, rejects) = read_all(&bytes, 3, max);
            let text: &[u8] = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
            let lines = text.split(|b| *b == b'\n').filter(|l| !l.trim_ascii().is_empty()).count();
            prop_assert!(records.len() + rejects.len() <= lines);
            prop_assert_eq!(records.is_empty() && rejects.is_empty(), lines == 0);
        }

        /// What a well-behaved writer wrote comes back field for field.
        #[test]
        fn well_formed_records_come_back(
            rows in proptest::collection::vec(
                proptest::collection::vec("[a-z ,\"\n\r\u{e9}]{0,12}", 3), 1..10),
        ) {
            let quoted: String = rows.iter()
                .map(|row| {
                    let fields: Vec<_> = row.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect();
                    fields.join(",") + "\n"
                })
                .collect();
            let (records, rejects) = read_all(quoted.as_bytes(), 3, 10_000);
            prop_assert_eq!(rejects, vec![]);
            prop_assert_eq!(records, rows);
        }
    }
}
