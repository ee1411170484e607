//! The claims of a partition that are at hand: those that the open batch changes, those on their way to the sink, and
//! those that the store holds and that were changed not long ago. What isn't here is read from the store.
//!
//! The store is not given a claim with every batch that changes it, but once for several, all claims of a partition together.

use crate::{claim::Claim, places::Stood, processor::ClaimWrite};
use ahash::RandomState;
use claims_schemas::{ClaimState, EventView, Status, fold::Applied};
use hashbrown::HashTable;
use std::{collections::VecDeque, sync::Arc};

/// About what a claim costs here beside itself, in bytes.
const OVERHEAD_BYTES: usize = 256;

/// Names of claims in older batches are tidied when there are so many more than claims.
const MAX_NAMED_IN_VAIN: usize = 1_024;

/// Where a claim is.
pub(crate) type Slot = u32;

/// The claims at hand.
pub(crate) struct AtHand {
    slots: HashTable<Slot>,
    claims: Vec<Held>,
    free: Vec<Slot>,
    /// Batches that the store holds, the oldest first, with the claims that they changed.
    stored: VecDeque<Stored>,
    /// Claims that closed batches changed since the store was last given any.
    unstored: Vec<Slot>,
    /// About what these hold, in bytes.
    unstored_bytes: usize,
    /// Claims named in `stored`, those among them that have been changed again since.
    named: usize,
    /// About what claims outside the open batch hold, in bytes.
    bytes: usize,
    /// Claims are named by users, so nobody may know which of them share a place in the table.
    hasher: RandomState,
    /// What stands in a free slot.
    nobody: Arc<ClaimWrite>,
}

struct Stored {
    batch_id: u64,
    slots: Vec<Slot>,
}

/// Claims of a partition as they stand after a batch, all those that the store holds otherwise.
pub(crate) struct Snapshot {
    /// The batch.
    pub batch_id: u64,
    /// The claims. Where they are at hand, they may have changed since.
    pub claims: Vec<Arc<ClaimWrite>>,
    /// Where they are.
    pub slots: Vec<Slot>,
}

/// A claim at hand.
pub(crate) struct Held {
    hash: u64,
    /// The claim, and, if it is in a batch, what that writes of it. Others look at it while it is with the sink; while it
    /// is in the open batch nobody does.
    pub write: Arc<ClaimWrite>,
    /// The last batch that changed it, or a later one with which it is stored; `None`: the open one, or it was only just
    /// loaded.
    batch_id: Option<u64>,
    /// Whether it is among the unstored ones, and how many of its bytes count among theirs.
    is_unstored: bool,
    unstored_bytes: usize,
    bytes: usize,
    /// Whether it is in the open batch.
    pub is_open: bool,
    /// What it stood under before the open batch and within it.
    pub stood: Stood,
    /// Whether any of its records in the open batch was folded before. Whatever was lost of its rows meanwhile, or left
    /// behind by offsets that had jumped forward, is put right: all of its earlier places are deleted.
    pub replayed: bool,
}

impl Held {
    fn is(&self, tenant_id: &str, claim_id: &str) -> bool {
        let ClaimState { tenant_id: tenant, claim_id: claim, .. } = &self.write.claim.state;
        claim == claim_id && tenant == tenant_id
    }

    /// The claim to be changed. If the sink has it still, a copy takes its place here.
    pub fn change(&mut self) -> &mut ClaimWrite {
        if Arc::strong_count(&self.write) > 1 {
            self.write = Arc::new(ClaimWrite::of(self.write.partition, self.write.claim.clone()));
        }
        Arc::make_mut(&mut self.write)
    }

    /// Folds an event; answers with the status before it. On anything but a change the claim is as before.
    pub fn apply(&mut self, event: &EventView<'_>) -> (Status, Applied) {
        if !self.is_open {
            self.stood.begin(&self.write.claim.state);
        }
        self.stood.before(event, &self.write.claim.state);
        let claim = &mut self.change().claim;
        let before = claim.state.status();
        let applied = claim.apply(event);
        if let Applied::Changed { .. } = applied {
            self.stood.after(event);
        }
        (before, applied)
    }

