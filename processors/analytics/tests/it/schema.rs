//! Migrations: repeated, at once, and what is refused.

use crate::support::{Database, event, expected_events, log, write};
use claims_analytics::{
    row::Columns,
    schema::{self, MIGRATIONS, SchemaError},
};
use claims_schemas::events::ClaimClosed;
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
    database.execute("ALTER TABLE event_log MODIFY COLUMN urgency Nullable(FixedString(8))").await;
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
async fn the_table_of_an_older_build_is_taken_and_can_be_made_like_this_ones() {
    let database = Database::migrated().await;
    database.execute("DROP TABLE event_log SYNC").await;
    database.execute(include_str!("former_event_log.sql").trim_end().trim_end_matches(';')).await;
    let former = MIGRATIONS[0].former[0];
    database
        .execute(&format!(
            "INSERT INTO schema_migrations (version, name, checksum) VALUES (1, 'event_log', '{former}')"
        ))
        .await;
    schema::apply(&database.config).await.expect("it is taken as it is");
    let log = log((1..=3).flat_map(|version| {
        ["c1", "c2"]
            .map(|claim| event(claim, version, ClaimClosed { closed_by: None, reason: Some("x".into()) }))
    }));
    write(&database.sink(), &log[..2], 1).await;
    assert_eq!(database.events().await, expected_events(&log[..2]));

    let remedy = schema::verify(&database.config, &database.client).await.expect("it fits");
    database.execute(&remedy.expect("it has dictionaries")).await;
    assert_eq!(schema::verify(&database.config, &database.client).await.expect("it fits still"), None);
    schema::apply(&database.config).await.expect("it is taken as before");
    write(&database.sink(), &log[2..], 3).await;
    assert_eq!(database.events().await, expected_events(&log));
    assert_eq!(database.latest().await.len(), 2);
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
