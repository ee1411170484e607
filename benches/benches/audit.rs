//! What a record costs on its way into the trail: `cargo bench -p claims-benches --bench audit`.
//!
//! `items/s` are records. Two orders: `imported`, every claim's events one after the other, and `live`, nearly every
//! record of another claim than the ones before. Bytes per record of each encoding are printed first.
// A benchmark that can't be set up has nothing better to do than to stop.
#![allow(clippy::unwrap_used)]

use arrow_array::RecordBatch;
use claims_audit::{
    packed::PackedEntry,
    processor::{AuditProcessor, TrailEnds},
    record::AsEntry as _,
    segment::{
        Head,
        gather::Gathered,
        schema::column::*,
        write::{self, Segment},
    },
};
use claims_benches::{SCHEMA_ID, life};
use claims_runtime::{Origin, OwnedRecord, Processor as _, Rows};
use claims_schemas::{SchemaCache, codec};
use divan::{Bencher, black_box, counter::ItemsCount};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, Encoding, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion},
};
use uuid::Uuid;

/// About what one partition's part of a full batch holds.
const CLAIMS: u64 = 800;
const TOPIC: &str = "claims.events.v1";
const NOW_MS: i64 = 1_752_000_000_000;
const ORDERS: [Order; 2] = [Order::Imported, Order::Live];

#[derive(Debug, Clone, Copy)]
enum Order {
    Imported,
    Live,
}

fn main() {
    for (order, encodings) in WAYS {
        let rows = segment(&packed(order)).rows().clone();
        let bytes = file(&rows, encodings).len() as f64 / rows.num_rows() as f64;
        println!("{order:?}, {encodings:?}: {bytes:.1} bytes per record");
    }
    divan::main();
}

