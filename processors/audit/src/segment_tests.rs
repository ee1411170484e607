use super::{
    read::{Columns, SegmentFile, SegmentTail},
    write::Segment,
    *,
};
use crate::record::{Content, Entry, RecordKind, TrailRecord};
use bytes::Bytes;
use parquet::{
    arrow::ArrowWriter,
    file::properties::{WriterProperties, WriterVersion},
};
use proptest::prelude::*;
use std::borrow::Cow;

pub(crate) fn entries(partition: i32, first_offset: i64, count: usize) -> Vec<Entry> {
    (0..count)
        .map(|i| Entry {
            partition,
            offset: first_offset + 2 * i as i64,
            appended_at_ms: 1_000 + i as i64,
            kind: if i % 7 == 6 { RecordKind::Tombstone } else { RecordKind::Event },
            tenant_id: Some("acme".into()),
            claim_id: (i % 11 != 10).then(|| format!("claim-{i}")),
            event_type: (i % 7 != 6).then_some(Cow::Borrowed("ClaimCreated")),
            version: (i % 7 != 6).then_some(i as i64),
            content: Some(Content {
                key: Some(format!("acme:claim-{i}:e{i}").into_bytes()),
                value: (i % 7 != 6).then(|| vec![i as u8; i % 40]),
                schema_id: (i % 7 != 6).then_some(u32::MAX),
                event_id: Some(format!("e{i}")),
                occurred_at_ms: (i % 2 == 0).then_some(-5),
                correlation_id: Some(String::new()),
                ..Content::default()
            }),
        })
        .collect()
}

fn append(head: &Head, entries: &[Entry]) -> (SegmentMeta, Bytes) {
    let segment = Segment::append("t", head, &entries.iter().collect::<Vec<_>>(), 9_000).unwrap();
    (segment.meta().clone(), segment.encode().unwrap())
}

fn read(bytes: Bytes) -> Vec<TrailRecord> {
    SegmentFile::open(bytes).unwrap().records(Columns::All).unwrap().collect::<Result<_, _>>().unwrap()
}

#[test]
fn records_read_back_as_they_were_written_in_their_places() {
    let wanted = entries(4, 100, 2_500);
    let (meta, bytes) = append(&Head::empty("t", 4), &wanted);
    let records = read(bytes.clone());
    assert_eq!(records.len(), wanted.len());
    for (i, (record, entry)) in records.iter().zip(&wanted).enumerate() {
        assert_eq!(&record.entry, entry);
        assert_eq!((record.position, record.processed_at_ms), (i as u64 + 1, 9_000));
        assert_eq!(record.latency_ms(), 9_000 - entry.appended_at_ms);
    }
    let salts: std::collections::BTreeSet<_> = records.iter().map(|r| r.salt).collect();
    assert_eq!(salts.len(), records.len(), "every record has a salt of its own");
    let file = SegmentFile::open(bytes).unwrap();
    assert_eq!(*file.meta(), meta);
    assert_eq!((meta.first_offset, meta.last_offset, meta.records), (100, 100 + 2 * 2_499, 2_500));
    assert_eq!((file.rows(), meta.last_hash), (2_500, records[2_499].chain_hash));
}

#[test]
fn encodings_of_other_builds_are_read_as_well() {
    let wanted = entries(4, 100, 300);
    let head = Head::empty("t", 4);
    let segment = Segment::append("t", &head, &wanted.iter().collect::<Vec<_>>(), 9_000).unwrap();
    // Dictionaries everywhere and no compression, and what builds before 2026-11-28 wrote: deltas of texts and of hashes.
    let dictionaries = WriterProperties::builder().set_writer_version(WriterVersion::PARQUET_1_0);
    let deltas = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_2_0)
        .set_dictionary_enabled(false);
    for builder in [dictionaries, deltas] {
        let properties = builder.set_key_value_metadata(Some(segment.meta().to_key_values())).build();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, segment.rows().schema(), Some(properties)).unwrap();
        writer.write(segment.rows()).unwrap();
        writer.close().unwrap();
        let records = read(file.into());
        assert!(records.iter().map(|record| &record.entry).eq(&wanted));
        assert_eq!(records.last().unwrap().chain_hash, segment.meta().last_hash);
    }
}

