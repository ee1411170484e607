//! The sink and the reader against a real CQL database.

use crate::events::*;
use claims_current_state::{
    ClaimWrite,
    claim::Claim,
    cql::CqlSink,
    places::{ListView, SHARDS, Values},
    read::{ClaimReader, ListQuery},
    words::TimelineEntry,
};
use claims_runtime::SinkError;
use claims_schemas::{Event, Text, Timestamp, events::*};
use claims_topology::{Config, config::CqlConfig};
use std::{collections::BTreeSet, sync::Arc};
use uuid::Uuid;

pub fn cql() -> CqlConfig {
    let keyspace = format!("it_{}", Uuid::new_v4().simple());
    CqlConfig { keyspace, ..Config::default().current_state.cql }
}

pub async fn open(config: &CqlConfig) -> CqlSink {
    match CqlSink::open(config).await {
        Ok(sink) => sink,
        Err(error) => panic!("{error}\nrun `cargo xtask up` first"),
    }
}

pub async fn drop_keyspace(config: &CqlConfig) {
    let nodes = &config.nodes;
    let session =
        scylla::client::session_builder::SessionBuilder::new().known_nodes(nodes).build().await.unwrap();
    session.query_unpaged(format!("DROP KEYSPACE IF EXISTS {}", config.keyspace), ()).await.unwrap();
}

/// What one batch with these events of one claim writes.
fn write(claim: &mut Claim, events: &[Event]) -> Arc<ClaimWrite> {
    let mut values = Values::default();
    if claim.state.revision() > 0 {
        values.add_state(&claim.state);
    }
    for event in events {
        claim.apply(&event.into());
        values.add_event(&event.into());
    }
    let left = values.left(&claim.state);
    let timeline = events.iter().map(|event| TimelineEntry::of(&event.into())).collect();
    Arc::new(ClaimWrite { partition: 0, claim: claim.clone(), left, timeline, origins: Vec::new() })
}

