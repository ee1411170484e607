//! Whatever happens on the way, the tables end up as an independent model says: any order of events, copies,
//! conflicts, any batches, crashes at every point, local stores kept, lost or behind, offsets reset, zombies that write
//! again what was written long ago, and a compaction between two runs.

use crate::{cql_rules::*, events::*};
use claims_current_state::{
    ClaimWrite, CurrentState,
    places::{ListView, Place},
    store::{StateStore, StoreIdentity},
};
use claims_runtime::{
    Batch,
    testing::{Driver, TestRecord},
};
use claims_schemas::{Event, EventType, Timestamp, events::*};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::Path,
    sync::Arc,
};

fn wanted_rows(log: &[Event]) -> BTreeMap<RowKey, BTreeMap<&'static str, String>> {
    let mut rows = BTreeMap::new();
    for ((_, claim), wanted) in expected(log) {
        let mut cells = BTreeMap::from([("status", wanted.status.to_owned())]);
        for (name, value) in [
            ("customer", &wanted.customer),
            ("agent", &wanted.agent),
            ("title", &wanted.title),
            ("resolution", &wanted.resolution),
        ] {
            if let Some(value) = value {
                cells.insert(name, value.clone());
            }
        }
        rows.insert(("claim_by_id", claim.clone()), cells.clone());
        let created_at = wanted.created_ms.map(Timestamp);
        let mut stand = |view, under: Option<&str>| {
            if let Some(under) = under {
                let place = Place { view, key: under.into(), created_at };
                rows.insert(key(&place, &claim), cells.clone());
            }
        };
        stand(ListView::Status, Some(wanted.status));
        stand(ListView::Assignee, wanted.agent.as_deref());
        stand(ListView::Customer, wanted.customer.as_deref());
        stand(ListView::Created, wanted.created_ms.map(|_| ""));
    }
    rows
}

fn wanted_timeline(log: &[Event]) -> BTreeSet<(String, u64, String)> {
    let erased: BTreeSet<&str> = log
        .iter()
        .filter(|e| e.event_type() == EventType::ClaimErased && first_of_version(log, e))
        .map(|e| e.claim_id.as_str())
        .collect();
    log.iter()
        .filter(|e| first_of_version(log, e))
        .filter(|e| !erased.contains(e.claim_id.as_str()) || e.event_type() == EventType::ClaimErased)
        .map(|e| (e.claim_id.clone(), e.version, e.event_id.to_string()))
        .collect()
}

fn first_of_version(log: &[Event], event: &Event) -> bool {
    let same = |e: &&Event| e.claim_id == event.claim_id && e.version == event.version;
    log.iter().find(same).is_some_and(|first| first.event_id == event.event_id)
}

/// A log: offsets ascending, with gaps once it was compacted.
type Log = Vec<(i64, Event)>;

/// Keeps the last copy of each event.
fn compacted(log: &Log) -> Log {
    let last = |id| log.iter().rev().find(|(_, e)| e.event_id == id).map(|(o, _)| *o);
    log.iter().filter(|(offset, e)| last(e.event_id) == Some(*offset)).cloned().collect()
}

/// Closed batches that wait for the sink, at most.
const MAX_LAG: usize = 3;

/// Where batches end, and when the sink has them.
#[derive(Debug, Clone)]
struct Pace {
    /// Records of each batch, in turns.
    batch_records: Vec<usize>,
    /// Closed batches that wait for the sink.
    lag: usize,
    /// Records of the next batch that are there before the oldest one is acknowledged.
    ahead: usize,
}

impl Pace {
    /// Each batch is acknowledged before the next one begins.
    fn steady(batch_records: &[usize]) -> Self {
        Self { batch_records: batch_records.to_vec(), lag: 0, ahead: 0 }
    }
}

/// What happens before the run to the end.
#[derive(Debug, Clone)]
struct Mishap {
    pace: Pace,
    /// What becomes of the oldest closed batch; those behind it are lost.
    crash: Crash,
    store: StoreFate,
    /// Where the group's offsets are set back to, as a part of what is committed.
    reset_to: Option<f64>,
    /// An old write that is made again.
    zombie: Option<prop::sample::Index>,
}

