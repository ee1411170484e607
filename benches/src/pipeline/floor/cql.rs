//! Consume, and write one ready row per event and view with the `scylla` driver, as many rows a request as ours.

use super::{pump, records};
use anyhow::{Context, Result};
use claims_current_state::{
    ClaimWrite, CurrentState,
    cql::{
        packing::{self, Request},
        rows::{ClaimRow, ListRow, Op, TimelineRow},
        sink::CqlSink,
        statements::Statements,
    },
    places::{Place, places, shard},
    store::{StateStore, StoreIdentity},
};
use claims_runtime::{OwnedRecord, Processor, Rows};
use claims_schemas::SchemaCache;
use claims_topology::config::CqlConfig;
use claims_verifier::namespace::{Namespace, REQUEST_TIMEOUT};
use futures::{StreamExt, stream::FuturesUnordered};
use scylla::{
    client::session::Session,
    statement::batch::{Batch, BatchType},
};
use std::{collections::HashMap, ops::Range, sync::Arc};

/// Requests under way; more gain nothing.
const IN_FLIGHT: usize = 256;
/// Few enough that batches overlap with reading, many enough that their ends don't count.
const BATCH_RECORDS: usize = 5_000;

/// What an event has changed: a claim, and where it stands now.
type Change = (Arc<ClaimWrite>, Vec<Place>);

/// Into the product's own tables.
pub async fn run(namespace: &Namespace) -> Result<()> {
    let all = records::read_all(namespace)?;
    let changes = changes(namespace, records::schemas(namespace, &all).await?, &all)?;
    drop(all);
    let config = CqlConfig {
        nodes: vec![namespace.cql()],
        keyspace: namespace.name.clone(),
        request_timeout_ms: REQUEST_TIMEOUT.as_millis() as u64,
        ..CqlConfig::default()
    };
    drop(CqlSink::open(&config).await?);
    let session = Arc::new(namespace.cql_session().await?);
    let statements = Arc::new(Statements::prepare(&session, &namespace.name).await?);
    let changes = Arc::new(changes);
    let write = |range: Range<usize>| {
        let (session, statements, changes) =
            (Arc::clone(&session), Arc::clone(&statements), Arc::clone(&changes));
        async move { write(&session, &statements, &changes, range).await }
    };
    pump::pump(namespace, BATCH_RECORDS, 1, write).await
}

/// One change for every record, as if each were a batch.
fn changes(namespace: &Namespace, schemas: SchemaCache, all: &[OwnedRecord]) -> Result<Vec<Change>> {
    let identity = StoreIdentity {
        topic: namespace.events_topic.clone(),
        topic_id: String::new(),
        partitions: namespace.partitions,
    };
    let store = StateStore::open(&namespace.dir.join("floor"), None, &identity)?;
    let mut processor = CurrentState::new(schemas, store);
    for partition in 0..namespace.partitions {
        processor.assigned(partition, None)?;
    }
    let (mut changes, mut rows) = (Vec::with_capacity(all.len()), Rows::default());
    for (record, batch) in all.iter().zip(1..) {
        processor.process(&record.as_record(), &mut rows)?;
        processor.close_batch(batch, &mut rows)?;
        processor.batch_acknowledged(batch, &[(record.origin.partition, record.origin.offset + 1)])?;
        let change = rows.take().0.pop();
        let change = change.or_else(|| changes.last().map(|(write, _): &Change| Arc::clone(write)));
        let change = change.context("the first record changes nothing")?;
        let places = places(&change.claim.state);
        changes.push((change, places));
    }
    Ok(changes)
}

async fn write(
    session: &Session,
    statements: &Statements,
    changes: &[Change],
    range: Range<usize>,
) -> Result<()> {
    let mut under_way = FuturesUnordered::new();
    let changes = changes.get(range).context("more records than rows")?;
    // There is one node, which coordinates them all.
    for request in packing::pack(requests(changes), |_| ()) {
        if under_way.len() >= IN_FLIGHT {
            under_way.next().await.transpose()?;
        }
        under_way.push(execute(session, statements, request.ops));
    }
    while let Some(written) = under_way.next().await {
        written?;
    }
    Ok(())
}

/// By partition, as ours: the rows of a claim with those of its events in its timeline, and the rows of each list.
fn requests(changes: &[Change]) -> Vec<Request<Op<'_>>> {
    let (mut requests, mut lists) = (Vec::with_capacity(changes.len() * 3), HashMap::<_, Vec<_>>::new());
    for (write, places) in changes {
        let mut ops = vec![Op::Claim(Box::new(ClaimRow::of(write)))];
        ops.extend(write.timeline.iter().map(|entry| Op::Timeline(TimelineRow::of(write, entry))));
        packing::push_partition(&mut requests, ops, Op::approximate_bytes);
        let state = &write.claim.state;
        for place in places {
            let list = (place.view, state.tenant_id.as_str(), place.key.as_str(), place.bucket().0);
            let row = Op::List(place.view, Box::new(ListRow::of(write, place)));
            lists.entry((list, shard(&state.claim_id))).or_default().push(row);
        }
    }
    for ops in lists.into_values() {
        packing::push_partition(&mut requests, ops, Op::approximate_bytes);
    }
    requests
}

async fn execute(session: &Session, statements: &Statements, ops: Vec<Op<'_>>) -> Result<()> {
    let mut batch = Batch::new(BatchType::Unlogged);
    batch.set_is_idempotent(true);
    ops.iter().for_each(|op| batch.append_statement(statements.of(op).clone()));
    session.batch(&batch, &ops).await?;
    Ok(())
}
