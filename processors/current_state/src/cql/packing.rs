//! Which statements go to the database in one request.
//!
//! A request costs client and server more than a row does, so statements for one coordinator travel together as an
//! unlogged batch, whatever partitions they are for: each is a write of its own there, and all of them are repeatable,
//! so a batch that was applied in part is sent again as a whole. The limits keep below what servers warn of, and far
//! below what they refuse: a batch of one partition may be of any size, one of several must be small.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
};

/// Statements in one request, at most.
pub const MAX_STATEMENTS: usize = 20;
/// Partitions in one request, at most: Apache Cassandra logs a warning above 10.
pub const MAX_PARTITIONS: usize = 10;

/// Estimated bytes of a request for more than one partition, at most: Apache Cassandra logs a warning above 5 KiB, which it
/// sends along with the answer, and refuses 50 KiB.
pub const MAX_BYTES: usize = 4_608;

/// A partition of a list view in 128 bits, see [`super::sink`].
pub type Fingerprint = u128;

/// Statements that travel together, and which list partitions they note once they are through.
pub struct Request<O> {
    /// The statements; those of one partition side by side.
    pub ops: Vec<O>,
    /// List partitions that are noted by them.
    pub notes: Vec<Fingerprint>,
    bytes: usize,
    partitions: usize,
}

impl<O> Request<O> {
    /// Statements of one partition, [`MAX_STATEMENTS`] at most, of so many bytes by estimate.
    fn of_one_partition(ops: Vec<O>, bytes: usize, notes: Vec<Fingerprint>) -> Self {
        Self { ops, notes, bytes, partitions: 1 }
    }

    fn has_room_for(&self, other: &Self) -> bool {
        self.ops.len() + other.ops.len() <= MAX_STATEMENTS
            && self.bytes + other.bytes <= MAX_BYTES
            && self.partitions + other.partitions <= MAX_PARTITIONS
    }

    fn append(&mut self, mut other: Self) {
        self.ops.append(&mut other.ops);
        self.notes.append(&mut other.notes);
        self.bytes += other.bytes;
        self.partitions += other.partitions;
    }
}

/// Adds the statements of one partition, in requests of [`MAX_STATEMENTS`] at most. `bytes` estimates a statement's.
pub fn push_partition<O>(requests: &mut Vec<Request<O>>, ops: Vec<O>, bytes: impl Fn(&O) -> usize) {
    let mut push = |ops: Vec<O>| {
        let bytes = ops.iter().map(&bytes).sum();
        requests.push(Request::of_one_partition(ops, bytes, Vec::new()));
    };
    if ops.len() <= MAX_STATEMENTS {
        return push(ops);
    }
    let mut ops = ops.into_iter();
    loop {
        let some: Vec<_> = ops.by_ref().take(MAX_STATEMENTS).collect();
        if some.is_empty() {
            return;
        }
        push(some);
    }
}

/// Puts requests with the same coordinator together, in the order given.
pub fn pack<O, K: Eq + Hash>(
    requests: Vec<Request<O>>,
    coordinator: impl Fn(&Request<O>) -> K,
) -> Vec<Request<O>> {
    let mut packed = Vec::with_capacity(requests.len() / 4 + 1);
    let mut open: HashMap<K, Request<O>> = HashMap::new();
    for request in requests {
        match open.entry(coordinator(&request)) {
            Entry::Vacant(place) => {
                place.insert(request);
            }
            Entry::Occupied(mut held) if held.get().has_room_for(&request) => held.get_mut().append(request),
            Entry::Occupied(mut held) => packed.push(held.insert(request)),
        }
    }
    packed.extend(open.into_values());
    packed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_statement_travels_once_with_its_notes_and_to_its_coordinator(
            sizes in prop::collection::vec((1..=MAX_STATEMENTS, 0_u8..3, 0..2 * MAX_BYTES), 0..60),
        ) {
            let requests: Vec<_> = sizes
                .iter()
                .enumerate()
                .map(|(i, &(size, to, bytes))| Request::of_one_partition(vec![(to, i); size], bytes, vec![i as u128]))
                .collect();
            let packed = pack(requests, |request| request.ops[0].0);
            let mut seen = vec![0; sizes.len()];
            for request in &packed {
                prop_assert!(request.ops.len() <= MAX_STATEMENTS && request.partitions <= MAX_PARTITIONS);
                let bytes: usize = request.notes.iter().map(|&i| sizes[i as usize].2).sum();
                prop_assert!(request.partitions == 1 || bytes <= MAX_BYTES);
                let mut inside: Vec<_> = request.ops.iter().map(|&(_, i)| i as u128).collect();
                inside.dedup();
                prop_assert_eq!(&inside, &request.notes);
                prop_assert!(request.ops.iter().all(|op| op.0 == request.ops[0].0));
                request.ops.iter().for_each(|&(_, i)| seen[i] += 1);
            }
            prop_assert_eq!(seen, sizes.iter().map(|&(size, ..)| size).collect::<Vec<_>>());
        }
    }

    #[test]
    fn small_requests_fill_a_batch() {
        let requests = (0..40).map(|i| Request::of_one_partition(vec![i], 100, Vec::new())).collect();
        let sizes: Vec<_> = pack(requests, |_| ()).iter().map(|request| request.ops.len()).collect();
        assert_eq!(sizes, vec![MAX_PARTITIONS; 4]);
    }
}
