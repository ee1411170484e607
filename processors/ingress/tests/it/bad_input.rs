//! Files as they shouldn't be: each bad row is refused with its line and reason, and the good ones around it go in.

use crate::support::{Collected, collect, collect_source};
use claims_ingress::source::{
    Input,
    legacy::LegacyNumbering,
    ndjson::{Dialect, NdjsonSource},
};
use claims_schemas::{EventData, EventType};
use std::io::Cursor;

const MAPPING: &str = r#"
kind = "case-per-row"
source = "shop"
[csv]
missing = ["?"]
dates = ["%d/%m/%Y"]
[case]
id = { column = "id" }
[[event]]
type = "ClaimCreated"
version = 1
at = { column = "day" }
[event.data]
customer_id = { column = "customer" }
claim_type = "any"
description = "none"
urgency = { column = "urgency", map = { "1" = "high", "2" = "low" }, default = "medium" }
claimed = { column = "amount", currency = "EUR" }
"#;

const HEADER: &str = "id,day,customer,urgency,amount\n";

fn csv(rows: &[u8]) -> Collected {
    let bytes = [HEADER.as_bytes(), rows].concat();
    collect(MAPPING, Input::from_reader("bad.csv", None, Cursor::new(bytes)).unwrap())
}

fn ndjson(dialect: Dialect, text: &str) -> Collected {
    let input = Input::from_reader("bad.ndjson", None, Cursor::new(text.to_owned())).unwrap();
    collect_source(&mut NdjsonSource::new(input, dialect, "default", 1 << 20))
}

#[test]
fn bad_values_of_a_csv() {
    let ten_kilobytes = "x".repeat(10_000);
    for (row, reason, place) in [
        ("b,31/2/2016,c,1,5", "invalid-date", "event[1].at (column day)"),
        ("b,2016-02-01,c,1,5", "invalid-date", "event[1].at (column day)"),
        ("b,?,c,1,5", "missing-value", "event[1].at (column day)"),
        ("b,1/2/2016,c,1,1e400", "invalid-amount", "event[1].data.claimed (column amount)"),
        ("b,1/2/2016,c,1,NaN", "invalid-amount", "event[1].data.claimed (column amount)"),
        ("b,1/2/2016,c,9,5", "unmapped-value", "event[1].data.urgency (column urgency)"),
        ("?,1/2/2016,c,1,5", "missing-value", "case.id (column id)"),
    ] {
        let found = csv(format!("a,1/2/2016,c,1,5\n{row}\nz,1/2/2016,c,2,\n").as_bytes());
        let claims: Vec<_> = found.events.iter().map(|event| event.claim_id.as_str()).collect();
        assert_eq!(claims, ["a", "z"], "{row}");
        assert_eq!(found.rejects.len(), 1, "{row}");
        let reject = &found.rejects[0];
        assert_eq!((reject.line, reject.reason, reject.field.as_deref()), (3, reason, Some(place)), "{row}");
        assert_eq!(reject.payload, row.as_bytes());
    }
    // What the rules for every event refuse, with the field as the rules name it.
    for (row, field) in [
        ("b,1/2/2016,c,1,-5".to_owned(), "amount"),
        ("b,1/2/2126,c,1,5".to_owned(), "occurred_at"),
        ("b,1/2/1799,c,1,5".to_owned(), "occurred_at"),
        (format!("{ten_kilobytes},1/2/2016,c,1,5"), "claim_id"),
        ("b\u{7},1/2/2016,c,1,5".to_owned(), "claim_id"),
        (format!("b,1/2/2016,{ten_kilobytes},1,5"), "customer_id"),
        ("b,1/2/2016,c,1,123456789012345678".to_owned(), "amount"),
    ] {
        let found = csv(format!("{row}\nz,1/2/2016,c,2,\n").as_bytes());
        assert_eq!(found.events.len(), 1, "{row}");
        assert_eq!(found.rejects[0].line, 2, "{row}");
        assert!(found.rejects[0].field.as_deref().unwrap().contains(field), "{}", found.rejects[0]);
    }
}

