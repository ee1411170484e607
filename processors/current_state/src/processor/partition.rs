//! A partition's claims, from the record that changes one to the store that holds it.

use super::{ClaimWrite, OVERHEAD_BYTES, REASON_SUPERSEDED, fatal};
use crate::{
    at_hand::{AtHand, Slot, Snapshot},
    claim::Claim,
    counts::Counts,
    state_writer::{StateWrite, StateWriter, Written},
    store::{PartitionHandle, PartitionStore, StateStore, StoreWrite},
};
use claims_runtime::{Effect, Origin, ProcessError, Rows};
use claims_schemas::{
    EventView, Timestamp,
    fold::{Applied, Surprise},
};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

/// The store is given what a partition's acknowledged batches left after so many batches, of whatever partitions, at the latest.
pub(super) const MAX_UNSTORED_BATCHES: u64 = 64;

/// A partition: its claims, and how far it is.
pub(super) struct Partition {
    pub number: i32,
    pub store: PartitionStore,
    /// Records below this offset are given to fill the store only: their rows are in the views, their conflicts in the
    /// dead letters.
    pub restored_below: i64,
    /// Records below this offset are in the store already: they are given again because offsets were reset, or
    /// because of a crash before the commit. Their claims are written again from the present state.
    pub replayed_below: i64,
    /// Records given again that the store doesn't hold: it is folded anew from the first of them.
    pub missing: BTreeSet<i64>,
    pub at_hand: AtHand,
    /// Claims that the open batch changes.
    pub open: Vec<Slot>,
    /// The record of the open batch, if that is a retry.
    pub retrying: Option<i64>,
    /// The batch after which the store is given, or was given, everything so far.
    pub stored_batch_id: u64,
    /// What was acknowledged last, unless the store was given it.
    pub acknowledged: Option<Frontier>,
    /// Closed batches that the sink has not acknowledged yet, oldest first.
    pub in_flight: VecDeque<Closed>,
}

/// How far a partition is acknowledged.
#[derive(Clone, Copy)]
pub(super) struct Frontier {
    /// The offset after the last record.
    next_offset: i64,
    /// When that was heard, milliseconds since the Unix epoch: nobody else had the partition then. Later, when the store
    /// is given it, somebody may have.
    at_ms: i64,
}

/// A batch on its way to the sink.
pub(super) struct Closed {
    batch_id: u64,
    slots: Vec<Slot>,
    /// What the store is given once the sink has the batch; `None`: that waits for a later batch.
    snapshot: Option<Snapshot>,
    retried: Option<i64>,
}

/// How a record is folded.
#[derive(Clone, Copy)]
pub(super) struct How {
    /// Its row is to be written, its conflict to be reported.
    pub visible: bool,
    /// The store may hold it already, and its claim is written again.
    pub replayed: bool,
    /// A conflict is reported although the store may know it.
    pub asked_for: bool,
}

/// What the store is given in one step.
pub(super) struct Order {
    write: StoreWrite,
    claims: Vec<(PartitionHandle, Vec<Arc<ClaimWrite>>)>,
    written: Vec<Written>,
    is_empty: bool,
}

impl Order {
    pub fn new(store: &StateStore) -> Self {
        Self { write: store.write(), claims: Vec::new(), written: Vec::new(), is_empty: true }
    }

    /// Notes the offset that the partition's claims stand at.
    fn offset(&mut self, partition: &mut Partition) {
        self.is_empty = false;
        let Some(Frontier { next_offset, at_ms }) = partition.acknowledged else { return };
        self.write.next_offset(&mut partition.store, next_offset);
        // While some are missing, the next one to have this store must find them all once more.
        if partition.missing.is_empty() {
            self.write.complete_at(&mut partition.store, at_ms);
        }
    }

    /// Notes that the partition's claims hold records that were given once more.
    fn retried(&mut self, partition: &mut Partition, offsets: BTreeSet<i64>) {
        self.write.retried(&mut partition.store, offsets);
        self.offset(partition);
    }