    /// Whether this copy of an event that was folded before stands in the log behind one with a higher version, or may. Once
    /// compaction has removed the first, a member without a store meets the events in another order: it may leave rows
    /// that this claim never stood in, and what it commits may be silent here, so that nobody has written the present state.
    pub fn is_out_of_place(&self, copy: &EventView<'_>) -> bool {
        let Claim { state, disordered, .. } = &self.write.claim;
        *disordered || copy.version < state.version()
    }

    /// The open batch is to be closed: what it writes of the claim is complete.
    pub fn complete(&mut self) {
        let Self { write, stood, replayed, .. } = self;
        let write = Arc::make_mut(write);
        let Claim { state, ever_set, history, disordered } = &mut write.claim;
        ever_set.add_state(state);
        write.left = if *disordered || *replayed { history.left(state) } else { stood.left(state) };
    }
}

impl Default for AtHand {
    fn default() -> Self {
        Self {
            slots: HashTable::new(),
            claims: Vec::new(),
            free: Vec::new(),
            stored: VecDeque::new(),
            unstored: Vec::new(),
            unstored_bytes: 0,
            named: 0,
            bytes: 0,
            hasher: RandomState::new(),
            nobody: Arc::new(ClaimWrite::of(0, Claim::empty("", ""))),
        }
    }
}

impl AtHand {
    /// Where this claim is, if it is at hand.
    pub fn find(&self, tenant_id: &str, claim_id: &str) -> Option<Slot> {
        let hash = self.hasher.hash_one((tenant_id, claim_id));
        self.slots.find(hash, |&slot| self.claims[slot as usize].is(tenant_id, claim_id)).copied()
    }

    /// The claim there.
    pub fn get(&mut self, slot: Slot) -> &mut Held {
        &mut self.claims[slot as usize]
    }

