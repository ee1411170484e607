//! Where a claim stands in each list view: a pure function of its state, and what a batch must delete.
//!
//! A list view is split into partitions by time ([`Bucket`]) and by a hash of the claim ([`shard`]), so that none
//! grows without bound. A claim stands in at most one place of each view; every place that it may have stood in
//! before is deleted with the stamp of the new row.

use chrono::Datelike;
use claims_schemas::{ClaimState, EventView, Status, Text, Timestamp, text::heap_bytes, view::DataView};
use smallvec::{Array, SmallVec};

/// Number of partitions that one bucket of a list view is spread over. Part of the layout: changing it needs empty
/// tables.
pub const SHARDS: u64 = 8;

/// At most this many earlier values (agents, customers, creation times) are remembered per claim; the oldest go first.
pub const MAX_REMEMBERED_VALUES: usize = 64;

/// A list view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListView {
    /// `claims_by_status`
    Status,
    /// `claims_by_assignee`
    Assignee,
    /// `claims_by_customer`
    Customer,
    /// `claims_by_created`
    Created,
}

impl ListView {
    /// Every list view.
    pub const ALL: [ListView; 4] =
        [ListView::Status, ListView::Assignee, ListView::Customer, ListView::Created];

    /// The table's name.
    pub const fn table(self) -> &'static str {
        match self {
            ListView::Status => "claims_by_status",
            ListView::Assignee => "claims_by_assignee",
            ListView::Customer => "claims_by_customer",
            ListView::Created => "claims_by_created",
        }
    }

    /// The column that is part of the partition key beside tenant, bucket and shard.
    pub const fn key_column(self) -> Option<&'static str> {
        match self {
            ListView::Status => Some("status"),
            ListView::Assignee => Some("agent_id"),
            ListView::Customer => Some("customer_id"),
            ListView::Created => None,
        }
    }

    /// The time bucket of a claim created at `created_at`.
    pub fn bucket(self, created_at: Option<Timestamp>) -> Bucket {
        match self {
            ListView::Status | ListView::Created => Bucket::day(created_at),
            ListView::Assignee | ListView::Customer => Bucket::month(created_at),
        }
    }
}

/// A span of creation time: a UTC day as `20250708`, a month as `202507`, 0 when the creation isn't known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Bucket(pub i32);

impl Bucket {
    /// Claims whose creation is not known yet.
    pub const UNKNOWN: Bucket = Bucket(0);

    /// The day of an instant.
    pub fn day(at: Option<Timestamp>) -> Self {
        date(at).map_or(Self::UNKNOWN, |d| Self(d.year() * 10_000 + d.month() as i32 * 100 + d.day() as i32))
    }

    /// The month of an instant.
    pub fn month(at: Option<Timestamp>) -> Self {
        date(at).map_or(Self::UNKNOWN, |d| Self(d.year() * 100 + d.month() as i32))
    }
}

fn date(at: Option<Timestamp>) -> Option<chrono::NaiveDate> {
    at.and_then(Timestamp::to_datetime).map(|at| at.date_naive())
}

/// The shard of a claim: FNV-1a over its id, which is stable over builds and machines.
pub fn shard(claim_id: &str) -> i16 {
    let hash = claim_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The low bits of FNV-1a depend on the last bytes alone; fold the high half in.
    (((hash >> 32) ^ hash) % SHARDS) as i16
}

/// One row of a list view, by its whole primary key but for tenant and claim.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// The view.
    pub view: ListView,
    /// Status, agent or customer; empty in `claims_by_created`.
    pub key: Text,
    /// Creation time; `None` stands in [`Bucket::UNKNOWN`] with a clustering time of zero.
    pub created_at: Option<Timestamp>,
}

impl Place {
    /// The time bucket.
    pub fn bucket(&self) -> Bucket {
        self.view.bucket(self.created_at)
    }

    /// The clustering column `created_at`, milliseconds since the Unix epoch.
    pub fn clustering_ms(&self) -> i64 {
        self.created_at.map_or(0, |at| at.0)
    }
}

/// Where a claim in this state stands: at most one place per list view.
pub fn places(state: &ClaimState) -> Vec<Place> {
    let mut values = Values::default();
    values.add_state(state);
    values.places()
}

/// Every value that decides a claim's places, as sets: which combinations stood together doesn't matter, a place that
/// never was is deleted in vain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Values {
    /// One bit per status, by its position in [`Status::ALL`].
    pub statuses: u8,
    /// Creation times; `None`: not known.
    pub created: SmallVec<[Option<Timestamp>; 2]>,
    /// Agents.
    pub agents: SmallVec<[Text; 2]>,
    /// Customers.
    pub customers: SmallVec<[Text; 1]>,
}

