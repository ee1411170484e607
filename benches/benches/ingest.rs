//! Nanoseconds per event from the bytes of a file to validated events, and to records ready for Kafka:
//! `cargo bench -p claims-benches --bench ingest`.
// A benchmark that can't be set up has nothing better to do than to stop.
#![allow(clippy::unwrap_used)]

use claims_benches::{SCHEMA_ID, cases, life};
use claims_ingress::{
    mapping::Mapping,
    records::RecordFormat,
    source::{Batch, Format, Input, Step, open},
};
use claims_schemas::json;
use claims_topology::config::IngressConfig;
use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};
use std::path::Path;

const CLAIMS: u64 = 500;
const CASES_MAPPING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../mappings/tsa_claims.toml");

fn main() {
    divan::main();
}

/// A batch of events, or of records.
fn batch(records: bool) -> Batch {
    let format = RecordFormat { schema_id: SCHEMA_ID, partitions: 6 };
    if records { Batch::of_records(format) } else { Batch::default() }
}

/// Reads a file to its end; how many events it gave.
fn read(path: &Path, format: &Format, records: bool) -> usize {
    let input = Input::open(path.to_str().unwrap()).unwrap();
    let mut source = open(input, format, &IngressConfig::default()).unwrap();
    let step = Step { max_rows: 512, max_row_bytes: 4 << 20, stop_at_reject: false };
    let (mut batch, mut events) = (batch(records), 0);
    loop {
        let goes_on = source.fill(&mut batch, step).unwrap();
        assert!(batch.rejects.is_empty(), "{:?}", batch.rejects);
        events += batch.events.len();
        batch.clear();
        if !goes_on {
            return events;
        }
    }
}

fn measure(bencher: Bencher<'_, '_>, text: &str, format: &Format, records: bool) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("input");
    std::fs::write(&path, text).unwrap();
    let events = read(&path, format, records);
    bencher
        .counter(ItemsCount::new(events))
        .counter(BytesCount::new(text.len()))
        .bench_local(|| read(&path, format, records));
}

#[divan::bench(args = [false, true])]
fn ndjson(bencher: Bencher<'_, '_>, records: bool) {
    let events = (0..CLAIMS).flat_map(life);
    let lines: Vec<String> = events.map(|event| json::to_value(&event).to_string()).collect();
    measure(bencher, &(lines.join("\n") + "\n"), &Format::Canonical, records);
}

#[divan::bench(args = [false, true])]
fn mapping(bencher: Bencher<'_, '_>, records: bool) {
    let text = std::fs::read_to_string(CASES_MAPPING).unwrap();
    let mapping = Mapping::parse(CASES_MAPPING, &text).unwrap();
    measure(bencher, &cases(CLAIMS), &Format::Csv(Box::new(mapping)), records);
}