#[test]
fn bad_lines_of_a_csv() {
    let wide = format!("b,1/2/2016,c,1,5{}", ",x".repeat(40));
    let long = format!("b,1/2/2016,{},1,5", "x".repeat(10_000_000));
    for (row, reason) in [
        (wide.as_bytes(), "column-count"),
        (b"b,1/2/2016".as_slice(), "column-count"),
        (b"b,\"1/2/2016,c,1,5", "broken-quoting"),
        (b"b,\"1/2\"/2016,c,1,5", "broken-quoting"),
        (b"b,1/2/2016,caf\xe9,1,5", "invalid-utf8"),
        (long.as_bytes(), "too-long"),
    ] {
        let rows = [b"a,1/2/2016,c,1,5\r\n", row, b"\r\nz,1/2/2016,\"c, d\",2,\r\n"].concat();
        let found = csv(&rows);
        let reasons: Vec<_> = found.rejects.iter().map(|reject| (reject.line, reject.reason)).collect();
        assert_eq!(reasons, [(3, reason)]);
        assert_eq!(found.events.len(), 2, "{reason}");
    }
    let found = csv(b"a,1/2/2016,c,1,5\nb,1/2/2016,\"c");
    assert_eq!((found.events.len(), found.rejects[0].reason), (1, "truncated-record"));
}

#[test]
fn rows_of_a_case_that_stand_apart_are_refused_whatever_the_rest() {
    let mapping = r#"
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
work = { status = "in_progress" }
done = { status = "closed" }
[assignee]
id = { column = "who" }
[data.ClaimProcessingStarted]
processed_by = { column = "who", default = "nobody" }
"#;
    let text = "id,n,day,state,who\n\
        a,1,2024-01-01,open,\na,2,2024-01-02,work,x\n\
        b,2,2024-01-02,done,x\nb,1,2024-01-01,open,x\nb,3,2024-01-03,done,x\n\
        a,3,2024-01-03,done,x\n\
        c,-1,2024-01-03,done,x\nc,1,2024-02-30,done,x\nc,1,2024-02-01,lost,x\nc,1,2024-02-01,open,\n";
    let found = collect(mapping, Input::from_reader("t", None, Cursor::new(text)).unwrap());
    let rejects: Vec<_> = found.rejects.iter().map(|reject| (reject.line, reject.reason)).collect();
    let expected =
        [(7, "case-not-contiguous"), (8, "invalid-value"), (9, "invalid-date"), (10, "unmapped-value")];
    assert_eq!(rejects, expected);
    assert_eq!((found.counts.rows_read, found.counts.rows_without_change), (10, 1));
    let events: Vec<_> =
        found.events.iter().map(|e| (e.claim_id.as_str(), e.version, e.event_type())).collect();
    use EventType::*;
    let expected = [
        ("a", 5, ClaimCreated),
        ("a", 9, ClaimAssigned),
        ("a", 10, ClaimProcessingStarted),
        // Rows of b are taken by their numbers, not as they stand.
        ("b", 5, ClaimCreated),
        ("b", 6, ClaimAssigned),
        ("b", 9, ClaimClosed),
        ("c", 5, ClaimCreated),
    ];
    assert_eq!(events, expected);
}

#[test]
fn bad_lines_of_ndjson() {
    let good = r#"{"claim_id":"c","event_type":"ClaimClosed","version":1,"occurred_at":"2024-01-01T00:00:00Z","data":{}}"#;
    for (bad, reason) in [
        (good.replace("2024-01-01", "2024-02-31"), "invalid-event"),
        (good.replace("\"version\":1", "\"version\":1e400"), "invalid-json"),
        (good.replace("\"version\":1", "\"version\":NaN"), "invalid-json"),
        (good.replace("\"version\":1", "\"version\":-1"), "invalid-event"),
        (good.replace("ClaimClosed", "ClaimLost"), "invalid-event"),
        (good.replace("\"data\":{}", "\"data\":{\"x\":1}"), "invalid-event"),
        (good.replace("\"data\":{}", "\"data\":{},\"x\":1"), "invalid-event"),
        (good[..60].to_owned(), "invalid-json"),
        ("[".repeat(100_000), "invalid-json"),
        ("x".repeat(2_000_000), "too-long"),
    ] {
        let found = ndjson(Dialect::Canonical, &format!("{good}\n{bad}\n\n{good}\n"));
        let rejects: Vec<_> = found.rejects.iter().map(|reject| (reject.line, reject.reason)).collect();
        assert_eq!(rejects, [(2, reason)], "{}", &bad[..bad.len().min(200)]);
        assert_eq!(found.events.len(), 2);
    }
    let cut = ndjson(Dialect::Canonical, &format!("{good}\n{}", &good[..60]));
    assert_eq!((cut.events.len(), cut.rejects[0].reason), (1, "truncated-record"));
}

