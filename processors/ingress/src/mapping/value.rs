//! Values: how a column, several columns or a constant become a text, a time, an amount, a condition.

use super::{
    MappingError,
    dates::DateFormat,
    keys::Keys,
    spec::{Compiler, RowView},
};
use crate::rejects::{RowError, reason};
use claims_schemas::{Money, Timestamp, Urgency};
use rust_decimal::Decimal;
use std::{borrow::Cow, collections::HashMap, str::FromStr};

/// Of a value that can't be read, no more than this many characters are told.
const TOLD_CHARS: usize = 40;

#[derive(Debug, Clone)]
enum From {
    Constant(String),
    /// The first of these columns that isn't missing.
    Columns(Vec<usize>),
    /// All of these columns that aren't missing.
    Joined(Vec<usize>, String),
}

/// A text out of a row.
#[derive(Debug, Clone)]
pub(super) struct Text {
    /// The key in the mapping and the columns, for errors.
    pub(super) place: String,
    from: From,
    prefix: String,
    suffix: String,
    map: HashMap<String, String>,
    /// For values that `map` doesn't list.
    otherwise: Option<String>,
    default: Option<String>,
}

impl Text {
    /// Reads the key as a constant (a string) or as a table.
    pub(super) fn read(
        compiler: &Compiler<'_>,
        keys: &mut Keys,
        key: &'static str,
    ) -> Result<Option<Self>, MappingError> {
        let path = keys.path(key);
        let Some(value) = keys.take(key) else { return Ok(None) };
        let table = match value {
            toml::Value::String(constant) => return Ok(Some(Self::plain(path, From::Constant(constant)))),
            toml::Value::Table(table) => table,
            _ => return Err(keys.error(key, "must be a string (a constant) or a table with `column`")),
        };
        let mut keys = Keys::new(&path, table);
        let text = Self::from_keys(compiler, &path, &mut keys)?;
        keys.finish()?;
        Ok(Some(text))
    }

    pub(super) fn required(
        compiler: &Compiler<'_>,
        keys: &mut Keys,
        key: &'static str,
    ) -> Result<Self, MappingError> {
        Self::read(compiler, keys, key)?.ok_or_else(|| keys.error(key, "is missing"))
    }

    fn plain(place: String, from: From) -> Self {
        Self {
            place,
            from,
            prefix: String::new(),
            suffix: String::new(),
            map: HashMap::new(),
            otherwise: None,
            default: None,
        }
    }

    pub(super) fn from_keys(
        compiler: &Compiler<'_>,
        path: &str,
        keys: &mut Keys,
    ) -> Result<Self, MappingError> {
        let column = keys.text("column")?;
        let first_of = keys.texts("first_of")?;
        let join = keys.texts("join")?;
        let separator = keys.text("separator")?;
        if separator.is_some() && join.is_none() {
            return Err(keys.error("separator", "stands only beside `join`"));
        }
        let (from, names) = match (column, first_of, join) {
            (Some(name), None, None) => (From::Columns(vec![compiler.column(path, &name)?]), vec![name]),
            (None, Some(names), None) => (From::Columns(compiler.columns(path, &names)?), names),
            (None, None, Some(names)) => {
                let columns = compiler.columns(path, &names)?;
                (From::Joined(columns, separator.unwrap_or_else(|| " ".to_owned())), names)
            }
            _ => return Err(keys.error("column", "exactly one of `column`, `first_of`, `join` is needed")),
        };
        let mut text = Self::plain(format!("{path} (column {})", names.join(", ")), from);
        text.prefix = keys.text("prefix")?.unwrap_or_default();
        text.suffix = keys.text("suffix")?.unwrap_or_default();
        text.default = keys.text("default")?;
        text.otherwise = keys.text("otherwise")?;
        if let Some(map) = keys.table("map")? {
            text.map = map.into_texts()?.into_iter().collect();
        } else if text.otherwise.is_some() {
            return Err(keys.error("otherwise", "stands only beside `map`"));
        }
        Ok(text)
    }

    /// The constant, if it is one.
    pub(super) fn constant(&self) -> Option<&str> {
        match &self.from {
            From::Constant(text) => Some(text),
            _ => None,
        }
    }

