//! How much is read at one go, and what is emitted up to the first refused row.

use crate::support::Collected;
use claims_ingress::{
    import::{Counts, ImportError, import},
    mapping::Mapping,
    source::{
        Batch, Input, RowSource, Step,
        ndjson::{Dialect, NdjsonSource},
    },
};
use std::io::Cursor;

const MAPPING: &str = r#"
kind = "change-per-row"
source = "desk"
[csv]
dates = ["%Y-%m-%d"]
[case]
id = { column = "id" }
sequence = "n"
at = { column = "day" }
versions_per_row = 4
[created.data]
customer_id = "c"
claim_type = "t"
description = "d"
urgency = "low"
[state]
column = "state"
[state.values]
open = { status = "created" }
done = { status = "closed" }
"#;

/// Imports until the first refused row: the claims with events, the line of the row, and the counts.
fn strict(rows: &str) -> (Vec<String>, u64, Counts) {
    let text = format!("id,n,day,state\n{rows}");
    let input = Input::from_reader("t", None, Cursor::new(text)).unwrap();
    let mut source = Mapping::parse("t", MAPPING).unwrap().open(input, "default", 1 << 20).unwrap();
    let (mut found, mut counts) = (Collected::default(), Counts::default());
    let end = import(&mut *source, &mut found, true, &mut counts, &mut |_, _| {});
    let Err(ImportError::Strict(reject)) = end else { panic!("{end:?}") };
    assert_eq!(found.rejects, std::slice::from_ref(&reject));
    assert_eq!((counts.rows_rejected, counts.events_emitted), (1, found.events.len() as u64));
    (found.events.into_iter().map(|event| event.claim_id).collect(), reject.line, counts)
}

#[test]
fn strict_emits_nothing_of_a_case_with_a_refused_row_nor_after_it() {
    let whole = "a,1,2024-01-01,open\na,2,2024-01-02,done\n";
    let after = "c,1,2024-01-01,open\nc,2,2024-01-02,done\n";
    for (case, line) in [
        // In the middle of its case, at its end, and with a refused row further up in the file though later in time.
        ("b,1,2024-01-01,open\nb,2,2024-02-30,done\nb,3,2024-01-03,done\n", 5),
        ("b,1,2024-01-01,open\nb,2,2024-01-02,lost\n", 5),
        ("b,9,2024-02-30,done\nb,1,2024-01-01,open\nb,x,2024-01-01,open\n", 4),
        // No case at all.
        ("b,1,2024-01-01,open\n,2,2024-01-02,done\nb,3,2024-01-03,done\n", 5),
        ("b,1,2024-01-01,open\nb,2\nb,3,2024-01-03,done\n", 5),
    ] {
        let (claims, at, counts) = strict(&format!("{whole}{case}{after}"));
        assert_eq!((claims.as_slice(), at), (["a".to_owned(), "a".to_owned()].as_slice(), line), "{case}");
        assert_eq!((counts.rows_read, counts.rows_imported()), (3, 2), "{case}");
    }
}

#[test]
fn strict_keeps_what_stands_before_a_row_that_stands_apart() {
    let (claims, line, _) =
        strict("a,1,2024-01-01,open\nb,1,2024-01-01,open\na,2,2024-01-02,done\nc,1,2024-01-01,open\n");
    assert_eq!((claims.as_slice(), line), (["a".to_owned(), "b".to_owned()].as_slice(), 4));
}

#[test]
fn a_step_ends_by_bytes_as_well_as_by_rows() {
    let text = format!("{}\n", "x".repeat(1_000)).repeat(20);
    let input = Input::from_reader("t", None, Cursor::new(text)).unwrap();
    let mut source = NdjsonSource::new(input, Dialect::Canonical, "default", 1 << 20);
    let mut rows = Vec::new();
    for step in [(100, 3_500), (7, 1_000_000), (100, 1_000_000)] {
        let (max_rows, max_row_bytes) = step;
        let mut batch = Batch::default();
        let more = source.fill(&mut batch, Step { max_rows, max_row_bytes, stop_at_reject: false }).unwrap();
        rows.push((batch.rows_read, more));
    }
    assert_eq!(rows, [(4, true), (7, true), (9, false)]);
}
