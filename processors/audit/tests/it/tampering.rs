//! Every kind of tampering is found, and its place is named.

use crate::support::{TOPIC, Trail, offsets};
use claims_audit::{
    Report, VerifyOptions,
    record::TrailRecord,
    segment::write::Segment,
    verify,
    verify::{Finding, FindingKind, verify as verify_store},
};
use claims_runtime::Sink;
use proptest::prelude::*;
use std::path::Path;

/// Three segments of ten records: offsets 0 to 29.
async fn trail() -> Trail {
    let trail = Trail::new();
    let sink = trail.sink();
    for first in [0, 10, 20] {
        sink.write(&offsets(first..first + 10)).await.unwrap();
    }
    trail
}

/// Writes the segment anew, as somebody would who knows the format but can't make the hashes fit.
fn rewrite(trail: &Trail, sequence: u64, change: impl FnOnce(&mut Vec<TrailRecord>)) {
    let (file, mut records) = trail.read(0, sequence);
    change(&mut records);
    let segment = Segment::rewrite(TOPIC, sequence, file.meta().previous_hash, &records).unwrap();
    std::fs::write(trail.path(0, sequence), segment.encode().unwrap()).unwrap();
}

fn findings(report: &Report) -> Vec<Finding> {
    report.chains.iter().flat_map(|chain| chain.findings.clone()).collect()
}

/// The only finding there is.
async fn only_finding(trail: &Trail) -> Finding {
    let report = trail.verify().await;
    assert!(!report.holds);
    let mut findings = findings(&report);
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.remove(0)
}

fn is_in(finding: &Finding, sequence: u64) -> bool {
    finding.segment.as_deref().is_some_and(|path| path.ends_with(&format!("{sequence:09}.parquet")))
}

#[tokio::test]
async fn an_untouched_trail_holds() {
    let report = trail().await.verify().await;
    assert!(report.holds);
    assert_eq!((report.records, findings(&report)), (30, vec![]));
}

#[tokio::test]
async fn a_changed_byte_of_a_payload() {
    let trail = trail().await;
    rewrite(&trail, 1, |records| {
        records[3].entry.content.as_mut().unwrap().value.as_mut().unwrap()[0] ^= 1;
    });
    let finding = only_finding(&trail).await;
    assert_eq!(finding.kind, FindingKind::ContentChanged);
    assert_eq!((finding.position, finding.offset), (Some(14), Some(13)));
    assert!(is_in(&finding, 1));
}

#[tokio::test]
async fn any_other_field_of_a_record() {
    type Change = fn(&mut TrailRecord);
    let changes: [Change; 8] = [
        |r| r.entry.tenant_id = Some("other".into()),
        |r| r.entry.claim_id = Some("other".into()),
        |r| r.entry.event_type = None,
        |r| r.entry.version = Some(99),
        |r| r.entry.appended_at_ms += 1,
        |r| r.processed_at_ms -= 1,
        |r| r.content_hash.0[0] ^= 1,
        |r| r.entry.content.as_mut().unwrap().occurred_at_ms = Some(0),
    ];
    for change in changes {
        let trail = trail().await;
        rewrite(&trail, 0, |records| change(&mut records[4]));
        let findings = findings(&trail.verify().await);
        assert!(!findings.is_empty());
        assert!(findings.iter().all(|f| f.position == Some(5) && is_in(f, 0)), "{findings:?}");
    }
}

#[tokio::test]
async fn a_dropped_record() {
    let trail = trail().await;
    rewrite(&trail, 1, |records| drop(records.remove(5)));
    let findings = findings(&trail.verify().await);
    let kinds: Vec<_> = findings.iter().map(|f| f.kind).collect();
    let wanted = [FindingKind::PositionGap, FindingKind::ChainBroken, FindingKind::Metadata];
    assert_eq!(kinds, wanted, "{findings:?}");
    assert!(findings[..2].iter().all(|f| f.offset == Some(16) && is_in(f, 1)));
}

