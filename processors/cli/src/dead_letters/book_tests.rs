use super::*;
use claims_ingress::publisher::{HEADER_SOURCE_FILE, HEADER_SOURCE_LINE};
use claims_runtime::dead_letter::*;
use proptest::prelude::*;

fn letter(place: (i32, i64), at: i64, headers: &[(&str, &str)]) -> Letter {
    Letter {
        partition: place.0,
        offset: place.1,
        key: Some("acme:c-1:e".into()),
        payload_bytes: None,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        written_at_ms: at,
        raw_key: None,
    }
}

const RECORD: [(&str, &str); 4] =
    [(HEADER_PROCESSOR, "audit"), (HEADER_TOPIC, "t"), (HEADER_PARTITION, "3"), (HEADER_OFFSET, "17")];

fn refused(place: (i32, i64), at: i64, reason: &'static str) -> Letter {
    letter(place, at, &[&RECORD[..], &[(HEADER_REASON, reason)]].concat())
}

fn retried(place: (i32, i64), at: i64, outcome: &'static str) -> Letter {
    letter(
        place,
        at,
        &[&RECORD[..], &[(HEADER_RESOLUTION, RESOLUTION_RETRIED), (HEADER_OUTCOME, outcome)]].concat(),
    )
}

fn discarded(place: (i32, i64), at: i64, reason: &'static str) -> Letter {
    letter(
        place,
        at,
        &[&RECORD[..], &[(HEADER_RESOLUTION, RESOLUTION_DISCARDED), (HEADER_REASON, reason)]].concat(),
    )
}

fn state(letters: &[Letter]) -> (CaseState, u32, u32) {
    let mut book = Book::default();
    letters.iter().for_each(|letter| book.enter(letter, &Filter::default()));
    let cases = book.wanted(true);
    assert_eq!(cases.len(), 1);
    (cases[0].1.state(), cases[0].1.refused, cases[0].1.retries)
}

#[test]
fn a_record_refused_many_times_is_one_case() {
    let letters = [refused((0, 1), 10, "malformed"), refused((0, 2), 20, "malformed")];
    assert_eq!(state(&letters), (CaseState::Open, 2, 0));
    let mut other = refused((0, 3), 30, "malformed");
    other.headers.insert(HEADER_PROCESSOR.into(), "analytics".into());
    let mut book = Book::default();
    letters.iter().chain([&other]).for_each(|letter| book.enter(letter, &Filter::default()));
    let places: Vec<_> =
        book.wanted(false).iter().map(|(_, case)| case.place().unwrap().to_string()).collect();
    assert_eq!(places, ["0:2", "0:3"], "the latest of each processor");
}

#[test]
fn a_retry_settles_it_unless_it_is_refused_again() {
    let first = refused((0, 1), 10, "unknown-schema");
    assert_eq!(state(&[first.clone(), retried((0, 2), 20, OUTCOME_REFUSED)]), (CaseState::Open, 1, 1));
    let started =
        letter((0, 2), 20, &[&RECORD[..], &[(HEADER_RESOLUTION, RESOLUTION_RETRY_STARTED)]].concat());
    assert_eq!(state(&[first.clone(), started]), (CaseState::Open, 1, 0));
    let applied = retried((0, 3), 30, OUTCOME_APPLIED);
    assert_eq!(state(&[first.clone(), applied.clone()]), (CaseState::Applied, 1, 1));
    let again = refused((0, 4), 40, "unknown-schema");
    assert_eq!(
        state(&[first.clone(), applied, again]),
        (CaseState::Open, 2, 1),
        "an older build read it again"
    );
    assert_eq!(state(&[first, retried((0, 3), 30, OUTCOME_ALREADY_THERE)]).0, CaseState::AlreadyThere);
}

