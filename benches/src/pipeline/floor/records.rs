//! All records of a topic in memory, and the schemas that they were written with.

use anyhow::{Context, Result};
use claims_runtime::{Origin, OwnedRecord, Processor, Rows, RuntimeSettings};
use claims_schemas::SchemaCache;
use claims_verifier::{namespace::Namespace, views::topics};
use rdkafka::{Message, message::Headers};
use std::collections::HashSet;

/// Every record of the namespace's events topic, the partitions by turns.
pub fn read_all(namespace: &Namespace) -> Result<Vec<OwnedRecord>> {
    let mut records = Vec::new();
    topics::each_record(namespace, &namespace.events_topic, |message| {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        records.push(OwnedRecord {
            origin: Origin { partition: message.partition(), offset: message.offset() },
            appended_at_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers: headers
                .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
                .collect(),
        });
        Ok(())
    })?;
    // As traffic comes, from all partitions at once; they were read one after the other.
    records.sort_by_key(|record| (record.origin.offset, record.origin.partition));
    Ok(records)
}

/// The schemas of these records.
pub async fn schemas(namespace: &Namespace, records: &[OwnedRecord]) -> Result<SchemaCache> {
    let id_of = |record: &OwnedRecord| {
        let id = record.payload.as_ref()?.get(1..5)?;
        Some(u32::from_be_bytes(id.try_into().ok()?))
    };
    let ids: HashSet<u32> = records.iter().filter_map(id_of).collect();
    let cache = SchemaCache::default();
    for id in ids {
        let text = topics::schema_text(namespace, id).await?;
        cache.insert(id, &text).with_context(|| format!("schema {id}"))?;
    }
    Ok(cache)
}

/// What a processor that pushes its rows at once makes of them, and how many rows fill a batch of its usual limits.
pub fn rows<P: Processor>(
    processor: &mut P,
    records: &[OwnedRecord],
    limits: &RuntimeSettings,
) -> Result<(Vec<P::Row>, usize)> {
    let mut rows = Rows::default();
    for record in records {
        let record = record.as_record();
        processor.process(&record, &mut rows).with_context(|| format!("{:?}", record.origin))?;
    }
    let by_bytes = (limits.max_batch_bytes * rows.len()).checked_div(rows.bytes()).unwrap_or(usize::MAX);
    Ok((rows.take().0, by_bytes.clamp(1, limits.max_batch_records)))
}