    /// The text in this row; `None`: missing, and without a default.
    pub(super) fn get<'a>(&'a self, row: &RowView<'a>) -> Result<Option<Cow<'a, str>>, RowError> {
        let found = match &self.from {
            From::Constant(constant) => Some(Cow::Borrowed(constant.as_str())),
            From::Columns(columns) => columns.iter().find_map(|column| row.get(*column)).map(Cow::Borrowed),
            From::Joined(columns, separator) => {
                let present: Vec<&str> = columns.iter().filter_map(|column| row.get(*column)).collect();
                (!present.is_empty()).then(|| Cow::Owned(present.join(separator)))
            }
        };
        let Some(mut found) = found else { return Ok(self.default.as_deref().map(Cow::Borrowed)) };
        if !self.map.is_empty() {
            let mapped = self.map.get(&*found).or(self.otherwise.as_ref());
            found = Cow::Borrowed(mapped.ok_or_else(|| {
                RowError::of(reason::UNMAPPED_VALUE, &self.place, "the value is not listed under `map`")
            })?);
        }
        if !self.prefix.is_empty() || !self.suffix.is_empty() {
            found = Cow::Owned(format!("{}{found}{}", self.prefix, self.suffix));
        }
        Ok(Some(found))
    }

    pub(super) fn optional(&self, row: &RowView<'_>) -> Result<Option<String>, RowError> {
        Ok(self.get(row)?.map(Cow::into_owned))
    }

    pub(super) fn needed(&self, row: &RowView<'_>) -> Result<String, RowError> {
        self.get(row)?.map(Cow::into_owned).ok_or_else(|| missing(&self.place))
    }
}

pub(super) fn missing(place: &str) -> RowError {
    RowError::of(reason::MISSING_VALUE, place, "is needed and missing")
}

/// A value told in an error; only of kinds that aren't personal.
fn told(text: &str) -> String {
    let mut told: String = text.chars().take(TOLD_CHARS).collect();
    if told.len() < text.len() {
        told.push('…');
    }
    format!("{told:?}")
}

/// A moment out of a row.
#[derive(Debug, Clone)]
pub(super) struct Time {
    text: Text,
    formats: Vec<DateFormat>,
}

impl Time {
    pub(super) fn read(
        compiler: &Compiler<'_>,
        keys: &mut Keys,
        key: &'static str,
    ) -> Result<Option<Self>, MappingError> {
        let Some(mut own) = keys.table(key)? else { return Ok(None) };
        let path = keys.path(key);
        let text = Text::from_keys(compiler, &path, &mut own)?;
        let formats = match own.texts("formats")? {
            Some(formats) => compiler.date_formats(&own, &formats)?,
            None => compiler.formats.clone(),
        };
        if formats.is_empty() {
            return Err(own.error("formats", "no date formats here, nor under csv.dates"));
        }
        own.finish()?;
        Ok(Some(Self { text, formats }))
    }

    pub(super) fn required(
        compiler: &Compiler<'_>,
        keys: &mut Keys,
        key: &'static str,
    ) -> Result<Self, MappingError> {
        Self::read(compiler, keys, key)?.ok_or_else(|| keys.error(key, "is missing"))
    }

    pub(super) fn optional(&self, row: &RowView<'_>) -> Result<Option<Timestamp>, RowError> {
        let Some(text) = self.text.get(row)? else { return Ok(None) };
        match self.formats.iter().find_map(|format| format.parse(&text)) {
            Some(at) => Ok(Some(at)),
            None => {
                let detail = format!("{} is no date in any of the formats, or doesn't exist", told(&text));
                Err(RowError::of(reason::INVALID_DATE, &self.text.place, detail))
            }
        }
    }

    pub(super) fn needed(&self, row: &RowView<'_>) -> Result<Timestamp, RowError> {
        self.optional(row)?.ok_or_else(|| missing(&self.text.place))
    }
}

/// How amounts are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AmountStyle {
    pub(super) decimal_point: char,
    /// Characters between the digits, or around the number, that mean nothing.
    pub(super) ignore: Vec<char>,
}

/// An amount of money out of a row.
#[derive(Debug, Clone)]
pub(super) struct Amount {
    text: Text,
    currency: Option<Text>,
    style: AmountStyle,
}

impl Amount {
    pub(super) fn read(
        compiler: &Compiler<'_>,
        keys: &mut Keys,
        key: &'static str,
    ) -> Result<Option<Self>, MappingError> {
        let Some(mut own) = keys.table(key)? else { return Ok(None) };
        let path = keys.path(key);
        let currency = Text::read(compiler, &mut own, "currency")?;
        let text = Text::from_keys(compiler, &path, &mut own)?;
        own.finish()?;
        Ok(Some(Self { text, currency, style: compiler.amounts.clone() }))
    }

    pub(super) fn get(&self, row: &RowView<'_>) -> Result<Option<Money>, RowError> {
        let Some(text) = self.text.get(row)? else { return Ok(None) };
        let amount = parse_amount(&text, &self.style).ok_or_else(|| {
            let detail = format!("{} is no amount", told(&text));
            RowError::of(reason::INVALID_AMOUNT, &self.text.place, detail)
        })?;
        let currency = self.currency.as_ref().map(|currency| currency.optional(row)).transpose()?.flatten();
        Ok(Some(Money { amount, currency: currency.map(Into::into) }))
    }
}