    /// Hands it to the store's thread, if there is anything.
    pub fn give(self, writer: &mut StateWriter) -> Result<(), ProcessError> {
        let Self { write, claims, written, is_empty } = self;
        if is_empty { Ok(()) } else { writer.write(StateWrite { write, claims }, written).map_err(fatal) }
    }
}

impl Partition {
    pub fn fold(
        &mut self,
        event: &EventView<'_>,
        origin: Origin,
        how: How,
        rows: &mut Rows<Arc<ClaimWrite>>,
        counts: &mut Counts,
    ) -> Result<Effect, ProcessError> {
        let How { visible, replayed, asked_for } = how;
        let found = self.at_hand.find(event.tenant_id, event.claim_id);
        let slot = match found {
            Some(slot) => slot,
            None => {
                let claim = self.load(event)?;
                self.at_hand.add(self.number, claim)
            }
        };
        let held = self.at_hand.get(slot);
        let (before, applied) = held.apply(event);
        let is_change = matches!(applied, Applied::Changed { .. });
        let is_entered = match applied {
            Applied::Changed { .. } => true,
            Applied::Copy => replayed || held.is_out_of_place(event),
            Applied::Superseded => false,
        };
        if !is_entered && found.is_none() {
            self.at_hand.forget(slot);
        }
        match applied {
            Applied::Superseded if (replayed || !visible) && !asked_for => {
                counts.known_conflicts += 1;
                return Ok(Effect::AlreadyThere);
            }
            Applied::Superseded => {
                return Err(ProcessError::Poison {
                    reason: REASON_SUPERSEDED,
                    detail: format!(
                        "version {} of this claim is held by another event, which came first",
                        event.version
                    ),
                });
            }
            Applied::Copy => {
                counts.copies += u64::from(!replayed);
                if !is_entered {
                    return Ok(Effect::AlreadyThere);
                }
                if !replayed || asked_for {
                    self.at_hand.get(slot).change().claim.history.add_unknown();
                }
            }
            Applied::Changed { surprise } if visible => {
                counts.changed(event, before, self.at_hand.get(slot).write.claim.state.status());
                if let Some(Surprise { what }) = surprise {
                    counts.surprises += 1;
                    let Origin { partition, offset } = origin;
                    tracing::debug!(partition, offset, what, "a step that the lifecycle doesn't foresee");
                }
            }
            Applied::Changed { .. } => {}
        }
        let mut bytes = self.enter(slot, event, visible.then_some(origin), !is_change);
        if is_change || replayed {
            // The entry of a copy was written with the first one.
            bytes += self.at_hand.get(slot).change().note(event);
        }
        rows.reserve_bytes(bytes);
        Ok(if is_change { Effect::Applied } else { Effect::AlreadyThere })
    }

    /// Enters a folded event into the open batch; answers with the bytes that this holds.
    fn enter(
        &mut self,
        slot: Slot,
        event: &EventView<'_>,
        origin: Option<Origin>,
        was_folded_before: bool,
    ) -> usize {
        let mut bytes = size_of::<Origin>();
        if !self.at_hand.get(slot).is_open {
            self.at_hand.open(slot);
            self.open.push(slot);
            let state = &self.at_hand.get(slot).write.claim;
            bytes +=
                state.approximate_bytes() + event.tenant_id.len() + event.claim_id.len() + OVERHEAD_BYTES;
        }
        let held = self.at_hand.get(slot);
        held.replayed |= was_folded_before;
        held.change().origins.extend(origin);
        bytes
    }

    /// The claim as stored.
    fn load(&mut self, event: &EventView<'_>) -> Result<Claim, ProcessError> {
        let stored = self.store.get(event.tenant_id, event.claim_id).map_err(fatal)?;
        Ok(stored.unwrap_or_else(|| Claim::empty(event.tenant_id, event.claim_id)))
    }