impl Values {
    /// Adds what the state holds now.
    pub fn add_state(&mut self, state: &ClaimState) {
        self.statuses |= status_bit(state.status());
        add(&mut self.created, &state.created_at.value);
        add_kept(&mut self.agents, state.agent_id.value.as_ref());
        add_kept(&mut self.customers, state.customer_id.value.as_ref());
    }

    /// Adds what the event sets, whether or not the fold lets it win: in another order it would have.
    pub fn add_event(&mut self, event: &EventView<'_>) {
        match &event.data {
            DataView::ClaimCreated(data) => {
                self.statuses |= status_bit(Status::Created);
                add(&mut self.created, &Some(event.occurred_at));
                self.customers_add(Some(data.customer_id));
            }
            DataView::ClaimAssigned { agent_id, .. } => {
                self.statuses |= status_bit(Status::Assigned);
                self.agents_add(Some(agent_id));
            }
            DataView::ClaimReassigned { agent_id, .. } => self.agents_add(Some(agent_id)),
            DataView::ClaimProcessingStarted { .. } | DataView::ClaimReopened { .. } => {
                self.statuses |= status_bit(Status::Processing);
            }
            DataView::ClaimResolved(_) => self.statuses |= status_bit(Status::Resolved),
            DataView::ClaimClosed { .. } => self.statuses |= status_bit(Status::Closed),
            DataView::ClaimErased { .. } => self.statuses |= status_bit(Status::Erased),
            DataView::ClaimNoteAdded { .. } => {}
        }
    }

    /// Adds what a claim can show before the events that set its status and its creation are known.
    pub fn add_unknown(&mut self) {
        self.statuses |= status_bit(Status::Unknown);
        add(&mut self.created, &None);
    }

    /// About what it holds in memory beside itself, in bytes.
    pub fn heap_bytes(&self) -> usize {
        fn spilled<A: Array>(values: &SmallVec<A>) -> usize {
            if values.spilled() { values.capacity() * size_of::<A::Item>() } else { 0 }
        }
        self.agents.iter().chain(&self.customers).map(heap_bytes).sum::<usize>()
            + spilled(&self.agents)
            + spilled(&self.customers)
            + spilled(&self.created)
    }

    fn agents_add(&mut self, agent: Option<&str>) {
        add_str(&mut self.agents, agent);
    }

    fn customers_add(&mut self, customer: Option<&str>) {
        add_str(&mut self.customers, customer);
    }

    /// Every combination of the values.
    pub fn places(&self) -> Vec<Place> {
        let mut places = Vec::with_capacity(4 * self.created.len());
        for &created_at in &self.created {
            let mut push = |view, key| places.push(Place { view, key, created_at });
            for (i, status) in Status::ALL.iter().enumerate() {
                if self.statuses & (1 << i) != 0 {
                    push(ListView::Status, Text::new_static(status.as_str()));
                }
            }
            self.agents.iter().for_each(|agent| push(ListView::Assignee, agent.clone()));
            self.customers.iter().for_each(|customer| push(ListView::Customer, customer.clone()));
            if created_at.is_some() {
                push(ListView::Created, Text::default());
            }
        }
        places
    }

    /// The places to delete when the claim now stands as `state` says: all of these but those.
    pub fn left(&self, state: &ClaimState) -> Vec<Place> {
        self.combined(self.agents.iter(), self.customers.iter(), state)
    }

    /// The combinations with these agents and customers that aren't a place of `state`.
    fn combined<'a>(
        &self,
        agents: impl Iterator<Item = &'a Text> + Clone,
        customers: impl Iterator<Item = &'a Text> + Clone,
        state: &ClaimState,
    ) -> Vec<Place> {
        let (status, agent, customer) =
            (state.status(), state.agent_id.value.as_ref(), state.customer_id.value.as_ref());
        let mut left = Vec::new();
        for &created_at in &self.created {
            // The other views hold the claim under the same creation time, or not at all.
            let stands = created_at == state.created_at.value;
            let mut push = |view, key: &Text, is_now: bool| {
                if !(stands && is_now) {
                    left.push(Place { view, key: key.clone(), created_at });
                }
            };
            for (i, &earlier) in Status::ALL.iter().enumerate() {
                if self.statuses & (1 << i) != 0 {
                    push(ListView::Status, &Text::new_static(earlier.as_str()), earlier == status);
                }
            }
            agents.clone().for_each(|earlier| push(ListView::Assignee, earlier, Some(earlier) == agent));
            customers
                .clone()
                .for_each(|earlier| push(ListView::Customer, earlier, Some(earlier) == customer));
            if created_at.is_some() {
                push(ListView::Created, &Text::default(), true);
            }
        }
        left
    }
}

/// What a claim stood under before a batch and within it. Texts are copied only where an event may replace them.
#[derive(Debug, Default)]
pub(crate) struct Stood(Values);