/// Digits, a sign, one decimal point; no exponents, no infinities.
fn parse_amount(text: &str, style: &AmountStyle) -> Option<Decimal> {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if style.ignore.contains(&c) => {}
            _ if c == style.decimal_point => plain.push('.'),
            '0'..='9' | '-' | '+' => plain.push(c),
            _ => return None,
        }
    }
    plain.bytes().any(|b| b.is_ascii_digit()).then_some(())?;
    Decimal::from_str(&plain).ok()
}

/// A true or false out of a row.
pub(super) fn read_bool(text: &Text, row: &RowView<'_>) -> Result<Option<bool>, RowError> {
    let Some(found) = text.get(row)? else { return Ok(None) };
    match found.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(Some(true)),
        "false" | "no" | "0" => Ok(Some(false)),
        _ => Err(RowError::of(reason::INVALID_VALUE, &text.place, "must be true, yes, 1, false, no or 0")),
    }
}

/// An urgency out of a row.
pub(super) fn read_urgency(text: &Text, row: &RowView<'_>) -> Result<Urgency, RowError> {
    let found = text.get(row)?.ok_or_else(|| missing(&text.place))?;
    urgency(&found).ok_or_else(|| {
        RowError::of(reason::INVALID_VALUE, &text.place, "must be low, medium, high or critical: use `map`")
    })
}

/// The urgency of this name.
pub(super) fn urgency(name: &str) -> Option<Urgency> {
    [Urgency::Low, Urgency::Medium, Urgency::High, Urgency::Critical].into_iter().find(|u| u.as_str() == name)
}

/// What must hold of a row for a rule to apply.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    column: usize,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Present(bool),
    In(Vec<String>),
    NotIn(Vec<String>),
}

impl Condition {
    /// Reads `when`: one condition, or a list of which all must hold.
    pub(super) fn read_all(compiler: &Compiler<'_>, keys: &mut Keys) -> Result<Vec<Self>, MappingError> {
        let path = keys.path("when");
        let tables = match keys.take("when") {
            None => return Ok(Vec::new()),
            Some(toml::Value::Table(table)) => vec![table],
            Some(toml::Value::Array(items)) => items
                .into_iter()
                .map(|item| match item {
                    toml::Value::Table(table) => Ok(table),
                    _ => Err(keys.error("when", "must be a table or a list of tables")),
                })
                .collect::<Result<_, _>>()?,
            Some(_) => return Err(keys.error("when", "must be a table or a list of tables")),
        };
        tables.into_iter().map(|table| Self::read(compiler, Keys::new(&path, table))).collect()
    }

    fn read(compiler: &Compiler<'_>, mut keys: Keys) -> Result<Self, MappingError> {
        let name = keys.required_text("column")?;
        let column = compiler.column(&keys.path("column"), &name)?;
        let test = match (keys.bool("present")?, keys.texts("in")?, keys.texts("not_in")?) {
            (Some(present), None, None) => Test::Present(present),
            (None, Some(values), None) => Test::In(values),
            (None, None, Some(values)) => Test::NotIn(values),
            _ => return Err(keys.error("column", "needs exactly one of `present`, `in`, `not_in`")),
        };
        keys.finish()?;
        Ok(Self { column, test })
    }

    pub(super) fn holds(&self, row: &RowView<'_>) -> bool {
        let value = row.get(self.column);
        match &self.test {
            Test::Present(present) => value.is_some() == *present,
            Test::In(values) => value.is_some_and(|value| values.iter().any(|v| v == value)),
            Test::NotIn(values) => value.is_some_and(|value| values.iter().all(|v| v != value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn amount(text: &str) -> Option<String> {
        let style = AmountStyle { decimal_point: '.', ignore: vec![',', '$', ' '] };
        parse_amount(text, &style).map(|amount| amount.to_string())
    }

    #[test]
    fn amounts() {
        assert_eq!(amount("12.50").as_deref(), Some("12.50"));
        assert_eq!(amount("$1,234.5").as_deref(), Some("1234.5"));
        assert_eq!(amount("-3").as_deref(), Some("-3"));
        for bad in ["", "NaN", "inf", "1e400", "1e4", "1.2.3", "twelve", "--1", "0x10", ".", "-"] {
            assert_eq!(amount(bad), None, "{bad}");
        }
        let style = AmountStyle { decimal_point: ',', ignore: vec!['.'] };
        assert_eq!(parse_amount("1.234,56", &style).unwrap().to_string(), "1234.56");
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,60}") {
            let _ = amount(&text);
        }
    }
}
