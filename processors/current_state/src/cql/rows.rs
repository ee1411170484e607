//! What is bound to the statements, borrowed from the batch's rows. The order of fields is the order of the bind
//! markers in [`statements`](super::statements); the serialiser doesn't look at names.

use crate::{
    fields::FieldSet,
    places::{ListView, Place, shard},
    processor::ClaimWrite,
    words::TimelineEntry,
};
use claims_schemas::{ClaimState, Text, Timestamp, events::Money};
use rust_decimal::Decimal;
use scylla::{
    SerializeRow,
    errors::SerializationError,
    serialize::{
        row::{RowSerializationContext, SerializeRow},
        writers::RowWriter,
    },
    value::{CqlDecimal, CqlTimestamp, MaybeUnset},
};
use uuid::Uuid;

/// Stamp of every row of [`CLAIM_LIST_PARTITIONS`](super::schema::CLAIM_LIST_PARTITIONS): they never change.
pub const PARTITION_STAMP: i64 = 1;
/// Stamp of timeline entries: an event's entry never changes, so every copy writes the same …
pub const ENTRY_STAMP: i64 = 1;
/// … until the claim is erased, which deletes them whatever the order of writes …
pub const ERASE_STAMP: i64 = 2;
/// … and leaves only the entries that tell of the erasure.
pub const ERASED_ENTRY_STAMP: i64 = 3;

type Cell<T> = MaybeUnset<Option<T>>;

/// A value is written; a missing one as null if an earlier row may hold one, and else not at all.
fn cell<T>(value: Option<T>, field: FieldSet, ever_set: FieldSet) -> Cell<T> {
    if value.is_some() || ever_set.has(field) { MaybeUnset::Set(value) } else { MaybeUnset::Unset }
}

/// An instant as CQL has it.
pub fn instant(at: Timestamp) -> CqlTimestamp {
    CqlTimestamp(at.0)
}

/// An amount as CQL has it: an unscaled integer of as few bytes as hold it, and a scale.
pub fn decimal(amount: Decimal) -> CqlDecimal {
    let bytes = amount.mantissa().to_be_bytes();
    let sign = if bytes[0] & 0x80 == 0 { 0x00 } else { 0xff };
    let mut start = 0;
    while start < bytes.len() - 1 && bytes[start] == sign && (bytes[start + 1] ^ sign) & 0x80 == 0 {
        start += 1;
    }
    CqlDecimal::from_signed_be_bytes_and_exponent(bytes[start..].to_vec(), amount.scale() as i32)
}

fn amount(money: &Option<Money>) -> Option<CqlDecimal> {
    money.as_ref().map(|m| decimal(m.amount))
}

fn currency(money: &Option<Money>) -> Option<&str> {
    money.as_ref().and_then(|m| m.currency.as_deref())
}

fn count(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// The stamp of a claim's rows and deletes.
pub fn stamp(state: &ClaimState) -> i64 {
    #[cfg(feature = "sabotage")]
    if claims_runtime::sabotage::is_asked_for(claims_runtime::sabotage::STAMP_BY_CLOCK) {
        return chrono::Utc::now().timestamp_micros();
    }
    state.revision() as i64
}

/// A whole row of `claim_by_id`.
#[derive(SerializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
pub struct ClaimRow<'a> {
    tenant_id: &'a str,
    claim_id: &'a str,
    status: &'a str,
    status_since: MaybeUnset<CqlTimestamp>,
    source: Cell<&'a str>,
    customer_id: Cell<&'a str>,
    customer_name: Cell<&'a str>,
    customer_email: Cell<&'a str>,
    claim_type: Cell<&'a str>,
    title: Cell<&'a str>,
    description: Cell<&'a str>,
    product_id: Cell<&'a str>,
    order_id: Cell<&'a str>,
    urgency: Cell<&'a str>,
    claimed_amount: Cell<CqlDecimal>,
    claimed_currency: Cell<&'a str>,
    agent_id: Cell<&'a str>,
    agent_name: Cell<&'a str>,
    estimated_resolution_at: Cell<CqlTimestamp>,
    resolution: Cell<&'a str>,
    resolution_type: Cell<&'a str>,
    customer_satisfaction: Cell<&'a str>,
    follow_up_required: Cell<bool>,
    replacement_tracking: Cell<&'a str>,
    settled_amount: Cell<CqlDecimal>,
    settled_currency: Cell<&'a str>,
    created_at: Cell<CqlTimestamp>,
    resolved_at: Cell<CqlTimestamp>,
    closed_at: Cell<CqlTimestamp>,
    updated_at: MaybeUnset<CqlTimestamp>,
    reopen_count: i32,
    reassignment_count: i32,
    note_count: i32,
    version: i64,
    revision: i64,
    stamp: i64,
}