#[tokio::test]
async fn the_last_record_of_a_segment_dropped() {
    let trail = trail().await;
    rewrite(&trail, 1, |records| drop(records.pop()));
    let findings = findings(&trail.verify().await);
    assert!(findings.iter().all(|f| is_in(f, 2)), "{findings:?}");
    assert!(findings.iter().any(|f| f.kind == FindingKind::PositionGap && f.detail.contains("stands at 19")));
}

#[tokio::test]
async fn reordered_records() {
    let trail = trail().await;
    rewrite(&trail, 2, |records| records.swap(1, 2));
    let findings = findings(&trail.verify().await);
    assert!(findings.iter().any(|f| f.kind == FindingKind::OffsetOrder && f.offset == Some(21)));
    assert!(findings.iter().any(|f| f.kind == FindingKind::ChainBroken && f.offset == Some(22)));
}

#[tokio::test]
async fn an_added_record() {
    let trail = trail().await;
    rewrite(&trail, 0, |records| {
        let again = records[9].clone();
        records.push(again);
    });
    let findings = findings(&trail.verify().await);
    assert!(findings.iter().any(|f| f.kind == FindingKind::PositionGap && is_in(f, 0)), "{findings:?}");
}

#[tokio::test]
async fn a_dropped_segment() {
    let trail = trail().await;
    std::fs::remove_file(trail.path(0, 1)).unwrap();
    let finding = only_finding(&trail).await;
    assert_eq!(finding.kind, FindingKind::MissingSegment);
    assert!(is_in(&finding, 1));
}

#[tokio::test]
async fn the_first_segment_dropped() {
    let trail = trail().await;
    std::fs::remove_file(trail.path(0, 0)).unwrap();
    let finding = only_finding(&trail).await;
    assert_eq!(finding.kind, FindingKind::MissingSegment);
    assert!(is_in(&finding, 0));
}

#[tokio::test]
async fn the_end_cut_off_is_found_by_an_older_report() {
    let trail = trail().await;
    let anchors = trail.verify().await.anchors();
    std::fs::remove_file(trail.path(0, 2)).unwrap();
    assert!(trail.verify().await.holds, "the chain alone can't tell");
    let options = VerifyOptions { anchors: anchors.clone(), ..VerifyOptions::default() };
    let report = verify(&trail.store, &options).await.unwrap();
    let findings = findings(&report);
    assert!(!report.holds);
    assert_eq!((findings[0].kind, findings[0].position), (FindingKind::Anchor, Some(30)));
    // All of it gone is found too.
    std::fs::remove_dir_all(trail.folder.path().join(TOPIC)).unwrap();
    assert!(!verify(&trail.store, &options).await.unwrap().holds);
    // And a chain made anew with other salts.
    trail.sink().write(&offsets(0..30)).await.unwrap();
    assert!(trail.verify().await.holds);
    let report = verify(&trail.store, &options).await.unwrap();
    assert_eq!(findings_kinds(&report), [FindingKind::Anchor]);
}

fn findings_kinds(report: &Report) -> Vec<FindingKind> {
    findings(report).iter().map(|f| f.kind).collect()
}

#[tokio::test]
async fn segments_that_changed_places() {
    let trail = trail().await;
    let (first, second) = (trail.path(0, 1), trail.path(0, 2));
    let swap = trail.folder.path().join("swap");
    std::fs::rename(&first, &swap).unwrap();
    std::fs::rename(&second, &first).unwrap();
    std::fs::rename(&swap, &second).unwrap();
    let report = trail.verify().await;
    let misplaced = findings(&report).iter().filter(|f| f.kind == FindingKind::Misplaced).count();
    assert_eq!(misplaced, 2, "{report:?}");
}

#[tokio::test]
async fn a_segment_replaced_by_one_of_another_partition() {
    let trail = trail().await;
    let other = Trail::new();
    let entries = (0..10).map(|offset| crate::support::entry(3, offset)).collect();
    other.sink().write(&crate::support::batch(entries)).await.unwrap();
    std::fs::copy(other.path(3, 0), trail.path(0, 0)).unwrap();
    let findings = findings(&trail.verify().await);
    assert!(findings.iter().any(|f| f.kind == FindingKind::Misplaced && is_in(f, 0)), "{findings:?}");
}

