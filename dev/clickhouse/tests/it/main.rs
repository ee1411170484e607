//! The server as its clients see it: the `clickhouse` crate with its defaults, and plain HTTP.

#![allow(clippy::unwrap_used, clippy::panic)]

mod server;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use server::{MAX_INSERT_BYTES, Server};

#[derive(Debug, Clone, PartialEq, Eq, Row, Serialize, Deserialize)]
struct Claim {
    id: u64,
    status: String,
    version: u32,
}

fn claim(id: u64, version: u32) -> Claim {
    Claim { id, status: format!("état {}", id % 7), version }
}

const CREATE: &str = "CREATE TABLE claims (id UInt64, status LowCardinality(String), version UInt32) \
     ENGINE = ReplacingMergeTree(version) ORDER BY id SETTINGS non_replicated_deduplication_window = 100";

async fn insert(client: &clickhouse::Client, rows: impl IntoIterator<Item = Claim>) {
    let mut insert = client.insert::<Claim>("claims").await.unwrap();
    for row in rows {
        insert.write(&row).await.unwrap();
    }
    insert.end().await.unwrap();
}

async fn count(client: &clickhouse::Client, what: &str) -> u64 {
    client.query(&format!("SELECT count() FROM {what}")).fetch_one().await.unwrap()
}

#[tokio::test]
async fn the_clickhouse_crate_inserts_and_selects_with_its_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let client = server.client();
    client.query("CREATE DATABASE shop").execute().await.unwrap();
    let client = client.with_database("shop");
    client.query(CREATE).execute().await.unwrap();
    let many: Vec<Claim> = (0..200_000).map(|id| claim(id, 1)).collect();
    insert(&client, many.clone()).await;

    let parts: u64 = client
        .query("SELECT count() FROM system.parts WHERE table = 'claims' AND active")
        .fetch_one()
        .await
        .unwrap();
    assert_eq!(parts, 1, "one insert must make one part");
    // More than one streamed piece, whose repeated headers must not show up as rows.
    let back = client.query("SELECT ?fields FROM claims ORDER BY id").fetch_all::<Claim>().await.unwrap();
    assert_eq!(back, many);

    insert(&client, [claim(7, 2)]).await;
    assert_eq!(count(&client, "claims").await, 200_001);
    assert_eq!(count(&client, "claims FINAL").await, 200_000);
    let row: Option<Claim> = client
        .query("SELECT ?fields FROM claims FINAL WHERE id = {id:UInt64} AND status = {status:String}")
        .param("id", 7)
        .param("status", "état 0")
        .fetch_optional()
        .await
        .unwrap();
    assert_eq!(row, Some(claim(7, 2)));
    let none: Option<Claim> = client
        .query("SELECT ?fields FROM claims WHERE id = {id:UInt64}")
        .param("id", u64::MAX)
        .fetch_optional()
        .await
        .unwrap();
    assert_eq!(none, None);
}

#[tokio::test]
async fn a_batch_sent_twice_with_one_token_counts_once_in_views_too() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let client = server.client();
    client.query(CREATE).execute().await.unwrap();
    for sql in [
        "CREATE TABLE per_status (status String, n SimpleAggregateFunction(sum, UInt64)) \
         ENGINE = AggregatingMergeTree ORDER BY status SETTINGS non_replicated_deduplication_window = 100",
        "CREATE MATERIALIZED VIEW feed TO per_status AS SELECT status, count() AS n FROM claims GROUP BY status",
        "ALTER TABLE claims ADD COLUMN note Nullable(String) DEFAULT NULL",
    ] {
        client.query(sql).execute().await.unwrap();
    }
    let batch: Vec<Claim> = (0..1000).map(|id| claim(id, 1)).collect();
    for (token, expected) in [("a", 1000), ("a", 1000), ("b", 2000)] {
        let client = client
            .clone()
            .with_setting("insert_deduplication_token", token)
            .with_setting("deduplicate_blocks_in_dependent_materialized_views", "1")
            .with_setting("async_insert", "0");
        insert(&client, batch.clone()).await;
        assert_eq!(count(&client, "claims").await, expected, "token {token}");
        let fed: u64 = client.query("SELECT sum(n) FROM per_status").fetch_one().await.unwrap();
        assert_eq!(fed, expected, "token {token}");
    }
}