#[test]
fn the_chain_goes_on_in_the_next_segment() {
    let (first, _) = append(&Head::empty("t", 0), &entries(0, 0, 3));
    let (second, bytes) = append(&first.head(), &entries(0, 50, 2));
    assert_eq!((second.sequence, second.first_position), (1, 4));
    assert_eq!(second.previous_hash, first.last_hash);
    assert_eq!(read(bytes)[0].position, 4);
}

#[test]
fn offsets_must_ascend_and_there_must_be_some() {
    let (first, _) = append(&Head::empty("t", 0), &entries(0, 10, 1));
    let again = entries(0, 10, 1);
    let refused = Segment::append("t", &first.head(), &[&again[0]], 0).unwrap_err();
    assert!(refused.to_string().contains("offset 10 does not come after"), "{refused}");
    assert!(Segment::append::<Entry>("t", &first.head(), &[], 0).is_err());
}

#[test]
fn a_segment_is_of_one_partition() {
    let (ours, other) = (entries(0, 10, 1), entries(1, 20, 1));
    let refused = Segment::append("t", &Head::empty("t", 0), &[&ours[0], &other[0]], 0).unwrap_err();
    assert!(refused.to_string().contains("offset 20 is of partition 1, others are of 0"), "{refused}");
    let (meta, bytes) = append(&Head::empty("t", 0), &entries(0, 0, 3));
    let mut records = read(bytes);
    records[2].entry.partition = 1;
    let refused = Segment::rewrite("t", 0, meta.previous_hash, &records).unwrap_err();
    assert!(refused.to_string().contains("is of partition 1, others are of 0"), "{refused}");
}

#[test]
fn the_end_of_the_file_tells_what_it_is_and_which_claims_it_may_hold() {
    let (meta, bytes) = append(&Head::empty("t", 0), &entries(0, 0, 2_000));
    let tail = bytes.slice(bytes.len() - 16 * 1024..);
    let tail = SegmentTail::parse(bytes.len() as u64, &tail).unwrap().unwrap();
    assert_eq!(tail.meta, meta);
    assert!((0..2_000).filter(|i| i % 11 != 10).all(|i| tail.claims.may_hold(&format!("claim-{i}"))));
    let false_alarms = (0..2_000).filter(|i| tail.claims.may_hold(&format!("other-{i}"))).count();
    assert!(false_alarms < 100, "{false_alarms} of 2000");
    let short = bytes.slice(bytes.len() - 100..);
    assert!(SegmentTail::parse(bytes.len() as u64, &short).unwrap().is_none());
}

#[test]
fn without_the_raw_columns_the_rest_is_the_same() {
    let (_, bytes) = append(&Head::empty("t", 0), &entries(0, 0, 20));
    let whole = read(bytes.clone());
    let file = SegmentFile::open(bytes).unwrap();
    for (record, mut wanted) in file.records(Columns::WithoutRaw).unwrap().zip(whole) {
        let content = wanted.entry.content.as_mut().unwrap();
        (content.key, content.value) = (None, None);
        assert_eq!(record.unwrap(), wanted);
    }
}

#[test]
fn an_erased_record_reads_back_without_its_content() {
    let (meta, bytes) = append(&Head::empty("t", 0), &entries(0, 0, 3));
    let mut records = read(bytes);
    records[1].entry.content = None;
    records[1].salt = None;
    let rewritten = Segment::rewrite("t", 0, meta.previous_hash, &records).unwrap();
    assert_eq!(*rewritten.meta(), meta);
    let again = read(rewritten.encode().unwrap());
    assert_eq!(again, records);
    assert!(again[1].is_erased());
}

#[test]
fn a_small_segment_stays_small() {
    let (_, bytes) = append(&Head::empty("t", 0), &entries(0, 0, 1));
    assert!(bytes.len() < 12 * 1024, "{} bytes", bytes.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn bytes_that_are_no_segment_are_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        prop_assert!(SegmentFile::open(bytes.clone()).is_err());
        prop_assert!(!matches!(SegmentTail::parse(bytes.len() as u64, &bytes), Ok(Some(_))));
    }
}
