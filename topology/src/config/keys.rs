//! Every key that the configuration has, with the kind of its value, read off the defaults.

use super::Config;
use serde_json::Value;
use std::collections::BTreeMap;

/// What stands behind a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// Text; also where the default is "none".
    Text,
    /// A list of texts; comma-separated outside of TOML.
    List,
    /// Names of somebody else's choosing, with texts.
    Map,
    /// The same, one level deeper: by topic.
    MapByTopic,
}

/// Maps whose entries are named with dots, which environment variables can't be: there `_` stands for `.`.
const DOTTED_MAPS: &[&str] = &["kafka.properties", TOPIC_SETTINGS];
const TOPIC_SETTINGS: &str = "topics.settings";

/// All keys by their dotted names, sections left out.
pub fn known() -> BTreeMap<String, Kind> {
    let mut keys = BTreeMap::new();
    // The configuration is plain data: turning it into JSON can't fail. If it did, every key would be refused.
    let defaults = serde_json::to_value(Config::default()).unwrap_or(Value::Null);
    collect(&defaults, "", &mut keys);
    keys
}

fn collect(value: &Value, path: &str, keys: &mut BTreeMap<String, Kind>) {
    let kind = match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(field, &path, keys);
            }
            return;
        }
        Value::Object(_) if path == TOPIC_SETTINGS => Kind::MapByTopic,
        Value::Object(_) => Kind::Map,
        Value::Bool(_) => Kind::Boolean,
        Value::Number(_) => Kind::Integer,
        Value::Array(_) => Kind::List,
        Value::String(_) | Value::Null => Kind::Text,
    };
    keys.insert(path.to_owned(), kind);
}

/// A key found, and where its value goes in a TOML table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Names of the tables, and last the key itself. The entry of a map is one name, dots and all.
    pub path: Vec<String>,
    /// What stands behind it.
    pub kind: Kind,
}

/// Finds a dotted key, such as `kafka.bootstrap_servers` or `kafka.properties.socket.timeout.ms`.
pub fn find(dotted: &str) -> Option<Found> {
    find_parts(&dotted.split('.').collect::<Vec<_>>())
}

/// Finds the key that an environment variable names, such as `CLAIMS_KAFKA__BOOTSTRAP_SERVERS` (given without the
/// `CLAIMS_`).
pub fn find_env(name: &str) -> Option<Found> {
    let lower = name.to_lowercase();
    let parts: Vec<_> = lower.split("__").collect();
    let mut found = find_parts(&parts)?;
    let dotted_map = DOTTED_MAPS.iter().any(|map| found.path.join(".").starts_with(&format!("{map}.")));
    if dotted_map && let Some(entry) = found.path.last_mut() {
        *entry = entry.replace('_', ".");
    }
    Some(found)
}

fn find_parts(parts: &[&str]) -> Option<Found> {
    let keys = known();
    for length in 1..=parts.len() {
        let (prefix, rest) = parts.split_at(length);
        let Some(&kind) = keys.get(&prefix.join(".")) else { continue };
        let mut path: Vec<_> = prefix.iter().map(|&part| part.to_owned()).collect();
        return match (kind, rest) {
            (Kind::Map, [_, ..]) => {
                path.push(rest.join("."));
                Some(Found { path, kind: Kind::Text })
            }
            (Kind::MapByTopic, [topic, rest @ ..]) if !rest.is_empty() => {
                path.extend([(*topic).to_owned(), rest.join(".")]);
                Some(Found { path, kind: Kind::Text })
            }
            (Kind::Map | Kind::MapByTopic, _) => None,
            (_, []) => Some(Found { path, kind }),
            _ => None,
        };
    }
    None
}

/// Whether a dotted path is a section (a table with known keys).
pub fn is_section(path: &str) -> bool {
    let prefix = format!("{path}.");
    known().keys().any(|key| key.starts_with(&prefix))
}

/// Whether everything below this path is of somebody else's choosing.
pub fn is_map(path: &str) -> bool {
    matches!(known().get(path), Some(Kind::Map | Kind::MapByTopic))
}

/// The known key that is most like this one, if any is like it at all.
pub fn nearest(unknown: &str) -> Option<String> {
    let last = unknown.rsplit('.').next().unwrap_or(unknown);
    let keys = known();
    let same_name = keys.keys().filter(|key| key.rsplit('.').next() == Some(last));
    let by_distance = |key: &&String| distance(key, unknown);
    if let Some(key) = same_name.min_by_key(by_distance) {
        return Some(key.clone());
    }
    let nearest = keys.keys().min_by_key(by_distance)?;
    (distance(nearest, unknown) <= (unknown.len() / 3).max(2)).then(|| nearest.clone())
}

/// How many letters must be changed, added or taken away to make one text of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_key_is_known() {
        let keys = known();
        assert_eq!(keys["kafka.bootstrap_servers"], Kind::Text);
        assert_eq!(keys["kafka.sasl_password"], Kind::Text);
        assert_eq!(keys["kafka.properties"], Kind::Map);
        assert_eq!(keys["topics.partitions"], Kind::Integer);
        assert_eq!(keys["topics.settings"], Kind::MapByTopic);
        assert_eq!(keys["current_state.cql.nodes"], Kind::List);
        assert_eq!(keys["audit.runtime.max_batch_records"], Kind::Integer);
        assert_eq!(keys["telemetry.log_format"], Kind::Text);
    }

    #[test]
    fn map_entries_are_one_name() {
        let path = |found: Option<Found>| found.unwrap().path;
        assert_eq!(
            path(find("kafka.properties.socket.timeout.ms")),
            ["kafka", "properties", "socket.timeout.ms"]
        );
        assert_eq!(
            path(find("topics.settings.events.segment.ms")),
            ["topics", "settings", "events", "segment.ms"]
        );
        assert_eq!(find("kafka.properties"), None);
        assert_eq!(find("topics.settings.events"), None);
        assert_eq!(find("kafka.bootstrap_servers.x"), None);
    }

    #[test]
    fn environment_variables_name_keys_with_double_underscores() {
        let path = |found: Option<Found>| found.unwrap().path.join("/");
        assert_eq!(path(find_env("KAFKA__BOOTSTRAP_SERVERS")), "kafka/bootstrap_servers");
        assert_eq!(path(find_env("CURRENT_STATE__CQL__KEYSPACE")), "current_state/cql/keyspace");
        assert_eq!(
            path(find_env("KAFKA__PROPERTIES__SOCKET_TIMEOUT_MS")),
            "kafka/properties/socket.timeout.ms"
        );
        assert_eq!(
            path(find_env("TOPICS__SETTINGS__DEAD_LETTERS__RETENTION_MS")),
            "topics/settings/dead_letters/retention.ms"
        );
        assert_eq!(path(find_env("AUDIT__STORE_OPTIONS__AWS_REGION")), "audit/store_options/aws_region");
        assert_eq!(find_env("KAFKA_BOOTSTRAP_SERVERS"), None);
    }

    #[test]
    fn a_mistyped_key_has_a_nearest_one() {
        assert_eq!(nearest("kafka.bootstrap_server").as_deref(), Some("kafka.bootstrap_servers"));
        assert_eq!(nearest("cql.keyspace").as_deref(), Some("current_state.cql.keyspace"));
        assert_eq!(nearest("completely.different.thing.that.is.long"), None);
    }
}
