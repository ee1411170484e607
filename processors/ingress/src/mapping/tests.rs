use super::*;
use crate::{
    import::{Counts, ImportError, Target, import},
    rejects::Reject,
    source::{Input, SourceError},
};
use claims_schemas::Event;
use proptest::prelude::*;
use std::io::Cursor;

const CASES: &str = r#"
kind = "case-per-row"
source = "shop"
[csv]
dates = ["%Y-%m-%d"]
[case]
id = { column = "id" }
[[event]]
type = "ClaimCreated"
version = 1
at = { column = "day" }
[event.data]
customer_id = { first_of = ["customer", "id"] }
claim_type = "any"
description = { join = ["a", "b"], separator = "/", default = "none" }
urgency = "low"
[[event]]
type = "ClaimResolved"
version = 2
at = { column = "day" }
when = { column = "paid", present = true }
[event.data]
resolution = "paid"
resolution_type = "refund"
follow_up_required = { column = "b", map = { x = "yes" }, otherwise = "no" }
settled = { column = "paid", currency = "EUR" }
"#;

const CHANGES: &str = r#"
kind = "change-per-row"
source = "desk"
[csv]
dates = ["%Y-%m-%d"]
[case]
id = { column = "id" }
sequence = "a"
at = { column = "day" }
[created.data]
customer_id = "c"
claim_type = "t"
description = "d"
urgency = "low"
[state]
column = "b"
[state.values]
x = { status = "created" }
y = { status = "processing", note_kind = "waiting" }
z = { status = "resolved" }
[assignee]
id = { column = "customer" }
[data.ClaimProcessingStarted]
processed_by = "p"
[data.ClaimResolved]
resolution = "r"
resolution_type = "t"
[data.ClaimNoteAdded]
note = "n"
"#;

const HEADER: &str = "id,day,customer,a,b,paid\n";

#[derive(Default)]
struct Collected(Vec<Event>, Vec<Reject>);

impl Target for Collected {
    fn event(&mut self, event: &Event) -> Result<(), ImportError> {
        self.0.push(event.clone());
        Ok(())
    }

    fn reject(&mut self, reject: &Reject) -> Result<(), ImportError> {
        self.1.push(reject.clone());
        Ok(())
    }
}

fn run(mapping: &str, csv: &[u8]) -> Result<(Collected, Counts), SourceError> {
    let mapping = Mapping::parse("m.toml", mapping).unwrap();
    let input = Input::from_reader("t.csv", None, Cursor::new(csv.to_vec())).unwrap();
    let mut source = mapping.open(input, "default", 10_000)?;
    let (mut found, mut counts) = (Collected::default(), Counts::default());
    import(&mut *source, &mut found, false, &mut counts, &mut |_, _| {}).unwrap();
    Ok((found, counts))
}

fn error(from: &str, to: &str) -> String {
    assert!(CASES.contains(from), "{from}");
    Mapping::parse("m.toml", &CASES.replace(from, to)).unwrap_err().to_string()
}

#[test]
fn values_defaults_conditions_and_amounts() {
    let csv = format!("{HEADER}1,2024-01-02,,p,,\n2,2024-01-02,c,p,x,12.50\n");
    let (found, counts) = run(CASES, csv.as_bytes()).unwrap();
    assert_eq!((counts.rows_read, counts.rows_imported(), found.0.len()), (2, 2, 3));
    let text = serde_json::to_value(&found.0).unwrap();
    assert_eq!(text[0]["data"]["ClaimCreated"]["customer_id"], "1");
    assert_eq!(text[0]["data"]["ClaimCreated"]["description"], "p");
    assert_eq!(text[1]["data"]["ClaimCreated"]["description"], "p/x");
    assert_eq!(text[2]["version"], 2);
    assert_eq!(text[2]["data"]["ClaimResolved"]["settled"]["amount"], "12.50");
    assert_eq!(text[2]["data"]["ClaimResolved"]["follow_up_required"], true);
}

/// Tomorrow's export knows one event more of a case: the events known today keep their ids.
#[test]
fn a_later_export_continues_an_earlier_one() {
    let today = run(CASES, format!("{HEADER}1,2024-01-02,c,p,x,\n").as_bytes()).unwrap().0.0;
    let tomorrow = run(CASES, format!("{HEADER}1,2024-01-02,c,p,x,5\n").as_bytes()).unwrap().0.0;
    assert_eq!((today.len(), tomorrow.len()), (1, 2));
    assert_eq!(today[0].event_id, tomorrow[0].event_id);

    let rows = ["1,2024-01-02,,0,x,\n", "1,2024-01-02,w,1,y,\n", "1,2024-01-05,w,4,z,\n"];
    let today = run(CHANGES, format!("{HEADER}{}", rows[..2].concat()).as_bytes()).unwrap().0.0;
    let tomorrow = run(CHANGES, format!("{HEADER}{}", rows.concat()).as_bytes()).unwrap().0.0;
    let ids = |events: &[Event]| events.iter().map(|e| (e.version, e.event_id)).collect::<Vec<_>>();
    assert_eq!(ids(&today), ids(&tomorrow)[..today.len()]);
    let versions: Vec<_> = tomorrow.iter().map(|event| event.version).collect();
    assert_eq!(versions, [1, 17, 18, 19, 65]);
}

