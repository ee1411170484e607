//! A TOML table read key by key: whatever isn't asked for is refused by name.

use super::MappingError;
use toml::{Table, Value};

/// One table of a mapping, and the path that leads to it.
#[derive(Debug)]
pub(super) struct Keys {
    path: String,
    table: Table,
    asked: Vec<&'static str>,
}

impl Keys {
    pub(super) fn new(path: &str, table: Table) -> Self {
        Self { path: path.to_owned(), table, asked: Vec::new() }
    }

    /// The whole path of a key of this table.
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn error(&self, key: &str, problem: impl Into<String>) -> MappingError {
        MappingError { key: self.path(key), problem: problem.into() }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.table.remove(key)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>, MappingError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.error(key, expected("a string", &other))),
        }
    }

    pub(super) fn required_text(&mut self, key: &'static str) -> Result<String, MappingError> {
        self.text(key)?.ok_or_else(|| self.error(key, "is missing"))
    }

    pub(super) fn bool(&mut self, key: &'static str) -> Result<Option<bool>, MappingError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Boolean(value)) => Ok(Some(value)),
            Some(other) => Err(self.error(key, expected("true or false", &other))),
        }
    }

    /// A whole number from `low` to `high`.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        low: u64,
        high: u64,
    ) -> Result<Option<u64>, MappingError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Integer(value)) if u64::try_from(value).is_ok_and(|v| (low..=high).contains(&v)) => {
                Ok(u64::try_from(value).ok())
            }
            Some(_) => Err(self.error(key, format!("must be a whole number from {low} to {high}"))),
        }
    }

    pub(super) fn texts(&mut self, key: &'static str) -> Result<Option<Vec<String>>, MappingError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let Value::Array(items) = value else {
            return Err(self.error(key, expected("a list of strings", &value)));
        };
        let texts = items.into_iter().map(|item| match item {
            Value::String(text) => Ok(text),
            other => Err(self.error(key, expected("a list of strings", &other))),
        });
        texts.collect::<Result<_, _>>().map(Some)
    }

    pub(super) fn table(&mut self, key: &'static str) -> Result<Option<Keys>, MappingError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some(Keys::new(&self.path(key), table))),
            Some(other) => Err(self.error(key, expected("a table", &other))),
        }
    }

    pub(super) fn required_table(&mut self, key: &'static str) -> Result<Keys, MappingError> {
        self.table(key)?.ok_or_else(|| self.error(key, "is missing"))
    }

    /// All tables under this one, by their keys (which are the user's own, such as states).
    pub(super) fn into_tables(self) -> Result<Vec<(String, Keys)>, MappingError> {
        let mut tables = Vec::new();
        for (key, value) in self.table {
            let path = format!("{}.{key:?}", self.path);
            match value {
                Value::Table(table) => tables.push((key, Keys::new(&path, table))),
                other => return Err(MappingError { key: path, problem: expected("a table", &other) }),
            }
        }
        Ok(tables)
    }

    /// All strings under this table, by their keys.
    pub(super) fn into_texts(self) -> Result<Vec<(String, String)>, MappingError> {
        let mut texts = Vec::new();
        for (key, value) in self.table {
            match value {
                Value::String(text) => texts.push((key, text)),
                other => {
                    let path = format!("{}.{key:?}", self.path);
                    return Err(MappingError { key: path, problem: expected("a string", &other) });
                }
            }
        }
        Ok(texts)
    }

    /// Every key must have been asked for.
    pub(super) fn finish(self) -> Result<(), MappingError> {
        match self.table.keys().next() {
            None => Ok(()),
            Some(unknown) => {
                let known = self.asked.join(", ");
                Err(self.error(unknown, format!("unknown key; here may stand: {known}")))
            }
        }
    }
}

fn expected(what: &str, found: &Value) -> String {
    format!("must be {what}, not {} {}", article(found.type_str()), found.type_str())
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'i']) { "an" } else { "a" }
}