/// A whole row of any list view.
#[derive(SerializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
pub struct ListRow<'a> {
    tenant_id: &'a str,
    bucket: i32,
    shard: i16,
    created_at: CqlTimestamp,
    claim_id: &'a str,
    status: &'a str,
    customer_id: Cell<&'a str>,
    agent_id: Cell<&'a str>,
    agent_name: Cell<&'a str>,
    claim_type: Cell<&'a str>,
    title: Cell<&'a str>,
    urgency: Cell<&'a str>,
    claimed_amount: Cell<CqlDecimal>,
    claimed_currency: Cell<&'a str>,
    updated_at: MaybeUnset<CqlTimestamp>,
    revision: i64,
    stamp: i64,
}

/// The key of a row to delete from a list view whose partition key holds a value of its own.
#[derive(SerializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
pub struct KeyedDelete<'a> {
    stamp: i64,
    tenant_id: &'a str,
    key: &'a str,
    bucket: i32,
    shard: i16,
    created_at: CqlTimestamp,
    claim_id: &'a str,
}

/// The key of a row to delete from `claims_by_created`.
#[derive(SerializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
pub struct UnkeyedDelete<'a> {
    stamp: i64,
    tenant_id: &'a str,
    bucket: i32,
    shard: i16,
    created_at: CqlTimestamp,
    claim_id: &'a str,
}

/// A partition of a list view.
#[derive(SerializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
pub struct PartitionRow<'a> {
    tenant_id: &'a str,
    view: &'static str,
    key: &'a str,
    bucket: i32,
    shard: i16,
    stamp: i64,
}

/// A timeline entry.
#[derive(SerializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
pub struct TimelineRow<'a> {
    tenant_id: &'a str,
    claim_id: &'a str,
    version: i64,
    event_id: Uuid,
    event_type: &'static str,
    occurred_at: CqlTimestamp,
    actor: Option<&'a str>,
    words: &'a str,
    stamp: i64,
}

/// The timeline of a claim, to be erased.
#[derive(SerializeRow)]
#[scylla(flavor = "enforce_order", skip_name_checks)]
pub struct TimelineErase<'a> {
    stamp: i64,
    tenant_id: &'a str,
    claim_id: &'a str,
}

