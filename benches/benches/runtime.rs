//! What the runtime adds to every record: `cargo bench -p claims-benches --bench runtime`.
//!
//! `items/s` are records. The goal is 150 ns or less per record for ledger, batcher and driver together, the
//! processor's own work and the client library left out.
// A benchmark that can't be set up has nothing better to do than to stop.
#![allow(clippy::unwrap_used)]

use claims_runtime::{
    Origin, Payload, ProcessError, Processor, Record, Rows,
    batcher::{BatchLimits, Batcher},
    ledger::OffsetLedger,
    testing::{Driver, TestRecord},
};
use divan::{Bencher, black_box, counter::ItemsCount};

const RECORDS: i64 = 50_000;
const PARTITIONS: i32 = 6;

fn main() {
    divan::main();
}

fn origins() -> impl Iterator<Item = Origin> {
    (0..RECORDS).map(|n| Origin { partition: (n % i64::from(PARTITIONS)) as i32, offset: n })
}

fn assigned() -> OffsetLedger {
    let mut ledger = OffsetLedger::new();
    for partition in 0..PARTITIONS {
        ledger.assign(partition, 0, None);
    }
    ledger
}

/// Charging every offset of a batch.
#[divan::bench]
fn ledger_charge(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(RECORDS as usize)).with_inputs(assigned).bench_local_values(
        |mut ledger| {
            for origin in origins() {
                black_box(ledger.charge(black_box(origin)));
            }
            ledger
        },
    );
}

/// Closing, completing and acknowledging batches of one record each: the dearest case.
#[divan::bench]
fn ledger_batches_of_one(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(RECORDS as usize)).with_inputs(assigned).bench_local_values(
        |mut ledger| {
            for (id, origin) in (1..).zip(origins()) {
                ledger.charge(origin);
                black_box(ledger.close_batch(id));
                ledger.complete(id);
                black_box(ledger.next_acknowledged());
            }
            ledger
        },
    );
}

/// Asking after every record whether the batch is full.
#[divan::bench]
fn batcher_is_full(bencher: Bencher<'_, '_>) {
    let limits = BatchLimits { max_records: RECORDS as u64 + 1, max_bytes: 32 << 20, max_age_ms: 200 };
    bencher.counter(ItemsCount::new(RECORDS as usize)).bench_local(|| {
        let batcher = Batcher::new(limits);
        (0..RECORDS as u64).filter(|&n| batcher.is_full(black_box(n), black_box(n as usize))).count()
    });
}

struct Forward;

impl Processor for Forward {
    type Row = i64;

    fn name(&self) -> &'static str {
        "forward"
    }

    fn process(&mut self, record: &Record<'_>, rows: &mut Rows<i64>) -> Result<(), ProcessError> {
        if let Payload::Value(bytes) = record.payload {
            rows.push(record.origin, bytes.len() as i64, 8);
        }
        Ok(())
    }
}

/// The whole way of a record of 250 bytes through pipeline, arena and ledger into a closed batch, with a processor
/// that does nothing. The driver's own list of records, and the growing of its first batch, are part of it.
#[divan::bench]
fn pipeline(bencher: Bencher<'_, '_>) {
    let records = || -> Vec<TestRecord> {
        origins()
            .map(|o| TestRecord::value(o.partition, o.offset, vec![7; 250]).key("tenant:claim-000001:event"))
            .collect()
    };
    bencher.counter(ItemsCount::new(RECORDS as usize)).with_inputs(records).bench_local_values(|records| {
        let mut driver = Driver::new(Forward);
        (0..PARTITIONS).try_for_each(|p| driver.assign(p, None).map(drop)).unwrap();
        for record in records {
            driver.feed(record).unwrap();
        }
        (driver.close_batch().unwrap().unwrap(), driver)
    });
}
