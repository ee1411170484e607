//! Tables and views: numbered migrations (`schema/*.sql`), applied at start.
//!
//! Every statement is idempotent, so two instances may start at once, and one that died half-way is simply repeated.
//! `schema_migrations` says what was applied; a database that a newer build has migrated is refused.

use crate::row::Columns;
use backon::{ExponentialBuilder, Retryable};
use claims_topology::config::ClickHouseConfig;
use clickhouse::{Client, Row};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::{fmt::Write as _, time::Duration};

/// The table that rows go into.
pub const EVENT_LOG: &str = "event_log";

/// A step of the schema. Once released, its text doesn't change any more.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// Counts up from 1.
    pub version: u32,
    /// What it is about.
    pub name: &'static str,
    /// Statements, each ending with `;` at the end of a line.
    pub sql: &'static str,
    /// Checksums of former texts, whose tables are taken as they are: [`verify`] tells whether rows fit them.
    pub former: &'static [&'static str],
}

/// Every migration of this build, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "event_log",
        sql: include_str!("schema/0001_event_log.sql"),
        former: &[MOSTLY_LOW_CARDINALITY],
    },
    Migration { version: 2, name: "views", sql: include_str!("schema/0002_views.sql"), former: &[] },
    Migration {
        version: 3,
        name: "source_topic",
        sql: include_str!("schema/0003_source_topic.sql"),
        former: &[],
    },
];

/// `event_log` with a dictionary (`LowCardinality`) in each of its 13 columns of few values. Insertion and merging cost
/// ClickHouse about three times as much (docs/adr: ClickHouse tables).
const MOSTLY_LOW_CARDINALITY: &str = "5c5aedd7e83f371963d42f33618bd3d6a7d6fe627254af46fd3e6e843285aefd";

const MIGRATIONS_TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations \
    (version UInt32, name String, checksum String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC')) \
    ENGINE = ReplacingMergeTree(applied_at) ORDER BY version COMMENT 'What was applied to this database'";

/// Why the schema can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// ClickHouse did not do what was asked.
    #[error("ClickHouse at {url}, database {database}: {action}: {source}")]
    ClickHouse {
        /// The configured URL.
        url: String,
        /// The configured database.
        database: String,
        /// What was tried.
        action: String,
        /// What came back.
        source: clickhouse::error::Error,
    },
    /// A newer build has migrated the database.
    #[error(
        "database {database} is at schema version {found}, this build knows {known}: upgrade this processor, or give it \
         a database of its own (analytics.clickhouse.database)"
    )]
    Newer {
        /// The configured database.
        database: String,
        /// The version found.
        found: u32,
        /// The newest version of this build.
        known: u32,
    },
    /// A migration was applied with another text.
    #[error(
        "migration {version} ({name}) of database {database} was applied with another text than this build's: its tables \
         may differ. Drop the database and replay the topic, or give this build a database of its own"
    )]
    Edited {
        /// The configured database.
        database: String,
        /// The migration's number.
        version: u32,
        /// The migration's name.
        name: &'static str,
    },
    /// The table isn't the one that rows are made for.
    #[error("table {database}.event_log is not as this build made it: {difference}")]
    Altered {
        /// The configured database.
        database: String,
        /// The first column that differs.
        difference: String,
    },
    /// The rows are of a topic that was deleted since.
    #[error(
        "database {database} holds the events of topic {topic} with id {found}; it was made anew and now has id {wanted}. \
         If it holds the same events, go on with `claims replay analytics --to-beginning`; else TRUNCATE event_log first"
    )]
    TopicMadeAnew {
        /// The configured database.
        database: String,
        /// The events topic.
        topic: String,
        /// The id that the rows are of.
        found: String,
        /// The id of the topic now.
        wanted: String,
    },
}

impl SchemaError {
    /// Whether waiting may help.
    pub fn is_transient(&self) -> bool {
        match self {
            SchemaError::ClickHouse { source, .. } => crate::classify::classify(source).is_transient(),
            _ => false,
        }
    }
}

/// How long a ClickHouse that is away is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// First wait between two tries; doubles up to `max_backoff`.
    pub min_backoff: Duration,
    /// Longest wait between two tries.
    pub max_backoff: Duration,
    /// In all.
    pub deadline: Duration,
}

impl Patience {
    pub(crate) fn backoff(&self) -> ExponentialBuilder {
        ExponentialBuilder::default()
            .with_min_delay(self.min_backoff)
            .with_max_delay(self.max_backoff)
            .with_total_delay(Some(self.deadline))
            .without_max_times()
            .with_jitter()
    }
}

/// A client for the configured server, without a database.
pub fn server_client(config: &ClickHouseConfig) -> Client {
    let mut client = Client::default().with_url(&config.url).with_validation(false);
    if let Some(username) = &config.username {
        client = client.with_user(username);
    }
    if let Some(password) = &config.password {
        client = client.with_password(password.expose());
    }
    client
}

