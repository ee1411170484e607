//! A mapping as a whole: its head, how the CSV is written, and binding it to the columns of a file.

use super::{
    MappingError,
    case_per_row::{CasePerRow, CasePlan},
    change_per_row::{ChangePerRow, ChangePlan},
    dates::{DateFormat, parse_offset},
    keys::Keys,
    value::AmountStyle,
};
use crate::{
    envelope::Completer,
    source::{
        Input, RowSource, SourceError,
        csv_rows::{CsvReader, CsvRecord, Encoding, Next},
    },
};
use chrono::FixedOffset;
use std::sync::Arc;
use toml::Table;

/// What a row of the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole case.
    CasePerRow,
    /// One change of a case.
    ChangePerRow,
}

/// A mapping, checked except for the columns of a file.
#[derive(Debug, Clone)]
pub struct Mapping {
    name: String,
    kind: Kind,
    table: Table,
}

/// How the file is written.
#[derive(Debug, Clone)]
pub(super) struct CsvSettings {
    delimiter: u8,
    encoding: Encoding,
    /// Names of the columns of a file without a header.
    columns: Option<Vec<String>>,
    trim: bool,
    missing: Vec<String>,
}

/// The whole of a mapping, bound to the columns of a file (or, to check it, to none).
struct Bound {
    head: Head,
    csv: CsvSettings,
    plan: Plan,
}

enum Plan {
    Case(Box<CasePlan>),
    Change(Box<ChangePlan>),
}

/// Whose events these are.
#[derive(Debug, Clone)]
pub(super) struct Head {
    /// The system of record.
    pub(super) source: String,
    /// The tenant, if the mapping names one.
    pub(super) tenant: Option<String>,
}

/// Resolves names of columns and holds what all values share.
pub(super) struct Compiler<'a> {
    /// The columns of the file; `None`: only check the mapping itself.
    header: Option<&'a [String]>,
    pub(super) formats: Vec<DateFormat>,
    offset: FixedOffset,
    pub(super) amounts: AmountStyle,
}

impl Compiler<'_> {
    pub(super) fn column(&self, path: &str, name: &str) -> Result<usize, MappingError> {
        let Some(header) = self.header else { return Ok(0) };
        let error = |problem| MappingError { key: path.to_owned(), problem };
        let mut places = header.iter().enumerate().filter(|(_, column)| *column == name);
        match (places.next(), places.next()) {
            (Some((index, _)), None) => Ok(index),
            (Some(_), Some(_)) => Err(error(format!("the file has more than one column {name:?}"))),
            _ => Err(error(format!("the file has no column {name:?}; it has: {}", header.join(", ")))),
        }
    }

    pub(super) fn columns(&self, path: &str, names: &[String]) -> Result<Vec<usize>, MappingError> {
        if names.is_empty() {
            return Err(MappingError { key: path.to_owned(), problem: "needs at least one column".into() });
        }
        names.iter().map(|name| self.column(path, name)).collect()
    }

    pub(super) fn date_formats(
        &self,
        keys: &Keys,
        formats: &[String],
    ) -> Result<Vec<DateFormat>, MappingError> {
        read_formats(keys, "formats", formats, self.offset)
    }
}

fn read_formats(
    keys: &Keys,
    key: &str,
    formats: &[String],
    offset: FixedOffset,
) -> Result<Vec<DateFormat>, MappingError> {
    formats
        .iter()
        .map(|format| DateFormat::new(format, offset).map_err(|problem| keys.error(key, problem)))
        .collect()
}

/// One row, seen through the mapping's settings.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowView<'a> {
    record: &'a CsvRecord,
    csv: &'a CsvSettings,
}

impl<'a> RowView<'a> {
    pub(super) fn new(record: &'a CsvRecord, csv: &'a CsvSettings) -> Self {
        Self { record, csv }
    }

    /// The value in a column; `None`: empty, or one of the markers for a missing value.
    pub(super) fn get(&self, column: usize) -> Option<&'a str> {
        let field = self.record.field(column);
        let field = if self.csv.trim { field.trim() } else { field };
        (!field.is_empty() && !self.csv.missing.iter().any(|missing| missing == field)).then_some(field)
    }
}