#[tokio::test]
async fn claims_move_through_the_views_and_nothing_stays_behind() {
    let config = cql();
    // Two processes make the tables at once.
    let (sink, other) = tokio::join!(open(&config), open(&config));
    drop(other);
    let reader = ClaimReader::connect(&config).await.unwrap();

    let mut claim = Claim::empty("t", "c1");
    let history = [
        write(&mut claim, &[event("t", "c1", 1, created("cust"))]),
        write(&mut claim, &[event("t", "c1", 2, assigned("a1")), event("t", "c1", 3, started())]),
        write(&mut claim, &[event("t", "c1", 4, resolved("paid")), event("t", "c1", 5, reassigned("a2"))]),
        write(&mut claim, &[event("t", "c1", 6, ClaimReopened::default())]),
        // Leaves RESOLVED's successor and comes back to it within one batch.
        write(
            &mut claim,
            &[event("t", "c1", 7, resolved("again")), event("t", "c1", 8, ClaimReopened::default())],
        ),
    ];
    for write in &history {
        sink.write(std::slice::from_ref(write)).await.unwrap();
    }
    // Redelivery of everything in another order changes nothing.
    for write in [2, 0, 4, 1, 3, 0].map(|i: usize| &history[i]) {
        sink.write(std::slice::from_ref(write)).await.unwrap();
    }

    let view = reader.claim("t", "c1").await.unwrap().unwrap();
    assert_eq!((view.status.as_str(), view.revision, view.version), ("PROCESSING", 8, 8));
    assert_eq!(view.agent_id.as_deref(), Some("a2"));
    assert_eq!(view.resolution, None, "cleared when it was reopened");
    assert_eq!(view.customer_email, None);
    assert_eq!(view.reopen_count, 2);
    let (bytes, scale) = view.claimed_amount.as_ref().unwrap().as_signed_be_bytes_slice_and_exponent();
    assert_eq!((bytes, scale), ([0x04, 0xe2].as_slice(), 2), "12.50");

    for (view, keys, wanted) in [
        (ListView::Status, vec!["CREATED", "ASSIGNED", "PROCESSING", "RESOLVED", "CLOSED"], "PROCESSING"),
        (ListView::Assignee, vec!["a1", "a2"], "a2"),
        (ListView::Customer, vec!["cust"], "cust"),
        (ListView::Created, vec![""], ""),
    ] {
        for key in keys {
            let page = reader.list(&ListQuery::newest("t", view, key, 10)).await.unwrap();
            let found: Vec<_> =
                page.items.iter().map(|item| (item.claim_id.as_str(), item.revision)).collect();
            assert_eq!(found, if key == wanted { vec![("c1", 8)] } else { vec![] }, "{view:?} {key}");
        }
    }
    let timeline = reader.timeline("t", "c1", 0, 100).await.unwrap();
    assert_eq!(timeline.iter().map(|entry| entry.version).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(timeline[1].words.as_deref(), Some("Assigned to Agent a1"));
    assert_eq!(reader.claim("other", "c1").await.unwrap(), None, "another tenant's claim");
    drop_keyspace(&config).await;
}

#[tokio::test]
async fn erasure_takes_the_words_and_the_customer_along_in_any_order() {
    let config = cql();
    let sink = open(&config).await;
    let reader = ClaimReader::connect(&config).await.unwrap();
    for (claim_id, order) in [("c1", [0, 1, 2]), ("c2", [2, 0, 1]), ("c3", [0, 2, 1])] {
        let events = [
            event("t", claim_id, 1, created("cust")),
            event("t", claim_id, 2, note()),
            event("t", claim_id, 3, ClaimErased::default()),
        ];
        let mut claim = Claim::empty("t", claim_id);
        for i in order {
            sink.write(&[write(&mut claim, &events[i..=i])]).await.unwrap();
        }
        let view = reader.claim("t", claim_id).await.unwrap().unwrap();
        assert_eq!(
            (view.status.as_str(), view.customer_id, view.title),
            ("ERASED", None, None),
            "{claim_id}"
        );
        let timeline = reader.timeline("t", claim_id, 0, 10).await.unwrap();
        assert_eq!(timeline.iter().map(|e| e.version).collect::<Vec<_>>(), [3], "{claim_id}");
    }
    let page = reader.list(&ListQuery::newest("t", ListView::Customer, "cust", 10)).await.unwrap();
    assert_eq!(page.items, []);
    drop_keyspace(&config).await;
}

#[tokio::test]
async fn pages_give_every_claim_once_newest_first() {
    let config = cql();
    let sink = open(&config).await;
    let reader = ClaimReader::connect(&config).await.unwrap();
    let mut writes = Vec::new();
    let mut wanted = Vec::new();
    for i in 0..700_i64 {
        let claim_id = format!("c{i:04}");
        let mut first = event("t", &claim_id, 1, created(if i % 3 == 0 { "big" } else { "small" }));
        // Forty days with many claims, three of them at one instant each, and long gaps.
        first.occurred_at =
            Timestamp(DAY_MS + (i / 3) * 7_200_000 + if i > 500 { 90 * 86_400_000 } else { 0 });
        wanted.push((first.occurred_at.0, claim_id.clone()));
        writes.push(write(&mut Claim::empty("t", &claim_id), &[first]));
    }
    // One claim of which only a note is known.
    writes.push(write(&mut Claim::empty("t", "early"), &[event("t", "early", 4, note())]));
    sink.write(&writes).await.unwrap();
    wanted.sort();
    wanted.reverse();

    for limit in [1, 7, 100, 5_000] {
        let query = ListQuery::newest("t", ListView::Status, "CREATED", limit);
        assert_eq!(
            pages(&reader, query, if limit == 1 { 40 } else { usize::MAX }).await,
            wanted[..if limit == 1 { 40 } else { 700 }]
        );
    }
    let created = pages(&reader, ListQuery::newest("t", ListView::Created, "", 50), usize::MAX).await;
    assert_eq!(created, wanted);
    let big = pages(&reader, ListQuery::newest("t", ListView::Customer, "big", 50), usize::MAX).await;
    assert_eq!(big.len(), 234);
    let unknown = pages(&reader, ListQuery::newest("t", ListView::Status, "UNKNOWN", 50), usize::MAX).await;
    assert_eq!(unknown, [(0, "early".to_owned())]);

    let (from, before) = (DAY_MS + 5 * 86_400_000 + 1, DAY_MS + 9 * 86_400_000);
    let query = ListQuery {
        created_from: Some(Timestamp(from)),
        created_before: Some(Timestamp(before)),
        ..ListQuery::newest("t", ListView::Created, "", 11)
    };
    let span: Vec<_> = wanted.iter().filter(|(at, _)| (from..before).contains(at)).cloned().collect();
    assert_eq!(pages(&reader, query, usize::MAX).await, span);
    assert!(!span.is_empty());

    let shards: BTreeSet<_> =
        list_all(&reader, ListView::Status).await.iter().map(|item| item.shard).collect();
    assert_eq!(shards.len(), SHARDS as usize);
    drop_keyspace(&config).await;
}

async fn pages(reader: &ClaimReader, query: ListQuery<'_>, most: usize) -> Vec<(i64, String)> {
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let query = ListQuery { after: cursor.as_ref(), ..query };
        let page = reader.list(&query).await.unwrap();
        assert!(page.items.len() <= query.limit);
        found.extend(page.items.into_iter().map(|item| (item.created_at.timestamp_millis(), item.claim_id)));
        // As a caller would keep it.
        cursor = page.next.map(|next| next.to_string().parse().unwrap());
        if cursor.is_none() || found.len() >= most {
            return found;
        }
    }
}

pub async fn list_all(reader: &ClaimReader, view: ListView) -> Vec<claims_current_state::read::ListItem> {
    use futures::TryStreamExt;
    reader.scan_list(view).await.unwrap().try_collect().await.unwrap()
}