/// A client for the configured database.
pub fn database_client(config: &ClickHouseConfig) -> Client {
    server_client(config).with_database(&config.database)
}

/// [`apply`], tried again while ClickHouse is away.
pub async fn apply_patiently(config: &ClickHouseConfig, patience: &Patience) -> Result<(), SchemaError> {
    (|| apply(config))
        .retry(patience.backoff())
        .when(SchemaError::is_transient)
        .notify(|error, wait| {
            tracing::warn!(%error, wait_ms = wait.as_millis() as u64, "waiting for ClickHouse");
        })
        .await
}

/// Brings the database up to date and checks that the table is the one that rows are made for.
pub async fn apply(config: &ClickHouseConfig) -> Result<(), SchemaError> {
    let session = Session::new(config);
    let create = format!("CREATE DATABASE IF NOT EXISTS {}", quoted(&config.database));
    session.run(&server_client(config), "create the database", &create).await?;
    session.run(&session.client, "create schema_migrations", MIGRATIONS_TABLE).await?;
    let applied = session.applied().await?;
    let known = MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0);
    if let Some(found) = applied.iter().map(|a| a.version).find(|&version| version > known) {
        return Err(SchemaError::Newer { database: config.database.clone(), found, known });
    }
    for migration in MIGRATIONS {
        match applied.iter().find(|a| a.version == migration.version) {
            Some(earlier) if earlier.checksum == checksum(migration.sql) => {}
            Some(earlier) if migration.former.contains(&earlier.checksum.as_str()) => {}
            Some(_) => {
                return Err(SchemaError::Edited {
                    database: config.database.clone(),
                    version: migration.version,
                    name: migration.name,
                });
            }
            None => session.migrate(migration).await?,
        }
    }
    if let Some(remedy) = verify(config, &session.client).await? {
        tracing::warn!(
            database = config.database,
            remedy,
            "event_log was made by an older build: each row costs ClickHouse about three times what it could. Run the \
             remedy only when every analytics processor of this database is of this build or a newer one: older builds \
             refuse the table afterwards"
        );
    }
    Ok(())
}

/// Checks that the columns of the table are those of the rows: RowBinary has no names, so a table that somebody altered
/// would take wrong values in silence. Answers with the statement that makes an older build's table as cheap to write
/// to as this build's, if it is one; older builds refuse the table once that was run.
pub async fn verify(config: &ClickHouseConfig, client: &Client) -> Result<Option<String>, SchemaError> {
    let session = Session { config, client: client.clone() };
    let found: Vec<ColumnType> = session
        .fetch(
            "read the columns of event_log",
            "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = 'event_log' \
             AND default_kind = '' ORDER BY position",
        )
        .await?;
    let altered = |difference| SchemaError::Altered { database: config.database.clone(), difference };
    let mut dear = Vec::new();
    for name in Columns::COLUMN_NAMES {
        let wanted = declared_type(name).ok_or_else(|| altered(format!("{name} is not declared")))?;
        match found.iter().find(|column| column.name == *name) {
            Some(column) if column.r#type == wanted => {}
            Some(column) if without_dictionary(&column.r#type) == wanted => {
                dear.push(format!("MODIFY COLUMN {name} {wanted}"));
            }
            Some(column) => {
                return Err(altered(format!("column {name} is {}, not {wanted}", column.r#type)));
            }
            None => return Err(altered(format!("column {name} is missing"))),
        }
    }
    let remedy = || format!("ALTER TABLE {}.{EVENT_LOG} {}", quoted(&config.database), dear.join(", "));
    Ok((!dear.is_empty()).then(remedy))
}

/// The insert of rows as [`EventRow::encoded`](crate::EventRow::encoded) has them: RowBinary has no names, so the
/// statement names the columns, in the order of their values.
pub fn insert_statement() -> String {
    let columns: Vec<String> = Columns::COLUMN_NAMES.iter().map(|name| quoted(name)).collect();
    format!("INSERT INTO {}({}) FORMAT RowBinary", quoted(EVENT_LOG), columns.join(","))
}

/// A column's type with its values kept one by one. On the wire both are the same.
fn without_dictionary(r#type: &str) -> &str {
    r#type.strip_prefix("LowCardinality(").and_then(|inner| inner.strip_suffix(')')).unwrap_or(r#type)
}

/// A column's type as the first migration declares it.
fn declared_type(name: &str) -> Option<&'static str> {
    let line =
        MIGRATIONS.first()?.sql.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(' '))?;
    line.split_once(" COMMENT ").map(|(declared, _)| declared)
}

/// A database and how long it is waited for.
pub(crate) struct Session<'a> {
    config: &'a ClickHouseConfig,
    pub(crate) client: Client,
}

impl<'a> Session<'a> {
    pub(crate) fn new(config: &'a ClickHouseConfig) -> Self {
        Self { config, client: database_client(config) }
    }

    async fn applied(&self) -> Result<Vec<Applied>, SchemaError> {
        self.fetch(
            "read schema_migrations",
            "SELECT version, checksum FROM schema_migrations FINAL ORDER BY version",
        )
        .await
    }