#[derive(Debug, Clone, Copy)]
enum Crash {
    BeforeSink,
    AfterSink,
    AfterStore,
    AfterCommit,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum StoreFate {
    Kept,
    Lost,
    /// An older copy comes back.
    Behind,
    /// The first one that there was comes back.
    First,
}

struct World {
    folder: tempfile::TempDir,
    tables: Tables,
    written: Vec<Arc<ClaimWrite>>,
    partitions: i32,
    committed: BTreeMap<i32, i64>,
    room: Room,
}

/// What is kept in memory, in bytes: nothing, a little, everything.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Claims beside the store.
    max_recent_bytes: usize,
    /// Claims that the store is not given yet.
    max_unstored_bytes: usize,
}

impl Room {
    const NONE: Self = Self { max_recent_bytes: 0, max_unstored_bytes: 0 };
}

impl World {
    fn new(room: Room, partitions: i32) -> Self {
        Self {
            room,
            folder: tempfile::tempdir().unwrap(),
            tables: Tables::default(),
            written: Vec::new(),
            partitions,
            committed: BTreeMap::new(),
        }
    }

    /// Where an event lies: all of them in one partition, or each claim's in its own.
    fn partition(&self, event: &Event) -> i32 {
        i32::from(event.claim_id == "c2") % self.partitions
    }

    fn live(&self) -> std::path::PathBuf {
        self.folder.path().join("live")
    }

    fn driver(&self) -> Driver<CurrentState> {
        let identity =
            StoreIdentity { topic: "t".into(), topic_id: "id".into(), partitions: self.partitions };
        let store = StateStore::open(&self.live(), Some("test"), &identity).unwrap();
        let Room { max_recent_bytes, max_unstored_bytes } = self.room;
        let processor = CurrentState::new(schemas(), store)
            .with_max_recent_bytes(max_recent_bytes)
            .with_max_unstored_bytes(max_unstored_bytes);
        Driver::new(processor)
    }

    /// Runs over the log, without a crash to its end.
    fn run(&mut self, log: &Log, pace: &Pace, crash: Option<Crash>) {
        let mut driver = self.driver();
        let committed = |partition| self.committed.get(&partition).copied();
        let starts: Vec<i64> =
            (0..self.partitions).map(|p| driver.assign(p, committed(p)).unwrap()).collect();
        let records: Vec<(i32, &(i64, Event))> = log.iter().map(|at| (self.partition(&at.1), at)).collect();
        let mut records =
            records.into_iter().filter(|(partition, at)| at.0 >= starts[*partition as usize]).peekable();
        let mut sizes = pace.batch_records.iter().copied().cycle();
        let stop_after = crash.map(|_| pace.batch_records.len());
        let mut batch_number = 0;
        let mut closed = VecDeque::new();
        let mut open = 0;
        while records.peek().is_some() {
            let size = sizes.next().unwrap_or(usize::MAX).max(1);
            feed(&mut driver, records.by_ref().take(size.saturating_sub(open)));
            batch_number += 1;
            closed.extend(driver.close_batch().unwrap());
            let last = stop_after.is_some_and(|n| batch_number >= n);
            let crash = crash.filter(|_| last);
            open = 0;
            if crash.is_none() && closed.len() <= pace.lag {
                continue;
            }
            let Some(oldest) = closed.pop_front() else { continue };
            open = feed(&mut driver, records.by_ref().take(pace.ahead));
            self.deliver(&mut driver, oldest, crash);
            if crash.is_some() {
                return;
            }
        }
        closed.extend(driver.close_batch().unwrap());
        for batch in closed {
            self.deliver(&mut driver, batch, None);
        }
    }

    /// The batch goes to the sink, is acknowledged and committed, as far as the crash lets it.
    fn deliver(
        &mut self,
        driver: &mut Driver<CurrentState>,
        batch: Batch<Arc<ClaimWrite>>,
        crash: Option<Crash>,
    ) {
        if let Some(Crash::BeforeSink) = crash {
            return;
        }
        for row in batch.rows {
            self.tables.apply(&row);
            // A sink may still hold what the next batch changes, or may have let go of it.
            let is_held = self.written.len().is_multiple_of(2);
            self.written.push(if is_held { row } else { Arc::new(ClaimWrite::clone(&row)) });
        }
        if let Some(Crash::AfterSink) = crash {
            return;
        }
        driver.acknowledge(batch.id).unwrap();
        if let Some(Crash::AfterStore) = crash {
            return;
        }
        self.committed.extend(driver.committable());
        driver.commit();
    }

