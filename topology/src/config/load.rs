//! Putting the configuration together: defaults, then the file, then the environment, then flags.

use super::{
    Config,
    keys::{self, Found, Kind},
    ports::PORT_OFFSET_VARIABLE,
    validate::Problem,
};
use serde::Deserialize;
use std::{
    ops::Range,
    path::{Path, PathBuf},
};
use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

/// The file read from the working directory where no other is named.
pub const DEFAULT_FILE: &str = "claims.toml";
/// What every environment variable of ours begins with.
pub const ENV_PREFIX: &str = "CLAIMS_";
/// Variables of ours that aren't keys of the configuration.
const RESERVED_ENV: &[&str] = &["CLAIMS_CONFIG", PORT_OFFSET_VARIABLE, "CLAIMS_SHARED_DATA"];

/// Why there is no usable configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("can't read the configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong there.
        message: String,
    },
    /// A key that the configuration doesn't have.
    #[error("{place}: unknown key {key}{}", hint(nearest))]
    UnknownKey {
        /// The file and line, the variable or the flag.
        place: String,
        /// The key as given.
        key: String,
        /// The known key most like it.
        nearest: Option<String>,
    },
    /// A value that the key can't have.
    #[error("{place}: {key}: {message}")]
    Value {
        /// The file and line, the variable or the flag.
        place: String,
        /// The key.
        key: String,
        /// What is wrong with the value.
        message: String,
    },
    /// Values that are well-formed and make no sense.
    #[error("the configuration can't be used:{}", list(.0))]
    Invalid(Vec<Problem>),
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  {problem}")).collect()
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A file named by the user; without it `claims.toml` is read if it is there.
    pub file: Option<PathBuf>,
    /// Where `claims.toml` is looked for.
    pub directory: PathBuf,
    /// Environment variables (those not ours are ignored).
    pub env: Vec<(String, String)>,
    /// `section.key=value`, from flags.
    pub sets: Vec<String>,
}

impl Sources {
    /// The process's own environment and working directory, with what the flags say.
    pub fn of_process(file: Option<PathBuf>, sets: Vec<String>) -> Self {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(ENV_PREFIX))
            .map(|(name, value)| (name, value.to_string_lossy().into_owned()))
            .collect();
        Self { file, directory: PathBuf::from("."), env, sets }
    }
}

/// A configuration and where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The file that was read, if any.
    pub file: Option<PathBuf>,
}

/// Puts the configuration together and checks it.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut table = as_table(&defaults(&sources.env)?)?;
    let file = match &sources.file {
        Some(file) => Some(file.clone()),
        None => Some(sources.directory.join(DEFAULT_FILE)).filter(|file| file.exists()),
    };
    if let Some(file) = &file {
        let text = std::fs::read_to_string(file)
            .map_err(|source| ConfigError::Read { path: file.clone(), source })?;
        merge(&mut table, read_file(file, &text)?);
    }
    for setting in env_settings(&sources.env)?.into_iter().chain(flag_settings(&sources.sets)?) {
        merge(&mut table, setting.checked()?);
    }
    // Each source was checked by itself, so that an error names its place; together they can't be worse.
    let config = Config::deserialize(Value::Table(table)).map_err(|error| ConfigError::Value {
        place: "configuration".into(),
        key: "(all)".into(),
        message: error.message().to_owned(),
    })?;
    let problems = config.problems();
    if !problems.is_empty() {
        return Err(ConfigError::Invalid(problems));
    }
    Ok(Loaded { config, file })
}

fn defaults(env: &[(String, String)]) -> Result<Config, ConfigError> {
    let Some((_, text)) = env.iter().find(|(name, value)| name == PORT_OFFSET_VARIABLE && !value.is_empty())
    else {
        return Ok(Config::default());
    };
    text.parse().ok().and_then(Config::with_port_offset).ok_or_else(|| ConfigError::Value {
        place: "environment".into(),
        key: PORT_OFFSET_VARIABLE.into(),
        message: format!("{text:?} is not a number that ports can be shifted by"),
    })
}

fn as_table(config: &Config) -> Result<Table, ConfigError> {
    Table::try_from(config).map_err(|error| ConfigError::Value {
        place: "defaults".into(),
        key: "(all)".into(),
        message: error.to_string(),
    })
}

/// Lays `over` onto `base`, table by table.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(base)), Value::Table(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

// ---- the file

fn read_file(path: &Path, text: &str) -> Result<Table, ConfigError> {
    let syntax = |error: toml::de::Error| {
        let (line, column) = line_and_column(text, error.span().map_or(0, |span| span.start));
        ConfigError::Syntax { path: path.to_owned(), line, column, message: error.message().to_owned() }
    };
    let document = DeTable::parse(text).map_err(syntax)?;
    refuse_unknown(path, text, document.get_ref(), "")?;
    if let Err(error) = toml::from_str::<Config>(text) {
        let span = error.span().unwrap_or(0..0);
        return Err(ConfigError::Value {
            place: format!("{}:{}", path.display(), line_and_column(text, span.start).0),
            key: key_at(document.get_ref(), &span, "").unwrap_or_else(|| "(file)".into()),
            message: error.message().to_owned(),
        });
    }
    toml::from_str(text).map_err(syntax)
}