/// Bits without a pattern, the same for the same number.
fn scattered(number: u64) -> u64 {
    let mixed = (number ^ number >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ mixed >> 31
}

/// Records of one partition, with event ids and trace contexts as random as real ones.
fn records(order: Order) -> Vec<OwnedRecord> {
    let mut events: Vec<_> = (0..CLAIMS).flat_map(|claim| life(scattered(claim) % 1_000_000)).collect();
    if let Order::Live = order {
        events.sort_by_key(|event| event.version);
    }
    let record = |(offset, mut event): (i64, claims_schemas::Event)| {
        let random = scattered(offset.cast_unsigned() + 1);
        event.event_id = Uuid::from_u64_pair(random, scattered(random));
        let mut value = Vec::new();
        codec::encode(&event, SCHEMA_ID, &mut value).unwrap();
        let trace = format!("00-{:016x}{random:016x}-{:016x}-01", scattered(!random), scattered(random + 1));
        OwnedRecord {
            origin: Origin { partition: 0, offset },
            appended_at_ms: NOW_MS - 60_000 + offset / 5,
            key: Some(event.record_key().into_bytes()),
            payload: Some(value),
            headers: vec![("traceparent".to_owned(), trace.into_bytes())],
        }
    };
    (0..).zip(events).map(record).collect()
}

fn processor() -> AuditProcessor {
    let schemas = SchemaCache::default();
    schemas.insert(SCHEMA_ID, codec::CLAIM_EVENT_SCHEMA).unwrap();
    AuditProcessor::new(schemas, TrailEnds::default())
}

fn packed(order: Order) -> Vec<PackedEntry> {
    let (mut processor, mut rows) = (processor(), Rows::default());
    for record in records(order) {
        processor.process(&record.as_record(), &mut rows).unwrap();
    }
    rows.take().0
}

fn gathered(entries: &[PackedEntry]) -> Gathered {
    Gathered::new(&entries.iter().collect::<Vec<_>>()).unwrap()
}

fn segment(entries: &[PackedEntry]) -> Segment {
    gathered(entries).seal(TOPIC, &Head::empty(TOPIC, 0), NOW_MS).unwrap()
}

/// Decoding and packing.
#[divan::bench(args = ORDERS)]
fn process(bencher: Bencher<'_, '_>, order: Order) {
    let records = records(order);
    let mut processor = processor();
    bencher.counter(ItemsCount::new(records.len())).with_inputs(Rows::default).bench_local_values(
        |mut rows| {
            for record in &records {
                processor.process(black_box(&record.as_record()), &mut rows).unwrap();
            }
            rows
        },
    );
}

/// Reading packed records.
#[divan::bench]
fn refs(bencher: Bencher<'_, '_>) {
    let entries = packed(Order::Live);
    bencher.counter(ItemsCount::new(entries.len())).bench_local(|| {
        for entry in &entries {
            black_box(entry.as_refs());
        }
    });
}

/// Records to columns.
#[divan::bench(args = ORDERS)]
fn gather(bencher: Bencher<'_, '_>, order: Order) {
    let entries = packed(order);
    bencher.counter(ItemsCount::new(entries.len())).bench_local(|| gathered(black_box(&entries)));
}

/// The three hashes of each record.
#[divan::bench]
fn seal(bencher: Bencher<'_, '_>) {
    let entries = packed(Order::Live);
    let head = Head::empty(TOPIC, 0);
    bencher
        .counter(ItemsCount::new(entries.len()))
        .with_inputs(|| gathered(&entries))
        .bench_local_values(|gathered| gathered.seal(TOPIC, &head, NOW_MS).unwrap());
}

/// Columns to the product's file.
#[divan::bench(args = ORDERS)]
fn encode(bencher: Bencher<'_, '_>, order: Order) {
    let entries = packed(order);
    bencher
        .counter(ItemsCount::new(entries.len()))
        .with_inputs(|| segment(&entries))
        .bench_local_values(|segment| segment.encode().unwrap());
}

/// Ways to encode the columns.
#[derive(Debug, Clone, Copy)]
enum Encodings {
    /// The product's.
    Product,
    /// The writer's own choice wherever it is a reasonable one: dictionaries, else `DELTA_BYTE_ARRAY`.
    Defaults,
}

const WAYS: [(Order, Encodings); 4] = [
    (Order::Imported, Encodings::Product),
    (Order::Imported, Encodings::Defaults),
    (Order::Live, Encodings::Product),
    (Order::Live, Encodings::Defaults),
];

fn defaults() -> WriterPropertiesBuilder {
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).unwrap()))
        .set_max_row_group_row_count(None)
        .set_write_batch_size(4_096)
        .set_offset_index_disabled(true)
        .set_statistics_enabled(EnabledStatistics::None);
    for name in [POSITION, OFFSET, APPENDED_AT, OCCURRED_AT, RECORDED_AT] {
        builder = builder
            .set_column_dictionary_enabled(name.into(), false)
            .set_column_encoding(name.into(), Encoding::DELTA_BINARY_PACKED);
    }
    for name in [KEY, VALUE, EVENT_ID, SALT, CONTENT_HASH, CHAIN_HASH] {
        builder = builder.set_column_dictionary_enabled(name.into(), false);
    }
    for name in [SALT, CONTENT_HASH, CHAIN_HASH] {
        builder = builder.set_column_compression(name.into(), Compression::UNCOMPRESSED);
    }
    builder
}

/// Without what else a segment has: filter, statistics, metadata.
fn file(rows: &RecordBatch, encodings: Encodings) -> Vec<u8> {
    let builder = match encodings {
        Encodings::Product => write::encodings(WriterProperties::builder()).unwrap(),
        Encodings::Defaults => defaults(),
    };
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(builder.build())).unwrap();
    writer.write(rows).unwrap();
    writer.into_inner().unwrap()
}

/// Columns to a file, each way.
#[divan::bench(args = WAYS)]
fn columns(bencher: Bencher<'_, '_>, (order, encodings): (Order, Encodings)) {
    let rows = segment(&packed(order)).rows().clone();
    bencher.counter(ItemsCount::new(rows.num_rows())).bench_local(|| file(black_box(&rows), encodings));
}