    fn mishap(&mut self, log: &Log, mishap: &Mishap) {
        let [older, first] = ["older", "first"].map(|name| self.folder.path().join(name));
        if self.live().exists() {
            copy(&self.live(), &older);
        }
        self.run(log, &mishap.pace, Some(mishap.crash));
        if !first.exists() && self.live().exists() {
            copy(&self.live(), &first);
        }
        match mishap.store {
            StoreFate::Kept => {}
            StoreFate::Lost => std::fs::remove_dir_all(self.live()).unwrap(),
            StoreFate::Behind | StoreFate::First => {
                let back = if mishap.store == StoreFate::First { first } else { older };
                std::fs::remove_dir_all(self.live()).unwrap();
                if back.exists() {
                    copy(&back, &self.live());
                }
            }
        }
        if let Some(part) = mishap.reset_to {
            self.committed.values_mut().for_each(|committed| *committed = (*committed as f64 * part) as i64);
        }
        if let Some(zombie) = mishap.zombie.as_ref().filter(|_| !self.written.is_empty()) {
            let again = Arc::clone(zombie.get(&self.written));
            self.tables.apply(&again);
        }
    }

    fn check(&self, log: &Log) -> Result<(), TestCaseError> {
        let events: Vec<Event> = log.iter().map(|(_, e)| e.clone()).collect();
        prop_assert_eq!(self.tables.visible(), wanted_rows(&events));
        prop_assert_eq!(self.tables.timeline(), wanted_timeline(&events));
        Ok(())
    }
}

/// Gives these records; answers with their number.
fn feed<'a>(
    driver: &mut Driver<CurrentState>,
    records: impl Iterator<Item = (i32, &'a (i64, Event))>,
) -> usize {
    records
        .map(|(partition, (offset, event))| {
            let record = TestRecord::value(partition, *offset, encoded(event));
            driver.feed(record.appended_at_ms(DAY_MS + 86_400_000)).unwrap();
        })
        .count()
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        std::fs::remove_dir_all(to).unwrap();
    }
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn data(kind: u8) -> EventData {
    match kind {
        0 => created("cust-1").into(),
        1 => assigned("agent-1").into(),
        2 => reassigned("agent-2").into(),
        3 => started().into(),
        4 => resolved("paid").into(),
        5 => ClaimClosed::default().into(),
        6 => ClaimReopened::default().into(),
        7 => note().into(),
        8 => assigned("agent-3").into(),
        9 => created("cust-2").into(),
        _ => ClaimErased::default().into(),
    }
}

fn mishaps() -> impl Strategy<Value = Vec<Mishap>> {
    let crash = prop_oneof![
        Just(Crash::BeforeSink),
        Just(Crash::AfterSink),
        Just(Crash::AfterStore),
        Just(Crash::AfterCommit)
    ];
    let fate = prop_oneof![
        2 => Just(StoreFate::Kept),
        2 => Just(StoreFate::Lost),
        1 => Just(StoreFate::Behind),
        1 => Just(StoreFate::First)
    ];
    let reset = prop::option::weighted(0.4, 0.0..1.0);
    let zombie = prop::option::of(any::<prop::sample::Index>());
    let one = (pace(), crash, fate, reset, zombie)
        .prop_map(|(pace, crash, store, reset_to, zombie)| Mishap { pace, crash, store, reset_to, zombie });
    prop::collection::vec(one, 0..4)
}

fn pace() -> impl Strategy<Value = Pace> {
    (prop::collection::vec(1_usize..6, 1..5), 0..=MAX_LAG, 0_usize..4)
        .prop_map(|(batch_records, lag, ahead)| Pace { batch_records, lag, ahead })
}

/// One claim's events, the first a creation, in the order of versions.
fn history(kinds: std::ops::Range<u8>, claim: &'static str) -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(kinds, 0..7).prop_map(move |kinds| {
        let first = std::iter::once(0);
        let versions = first.chain(kinds).zip(1..);
        versions.map(|(kind, version)| event("t", claim, version, data(kind))).collect()
    })
}