#[test]
fn what_was_discarded_stays_so_while_the_reason_is_the_same() {
    let letters = [refused((0, 1), 10, "malformed"), discarded((0, 2), 20, "malformed")];
    assert_eq!(state(&letters).0, CaseState::Discarded);
    let replayed = refused((0, 3), 30, "malformed");
    assert_eq!(state(&[&letters[..], &[replayed]].concat()).0, CaseState::Discarded);
    let otherwise = refused((0, 3), 30, "superseded");
    assert_eq!(state(&[&letters[..], &[otherwise]].concat()).0, CaseState::Open);
}

#[test]
fn cases_are_found_by_any_of_their_places() {
    let mut book =
        Book::looking_for(&["0:1".parse().unwrap(), "0:3".parse().unwrap(), "0:9".parse().unwrap()]);
    for letter in [refused((0, 1), 10, "m"), refused((0, 2), 20, "m"), retried((0, 3), 30, OUTCOME_REFUSED)] {
        book.enter(&letter, &Filter::default());
    }
    assert_eq!(book.at("0:1".parse().unwrap()).unwrap().1.place().unwrap().offset, 2);
    assert!(book.at("0:3".parse().unwrap()).unwrap_err().contains("what became of one"));
    assert!(book.at("0:9".parse().unwrap()).unwrap_err().contains("no dead letter at 0:9"));
}

#[test]
fn filters_look_at_the_latest_refusal() {
    let row = |place, line| {
        letter(
            (0, place),
            place,
            &[
                (HEADER_PROCESSOR, "ingress"),
                (HEADER_REASON, "invalid-date"),
                (HEADER_SOURCE_FILE, "a.csv"),
                (HEADER_SOURCE_LINE, line),
                (HEADER_FAILED_AT_MS, "1000"),
            ],
        )
    };
    let letters = [row(1, "7"), row(2, "8"), row(3, "7"), refused((0, 4), 2_000, "malformed")];
    let count = |filter: Filter| {
        let mut book = Book::default();
        letters.iter().for_each(|letter| book.enter(letter, &filter));
        book.wanted(false).len()
    };
    assert_eq!(count(Filter::default()), 3, "two rows and a record");
    assert_eq!(count(Filter { processor: Some("ingress".into()), ..Filter::default() }), 2);
    assert_eq!(count(Filter { reason: Some("malformed".into()), ..Filter::default() }), 1);
    assert_eq!(count(Filter { since: Some(1_500), ..Filter::default() }), 1);
    assert_eq!(count(Filter { until: Some(1_500), ..Filter::default() }), 2);
    assert_eq!(count(Filter { key: Some("acme:c-1".into()), ..Filter::default() }), 3);
    assert_eq!(count(Filter { key: Some("acme:c-2".into()), ..Filter::default() }), 0);
}

proptest! {
    /// Partitions of the topic are read side by side: the order of arrival must not matter.
    #[test]
    fn any_order_of_entries_gives_the_same(
        kinds in proptest::collection::vec((0..5_u8, 0..2_i32, 0..6_i64), 1..12),
        order in any::<u64>(),
    ) {
        let letters: Vec<_> = kinds.iter().zip(0..).map(|(&(kind, partition, at), offset)| match kind {
            0 => refused((partition, offset), at, "malformed"),
            1 => refused((partition, offset), at, "superseded"),
            2 => retried((partition, offset), at, OUTCOME_APPLIED),
            3 => retried((partition, offset), at, OUTCOME_REFUSED),
            _ => discarded((partition, offset), at, "malformed"),
        }).collect();
        let mut shuffled = letters.clone();
        shuffled.sort_by_key(|letter| (letter.offset as u64 + 1).wrapping_mul(order | 1).rotate_left(17));
        let summary = |letters: &[Letter]| {
            let mut book = Book::default();
            letters.iter().for_each(|letter| book.enter(letter, &Filter::default()));
            book.wanted(true).iter().map(|(_, case)| (case.place(), case.state(), case.refused)).collect::<Vec<_>>()
        };
        prop_assert_eq!(summary(&letters), summary(&shuffled));
    }
}