    async fn migrate(&self, migration: &Migration) -> Result<(), SchemaError> {
        for statement in statements(migration.sql) {
            self.run(
                &self.client,
                &format!("migration {} ({})", migration.version, migration.name),
                &statement,
            )
            .await?;
        }
        let record = format!(
            "INSERT INTO schema_migrations (version, name, checksum) VALUES ({}, '{}', '{}')",
            migration.version,
            migration.name,
            checksum(migration.sql)
        );
        self.run(&self.client, "record the migration", &record).await?;
        tracing::info!(version = migration.version, name = migration.name, "schema migrated");
        Ok(())
    }

    pub(crate) async fn run(&self, client: &Client, action: &str, sql: &str) -> Result<(), SchemaError> {
        self.bounded(action, client.query_raw(sql).execute()).await
    }

    pub(crate) async fn fetch<T>(&self, action: &str, sql: &str) -> Result<Vec<T>, SchemaError>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        self.bounded(action, self.client.query_raw(sql).fetch_all::<T>()).await
    }

    async fn bounded<T>(
        &self,
        action: &str,
        request: impl Future<Output = Result<T, clickhouse::error::Error>>,
    ) -> Result<T, SchemaError> {
        let timeout = Duration::from_millis(self.config.end_timeout_ms);
        let answer = tokio::time::timeout(timeout, request).await;
        answer.unwrap_or(Err(clickhouse::error::Error::TimedOut)).map_err(|source| SchemaError::ClickHouse {
            url: self.config.url.clone(),
            database: self.config.database.clone(),
            action: action.to_owned(),
            source,
        })
    }
}

#[derive(Debug, Row, Deserialize)]
struct Applied {
    version: u32,
    checksum: String,
}

#[derive(Debug, Row, Deserialize)]
struct ColumnType {
    name: String,
    r#type: String,
}

/// The statements of a migration, without comment lines.
fn statements(sql: &str) -> Vec<String> {
    let mut statements = vec![];
    let mut open = String::new();
    for line in sql.lines().filter(|line| !line.trim_start().starts_with("--")) {
        match line.trim_end().strip_suffix(';') {
            Some(last) => {
                open.push_str(last);
                statements.push(std::mem::take(&mut open).trim().to_owned());
            }
            None => {
                open.push_str(line);
                open.push('\n');
            }
        }
    }
    if !open.trim().is_empty() {
        statements.push(open.trim().to_owned());
    }
    statements
}

/// Of the statements alone: a comment may be reworded.
fn checksum(sql: &str) -> String {
    Sha256::digest(statements(sql).join(";")).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// An identifier in backquotes.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_of_a_row_is_declared_in_the_table_in_the_same_order() {
        let declared: Vec<&str> = MIGRATIONS[0]
            .sql
            .lines()
            .filter(|line| line.contains(" COMMENT '") && !line.contains(" MATERIALIZED "))
            .filter_map(|line| line.strip_prefix("    ")?.split(' ').next())
            .collect();
        assert_eq!(declared, Columns::COLUMN_NAMES);
        assert_eq!(declared_type("urgency"), Some("Nullable(String)"));
        assert_eq!(declared_type("event_type"), Some("LowCardinality(String)"));
        assert_eq!(declared_type("occurred_at"), Some("DateTime64(3, 'UTC')"));
        assert_eq!(declared_type("nothing"), None);
    }

    #[test]
    fn migrations_count_up_from_one_and_hold_no_bind_marks() {
        for (expected, migration) in (1..).zip(MIGRATIONS) {
            assert_eq!(migration.version, expected);
            for statement in statements(migration.sql) {
                assert!(statement.starts_with("CREATE "), "{statement}");
                assert!(statement.contains("IF NOT EXISTS"), "not idempotent: {statement}");
            }
        }
    }

    #[test]
    fn statements_are_cut_at_line_ends_and_lose_their_comments() {
        assert_eq!(
            statements("-- why;\nCREATE a (x String COMMENT 'a; b');\n\n-- more\nCREATE\nb;\n"),
            ["CREATE a (x String COMMENT 'a; b')", "CREATE\nb"]
        );
    }

    #[test]
    fn only_statements_count_in_a_checksum() {
        let sql = "CREATE a;\nCREATE b;\n";
        assert_eq!(checksum(sql), checksum("-- why\nCREATE a;\n\n-- and why\nCREATE b;\n"));
        assert_ne!(checksum(sql), checksum("CREATE a;\nCREATE c;\n"));
    }

    #[test]
    fn the_table_of_older_builds_is_known() {
        let former = include_str!("../tests/it/former_event_log.sql");
        assert_eq!(MIGRATIONS[0].former, [checksum(former)]);
    }

    #[test]
    fn a_database_name_cannot_leave_its_quotes() {
        assert_eq!(quoted("a`b\\"), "`a\\`b\\\\`");
    }
}
