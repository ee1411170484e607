//! Folding claims from the events topic.

use super::sample::Sample;
use crate::{decoder::Decoder, reader::Reader};
use claims_analytics::row::storable_amount;
use claims_current_state::claim::Claim;
use claims_schemas::{Timestamp, fold::Applied, validate::validate};
use rdkafka::{Message, message::BorrowedMessage};
use std::collections::BTreeSet;

/// A claim as the log has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Folded {
    /// Its state, and where it has stood.
    pub claim: Claim,
    /// An event of it doesn't fit ClickHouse's types, and is in the dead letters of analytics.
    pub is_unstorable: bool,
}

impl Default for Folded {
    fn default() -> Self {
        Self { claim: Claim::empty("", ""), is_unstorable: false }
    }
}

/// What the reading came by.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Records read.
    pub records: u64,
    /// Records that are no valid events: they are in the dead letters.
    pub refused: u64,
}

/// Whose events are folded.
pub enum Whose<'a> {
    /// Of every claim that the sample takes.
    Sampled,
    /// Of these claims only; those that had any are noted in the second set.
    Only(&'a BTreeSet<Vec<u8>>, &'a mut BTreeSet<Vec<u8>>),
}

/// Folds the records of one partition with offsets from `from` up to (not with) `until`.
pub async fn fold(
    reader: &Reader,
    decoder: &Decoder,
    topic: &str,
    (partition, from, until): (i32, i64, i64),
    sample: &mut Sample<Folded>,
    mut whose: Whose<'_>,
) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let mut span = reader.span(topic, partition, from, until)?;
    while let Some(message) = span.next().await? {
        seen.records += 1;
        seen.refused += u64::from(!take(decoder, &message, sample, &mut whose).await?);
    }
    Ok(seen)
}

/// False for a record that is no valid event.
async fn take(
    decoder: &Decoder,
    message: &BorrowedMessage<'_>,
    sample: &mut Sample<Folded>,
    whose: &mut Whose<'_>,
) -> anyhow::Result<bool> {
    let Some(payload) = message.payload() else { return Ok(true) };
    // `tenant:claim_id:event_id` names the claim without decoding. It is only a hint: what counts is in the event.
    if let Some(key) = message.key().and_then(claim_of)
        && let Whose::Only(wanted, _) = whose
        && !wanted.contains(key)
    {
        return Ok(true);
    }
    let Ok(event) = decoder.decode(payload).await? else { return Ok(false) };
    let appended_at_ms = message.timestamp().to_millis().unwrap_or(0);
    if validate(&event, Timestamp(appended_at_ms)).is_err() {
        return Ok(false);
    }
    let key = event.partition_key().into_bytes();
    let claim = match whose {
        Whose::Sampled => sample.claim(&key),
        Whose::Only(wanted, _) if !wanted.contains(&key) => None,
        Whose::Only(_, touched) => {
            touched.insert(key.clone());
            sample.known(&key)
        }
    };
    let Some(folded) = claim else { return Ok(true) };
    if folded.claim.state.seen.is_empty() {
        folded.claim = Claim::empty(&event.tenant_id, &event.claim_id);
    }
    if let Applied::Changed { .. } = folded.claim.apply(&(&event).into()) {
        folded.is_unstorable |= storable_amount(&(&event).into()).is_err();
    }
    Ok(true)
}

/// `tenant:claim_id` of a record's key.
fn claim_of(key: &[u8]) -> Option<&[u8]> {
    key.iter().rposition(|&byte| byte == b':').map(|at| &key[..at])
}
