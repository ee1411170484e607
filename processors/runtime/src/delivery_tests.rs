use super::*;
use crate::Membership;
use proptest::prelude::*;

fn batch(origins: &[(i32, i64)]) -> Batch<usize> {
    let origins: Vec<Origin> =
        origins.iter().map(|&(partition, offset)| Origin { partition, offset }).collect();
    Batch {
        id: 7,
        topic: "t".into(),
        rows: (0..origins.len()).collect(),
        ranges: ranges_of(&origins),
        origins,
        attempt: 3,
        is_retry: false,
        membership: Membership::default(),
    }
}

#[test]
fn rows_of_one_record_stay_together() {
    let (left, right) = split(batch(&[(0, 1), (0, 2), (0, 2), (0, 2)])).unwrap();
    assert_eq!((left.rows, right.rows), (vec![0], vec![1, 2, 3]));
    assert_eq!(split(batch(&[(0, 2), (0, 2)])).unwrap_err().rows, vec![0, 1]);
}

#[test]
fn parts_say_what_they_cover() {
    let (left, right) = split(batch(&[(0, 1), (1, 5), (0, 3), (1, 9)])).unwrap();
    let range = |partition, first_offset, last_offset, records| PartitionRange {
        partition,
        first_offset,
        last_offset,
        records,
    };
    assert_eq!(left.ranges, vec![range(0, 1, 1, 1), range(1, 5, 5, 1)]);
    assert_eq!(right.ranges, vec![range(0, 3, 3, 1), range(1, 9, 9, 1)]);
    assert_eq!((left.id, left.attempt, right.attempt), (7, 1, 1));
}

/// Each row stands for the records that it holds.
struct Folding;

impl Sink for Folding {
    type Row = Vec<Origin>;

    async fn write(&self, _: &Batch<Self::Row>) -> Result<(), SinkError> {
        Ok(())
    }

    fn folded<'a>(&self, row: &'a Self::Row) -> &'a [Origin] {
        row
    }
}

#[test]
fn with_a_row_every_record_folded_into_it_is_refused() {
    let at = |offset| Origin { partition: 0, offset };
    let part = Batch {
        id: 1,
        topic: "t".into(),
        rows: vec![vec![at(3), at(5), at(9)]],
        origins: vec![at(9)],
        ranges: vec![],
        attempt: 1,
        is_retry: false,
        membership: Membership::default(),
    };
    assert_eq!(refused_records(&Folding, &part), vec![at(3), at(5), at(9)]);
}

proptest! {
    /// Bisection ends, keeps every row once and in order, and stops only at rows of a single record.
    #[test]
    fn bisection_reaches_every_record(origins in prop::collection::vec((0..3i32, 0..6i64), 1..80)) {
        let mut parts = vec![batch(&origins)];
        let mut rows = Vec::new();
        let mut steps = 0;
        while let Some(part) = parts.pop() {
            steps += 1;
            prop_assert!(steps < 2 * origins.len() + 1);
            let (mine, mine_origins) = (part.rows.clone(), part.origins.clone());
            match split(part) {
                Ok((left, right)) => {
                    prop_assert!(!left.rows.is_empty() && !right.rows.is_empty());
                    parts.push(right);
                    parts.push(left);
                }
                Err(part) => {
                    prop_assert!(mine_origins.iter().all(|o| *o == mine_origins[0]));
                    prop_assert_eq!(&part.rows, &mine);
                    rows.extend(mine);
                }
            }
        }
        prop_assert!(rows.into_iter().eq(0..origins.len()));
    }
}

/// Refuses the first try for a passing reason, and loses partition 1 meanwhile.
struct LosesAPartition {
    gone: Gone,
    tries: std::sync::Mutex<Vec<Vec<Origin>>>,
}

impl Sink for LosesAPartition {
    type Row = usize;

    async fn write(&self, batch: &Batch<usize>) -> Result<(), SinkError> {
        let mut tries = self.tries.lock().unwrap();
        tries.push(batch.origins.clone());
        if tries.len() == 1 {
            self.gone.add(&[1]);
            return Err(SinkError::Transient("the database stood still".into()));
        }
        Ok(())
    }
}

fn deliver(origins: &[(i32, i64)]) -> (Delivered, Vec<Vec<Origin>>) {
    let gone = Gone::default();
    let sink = LosesAPartition { gone: gone.clone(), tries: std::sync::Mutex::default() };
    let settings = RuntimeSettings { sink_retry_min_backoff_ms: 1, ..RuntimeSettings::default() };
    let dead_letters = DeadLetterProducer::new(&[], "dead", "t", "p", 1);
    let delivery = Delivery {
        sink: &sink,
        dead_letters: &dead_letters,
        settings: &settings,
        waiting: &|_| {},
        gone: &gone,
    };
    let mut batch = batch(origins);
    let mut delivered = Delivered::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let refused = runtime.block_on(delivery.write(&mut batch, &mut delivered)).unwrap();
    assert_eq!(refused, None);
    (delivered, sink.tries.into_inner().unwrap())
}

#[test]
fn rows_of_a_partition_that_went_are_not_written_again() {
    let at = |partition, offset| Origin { partition, offset };
    let (delivered, tries) = deliver(&[(0, 1), (1, 5), (0, 3)]);
    assert_eq!(delivered.retries, 1);
    assert_eq!(tries, [vec![at(0, 1), at(1, 5), at(0, 3)], vec![at(0, 1), at(0, 3)]]);
    // Nothing left: no second try at all.
    let (_, tries) = deliver(&[(1, 5), (1, 6)]);
    assert_eq!(tries, [vec![at(1, 5), at(1, 6)]]);
}
