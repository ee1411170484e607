//! Folding claims from the events topic.

use super::sample::Sample;
use crate::{
    decoder::Decoder,
    reader::{Polled, Reader},
};
use anyhow::bail;
use claims_analytics::EventRow;
use claims_runtime::Origin;
use claims_schemas::{ClaimState, Timestamp, fold::Applied, validate::validate};
use rdkafka::{Message, message::BorrowedMessage};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

const POLL_WAIT: Duration = Duration::from_millis(100);

/// A claim as the log has it.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Folded {
    /// Its state.
    pub state: ClaimState,
    /// An event of it doesn't fit ClickHouse's types, and is in the dead letters of analytics.
    pub is_unstorable: bool,
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
    if from >= until {
        return Ok(seen);
    }
    reader.start(topic, &BTreeMap::from([(partition, from)]))?;
    let mut deadline = Instant::now() + reader.timeout();
    loop {
        match reader.poll(POLL_WAIT)? {
            Polled::Record(message) => {
                deadline = Instant::now() + reader.timeout();
                let offset = message.offset();
                if offset < until {
                    seen.records += 1;
                    seen.refused += u64::from(!take(decoder, &message, sample, &mut whose).await?);
                }
                if offset + 1 >= until {
                    return Ok(seen);
                }
            }
            Polled::End(ended) if ended == partition => return Ok(seen),
            Polled::Nothing if Instant::now() > deadline => {
                bail!(
                    "no further record of {topic} within {:?}; Kafka has stopped answering",
                    reader.timeout()
                );
            }
            Polled::End(_) | Polled::Nothing => tokio::task::yield_now().await,
        }
    }
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
    let Some(claim) = claim else { return Ok(true) };
    if claim.state.seen.is_empty() {
        claim.state = ClaimState::empty(&event.tenant_id, &event.claim_id);
    }
    if let Applied::Changed { .. } = claim.state.apply(&event) {
        let origin = Origin { partition: message.partition(), offset: message.offset() };
        claim.is_unstorable |= EventRow::new(event, origin, appended_at_ms).is_err();
    }
    Ok(true)
}

/// `tenant:claim_id` of a record's key.
fn claim_of(key: &[u8]) -> Option<&[u8]> {
    key.iter().rposition(|&byte| byte == b':').map(|at| &key[..at])
}