impl<'a> ClaimRow<'a> {
    /// The row of a claim.
    pub fn of(write: &'a ClaimWrite) -> Self {
        let state = &write.claim.state;
        let ever = write.claim.ever_set;
        let text = |value: &'a Option<Text>, field| cell(value.as_deref(), field, ever);
        let at = |value: Option<Timestamp>, field| cell(value.map(instant), field, ever);
        let known =
            |value: Option<Timestamp>| value.map_or(MaybeUnset::Unset, |v| MaybeUnset::Set(instant(v)));
        Self {
            tenant_id: &state.tenant_id,
            claim_id: &state.claim_id,
            status: state.status().as_str(),
            status_since: known((state.status.version > 0).then_some(state.status_since)),
            source: text(&state.source, FieldSet::SOURCE),
            customer_id: text(&state.customer_id.value, FieldSet::CUSTOMER_ID),
            customer_name: text(&state.customer_name.value, FieldSet::CUSTOMER_NAME),
            customer_email: text(&state.customer_email.value, FieldSet::CUSTOMER_EMAIL),
            claim_type: text(&state.claim_type.value, FieldSet::CLAIM_TYPE),
            title: text(&state.title.value, FieldSet::TITLE),
            description: text(&state.description.value, FieldSet::DESCRIPTION),
            product_id: text(&state.product_id.value, FieldSet::PRODUCT_ID),
            order_id: text(&state.order_id.value, FieldSet::ORDER_ID),
            urgency: cell(state.urgency.value.map(|u| u.as_str()), FieldSet::URGENCY, ever),
            claimed_amount: cell(amount(&state.claimed.value), FieldSet::CLAIMED_AMOUNT, ever),
            claimed_currency: cell(currency(&state.claimed.value), FieldSet::CLAIMED_CURRENCY, ever),
            agent_id: text(&state.agent_id.value, FieldSet::AGENT_ID),
            agent_name: text(&state.agent_name.value, FieldSet::AGENT_NAME),
            estimated_resolution_at: at(
                state.estimated_resolution_at.value,
                FieldSet::ESTIMATED_RESOLUTION_AT,
            ),
            resolution: text(&state.resolution.value, FieldSet::RESOLUTION),
            resolution_type: text(&state.resolution_type.value, FieldSet::RESOLUTION_TYPE),
            customer_satisfaction: text(&state.customer_satisfaction.value, FieldSet::CUSTOMER_SATISFACTION),
            follow_up_required: cell(state.follow_up_required.value, FieldSet::FOLLOW_UP_REQUIRED, ever),
            replacement_tracking: text(&state.replacement_tracking.value, FieldSet::REPLACEMENT_TRACKING),
            settled_amount: cell(amount(&state.settled.value), FieldSet::SETTLED_AMOUNT, ever),
            settled_currency: cell(currency(&state.settled.value), FieldSet::SETTLED_CURRENCY, ever),
            created_at: at(state.created_at.value, FieldSet::CREATED_AT),
            resolved_at: at(state.resolved_at.value, FieldSet::RESOLVED_AT),
            closed_at: at(state.closed_at.value, FieldSet::CLOSED_AT),
            updated_at: known(state.updated_at.value),
            reopen_count: count(state.reopen_count),
            reassignment_count: count(state.reassignment_count),
            note_count: count(state.note_count),
            version: state.version() as i64,
            revision: state.revision() as i64,
            stamp: stamp(state),
        }
    }
}

impl<'a> ListRow<'a> {
    /// The row of a claim at one of its places.
    pub fn of(write: &'a ClaimWrite, place: &Place) -> Self {
        let state = &write.claim.state;
        let ever = write.claim.ever_set;
        let text = |value: &'a Option<Text>, field| cell(value.as_deref(), field, ever);
        Self {
            tenant_id: &state.tenant_id,
            bucket: place.bucket().0,
            shard: shard(&state.claim_id),
            created_at: CqlTimestamp(place.clustering_ms()),
            claim_id: &state.claim_id,
            status: state.status().as_str(),
            customer_id: text(&state.customer_id.value, FieldSet::CUSTOMER_ID),
            agent_id: text(&state.agent_id.value, FieldSet::AGENT_ID),
            agent_name: text(&state.agent_name.value, FieldSet::AGENT_NAME),
            claim_type: text(&state.claim_type.value, FieldSet::CLAIM_TYPE),
            title: text(&state.title.value, FieldSet::TITLE),
            urgency: cell(state.urgency.value.map(|u| u.as_str()), FieldSet::URGENCY, ever),
            claimed_amount: cell(amount(&state.claimed.value), FieldSet::CLAIMED_AMOUNT, ever),
            claimed_currency: cell(currency(&state.claimed.value), FieldSet::CLAIMED_CURRENCY, ever),
            updated_at: state.updated_at.value.map_or(MaybeUnset::Unset, |at| MaybeUnset::Set(instant(at))),
            revision: state.revision() as i64,
            stamp: stamp(state),
        }
    }
}