fn refuse_unknown(path: &Path, text: &str, table: &DeTable<'_>, above: &str) -> Result<(), ConfigError> {
    for (key, value) in table {
        let name = join(above, key.get_ref());
        if keys::is_map(&name) {
            continue;
        }
        match value.get_ref() {
            DeValue::Table(table) if keys::is_section(&name) => refuse_unknown(path, text, table, &name)?,
            // A value where a section belongs is a wrong type, which is found later.
            _ if keys::find(&name).is_some() || keys::is_section(&name) => {}
            _ => {
                let line = line_and_column(text, key.span().start).0;
                return Err(ConfigError::UnknownKey {
                    place: format!("{}:{line}", path.display()),
                    nearest: keys::nearest(&name),
                    key: name,
                });
            }
        }
    }
    Ok(())
}

/// The key whose value holds this place of the file.
fn key_at(table: &DeTable<'_>, span: &Range<usize>, above: &str) -> Option<String> {
    let within = |place: Range<usize>| place.start <= span.start && span.end <= place.end;
    for (key, value) in table {
        let name = join(above, key.get_ref());
        if let DeValue::Table(table) = value.get_ref()
            && let Some(found) = key_at(table, span, &name)
        {
            return Some(found);
        }
        if within(Spanned::span(value)) || within(key.span()) {
            return Some(name);
        }
    }
    None
}

fn join(above: &str, key: &str) -> String {
    if above.is_empty() { key.to_owned() } else { format!("{above}.{key}") }
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    (line, before.len() - line_start + 1)
}

// ---- the environment and flags

/// One value from outside of the file.
struct Setting {
    place: String,
    key: Found,
    value: Value,
}

impl Setting {
    fn new(place: String, key: Found, text: &str) -> Result<Self, ConfigError> {
        let refused =
            |message: String| ConfigError::Value { place: place.clone(), key: key.path.join("."), message };
        let value = match key.kind {
            Kind::Text => Value::String(text.to_owned()),
            Kind::List => Value::Array(text.split(',').map(|item| item.trim().into()).collect()),
            Kind::Boolean => Value::Boolean(
                text.parse().map_err(|_| refused(format!("{text:?} is neither true nor false")))?,
            ),
            Kind::Integer => Value::Integer(
                text.replace('_', "")
                    .parse()
                    .map_err(|_| refused(format!("{text:?} is not a whole number")))?,
            ),
            Kind::Map | Kind::MapByTopic => return Err(refused("name an entry of it".into())),
        };
        Ok(Self { place, key, value })
    }

    /// The value as a table of its own, after seeing that the configuration takes it.
    fn checked(self) -> Result<Table, ConfigError> {
        let mut value = self.value;
        for name in self.key.path.iter().rev() {
            value = Value::Table(Table::from_iter([(name.clone(), value)]));
        }
        let Value::Table(table) = value else { return Ok(Table::new()) };
        match Config::deserialize(Value::Table(table.clone())) {
            Ok(_) => Ok(table),
            Err(error) => Err(ConfigError::Value {
                place: self.place,
                key: self.key.path.join("."),
                message: error.message().to_owned(),
            }),
        }
    }
}

fn env_settings(env: &[(String, String)]) -> Result<Vec<Setting>, ConfigError> {
    let mut settings = Vec::new();
    for (name, text) in env {
        let Some(key) = name.strip_prefix(ENV_PREFIX) else { continue };
        // An empty variable is how compose files and shells say "not set".
        if RESERVED_ENV.contains(&name.as_str()) || is_service_link(key) || text.is_empty() {
            continue;
        }
        match keys::find_env(key) {
            Some(found) => settings.push(Setting::new(format!("environment variable {name}"), found, text)?),
            None => {
                return Err(ConfigError::UnknownKey {
                    place: "environment".into(),
                    key: name.clone(),
                    nearest: nearest_variable(key),
                });
            }
        }
    }
    Ok(settings)
}

/// The variable most like this one: with single underscores taken for double ones, too.
fn nearest_variable(key: &str) -> Option<String> {
    let flat = key.to_lowercase();
    let keys = keys::known();
    let key = keys
        .keys()
        .find(|known| known.replace('.', "_") == flat)
        .cloned()
        .or_else(|| keys::nearest(&flat.replace("__", ".")))?;
    Some(format!("{ENV_PREFIX}{}", key.replace('.', "__").to_uppercase()))
}

/// Variables that Kubernetes puts into every container for a service named `claims`.
fn is_service_link(key: &str) -> bool {
    !key.contains("__")
        && (key == "PORT"
            || key.starts_with("PORT_")
            || key.ends_with("SERVICE_HOST")
            || key.contains("SERVICE_PORT"))
}

fn flag_settings(sets: &[String]) -> Result<Vec<Setting>, ConfigError> {
    sets.iter()
        .map(|set| {
            let place = "--set".to_owned();
            let Some((key, text)) = set.split_once('=') else {
                return Err(ConfigError::Value {
                    place,
                    key: set.clone(),
                    message: "expected section.key=value".into(),
                });
            };
            match keys::find(key.trim()) {
                Some(found) => Setting::new(place, found, text.trim()),
                None => Err(ConfigError::UnknownKey {
                    place,
                    nearest: keys::nearest(key.trim()),
                    key: key.to_owned(),
                }),
            }
        })
        .collect()
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