/// The older system's own samples, as they stand in its documents.
#[test]
fn legacy_samples_go_in_as_they_stand() {
    let text = r#"{"event_id":"f47ac10b-58cc-4372-a567-0e02b2c3d479","event_type":"ReclamationCreee","aggregate_id":"claim_67890","data":{"customer_id":"cust_12345","claim_type":"product_defect","description":"Produit défectueux reçu","product_id":"prod_abc123","urgency":"medium","order_id":"order_45678"},"timestamp":"2025-07-08T14:30:00.000Z","correlation_id":"trace_xyz789"}
{"event_id":"a1b2c3d4-e5f6-4708-9abc-def012345678","event_type":"ReclamationAffectee","aggregate_id":"claim_67890","data":{"agent_id":"agent_smith","agent_name":"John Smith","assignment_reason":"product_expertise","estimated_resolution_time":"2025-07-10T14:30:00.000Z"},"timestamp":"2025-07-08T14:35:00.000Z","correlation_id":"trace_xyz789"}
{"event_id":"9876543a-bcde-4f01-2345-6789abcdef01","event_type":"ReclamationResolue","aggregate_id":"claim_67890","data":{"resolution":"Produit remplacé par un neuf","resolution_type":"replacement","customer_satisfaction":"satisfied","follow_up_required":false,"replacement_tracking":"track_999888"},"timestamp":"2025-07-09T10:15:00.000Z","correlation_id":"trace_xyz789"}
"#;
    let found = ndjson(Dialect::Legacy(LegacyNumbering::default()), &format!("{text}{text}"));
    assert_eq!(found.rejects, []);
    assert_eq!(
        (found.counts.rows_read, found.counts.rows_without_change),
        (6, 3),
        "the second half are copies"
    );
    let versions: Vec<_> = found.events.iter().map(|event| (event.version, event.event_type())).collect();
    use EventType::*;
    assert_eq!(versions, [(1, ClaimCreated), (2, ClaimAssigned), (3, ClaimResolved)]);
    let first = &found.events[0];
    assert_eq!(first.event_id.to_string(), "f47ac10b-58cc-4372-a567-0e02b2c3d479");
    assert_eq!((first.claim_id.as_str(), first.correlation_id.as_str()), ("claim_67890", "trace_xyz789"));
    assert_eq!(first.source.as_deref(), Some("legacy"));
    match &first.data {
        EventData::ClaimCreated(created) => assert_eq!(created.description, "Produit défectueux reçu"),
        other => panic!("{other:?}"),
    }
}

/// Lines that were good keep their versions and ids when a refused one between them is corrected, so that they are
/// copies of what was imported before; the corrected one fills the gap.
#[test]
fn a_corrected_legacy_line_takes_the_gap_that_it_left() {
    let good: Vec<String> = ["ReclamationCreee", "ReclamationAffectee", "ReclamationEnCours", "ReclamationCloturee"]
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let data = match i {
                0 => r#"{"customer_id":"c","claim_type":"other","description":"d","urgency":"low"}"#,
                1 => r#"{"agent_id":"a","agent_name":"n"}"#,
                2 => r#"{"processed_by":"p"}"#,
                _ => "{}",
            };
            format!(
                r#"{{"event_id":"f47ac10b-58cc-4372-a567-0e02b2c3d47{i}","event_type":"{name}","aggregate_id":"k","data":{data},"timestamp":"2025-07-08T14:3{i}:00Z"}}"#
            )
        })
        .collect();
    let without_ids: Vec<String> =
        good.iter().map(|line| line.replace(&line[1..line.find("\"event_type").unwrap()], "")).collect();
    for lines in [good, without_ids] {
        let import = |lines: &[String]| {
            let found = ndjson(Dialect::Legacy(LegacyNumbering::default()), &lines.join("\n"));
            let ids: Vec<_> = found.events.iter().map(|event| (event.version, event.event_id)).collect();
            (ids, found.rejects)
        };
        let (whole, rejects) = import(&lines);
        assert_eq!(rejects, []);
        assert_eq!(whole.iter().map(|(version, _)| *version).collect::<Vec<_>>(), [1, 2, 3, 4]);
        // Refused for its type, for its time, for a field of its data, and by the rules for every event.
        for (text, bad) in [
            ("ReclamationAffectee", "ReclamationPerdue"),
            ("\"timestamp\"", "\"time\""),
            ("\"agent_id\":\"a\"", "\"agent_id\":5"),
            ("\"timestamp\":\"2025", "\"timestamp\":\"9025"),
        ] {
            let mut broken = lines.clone();
            broken[1] = broken[1].replace(text, bad);
            assert_ne!(broken, lines);
            let (found, rejects) = import(&broken);
            assert_eq!((rejects.len(), rejects[0].line), (1, 2), "{bad}");
            assert_eq!(found, [whole[0], whole[2], whole[3]], "{bad}");
        }
    }
}