#[tokio::test]
async fn failures_are_told_apart() {
    let config = cql();
    let sink = open(&config).await;
    let good = write(&mut Claim::empty("t", "c"), &[event("t", "c", 1, created("cust"))]);

    // An id that no partition key can hold: the row's fault, and only the row's.
    let mut bad = (*good).clone();
    bad.claim.state.claim_id = Text::default();
    assert!(matches!(sink.write(&[Arc::new(bad)]).await, Err(SinkError::Poison(_))));
    let mut bad = (*good).clone();
    bad.claim.state.agent_id.value = Some("a".repeat(70_000).into());
    assert!(matches!(sink.write(&[Arc::new(bad)]).await, Err(SinkError::Poison(_))));

    // A row larger than the server takes: refused for its content, or at least never accepted in part.
    let mut large = (*good).clone();
    large.claim.state.claim_id = "large".into();
    large.claim.state.description.value = Some("x".repeat(40 * 1024 * 1024).into());
    let refused = sink.write(&[Arc::new(large)]).await;
    assert!(refused.is_err(), "{refused:?}");
    sink.write(&[Arc::clone(&good)]).await.unwrap();

    // A dropped table would refuse every row: that must end the process, not fill the dead letters.
    let session = scylla::client::session_builder::SessionBuilder::new()
        .known_nodes(&config.nodes)
        .build()
        .await
        .unwrap();
    session.query_unpaged(format!("DROP TABLE {}.claims_by_customer", config.keyspace), ()).await.unwrap();
    let error = sink.write(&[good]).await.unwrap_err();
    assert!(matches!(&error, SinkError::Fatal(detail) if detail.contains("dropped or altered")), "{error:?}");
    drop_keyspace(&config).await;

    // Nobody listens there.
    let away = CqlConfig { nodes: vec!["127.0.0.1:1".into()], ..cql() };
    assert!(matches!(CqlSink::open(&away).await.err(), Some(SinkError::Transient(_))));
}

#[tokio::test]
async fn tables_of_another_layout_are_refused() {
    let config = cql();
    drop(open(&config).await);
    let session = scylla::client::session_builder::SessionBuilder::new()
        .known_nodes(&config.nodes)
        .build()
        .await
        .unwrap();
    let other =
        format!("INSERT INTO {}.claims_layout (name, version) VALUES ('current-state', 99)", config.keyspace);
    session.query_unpaged(other, ()).await.unwrap();
    let error = CqlSink::open(&config).await.err().unwrap();
    assert!(matches!(&error, SinkError::Fatal(detail) if detail.contains("layout 99")), "{error:?}");
    drop_keyspace(&config).await;
}

#[tokio::test]
async fn documented_queries_run() {
    let config = cql();
    let sink = open(&config).await;
    let mut claim = Claim::empty("default", "claim_67890");
    sink.write(&[write(&mut claim, &[event("default", "claim_67890", 1, created("cust_12345"))])])
        .await
        .unwrap();
    let document = include_str!("../../../../docs/querying-cql.md");
    let session = scylla::client::session_builder::SessionBuilder::new()
        .known_nodes(&config.nodes)
        .build()
        .await
        .unwrap();
    let blocks = document.split("```sql").skip(1).filter_map(|rest| rest.split("```").next());
    let mut run = 0;
    for statement in blocks.flat_map(|block| block.split(';')).map(str::trim).filter(|s| !s.is_empty()) {
        let statement = statement.replace("claims.c", &format!("{}.c", config.keyspace));
        let result = session.query_unpaged(statement.as_str(), ()).await;
        let rows =
            result.unwrap_or_else(|e| panic!("{statement}: {e}")).into_rows_result().unwrap().rows_num();
        if statement.contains("claim_by_id") || statement.contains("claim_timeline") {
            assert_eq!(rows, 1, "{statement}");
        }
        run += 1;
    }
    assert!(run >= 9, "{run} statements");
    drop_keyspace(&config).await;
}

/// Servers refuse batches of several partitions above some size (Apache Cassandra 50 KiB); no claim is too long for them.
#[tokio::test]
async fn long_texts_are_written_however_many_there_are() {
    let config = cql();
    let sink = open(&config).await;
    let reader = ClaimReader::connect(&config).await.unwrap();
    let description = "It broke. ".repeat(6_000);
    let writes: Vec<_> = (0..12)
        .map(|i| {
            let id = format!("long-{i}");
            let title = Some("t".repeat(if i % 2 == 0 { 60_000 } else { 10 }));
            let data = ClaimCreated { description: description.clone(), title, ..created("cust") };
            write(&mut Claim::empty("t", &id), &[event("t", &id, 1, data)])
        })
        .collect();
    sink.write(&writes).await.unwrap();
    for write in &writes {
        let differences = reader.differences(&write.claim).await.unwrap();
        assert_eq!(differences, Vec::new(), "{}", write.claim.state.claim_id);
    }
    drop_keyspace(&config).await;
}