    /// Takes in a claim that isn't at hand.
    pub fn add(&mut self, partition: i32, claim: Claim) -> Slot {
        let hash = self.hasher.hash_one((claim.state.tenant_id.as_str(), claim.state.claim_id.as_str()));
        let held = Held {
            hash,
            write: Arc::new(ClaimWrite::of(partition, claim)),
            batch_id: None,
            is_unstored: false,
            unstored_bytes: 0,
            bytes: 0,
            is_open: false,
            stood: Stood::default(),
            replayed: false,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.claims[slot as usize] = held;
                slot
            }
            None => {
                self.claims.push(held);
                (self.claims.len() - 1) as Slot
            }
        };
        let claims = &self.claims;
        self.slots.insert_unique(hash, slot, |&slot| claims[slot as usize].hash);
        slot
    }

    /// The open batch changes the claim.
    pub fn open(&mut self, slot: Slot) {
        let held = &mut self.claims[slot as usize];
        (held.is_open, held.batch_id) = (true, None);
        held.change().clear();
        self.bytes -= std::mem::take(&mut held.bytes);
    }

    /// The open batch, which changed the claim, is closed under this id.
    pub fn close(&mut self, slot: Slot, batch_id: u64) {
        let held = &mut self.claims[slot as usize];
        (held.is_open, held.replayed, held.batch_id) = (false, false, Some(batch_id));
        held.bytes = held.write.approximate_bytes() + held.stood.heap_bytes() + OVERHEAD_BYTES;
        self.bytes += held.bytes;
        if !std::mem::replace(&mut held.is_unstored, true) {
            self.unstored.push(slot);
        }
        // A claim may grow with each batch.
        let grown = held.bytes.saturating_sub(held.unstored_bytes);
        held.unstored_bytes += grown;
        self.unstored_bytes += grown;
    }

    /// About what claims hold that the store hasn't been given as closed batches left them, in bytes.
    pub fn unstored_bytes(&self) -> usize {
        self.unstored_bytes
    }

    /// Whether the store was given everything that closed batches left.
    pub fn is_stored(&self) -> bool {
        self.unstored.is_empty()
    }

    /// What the store is to be given: the claims as they stand after this batch, the last one that was closed. No batch may be
    /// open.
    pub fn take_unstored(&mut self, batch_id: u64) -> Snapshot {
        let slots = std::mem::take(&mut self.unstored);
        self.unstored_bytes = 0;
        let mut claims = Vec::with_capacity(slots.len());
        for &slot in &slots {
            let held = &mut self.claims[slot as usize];
            (held.is_unstored, held.unstored_bytes, held.batch_id) = (false, 0, Some(batch_id));
            claims.push(Arc::clone(&held.write));
        }
        Snapshot { batch_id, claims, slots }
    }

    /// The sink has what this batch wrote of these claims.
    pub fn acknowledged(&mut self, batch_id: u64, slots: &[Slot]) {
        slots.iter().for_each(|&slot| self.drop_written(slot, batch_id));
    }

    /// The store holds the claims as this batch left them. Those that were not changed for longest go, until no more than
    /// `max_bytes` are held or nothing may go.
    pub fn stored(&mut self, batch_id: u64, slots: Vec<Slot>, max_bytes: usize) {
        for &slot in &slots {
            self.drop_written(slot, batch_id);
        }
        self.named += slots.len();
        if !slots.is_empty() {
            self.stored.push_back(Stored { batch_id, slots });
        }
        self.trim(max_bytes);
        if self.named > 2 * self.slots.len() + MAX_NAMED_IN_VAIN {
            self.tidy();
        }
    }

    /// What the batch wrote of the claim beside its state isn't kept for its next events; unless a later batch changes the
    /// claim, or the sink has it still.
    fn drop_written(&mut self, slot: Slot, batch_id: u64) {
        let held = &mut self.claims[slot as usize];
        if held.batch_id != Some(batch_id) {
            return;
        }
        let Some(write) = Arc::get_mut(&mut held.write) else { return };
        let before = write.batch_bytes();
        write.clear();
        let freed = before.saturating_sub(write.batch_bytes()).min(held.bytes);
        held.bytes -= freed;
        self.bytes -= freed;
    }

    /// Lets go of claims that the store holds, those first that were not changed for longest, until no more than
    /// `max_bytes` are held or nothing may go. Where there is nothing to do, it costs nothing.
    pub fn trim(&mut self, max_bytes: usize) {
        while self.bytes > max_bytes {
            let Some(oldest) = self.stored.front_mut() else { break };
            let batch_id = oldest.batch_id;
            let Some(slot) = oldest.slots.pop() else {
                self.stored.pop_front();
                continue;
            };
            self.named -= 1;
            if self.claims[slot as usize].batch_id == Some(batch_id) {
                self.forget(slot);
            }
        }
    }

    /// Drops the names of claims that have been changed again: few claims may be changed by many batches.
    fn tidy(&mut self) {
        let claims = &self.claims;
        for Stored { batch_id, slots } in &mut self.stored {
            slots.retain(|&slot| claims[slot as usize].batch_id == Some(*batch_id));
            slots.shrink_to_fit();
        }
        self.stored.retain(|stored| !stored.slots.is_empty());
        self.named = self.stored.iter().map(|stored| stored.slots.len()).sum();
    }

    /// Lets go of a claim that is in no batch.
    pub fn forget(&mut self, slot: Slot) {
        let held = &mut self.claims[slot as usize];
        let hash = held.hash;
        self.bytes -= std::mem::take(&mut held.bytes);
        held.batch_id = None;
        held.write = Arc::clone(&self.nobody);
        held.stood = Stood::default();
        if let Ok(entry) = self.slots.find_entry(hash, |&known| known == slot) {
            entry.remove();
            self.free.push(slot);
        }
    }

    /// Number of claims.
    pub fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use claims_runtime::Origin;

    /// A batch that changes these claims, as far as the store.
    fn batch(at_hand: &mut AtHand, id: u64, claims: &[usize], max_bytes: usize) {
        closed(at_hand, id, claims);
        let stored = at_hand.take_unstored(id);
        at_hand.stored(id, stored.slots, max_bytes);
    }

    fn closed(at_hand: &mut AtHand, id: u64, claims: &[usize]) -> Vec<Slot> {
        let slots: Vec<Slot> = claims
            .iter()
            .map(|n| {
                let claim = format!("c{n}");
                let found = at_hand.find("t", &claim);
                found.unwrap_or_else(|| at_hand.add(0, Claim::empty("t", &claim)))
            })
            .collect();
        for &slot in &slots {
            at_hand.open(slot);
            at_hand.close(slot, id);
        }
        slots
    }

    fn held(at_hand: &AtHand, claims: std::ops::Range<usize>) -> Vec<usize> {
        claims.filter(|n| at_hand.find("t", &format!("c{n}")).is_some()).collect()
    }

    #[test]
    fn what_was_changed_last_stays() {
        let mut at_hand = AtHand::default();
        batch(&mut at_hand, 1, &[0, 1, 2, 3], usize::MAX);
        let four = at_hand.bytes;
        batch(&mut at_hand, 2, &[0, 1], four);
        batch(&mut at_hand, 3, &[4, 5], four);
        assert_eq!(held(&at_hand, 0..6), [0, 1, 4, 5]);
        assert_eq!((at_hand.bytes, at_hand.len()), (four, 4));
        // The places of those that went are taken again.
        batch(&mut at_hand, 4, &[6, 7], four);
        assert_eq!((held(&at_hand, 0..8), at_hand.claims.len()), (vec![4, 5, 6, 7], 6));
    }

    #[test]
    fn what_the_store_does_not_hold_stays() {
        let mut at_hand = AtHand::default();
        closed(&mut at_hand, 1, &[0, 1]);
        let on_their_way = at_hand.take_unstored(1).slots;
        batch(&mut at_hand, 2, &[2, 3], 0);
        assert_eq!(held(&at_hand, 0..4), [0, 1]);
        closed(&mut at_hand, 3, &[1]);
        at_hand.stored(1, on_their_way, 0);
        assert_eq!(held(&at_hand, 0..4), [1], "it is in a later batch");
        let again = at_hand.take_unstored(3).slots;
        at_hand.stored(3, again, 0);
        assert_eq!((at_hand.len(), at_hand.bytes), (0, 0));
    }

    #[test]
    fn claims_of_several_batches_go_once_they_are_stored_together() {
        let mut at_hand = AtHand::default();
        closed(&mut at_hand, 1, &[0, 1]);
        closed(&mut at_hand, 2, &[1, 2]);
        at_hand.trim(0);
        assert_eq!(held(&at_hand, 0..3), [0, 1, 2], "the store has none of them");
        let Snapshot { slots, claims, .. } = at_hand.take_unstored(2);
        assert_eq!((slots.len(), claims.len(), at_hand.is_stored()), (3, 3, true));
        at_hand.stored(2, slots, 0);
        assert_eq!((at_hand.len(), at_hand.bytes), (0, 0));
        let kept = at_hand.stored.len();
        for id in 3..100 {
            at_hand.stored(id, Vec::new(), usize::MAX);
        }
        assert_eq!(at_hand.stored.len(), kept, "nothing is kept of what changed no claim");
    }

    #[test]
    fn unstored_claims_count_as_they_grow() {
        let mut at_hand = AtHand::default();
        let slot = closed(&mut at_hand, 1, &[0])[0];
        assert_eq!(at_hand.unstored_bytes(), at_hand.bytes);
        at_hand.open(slot);
        at_hand.get(slot).change().claim.state.description.value = Some("x".repeat(60_000).into());
        at_hand.close(slot, 2);
        assert!(at_hand.unstored_bytes() > 60_000);
        assert_eq!(at_hand.unstored_bytes(), at_hand.bytes);
        at_hand.take_unstored(2);
        assert_eq!(at_hand.unstored_bytes(), 0);
        closed(&mut at_hand, 3, &[0]);
        assert_eq!(at_hand.unstored_bytes(), at_hand.bytes);
    }

    #[test]
    fn with_less_room_what_was_changed_last_stays() {
        let mut at_hand = AtHand::default();
        batch(&mut at_hand, 1, &[0, 1], usize::MAX);
        batch(&mut at_hand, 2, &[2, 3], usize::MAX);
        let all = at_hand.bytes;
        at_hand.trim(all);
        assert_eq!(held(&at_hand, 0..4), [0, 1, 2, 3]);
        at_hand.trim(all / 2);
        assert_eq!(held(&at_hand, 0..4), [2, 3]);
    }

    #[test]
    fn what_a_batch_wrote_goes_once_nobody_needs_it() {
        let mut at_hand = AtHand::default();
        let slot = at_hand.add(0, Claim::empty("t", "c"));
        let closed_with = |at_hand: &mut AtHand, records: i64, id: u64| {
            at_hand.open(slot);
            let origins = (0..records).map(|offset| Origin { partition: 0, offset });
            at_hand.get(slot).change().origins.extend(origins);
            at_hand.close(slot, id);
            at_hand.bytes
        };
        let small = closed_with(&mut at_hand, 0, 1);
        let full = closed_with(&mut at_hand, 100, 2);
        assert!(full >= small + 100 * size_of::<Origin>());
        at_hand.stored(1, vec![slot], usize::MAX);
        assert_eq!(
            (at_hand.get(slot).write.origins.len(), at_hand.bytes),
            (100, full),
            "a later batch has it"
        );
        let sink = Arc::clone(&at_hand.get(slot).write);
        at_hand.stored(2, vec![slot], usize::MAX);
        assert_eq!((sink.origins.len(), at_hand.bytes), (100, full), "the sink has it still");
        drop(sink);
        at_hand.stored(2, vec![slot], usize::MAX);
        assert_eq!((at_hand.get(slot).write.origins.capacity(), at_hand.bytes), (0, small));
        // A few are not worth a new buffer for each batch; but it counts.
        closed_with(&mut at_hand, 3, 3);
        at_hand.stored(3, vec![slot], usize::MAX);
        let write = &at_hand.get(slot).write;
        let room = write.origins.capacity();
        assert!(write.origins.is_empty() && room >= 3);
        assert_eq!(at_hand.bytes, small + room * size_of::<Origin>());
        at_hand.forget(slot);
        assert_eq!(at_hand.bytes, 0);
    }

    #[test]
    fn tenants_are_told_apart() {
        let mut at_hand = AtHand::default();
        at_hand.add(0, Claim::empty("t", "c"));
        assert!(at_hand.find("t", "c").is_some());
        assert!(at_hand.find("tc", "").is_none() && at_hand.find("", "tc").is_none());
    }

    #[test]
    fn few_claims_in_many_batches_take_little() {
        let mut at_hand = AtHand::default();
        batch(&mut at_hand, 1, &[9], usize::MAX);
        for id in 2..20_000 {
            batch(&mut at_hand, id, &[0, 1], usize::MAX);
        }
        assert_eq!(at_hand.len(), 3);
        let named: usize = at_hand.stored.iter().map(|stored| stored.slots.len()).sum();
        assert_eq!(named, at_hand.named);
        assert!(named <= MAX_NAMED_IN_VAIN + 8 && at_hand.stored.len() <= MAX_NAMED_IN_VAIN + 8);
        batch(&mut at_hand, 20_000, &[1], 0);
        assert_eq!(at_hand.len(), 0);
    }
}
