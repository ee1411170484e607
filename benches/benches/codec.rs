//! Nanoseconds per record of what every record passes through: `cargo bench -p claims-benches --bench codec`.
//!
//! Each measurement runs over the six events of a claim's life, so divan's `items/s` are records.
// A benchmark that can't be set up has nothing better to do than to stop.
#![allow(clippy::unwrap_used)]

use apache_avro::{Schema, reader::datum::GenericDatumReader};
use claims_benches::{SCHEMA_ID, life, now};
use claims_schemas::{
    SchemaCache,
    codec::{self, CLAIM_EVENT_SCHEMA, FRAME_BYTES},
    json,
    validate::validate,
};
use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};

fn main() {
    divan::main();
}

fn encoded() -> Vec<Vec<u8>> {
    let encode = |event| {
        let mut out = Vec::new();
        codec::encode(&event, SCHEMA_ID, &mut out).unwrap();
        out
    };
    life(42).into_iter().map(encode).collect()
}

fn bytes(records: &[Vec<u8>]) -> BytesCount {
    BytesCount::new(records.iter().map(Vec::len).sum::<usize>())
}

/// This build's schema with one more field: its records are inspected before they are decoded.
fn newer_schema() -> String {
    CLAIM_EVENT_SCHEMA.replacen(
        r#"{"name": "reason", "type": ["null", "string"], "default": null}
      ]},
      {"type": "record", "name": "ClaimProcessingStarted""#,
        r#"{"name": "reason", "type": ["null", "string"], "default": null},
        {"name": "channel", "type": ["null", "string"], "default": null}
      ]},
      {"type": "record", "name": "ClaimProcessingStarted""#,
        1,
    )
}

#[divan::bench]
fn encode(bencher: Bencher<'_, '_>) {
    let events = life(42);
    let mut out = Vec::with_capacity(4096);
    bencher.counter(ItemsCount::new(events.len())).counter(bytes(&encoded())).bench_local(|| {
        out.clear();
        for event in &events {
            codec::encode(black_box(event), SCHEMA_ID, &mut out).unwrap();
        }
        out.len()
    });
}

fn decode_with(bencher: Bencher<'_, '_>, schema: &str) {
    let records = encoded();
    let cache = SchemaCache::default();
    cache.insert(SCHEMA_ID, schema).unwrap();
    bencher.counter(ItemsCount::new(records.len())).counter(bytes(&records)).bench_local(|| {
        for record in &records {
            black_box(cache.decode(black_box(record)).unwrap());
        }
    });
}

#[divan::bench]
fn decode(bencher: Bencher<'_, '_>) {
    decode_with(bencher, CLAIM_EVENT_SCHEMA);
}

/// Records of a newer writer, until this build is upgraded.
#[divan::bench]
fn decode_newer_writer(bencher: Bencher<'_, '_>) {
    let newer = newer_schema();
    assert_ne!(newer, CLAIM_EVENT_SCHEMA);
    decode_with(bencher, &newer);
}

/// What decoding through a tree of values would cost, for comparison; no event is made of it yet.
#[divan::bench]
fn decode_to_apache_avro_value(bencher: Bencher<'_, '_>) {
    let records = encoded();
    let schema = Schema::parse_str(CLAIM_EVENT_SCHEMA).unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    bencher.counter(ItemsCount::new(records.len())).counter(bytes(&records)).bench_local(|| {
        for record in &records {
            black_box(reader.read_value(&mut &record[FRAME_BYTES..]).unwrap());
        }
    });
}

#[divan::bench]
fn validate_event(bencher: Bencher<'_, '_>) {
    let (events, now) = (life(42), now());
    bencher.counter(ItemsCount::new(events.len())).bench_local(|| {
        for event in &events {
            validate(black_box(event), now).unwrap();
        }
    });
}

#[divan::bench]
fn json_to_value(bencher: Bencher<'_, '_>) {
    let events = life(42);
    bencher.counter(ItemsCount::new(events.len())).bench_local(|| {
        for event in &events {
            black_box(json::to_value(black_box(event)));
        }
    });
}

/// A line of NDJSON: read where it stands, without a draft of its own.
#[divan::bench]
fn json_line_to_view(bencher: Bencher<'_, '_>) {
    let lines: Vec<Vec<u8>> = life(42).iter().map(|e| json::to_value(e).to_string().into_bytes()).collect();
    let mut reader = json::LineReader::default();
    bencher.counter(ItemsCount::new(lines.len())).counter(bytes(&lines)).bench_local(|| {
        for line in &lines {
            black_box(reader.read(black_box(line)).unwrap());
        }
    });
}

/// A line of NDJSON: parsed and turned into an event's draft.
#[divan::bench]
fn json_line_to_draft(bencher: Bencher<'_, '_>) {
    let lines: Vec<Vec<u8>> = life(42).iter().map(|e| json::to_value(e).to_string().into_bytes()).collect();
    bencher.counter(ItemsCount::new(lines.len())).counter(bytes(&lines)).bench_local(|| {
        for line in &lines {
            let value = serde_json::from_slice(black_box(line)).unwrap();
            black_box(json::from_value(value).unwrap());
        }
    });
}