impl Stood {
    /// About what it holds in memory beside itself, in bytes.
    pub fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }

    /// A batch is about to change a claim in this state.
    pub fn begin(&mut self, state: &ClaimState) {
        let Values { statuses, created, agents, customers } = &mut self.0;
        *statuses = 0;
        created.clear();
        agents.clear();
        customers.clear();
        if state.revision() > 0 {
            *statuses = status_bit(state.status());
            created.push(state.created_at.value);
        }
    }

    /// The event is about to be folded into the state.
    pub fn before(&mut self, event: &EventView<'_>, state: &ClaimState) {
        match &event.data {
            DataView::ClaimCreated(_) | DataView::ClaimErased { .. } => {
                add_kept(&mut self.0.customers, state.customer_id.value.as_ref());
            }
            DataView::ClaimAssigned { .. } | DataView::ClaimReassigned { .. } => {
                add_kept(&mut self.0.agents, state.agent_id.value.as_ref());
            }
            DataView::ClaimProcessingStarted { .. }
            | DataView::ClaimResolved(_)
            | DataView::ClaimClosed { .. }
            | DataView::ClaimReopened { .. }
            | DataView::ClaimNoteAdded { .. } => {}
        }
    }

    /// The event has changed the claim.
    pub fn after(&mut self, event: &EventView<'_>) {
        self.0.add_event(event);
    }

    /// The places to delete when the claim now stands as `state` says.
    pub fn left(&self, state: &ClaimState) -> Vec<Place> {
        // What no event of the batch could replace is as it was before.
        let agents = with(&self.0.agents, state.agent_id.value.as_ref());
        let customers = with(&self.0.customers, state.customer_id.value.as_ref());
        self.0.combined(agents, customers, state)
    }
}

/// The values, and the one that holds now.
fn with<'a>(values: &'a [Text], now: Option<&'a Text>) -> impl Iterator<Item = &'a Text> + Clone {
    let missing = now.filter(|&now| !values.contains(now));
    values.iter().chain(missing)
}

fn status_bit(status: Status) -> u8 {
    Status::ALL.iter().position(|&s| s == status).map_or(0, |i| 1 << i)
}

/// Adds a value, of which there are not too many; the oldest goes first.
fn add<A: Array>(values: &mut SmallVec<A>, value: &A::Item)
where
    A::Item: PartialEq + Clone,
{
    if !values.contains(value) {
        push(values, value.clone());
    }
}

fn add_kept<A: Array<Item = Text>>(values: &mut SmallVec<A>, value: Option<&Text>) {
    if let Some(value) = value {
        add(values, value);
    }
}

fn add_str<A: Array<Item = Text>>(values: &mut SmallVec<A>, value: Option<&str>) {
    let Some(value) = value else { return };
    if !values.iter().any(|known| known == value) {
        push(values, Text::new(value));
    }
}

fn push<A: Array>(values: &mut SmallVec<A>, value: A::Item) {
    values.push(value);
    if values.len() > MAX_REMEMBERED_VALUES {
        values.remove(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_read_as_dates() {
        let at = Some(Timestamp(1_751_985_000_000)); // 2025-07-08T14:30:00Z
        assert_eq!(Bucket::day(at), Bucket(20_250_708));
        assert_eq!(Bucket::month(at), Bucket(202_507));
        assert_eq!(Bucket::day(None), Bucket::UNKNOWN);
        assert_eq!(Bucket::day(Some(Timestamp(-2_208_988_800_000))), Bucket(19_000_101));
    }

    #[test]
    fn shards_are_even_for_numbered_claims() {
        let mut counts = [0_u32; SHARDS as usize];
        for i in 0..8_000 {
            counts[shard(&format!("INC{i:07}")) as usize] += 1;
        }
        assert!(counts.iter().all(|&n| (800..1_200).contains(&n)), "{counts:?}");
    }

    #[test]
    fn shards_never_change() {
        assert_eq!(["claim_67890", "a", "INC0000045"].map(shard), [4, 0, 1]);
    }

    #[test]
    fn remembered_values_are_bounded() {
        let mut values = Values::default();
        for i in 0..1_000 {
            values.agents_add(Some(&format!("agent {i}")));
        }
        assert_eq!(values.agents.len(), MAX_REMEMBERED_VALUES);
        assert_eq!(values.agents.last().unwrap(), "agent 999");
    }

    #[test]
    fn erased_values_leave_their_places() {
        let mut values = Values { statuses: 0b10, ..Values::default() };
        values.add_unknown();
        values.agents_add(Some("a"));
        let mut state = ClaimState::empty("t", "c");
        state.status.value = Some(Status::Created);
        let left = values.left(&state);
        assert!(left.iter().any(|p| p.view == ListView::Assignee && p.key == "a"));
        assert!(left.iter().any(|p| p.view == ListView::Status && p.key == "UNKNOWN"));
        assert!(!left.iter().any(|p| p.view == ListView::Status && p.key == "CREATED"));
    }
}
