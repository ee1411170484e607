//! Nanoseconds per event of the fold and of the stored state: `cargo bench -p claims-benches --bench fold`.
// A benchmark that can't be set up has nothing better to do than to stop.
#![allow(clippy::unwrap_used)]

use claims_benches::{SCHEMA_ID, event, life};
use claims_schemas::{ClaimState, Event, codec, events::*};
use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};

fn main() {
    divan::main();
}

fn fold(events: &[Event]) -> ClaimState {
    let mut state = ClaimState::empty("default", "claim_42");
    for event in events {
        state.apply(event);
    }
    state
}

/// The life of a claim, then notes up to so many events.
fn long_life(events: u64) -> Vec<Event> {
    let mut all = life(42);
    let note = |version| {
        let note = ClaimNoteAdded { author: None, note: "still waiting".into(), kind: None };
        event(42, version, note.into())
    };
    all.extend((all.len() as u64 + 1..=events).map(note));
    all
}

/// A whole life from nothing: the state's strings are made here.
#[divan::bench]
fn apply_in_order(bencher: Bencher<'_, '_>) {
    let events = life(42);
    bencher.counter(ItemsCount::new(events.len())).bench_local(|| fold(black_box(&events)));
}

#[divan::bench]
fn apply_in_reverse(bencher: Bencher<'_, '_>) {
    let mut events = life(42);
    events.reverse();
    bencher.counter(ItemsCount::new(events.len())).bench_local(|| fold(black_box(&events)));
}

/// Events folded before: a replay.
#[divan::bench]
fn apply_copies(bencher: Bencher<'_, '_>) {
    let events = life(42);
    let mut state = fold(&events);
    bencher.counter(ItemsCount::new(events.len())).bench_local(|| {
        for event in &events {
            black_box(state.apply(black_box(event)));
        }
    });
}

#[divan::bench(args = [6, 60, 1000])]
fn state_to_bytes(bencher: Bencher<'_, '_>, events: u64) {
    let state = fold(&long_life(events));
    let bytes = BytesCount::new(state.to_bytes().len());
    bencher.counter(ItemsCount::new(1_u32)).counter(bytes).bench_local(|| black_box(&state).to_bytes());
}

#[divan::bench(args = [6, 60, 1000])]
fn state_from_bytes(bencher: Bencher<'_, '_>, events: u64) {
    let bytes = fold(&long_life(events)).to_bytes();
    let count = BytesCount::new(bytes.len());
    bencher
        .counter(ItemsCount::new(1_u32))
        .counter(count)
        .bench_local(|| ClaimState::from_bytes(black_box(&bytes)).unwrap());
}

/// The current state as a record of `claims.state.v1`.
#[divan::bench]
fn encode_state(bencher: Bencher<'_, '_>) {
    let state = fold(&life(42));
    let mut out = Vec::with_capacity(4096);
    codec::encode_state(&state, SCHEMA_ID, &mut out).unwrap();
    let bytes = BytesCount::new(out.len());
    bencher.counter(ItemsCount::new(1_u32)).counter(bytes).bench_local(|| {
        out.clear();
        codec::encode_state(black_box(&state), SCHEMA_ID, &mut out).unwrap();
        out.len()
    });
}