impl<'a> TimelineRow<'a> {
    /// The row of an entry.
    pub fn of(write: &'a ClaimWrite, entry: &'a TimelineEntry) -> Self {
        let erasure = entry.event_type == claims_schemas::EventType::ClaimErased;
        Self {
            tenant_id: &write.claim.state.tenant_id,
            claim_id: &write.claim.state.claim_id,
            version: entry.version as i64,
            event_id: entry.event_id,
            event_type: entry.event_type.as_str(),
            occurred_at: instant(entry.occurred_at),
            actor: entry.actor.as_deref(),
            words: &entry.words,
            stamp: if erasure { ERASED_ENTRY_STAMP } else { ENTRY_STAMP },
        }
    }
}

/// What the server counts of a cell beside its value: its stamp, and places for a time to live and a deletion.
const CELL_BYTES: usize = 20;
/// What it counts of a row beside its cells, about.
const ROW_BYTES: usize = 64;
/// Most numbers and instants have this many bytes.
const NUMBER_BYTES: usize = 8;

fn text_bytes(cells: &[&Cell<&str>]) -> usize {
    let bytes = |cell: &&Cell<&str>| match cell {
        MaybeUnset::Set(value) => CELL_BYTES + value.map_or(0, str::len),
        MaybeUnset::Unset => 0,
    };
    cells.iter().map(bytes).sum()
}

impl ClaimRow<'_> {
    /// Cells of numbers, instants and amounts.
    const NUMBERS: usize = 14;

    fn approximate_bytes(&self) -> usize {
        let texts = text_bytes(&[
            &self.source,
            &self.customer_id,
            &self.customer_name,
            &self.customer_email,
            &self.claim_type,
            &self.title,
            &self.description,
            &self.product_id,
            &self.order_id,
            &self.urgency,
            &self.claimed_currency,
            &self.agent_id,
            &self.agent_name,
            &self.resolution,
            &self.resolution_type,
            &self.customer_satisfaction,
            &self.replacement_tracking,
            &self.settled_currency,
        ]);
        ROW_BYTES + texts + CELL_BYTES + self.status.len() + Self::NUMBERS * (CELL_BYTES + NUMBER_BYTES)
    }
}

impl ListRow<'_> {
    /// Cells of numbers, instants and amounts.
    const NUMBERS: usize = 3;

    fn approximate_bytes(&self) -> usize {
        let texts = text_bytes(&[
            &self.customer_id,
            &self.agent_id,
            &self.agent_name,
            &self.claim_type,
            &self.title,
            &self.urgency,
            &self.claimed_currency,
        ]);
        let numbers = Self::NUMBERS * (CELL_BYTES + NUMBER_BYTES);
        ROW_BYTES + self.claim_id.len() + texts + CELL_BYTES + self.status.len() + numbers
    }
}