impl Mapping {
    /// Reads and checks a mapping; `name` is for messages.
    pub fn parse(name: &str, text: &str) -> Result<Self, MappingError> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| MappingError {
            key: name.to_owned(),
            problem: format!("not TOML: {error}"),
        })?;
        let bound = bind(&table, None)?;
        let kind = match bound.plan {
            Plan::Case(_) => Kind::CasePerRow,
            Plan::Change(_) => Kind::ChangePerRow,
        };
        Ok(Self { name: name.to_owned(), kind, table })
    }

    /// What a row of its files is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Reads the header of `input` and binds the mapping to its columns.
    pub fn open(
        &self,
        input: Input,
        default_tenant: &str,
        max_line_bytes: usize,
    ) -> Result<Box<dyn RowSource>, SourceError> {
        let name = input.name.clone();
        let unfit = |detail: String| SourceError::Unfit { name: name.clone(), detail };
        let of_mapping = |error: MappingError| unfit(format!("mapping {}: {error}", self.name));
        let checked = bind(&self.table, None).map_err(of_mapping)?;
        let (delimiter, encoding) = (checked.csv.delimiter, checked.csv.encoding);
        let mut reader = CsvReader::new(input, delimiter, encoding, max_line_bytes);
        let header = match checked.csv.columns {
            Some(columns) => columns,
            None => read_header(&mut reader)?,
        };
        reader.expect_columns(header.len());
        let Bound { head, csv, plan } = bind(&self.table, Some(&header)).map_err(of_mapping)?;
        let completer = Completer::new(head.tenant.as_deref().unwrap_or(default_tenant));
        let file = MappedFile { reader, head, csv: Arc::new(csv), completer };
        Ok(match plan {
            Plan::Case(plan) => Box::new(CasePerRow::new(file, *plan)),
            Plan::Change(plan) => Box::new(ChangePerRow::new(file, *plan)),
        })
    }
}

/// What both kinds of reader need.
pub(super) struct MappedFile {
    pub(super) reader: CsvReader,
    pub(super) head: Head,
    pub(super) csv: Arc<CsvSettings>,
    pub(super) completer: Completer,
}

fn read_header(reader: &mut CsvReader) -> Result<Vec<String>, SourceError> {
    let mut record = CsvRecord::default();
    let detail = match reader.next_record(&mut record)? {
        Next::Record => {
            return Ok((0..record.len()).map(|i| record.field(i).trim().to_owned()).collect());
        }
        Next::Reject(reject) => format!("the header can't be read: {reject}"),
        Next::End => "the file is empty: a header line is needed, or csv.columns in the mapping".to_owned(),
    };
    Err(SourceError::Unfit { name: reader.name().to_owned(), detail })
}

fn bind(table: &Table, header: Option<&[String]>) -> Result<Bound, MappingError> {
    let mut keys = Keys::new("", table.clone());
    let kind = match keys.required_text("kind")?.as_str() {
        "case-per-row" => Kind::CasePerRow,
        "change-per-row" => Kind::ChangePerRow,
        _ => return Err(keys.error("kind", "must be \"case-per-row\" or \"change-per-row\"")),
    };
    let head = Head { source: keys.required_text("source")?, tenant: keys.text("tenant")? };
    let csv_keys = match keys.table("csv")? {
        Some(csv) => csv,
        None => Keys::new("csv", Table::new()),
    };
    let (csv, compiler) = read_csv(csv_keys, header)?;
    let plan = match kind {
        Kind::CasePerRow => Plan::Case(Box::new(CasePlan::read(&compiler, &mut keys)?)),
        Kind::ChangePerRow => Plan::Change(Box::new(ChangePlan::read(&compiler, &mut keys)?)),
    };
    keys.finish()?;
    Ok(Bound { head, csv, plan })
}

fn read_csv<'a>(
    mut keys: Keys,
    header: Option<&'a [String]>,
) -> Result<(CsvSettings, Compiler<'a>), MappingError> {
    let delimiter = one_ascii(&mut keys, "delimiter", ',')?;
    let decimal_point = one_ascii(&mut keys, "decimal_point", '.')?;
    let ignore = keys.text("ignore_in_amounts")?.unwrap_or_default();
    let encoding = match keys.text("encoding")?.as_deref() {
        None | Some("utf-8") => Encoding::Utf8,
        Some("latin-1") => Encoding::Latin1,
        Some(_) => return Err(keys.error("encoding", "must be \"utf-8\" or \"latin-1\"")),
    };
    let offset = keys.text("utc_offset")?.unwrap_or_else(|| "+00:00".into());
    let offset = parse_offset(&offset)
        .ok_or_else(|| keys.error("utc_offset", "must be written like \"+01:00\" or \"Z\""))?;
    let dates = keys.texts("dates")?.unwrap_or_default();
    let formats = read_formats(&keys, "dates", &dates, offset)?;
    let settings = CsvSettings {
        delimiter: delimiter as u8,
        encoding,
        columns: keys.texts("columns")?,
        trim: keys.bool("trim")?.unwrap_or(true),
        missing: keys.texts("missing")?.unwrap_or_default(),
    };
    keys.finish()?;
    let amounts = AmountStyle { decimal_point, ignore: ignore.chars().collect() };
    Ok((settings, Compiler { header, formats, offset, amounts }))
}

fn one_ascii(keys: &mut Keys, key: &'static str, default: char) -> Result<char, MappingError> {
    let Some(text) = keys.text(key)? else { return Ok(default) };
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) if c.is_ascii() && !matches!(c, '"' | '\n' | '\r') => Ok(c),
        _ => Err(keys.error(key, "must be one ASCII character, not a quote or a line break")),
    }
}