    pub fn close(&mut self, batch_id: u64, rows: &mut Rows<Arc<ClaimWrite>>, counts: &mut Counts) {
        let slots = std::mem::take(&mut self.open);
        for &slot in &slots {
            let held = self.at_hand.get(slot);
            held.complete();
            let claim = &held.write.claim;
            if let Some(what) = claim.state.contradiction() {
                counts.contradictions += 1;
                tracing::error!(
                    partition = self.number,
                    claim_id = claim.state.claim_id.as_str(),
                    "inconsistent: {what}"
                );
            }
            if let Some(&last) = held.write.origins.last() {
                // What it holds was accounted for record by record.
                rows.push(last, Arc::clone(&held.write), 0);
            }
            self.at_hand.close(slot, batch_id);
        }
        let retried = self.retrying.take();
        self.in_flight.push_back(Closed { batch_id, slots, snapshot: None, retried });
    }

    /// Keeps what the store is to be given once the sink has the batch closed last, if it is time for that. What was given
    /// again must be in the store before that is noted there.
    pub fn take_snapshot(&mut self, batch_id: u64, max_unstored_bytes: usize) {
        let is_overdue = self.is_overdue(batch_id);
        let Some(closed) = self.in_flight.back_mut() else { return };
        let is_due = closed.retried.is_some()
            || !self.missing.is_empty()
            || is_overdue
            || self.at_hand.unstored_bytes() >= max_unstored_bytes;
        if is_due {
            self.stored_batch_id = batch_id;
            closed.snapshot = Some(self.at_hand.take_unstored(batch_id));
        }
    }

    /// The sink has a batch. Answers whether the store must have it before anything else happens.
    pub fn acknowledged(&mut self, batch_id: u64, next_offset: i64, order: &mut Order) -> bool {
        self.acknowledged = Some(Frontier { next_offset, at_ms: Timestamp::now().0 });
        let closed = self.in_flight.pop_front_if(|closed| closed.batch_id == batch_id);
        let retried = closed.as_ref().and_then(|closed| closed.retried);
        let mut newly_there: BTreeSet<i64> = retried.into_iter().collect();
        if self.missing.last().is_some_and(|&newest| newest < next_offset) {
            newly_there.append(&mut self.missing);
        }
        let is_awaited = !newly_there.is_empty();
        if is_awaited {
            // The store has everything before this batch, or is given it now: nothing was put off while some were missing.
            order.retried(self, newly_there);
        }
        match closed {
            Some(Closed { snapshot: Some(snapshot), .. }) => self.give(snapshot, order),
            Some(Closed { snapshot: None, slots, .. }) => self.at_hand.acknowledged(batch_id, &slots),
            None => {}
        }
        is_awaited
    }

    /// Whether nothing is under way: no batch is open or with the sink.
    pub fn is_quiet(&self) -> bool {
        self.open.is_empty() && self.in_flight.is_empty()
    }

    /// Whether the store was given nothing for so long that it must be, before this batch's end.
    pub fn is_overdue(&self, batch_id: u64) -> bool {
        batch_id >= self.stored_batch_id + MAX_UNSTORED_BATCHES
    }

    /// Gives the store everything up to this batch, which was acknowledged, if nothing of this partition is under way.
    pub fn store_all(&mut self, batch_id: u64, order: &mut Order) {
        if self.is_quiet() && (self.acknowledged.is_some() || !self.at_hand.is_stored()) {
            self.stored_batch_id = batch_id;
            let snapshot = self.at_hand.take_unstored(batch_id);
            self.give(snapshot, order);
        }
    }

    /// Gives the store the claims as they stand after the acknowledged batches, and the offset after these.
    fn give(&mut self, snapshot: Snapshot, order: &mut Order) {
        let Snapshot { batch_id, claims, slots } = snapshot;
        order.claims.push((self.store.handle(), claims));
        order.written.push(Written { partition: self.number, batch_id, slots });
        order.offset(self);
        self.acknowledged = None;
    }
}