/// One statement and what is bound to it.
pub enum Op<'a> {
    /// Writes the claim's row.
    Claim(Box<ClaimRow<'a>>),
    /// Writes a row of a list view.
    List(ListView, Box<ListRow<'a>>),
    /// Deletes a row of a list view.
    Delete(ListView, KeyedDelete<'a>),
    /// Deletes a row of `claims_by_created`.
    DeleteCreated(UnkeyedDelete<'a>),
    /// Notes that a partition of a list view exists.
    Partition(PartitionRow<'a>),
    /// Writes a timeline entry.
    Timeline(TimelineRow<'a>),
    /// Erases a timeline.
    EraseTimeline(TimelineErase<'a>),
}

impl Op<'_> {
    /// About what the server will count it as, rather too much than too little.
    pub fn approximate_bytes(&self) -> usize {
        match self {
            Op::Claim(row) => row.approximate_bytes(),
            Op::List(_, row) => row.approximate_bytes(),
            Op::Timeline(row) => {
                let texts = row.event_type.len() + row.actor.map_or(0, str::len) + row.words.len();
                ROW_BYTES + texts + 5 * (CELL_BYTES + NUMBER_BYTES)
            }
            Op::Delete(_, KeyedDelete { claim_id, .. })
            | Op::DeleteCreated(UnkeyedDelete { claim_id, .. }) => ROW_BYTES + claim_id.len(),
            Op::Partition(_) | Op::EraseTimeline(_) => ROW_BYTES,
        }
    }
}

impl<'a> Op<'a> {
    /// Deletes the claim's row at a place.
    pub fn delete(write: &'a ClaimWrite, place: &'a Place) -> Self {
        let state = &write.claim.state;
        let (stamp, tenant_id, claim_id) = (stamp(state), state.tenant_id.as_str(), state.claim_id.as_str());
        let (bucket, shard, created_at) =
            (place.bucket().0, shard(claim_id), CqlTimestamp(place.clustering_ms()));
        match place.view {
            ListView::Created => {
                Op::DeleteCreated(UnkeyedDelete { stamp, tenant_id, bucket, shard, created_at, claim_id })
            }
            view => Op::Delete(
                view,
                KeyedDelete { stamp, tenant_id, key: &place.key, bucket, shard, created_at, claim_id },
            ),
        }
    }

    /// Notes the partition that a place is in.
    pub fn partition(write: &'a ClaimWrite, place: &'a Place) -> Self {
        let state = &write.claim.state;
        Op::Partition(PartitionRow {
            tenant_id: &state.tenant_id,
            view: place.view.table(),
            key: &place.key,
            bucket: place.bucket().0,
            shard: shard(&state.claim_id),
            stamp: PARTITION_STAMP,
        })
    }

    /// Erases the claim's timeline.
    pub fn erase_timeline(write: &'a ClaimWrite) -> Self {
        let state = &write.claim.state;
        Op::EraseTimeline(TimelineErase {
            stamp: ERASE_STAMP,
            tenant_id: &state.tenant_id,
            claim_id: &state.claim_id,
        })
    }
}

impl SerializeRow for Op<'_> {
    fn serialize(
        &self,
        ctx: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        match self {
            Op::Claim(row) => row.serialize(ctx, writer),
            Op::List(_, row) => row.serialize(ctx, writer),
            Op::Delete(_, row) => row.serialize(ctx, writer),
            Op::DeleteCreated(row) => row.serialize(ctx, writer),
            Op::Partition(row) => row.serialize(ctx, writer),
            Op::Timeline(row) => row.serialize(ctx, writer),
            Op::EraseTimeline(row) => row.serialize(ctx, writer),
        }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_keep_value_and_scale() {
        for (text, bytes, scale) in [
            ("0", vec![0], 0),
            ("1.27", vec![127], 2),
            ("1.28", vec![0, 128], 2),
            ("-1.28", vec![128], 2),
            ("-1.29", vec![255, 127], 2),
            ("99999999999999.9999", 999_999_999_999_999_999_i64.to_be_bytes().to_vec(), 4),
        ] {
            let value = decimal(text.parse().unwrap());
            assert_eq!(value.as_signed_be_bytes_slice_and_exponent(), (bytes.as_slice(), scale), "{text}");
        }
    }

    #[test]
    fn null_only_where_a_value_may_stand() {
        let ever = FieldSet::TITLE;
        assert!(matches!(cell(None::<&str>, FieldSet::TITLE, ever), MaybeUnset::Set(None)));
        assert!(matches!(cell(None::<&str>, FieldSet::SOURCE, ever), MaybeUnset::Unset));
        assert!(matches!(cell(Some("x"), FieldSet::SOURCE, ever), MaybeUnset::Set(Some("x"))));
    }
}