#[tokio::test]
async fn errors_carry_their_code_early_and_late() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let client = server.client();
    let message = client.query("SELECT * FROM nowhere").execute().await.unwrap_err().to_string();
    assert!(message.contains("Code: 60"), "{message}");
    let message =
        client.clone().with_database("nowhere").query("SELECT 1").execute().await.unwrap_err().to_string();
    assert!(message.contains("Code: 81"), "{message}");
    let late = "SELECT number, throwIf(number = 3000000, 'too far') AS x FROM numbers(5000000)";
    let mut cursor = client.query(late).fetch::<(u64, u8)>().unwrap();
    let mut rows = 0;
    let message = loop {
        match cursor.next().await {
            Ok(Some(_)) => rows += 1,
            Ok(None) => panic!("the error was lost after {rows} rows"),
            Err(error) => break error.to_string(),
        }
    };
    assert!(rows > 0, "the error must come after the first rows");
    assert!(message.contains("Code: 395") && message.contains("too far"), "{message}");
    // A statement that is larger than allowed, and settings that do not exist.
    let (status, body) = server.http("/", &"x".repeat(17 << 20));
    assert_eq!((status, body.contains("at most")), (400, true), "{body}");
    let (status, body) = server.http("/?nonsense=1", "SELECT 1");
    assert!(status >= 400 && body.contains("UNKNOWN_SETTING"), "{status} {body}");
}

#[tokio::test]
async fn plain_http_works_as_with_a_real_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    assert_eq!(server.http("/?query=SELECT%201%2B1", ""), (200, "2\n".to_owned()));
    assert_eq!(server.http("/", "SELECT 1 AS a FORMAT CSVWithNames").1, "\"a\"\n1\n");
    server.http("/", "CREATE TABLE t (a UInt8, b String) ENGINE = MergeTree ORDER BY a");
    assert_eq!(
        server.http("/?query=INSERT%20INTO%20t%20FORMAT%20JSONEachRow", "{\"a\":1,\"b\":\"x\"}").0,
        200
    );
    assert_eq!(server.http("/", "INSERT INTO t VALUES (2, 'y')").0, 200);
    let (_, body) = server.http("/?default_format=JSONEachRow", "SELECT * FROM t ORDER BY a");
    assert_eq!(body, "{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b\":\"y\"}\n");
    let (status, body) = server.http("/?query=INSERT%20INTO%20t%20FORMAT%20CSV", "3,z\nbad,row\n");
    assert!(status == 400 && body.contains("Code: 27"), "{status} {body}");
    assert_eq!(server.http("/", "SELECT count() FROM t").1, "2\n");
}

#[tokio::test]
async fn an_insert_that_breaks_off_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let client = server.client();
    client.query(CREATE).execute().await.unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    write!(
        stream,
        "POST /?query=INSERT%20INTO%20claims%20FORMAT%20CSV HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    .unwrap();
    for id in 0..50_000 {
        let line = format!("{id},open,1\n");
        write!(stream, "{:x}\r\n{line}\r\n", line.len()).unwrap();
    }
    drop(stream);
    // The server notices the end of the connection by itself; then the engine runs no insert any more.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let running: u64 = client
            .query("SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO claims%'")
            .fetch_one()
            .await
            .unwrap();
        if running == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "the broken insert still runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(count(&client, "claims").await, 0);
    // Larger than allowed (and smaller than the engine's block): refused, nothing stays.
    let line = "1,open,1\n".repeat(MAX_INSERT_BYTES / 9 + 1);
    let (status, body) = server.http("/?query=INSERT%20INTO%20claims%20FORMAT%20CSV", &line);
    assert!(status == 400 && body.contains("an INSERT may have at most"), "{status} {body}");
    assert_eq!(count(&client, "claims").await, 0);
}

#[tokio::test]
async fn data_survives_a_kill_and_has_one_owner() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let client = server.client();
    client.query(CREATE).execute().await.unwrap();
    insert(&client, (0..10_000).map(|id| claim(id, 1))).await;
    let message = Server::refused(folder.path());
    assert!(message.contains("in use by another process"), "{message}");
    server.kill();
    let server = Server::start(folder.path());
    assert_eq!(count(&server.client(), "claims").await, 10_000);
    assert!(server.terminate(), "SIGTERM must end the server in good order");
    let server = Server::start(folder.path());
    assert_eq!(count(&server.client(), "claims").await, 10_000);
}

#[tokio::test]
async fn many_clients_at_once_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let client = server.client();
    client.query(CREATE).execute().await.unwrap();
    let tasks: Vec<_> = (0..48_u64)
        .map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                insert(&client, (0..500).map(|id| claim(task * 500 + id, 1))).await;
                count(&client, "claims").await
            })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap() >= 500);
    }
    assert_eq!(count(&client, "claims").await, 24_000);
}
