//! Appending, and what comes again.

use crate::support::{TOPIC, Trail, batch, entry, offsets, offsets_in};
use claims_audit::{SegmentStore, processor::TrailEnds, sink::AuditSink};
use claims_runtime::{Sink, SinkError};

fn files(trail: &Trail) -> usize {
    (0..4).map(|p| (0..).take_while(|&s| trail.path(p, s).exists()).count()).sum()
}

#[tokio::test]
async fn batches_become_segments_of_their_partitions() {
    let trail = Trail::new();
    let sink = trail.sink();
    sink.assigned(&[0, 1]).await.unwrap();
    let mixed = (0..10).map(|i| entry((i % 2) as i32, i)).collect();
    sink.write(&batch(mixed)).await.unwrap();
    sink.write(&offsets([20, 25, 26])).await.unwrap();
    let report = trail.verify().await;
    assert!(report.holds, "{report:?}");
    assert_eq!((report.records, report.segments, report.chains.len()), (13, 3, 2));
    assert_eq!(offsets_in(&trail, 0), [0, 2, 4, 6, 8, 20, 25, 26]);
    let end = &report.chains[0];
    assert_eq!((end.first_offset, end.last_offset, end.end.position), (Some(0), Some(26), 8));
}

#[tokio::test]
async fn a_restarted_sink_goes_on_after_the_last_offset() {
    let trail = Trail::new();
    trail.sink().write(&offsets(0..5)).await.unwrap();
    let ends = TrailEnds::default();
    let restarted = AuditSink::new(trail.store.clone(), TOPIC.into(), ends);
    restarted.assigned(&[0]).await.unwrap();
    // The commit was lost: the last records come again, with new ones behind them.
    restarted.write(&offsets(3..8)).await.unwrap();
    assert_eq!(offsets_in(&trail, 0), (0..8).collect::<Vec<_>>());
    assert!(trail.verify().await.holds);
}

#[tokio::test]
async fn a_replay_from_zero_writes_nothing() {
    let trail = Trail::new();
    let sink = trail.sink();
    for first in (0..60).step_by(6) {
        sink.write(&offsets(first..first + 6)).await.unwrap();
    }
    let before = (files(&trail), trail.verify().await);
    let again = trail.sink();
    again.assigned(&[0]).await.unwrap();
    // Cut otherwise, and after a compaction that took some copies away.
    again.write(&offsets((0..25).filter(|o| o % 7 != 3))).await.unwrap();
    again.write(&offsets((25..60).filter(|o| o % 7 != 3))).await.unwrap();
    assert_eq!((files(&trail), trail.verify().await), before);
}

#[tokio::test]
async fn a_segment_put_before_the_crash_is_found_and_not_written_again() {
    let trail = Trail::new();
    // The owner before us, and ourselves, both believe that the chain is empty.
    let (zombie, owner) = (trail.sink(), trail.sink());
    zombie.assigned(&[0]).await.unwrap();
    owner.assigned(&[0]).await.unwrap();
    zombie.write(&offsets(0..4)).await.unwrap();
    owner.write(&offsets(0..6)).await.unwrap();
    assert_eq!(offsets_in(&trail, 0), (0..6).collect::<Vec<_>>());
    // And back: the zombie has more of the same to write.
    zombie.write(&offsets(4..9)).await.unwrap();
    assert_eq!(offsets_in(&trail, 0), (0..9).collect::<Vec<_>>());
    assert!(trail.verify().await.holds);
}

#[tokio::test]
async fn two_writers_at_once_leave_one_whole_chain() {
    let trail = Trail::new();
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let store = trail.store.clone();
            tokio::spawn(async move {
                let sink = AuditSink::new(store, TOPIC.into(), TrailEnds::default());
                for first in (0..100).step_by(10 + writer) {
                    let batch = offsets(first..(first + 10 + writer as i64).min(100));
                    if let Err(error) = sink.write(&batch).await {
                        assert!(error.to_string().contains("another writer keeps"), "{error}");
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(offsets_in(&trail, 0), (0..100).collect::<Vec<_>>());
    assert!(trail.verify().await.holds);
}

#[tokio::test]
async fn another_content_at_a_known_offset_is_fatal_and_says_why() {
    let trail = Trail::new();
    trail.sink().write(&offsets(0..5)).await.unwrap();
    let mut changed = entry(0, 2);
    changed.content.as_mut().unwrap().value = Some(b"something else".to_vec());
    let mut later = entry(0, 2);
    later.appended_at_ms += 1;
    for (other, what) in [(changed, "key or value"), (later, "the time of append")] {
        let error = trail.sink().write(&batch(vec![other])).await.unwrap_err();
        let SinkError::Fatal(text) = error else { panic!("{error:?}") };
        assert!(text.contains("offset 2") && text.contains(what), "{text}");
        assert!(text.contains("deleted and made anew"), "{text}");
    }
    assert_eq!(offsets_in(&trail, 0), (0..5).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_record_the_chain_has_gone_past_is_refused_and_named() {
    let trail = Trail::new();
    trail.sink().write(&offsets([0, 1, 3, 4])).await.unwrap();
    let error = trail.sink().write(&offsets(0..5)).await.unwrap_err();
    let SinkError::Poison(text) = error else { panic!("{error:?}") };
    assert!(text.contains("1 records of partition 0, offsets 2."), "{text}");
}

#[tokio::test]
async fn decoded_fields_may_differ_between_builds() {
    let trail = Trail::new();
    trail.sink().write(&offsets(0..3)).await.unwrap();
    let mut newer = entry(0, 1);
    newer.content.as_mut().unwrap().source = Some("a field of a newer build".into());
    trail.sink().write(&batch(vec![newer])).await.unwrap();
}

#[tokio::test]
async fn nothing_is_appended_to_a_damaged_segment() {
    let trail = Trail::new();
    trail.sink().write(&offsets(0..5)).await.unwrap();
    let path = trail.path(0, 0);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = trail.sink().assigned(&[0]).await.unwrap_err();
    let SinkError::Fatal(text) = error else { panic!("{error:?}") };
    assert!(text.contains("000000000.parquet") && text.contains("claims audit verify"), "{text}");
}

#[tokio::test]
async fn a_torn_upload_is_no_segment() {
    let trail = Trail::new();
    trail.sink().write(&offsets(0..5)).await.unwrap();
    // What a kill in the middle of a put leaves: the staged file, not yet in its place.
    let staged = trail.path(0, 1).with_extension("parquet#1");
    std::fs::write(&staged, b"half of").unwrap();
    let sink = trail.sink();
    sink.assigned(&[0]).await.unwrap();
    sink.write(&offsets(5..9)).await.unwrap();
    assert_eq!(offsets_in(&trail, 0), (0..9).collect::<Vec<_>>());
    let report = trail.verify().await;
    assert!(report.holds, "{report:?}");
    assert_eq!(SegmentStore::segment_path(TOPIC, 0, 1), format!("{TOPIC}/0/000/000/000000001.parquet"));
}