#[tokio::test]
async fn a_segment_cut_off_or_emptied() {
    for keep in [0, 1, 100, 5_000] {
        let trail = trail().await;
        let bytes = std::fs::read(trail.path(0, 1)).unwrap();
        std::fs::write(trail.path(0, 1), &bytes[..keep.min(bytes.len() - 1)]).unwrap();
        let finding = only_finding(&trail).await;
        assert_eq!(finding.kind, FindingKind::Unreadable, "{finding:?}");
        assert!(is_in(&finding, 1));
    }
}

#[tokio::test]
async fn a_file_that_does_not_belong() {
    let trail = trail().await;
    std::fs::write(trail.path(0, 2).with_file_name("000000003.txt"), b"x").unwrap();
    assert_eq!(only_finding(&trail).await.kind, FindingKind::Stranger);
    std::fs::create_dir(trail.folder.path().join(TOPIC).join("seven")).unwrap();
    assert_eq!(trail.verify().await.strangers, [format!("{TOPIC}/seven")]);
}

#[tokio::test]
async fn an_erased_record_leaves_the_chain_whole() {
    let trail = trail().await;
    rewrite(&trail, 1, |records| {
        records[3].entry.content = None;
        records[3].salt = None;
    });
    let report = trail.verify().await;
    assert!(report.holds, "{report:?}");
    assert_eq!(report.chains[0].erased, 1);
    // A replay can't compare it any more, and doesn't stop there.
    trail.sink().write(&offsets(0..30)).await.unwrap();
    // Its coordinates are still proven.
    rewrite(&trail, 1, |records| records[3].entry.offset = 12);
    assert!(!trail.verify().await.holds);
}

#[tokio::test]
async fn half_an_erasure_is_none() {
    let trail = trail().await;
    rewrite(&trail, 1, |records| records[3].salt = None);
    assert_eq!(only_finding(&trail).await.kind, FindingKind::ContentChanged);
    let trail = self::trail().await;
    rewrite(&trail, 1, |records| records[3].entry.content.as_mut().unwrap().value = None);
    assert_eq!(only_finding(&trail).await.kind, FindingKind::ContentChanged);
}

#[tokio::test]
async fn many_findings_are_counted_and_the_first_are_named() {
    let trail = Trail::new();
    trail.sink().write(&offsets(0..500)).await.unwrap();
    rewrite(&trail, 0, |records| {
        for record in records {
            record.entry.content.as_mut().unwrap().user_id = Some("somebody".into());
        }
    });
    let chain = &trail.verify().await.chains[0];
    assert_eq!(chain.findings_total, 500);
    assert_eq!(chain.findings.len(), verify::MAX_FINDINGS_NAMED);
}

/// The records that a store shows when it verifies; `None` when it doesn't.
async fn what_is_believed(folder: &Path) -> Option<Vec<String>> {
    let store = claims_audit::SegmentStore::folder(folder).unwrap();
    let report = verify_store(&store, &VerifyOptions::default()).await.unwrap();
    if !report.holds {
        return None;
    }
    let bytes = store.get(TOPIC, 0, 0).await.unwrap();
    let file = claims_audit::segment::read::SegmentFile::open(bytes).unwrap();
    let records = file.records(claims_audit::segment::read::Columns::All).unwrap();
    Some(records.map(|r| format!("{:?}", r.unwrap().entry.content.map(|c| (c.key, c.value)))).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// One changed byte anywhere in the file: either it is found, or the file still says the same.
    #[test]
    fn no_changed_byte_changes_what_a_verified_segment_says(
        at in any::<proptest::sample::Index>(), flip in 1..=255_u8,
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let trail = Trail::new();
            trail.sink().write(&offsets(0..20)).await.unwrap();
            let before = what_is_believed(trail.folder.path()).await;
            let path = trail.path(0, 0);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            std::fs::write(&path, bytes).unwrap();
            let after = what_is_believed(trail.folder.path()).await;
            prop_assert!(after.is_none() || after == before, "byte {at}");
            Ok(())
        })?;
    }
}