fn room() -> impl Strategy<Value = Room> {
    let bytes = || prop_oneof![Just(0), Just(3_000), Just(1 << 20)];
    (bytes(), bytes())
        .prop_map(|(max_recent_bytes, max_unstored_bytes)| Room { max_recent_bytes, max_unstored_bytes })
}

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    /// Events in any order, with copies and conflicts.
    #[test]
    fn tables_end_up_as_the_model_says(
        (mut events, conflicts) in (history(1..11, "c1"), history(1..10, "c2")).prop_flat_map(|(a, b)| {
            let both = [a, b].concat();
            (Just(both.clone()).prop_shuffle(), prop::sample::subsequence(both.clone(), 0..=both.len().min(3)))
        }),
        partitions in 1..=2,
        copies in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..6),
        mishaps in mishaps(),
        pace in pace(),
        room in room(),
    ) {
        for conflicting in conflicts {
            // The same version, with other content: it loses, because it comes later.
            events.push(event("t", &conflicting.claim_id, conflicting.version, assigned("agent-9")));
        }
        for (what, before) in copies {
            let copied = what.get(&events).clone();
            let at = before.index(events.len() + 1);
            events.insert(at, copied);
        }
        let log: Log = (0..).zip(events).collect();
        let mut world = World::new(room, partitions);
        for mishap in &mishaps {
            world.mishap(&log, mishap);
        }
        world.run(&log, &pace, None);
        world.check(&log)?;
    }

    /// Overlapping and interrupted imports, and a compaction between two runs: the second run meets the events in
    /// another order than the first one, with the tables as the first one left them.
    #[test]
    fn a_compaction_between_two_runs_leaves_no_ghost(
        first in history(1..10, "c1"),
        interrupted in prop::collection::vec(0.0..1.0_f64, 0..4),
        mishaps in mishaps(),
        after in mishaps(),
        pace in pace(),
        room in room(),
    ) {
        let mut events = first.clone();
        for part in interrupted {
            events.extend_from_slice(&first[..(first.len() as f64 * part) as usize]);
        }
        let log: Log = (0..).zip(events).collect();
        let mut world = World::new(room, 1);
        for mishap in &mishaps {
            world.mishap(&log, mishap);
        }
        let log = compacted(&log);
        for mishap in &after {
            world.mishap(&log, mishap);
        }
        world.run(&log, &pace, None);
        world.check(&log)?;
    }
}

/// A creation, an assignment and a note.
fn three() -> Vec<Event> {
    [0, 1, 7].into_iter().zip(1..).map(|(kind, version)| event("t", "c1", version, data(kind))).collect()
}

/// A creation imported twice, of which compaction leaves the second copy. A member without a store shows the claim under
/// no known creation and crashes; then one takes over whose store met the creation first.
#[test]
fn a_store_from_before_a_compaction_clears_what_one_from_after_it_left() {
    let first = three();
    for crash in [Crash::AfterSink, Crash::AfterStore, Crash::AfterCommit] {
        let log: Log = (0..).zip([first.clone(), first[..1].to_vec()].concat()).collect();
        let mut world = World::new(Room::NONE, 1);
        world.run(&log, &Pace::steady(&[1]), Some(Crash::AfterCommit));
        let kept = world.folder.path().join("kept");
        copy(&world.live(), &kept);
        let log = compacted(&log);
        std::fs::remove_dir_all(world.live()).unwrap();
        world.run(&log, &Pace::steady(&[1]), Some(crash));
        let ghost = ("claims_by_assignee", "agent-1/0/0/c1".to_owned());
        assert!(world.tables.visible().contains_key(&ghost), "the member left nothing behind");
        copy(&kept, &world.live());
        world.run(&log, &Pace::steady(&[1]), None);
        world.check(&log).unwrap();
    }
}

/// The member from after the compaction has committed what it wrote, so that to the older store these records are silent,
/// and come in another order. The last copy of the creation is where the whole state is written.
#[test]
fn what_was_folded_in_silence_is_written_with_the_copy_that_others_lacked() {
    let [v1, v2, v3] = <[Event; 3]>::try_from(three()).unwrap();
    let all = [&v1, &v2, &v3, &v1, &v2, &v1].map(Event::clone);
    let log: Log = (0..).zip(all).collect();
    let mut world = World::new(Room::NONE, 1);
    world.run(&log, &Pace::steady(&[1]), Some(Crash::AfterCommit));
    let kept = world.folder.path().join("kept");
    copy(&world.live(), &kept);
    let log = compacted(&log);
    assert_eq!(log.iter().map(|(_, event)| event.version).collect::<Vec<_>>(), [3, 2, 1]);
    std::fs::remove_dir_all(world.live()).unwrap();
    world.run(&log, &Pace::steady(&[1, 1]), Some(Crash::AfterCommit));
    assert_eq!(world.committed, BTreeMap::from([(0, 5)]));
    copy(&kept, &world.live());
    world.run(&log, &Pace::steady(&[1]), None);
    world.check(&log).unwrap();
}
