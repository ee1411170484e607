//! The examples of `docs/mappings.md` do what it says.

use crate::support::collect;
use claims_ingress::source::Input;
use std::{io::Cursor, path::Path};

/// The fenced block with this info string, and the line on which it begins.
fn block<'a>(text: &'a str, info: &str) -> &'a str {
    let start = format!("\n```{info}\n");
    let after = text.split_once(&start).unwrap_or_else(|| panic!("no block {info}")).1;
    &after[..after.find("```").unwrap()]
}

fn check(kind: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mappings.md");
    let text = std::fs::read_to_string(path).unwrap();
    let csv = block(&text, &format!("csv {kind}")).to_owned();
    let found = collect(
        block(&text, &format!("toml {kind}")),
        Input::from_reader("example.csv", None, Cursor::new(csv)).unwrap(),
    );
    let shown = block(&text, &format!("text {kind}"));
    let counts = &found.counts;
    for (name, count) in [
        ("rows read", counts.rows_read),
        ("  with events", counts.rows_imported()),
        ("  without a change", counts.rows_without_change),
        ("  rejected", counts.rows_rejected),
        ("events (dry run: none sent)", counts.events_emitted),
    ] {
        assert!(shown.contains(&format!("{name:28}{count:>12}")), "{name} is {count}");
    }
    for reject in &found.rejects {
        assert!(shown.contains(&format!("refused: {reject}")), "{reject}");
    }
}

#[test]
fn example_of_one_row_per_case() {
    check("case");
}

#[test]
fn example_of_one_row_per_change() {
    check("change");
}