/// A changed row has the same version and another id: a conflict that readers report.
#[test]
fn changed_content_is_another_event_of_the_same_version() {
    let first = run(CASES, format!("{HEADER}1,2024-01-02,c,p,x,5\n").as_bytes()).unwrap().0.0;
    let changed = run(CASES, format!("{HEADER}1,2024-01-02,c,p,x,6\n").as_bytes()).unwrap().0.0;
    assert_eq!(first[0].event_id, changed[0].event_id);
    assert_eq!(first[1].version, changed[1].version);
    assert_ne!(first[1].event_id, changed[1].event_id);
}

#[test]
fn errors_name_the_key_and_what_may_stand_there() {
    for (from, to, expected) in [
        ("kind = \"case-per-row\"", "kind = \"rows\"", "kind: must be"),
        ("source = \"shop\"", "sorce = \"shop\"", "source: is missing"),
        ("[case]", "[case]\nidd = \"x\"", "case.idd: unknown key; here may stand: id, user"),
        ("claim_type = \"any\"", "claim_typ = \"any\"", "event[1].data.claim_type: is missing"),
        ("claim_type = \"any\"", "claim_type = \"any\"\nx = \"y\"", "event[1].data.x: unknown key"),
        ("urgency = \"low\"", "urgency = \"lowest\"", "event[1].data.urgency: must be low, medium"),
        ("type = \"ClaimResolved\"", "type = \"ClaimLost\"", "event[2].type: unknown event type"),
        ("type = \"ClaimResolved\"", "type = \"ClaimErased\"", "erasure is a command"),
        ("version = 2", "version = 1", "event[2].version: must be greater"),
        ("version = 2", "version = -2", "event[2].version: must be a whole number"),
        ("dates = [\"%Y-%m-%d\"]", "dates = [\"%Q\"]", "csv.dates"),
        ("dates = [\"%Y-%m-%d\"]", "", "formats: no date formats here, nor under csv.dates"),
        ("present = true", "", "event[2].when.column: needs exactly one of"),
        ("column = \"paid\", currency", "colum = \"paid\", currency", "exactly one of `column`"),
        ("\"EUR\" }", "\"EUR\", x = 1 }", "event[2].data.settled.x: unknown key"),
        ("resolution = \"paid\"", "resolution = 5", "event[2].data.resolution: must be a string"),
        ("[csv]", "[csv]\ndelimiter = \"ab\"", "csv.delimiter: must be one ASCII character"),
        ("[csv]", "[csv]\nencoding = \"utf-16\"", "csv.encoding"),
        ("[csv]", "[csv", "not TOML"),
    ] {
        let found = error(from, to);
        assert!(found.contains(expected), "{to}: {found}");
    }
}

#[test]
fn columns_are_looked_for_when_a_file_is_opened() {
    let error = run(CASES, b"id,day,customer,a,b\n").err().unwrap().to_string();
    let expected = "t.csv: mapping m.toml: event[2].when.column: the file has no column \"paid\"; \
                    it has: id, day, customer, a, b";
    assert_eq!(error, expected);
    let error = run(CASES, b"id,day,customer,a,b,paid,paid\n").err().unwrap().to_string();
    assert!(error.contains("more than one column \"paid\""), "{error}");
    assert!(run(CASES, b"").err().unwrap().to_string().contains("empty"));
    let without_header =
        CASES.replace("[csv]", "[csv]\ncolumns = [\"id\",\"day\",\"customer\",\"a\",\"b\",\"paid\"]");
    assert_eq!(run(&without_header, b"1,2024-01-02,,p,,\n").unwrap().1.rows_imported(), 1);
}

fn field() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("2024-01-02".to_owned()),
        Just("1".to_owned()),
        Just("2".to_owned()),
        Just("x".to_owned()),
        Just("y".to_owned()),
        Just("z".to_owned()),
        Just(String::new()),
        "[0-9.eE+-]{0,8}",
        ".{0,6}",
    ]
}

proptest! {
    /// Whatever the bytes: no panic, and every row read is imported, without a change, or refused.
    #[test]
    fn any_file_is_survived_and_accounted_for(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for mapping in [CASES, CHANGES] {
            let (found, counts) = run(mapping, &[HEADER.as_bytes(), &bytes].concat()).unwrap();
            prop_assert_eq!(found.1.len() as u64, counts.rows_rejected);
            prop_assert!(counts.rows_read >= counts.rows_rejected + counts.rows_without_change);
        }
    }

    /// Versions are unique within a case, and a second import gives the same events.
    #[test]
    fn rows_of_all_kinds_give_unique_versions(
        rows in proptest::collection::vec(proptest::collection::vec(field(), 6), 0..30),
    ) {
        let rows: String = rows.iter()
            .map(|row| {
                row.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect::<Vec<_>>().join(",") + "\n"
            })
            .collect();
        let csv = format!("{HEADER}{rows}");
        let (first, _) = run(CHANGES, csv.as_bytes()).unwrap();
        let mut seen = std::collections::HashSet::new();
        for event in &first.0 {
            prop_assert!(seen.insert((event.claim_id.clone(), event.version)), "{:?}", event);
        }
        let (second, _) = run(CHANGES, csv.as_bytes()).unwrap();
        let ids = |events: &[Event]| events.iter().map(|event| event.event_id).collect::<Vec<_>>();
        prop_assert_eq!(ids(&first.0), ids(&second.0));
    }
}
