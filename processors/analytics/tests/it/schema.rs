//! Migrations: repeated, at once, and what is refused.

use crate::support::Database;
use claims_analytics::{
    row::Columns,
    schema::{self, MIGRATIONS, SchemaError},
};
use clickhouse::Row;

#[tokio::test]
async fn applying_again_and_two_instances_at_once_give_one_schema() {
    let database = Database::empty().await;
    let config = &database.config;
    let (a, b, c) = tokio::join!(schema::apply(config), schema::apply(config), schema::apply(config));
    for result in [a, b, c, schema::apply(config).await] {
        result.expect("each start succeeds");
    }
    let versions = database.number("SELECT count() FROM schema_migrations FINAL").await;
    assert_eq!(versions, MIGRATIONS.len() as u64);
    for view in [
        "events",
        "latest",
        "status_counts",
        "customer_stats",
        "agent_stats",
        "claim_type_stats",
        "daily_flow",
    ] {
        assert_eq!(database.number(&format!("SELECT count() FROM {view}")).await, 0, "{view} is empty");
    }
    database.drop().await;
}

#[tokio::test]
async fn a_start_that_died_half_way_is_repeated() {
    let database = Database::empty().await;
    database.migrate_first_statement_only().await;
    schema::apply(&database.config).await.expect("the rest is made");
    assert_eq!(database.number("SELECT count() FROM latest").await, 0);
    database.drop().await;
}

#[tokio::test]
async fn a_newer_an_edited_and_an_altered_schema_are_refused() {
    let database = Database::migrated().await;
    database.execute("ALTER TABLE event_log MODIFY COLUMN urgency Nullable(String)").await;
    let altered = schema::apply(&database.config).await;
    assert!(
        matches!(&altered, Err(SchemaError::Altered { difference, .. }) if difference.contains("urgency")),
        "{altered:?}"
    );
    database
        .execute("INSERT INTO schema_migrations (version, name, checksum) VALUES (2, 'views', 'other')")
        .await;
    let edited = schema::apply(&database.config).await;
    assert!(matches!(edited, Err(SchemaError::Edited { version: 2, .. })), "{edited:?}");
    database
        .execute("INSERT INTO schema_migrations (version, name, checksum) VALUES (99, 'later', '')")
        .await;
    let newer = schema::apply(&database.config).await;
    assert!(matches!(newer, Err(SchemaError::Newer { found: 99, .. })), "{newer:?}");
    database.drop().await;
}

#[tokio::test]
async fn every_column_says_what_it_is() {
    let database = Database::migrated().await;
    let silent = database
        .number(
            "SELECT count() FROM system.columns WHERE database = currentDatabase() AND table = 'event_log' \
             AND comment = ''",
        )
        .await;
    assert_eq!(silent, 0);
    let rows = database
        .number(
            "SELECT count() FROM system.columns WHERE database = currentDatabase() AND table = 'event_log'",
        )
        .await;
    assert_eq!(rows, Columns::COLUMN_NAMES.len() as u64 + 1, "and one that the table fills in itself");
    database.drop().await;
}
