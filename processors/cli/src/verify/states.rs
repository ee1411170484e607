//! Comparing claims as the log has them with the state topic: the last record of each claim must be its newest state,
//! because compaction keeps the last one.

use super::{
    log::Folded,
    views::{Difference, MISSING, difference},
};
use crate::{decoder::Decoder, reader::Reader};
use anyhow::Context;
use claims_schemas::{ClaimState, Status, codec::StateRecord};
use claims_topology::Config;
use rdkafka::Message;
use std::collections::HashMap;
use tokio::sync::Mutex;

/// The name under which differences are told.
const VIEW: &str = "state topic";

/// Reads the state topic.
pub struct States {
    reader: Reader,
    decoder: Decoder,
    topic: String,
    read: Mutex<LastRecords>,
}

/// The last records of claims of one partition. A claim that is looked at again is one of those looked at before, so only
/// what has come since is read then.
#[derive(Debug, Default)]
struct LastRecords {
    partition: Option<i32>,
    /// Read up to here.
    next: i64,
    /// By claim: nothing without a record, else its value, which may be none.
    records: HashMap<Vec<u8>, Option<Option<Vec<u8>>>>,
}

impl LastRecords {
    /// Those known already, if they are of these claims, or else none yet.
    fn of<'a>(self, partition: i32, keys: impl Iterator<Item = &'a Vec<u8>> + Clone) -> Self {
        if self.partition == Some(partition) && keys.clone().all(|key| self.records.contains_key(key)) {
            return self;
        }
        let records = keys.map(|key| (key.clone(), None)).collect();
        Self { partition: Some(partition), next: 0, records }
    }

    fn note(&mut self, key: &[u8], value: Option<&[u8]>) {
        if let Some(last) = self.records.get_mut(key) {
            *last = Some(value.map(<[u8]>::to_vec));
        }
    }

    /// The value of a claim's last record, if it has one.
    fn value(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        Some(self.records.get(key)?.as_ref()?.as_deref())
    }
}

impl States {
    /// A reader of the configured topic.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            reader: Reader::new(&config.kafka, &format!("{}.verify", config.kafka.group_prefix))?,
            decoder: Decoder::new(config)?,
            topic: config.topics.state.clone(),
            read: Mutex::default(),
        })
    }

    /// Compares these claims, all of one partition, with their last records in the same partition of the state topic.
    pub async fn compare(&self, partition: i32, claims: &[&Folded]) -> anyhow::Result<Vec<Difference>> {
        let keys: HashMap<Vec<u8>, &Folded> =
            claims.iter().map(|claim| (key(&claim.claim.state), *claim)).collect();
        let mut read = self.read.lock().await;
        // Were the reading to fail, half of it would be known as all.
        let mut last = std::mem::take(&mut *read).of(partition, keys.keys());
        self.read_on(partition, &mut last).await?;
        let mut found = Vec::new();
        for (key, claim) in keys {
            let what = match last.value(&key) {
                // Compaction takes the record of an erasure away after a while.
                None if claim.claim.state.status() == Status::Erased => None,
                None => Some(MISSING.to_owned()),
                Some(value) => self.differs(value, &claim.claim.state).await?,
            };
            found.extend(what.map(|what| difference(VIEW, claim, what)));
        }
        *read = last;
        Ok(found)
    }

    async fn differs(&self, value: Option<&[u8]>, state: &ClaimState) -> anyhow::Result<Option<String>> {
        let erased = state.status() == Status::Erased;
        let Some(value) = value else {
            return Ok((!erased).then(|| "the last record says that the claim is erased".to_owned()));
        };
        if erased {
            return Ok(Some("the last record is not that of the erasure".to_owned()));
        }
        Ok(match self.decoder.decode_state(value).await? {
            Ok(record) => {
                let names = differing_fields(&record, &StateRecord::from(state))?;
                (!names.is_empty()).then(|| format!("in the last record: {}", names.join(", ")))
            }
            Err(why) => Some(format!("the last record can't be read: {why}")),
        })
    }

    /// Reads what the partition holds beyond what was read of it.
    async fn read_on(&self, partition: i32, last: &mut LastRecords) -> anyhow::Result<()> {
        let bounds = self.reader.bounds(&self.topic, &[partition])?;
        let bounds = bounds.get(&partition).context("Kafka doesn't know the partition")?;
        let from = bounds.start.max(last.next);
        let mut span = self.reader.span(&self.topic, partition, from, bounds.end)?;
        while let Some(record) = span.next().await? {
            last.note(record.key().unwrap_or_default(), record.payload());
        }
        last.next = bounds.end;
        Ok(())
    }
}

/// Names of the fields in which two records differ.
fn differing_fields(one: &StateRecord, other: &StateRecord<&str>) -> anyhow::Result<Vec<String>> {
    let (one, other) = (serde_json::to_value(one)?, serde_json::to_value(other)?);
    let fields = one.as_object().context("a state is no record")?;
    Ok(fields
        .iter()
        .filter(|(name, value)| other.get(name) != Some(*value))
        .map(|(name, _)| name.clone())
        .collect())
}

fn key(state: &ClaimState) -> Vec<u8> {
    format!("{}:{}", state.tenant_id, state.claim_id).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_claims_is_kept_for_their_next_look() {
        let (one, two) = (b"t:1".to_vec(), b"t:2".to_vec());
        let mut last = LastRecords::default().of(3, [&one, &two].into_iter());
        last.note(b"t:1", Some(b"first"));
        last.note(b"t:3", Some(b"not looked at"));
        last.note(b"t:1", Some(b"second"));
        last.next = 70;
        let mut last = last.of(3, [&one].into_iter());
        assert_eq!(
            (last.next, last.value(b"t:1"), last.value(b"t:2")),
            (70, Some(Some(&b"second"[..])), None)
        );
        last.note(b"t:1", None);
        assert_eq!(last.value(b"t:1"), Some(None));
        let other = LastRecords { next: 70, ..last.of(3, [&one, &b"t:3".to_vec()].into_iter()) };
        assert_eq!(
            (other.value(b"t:1"), other.value(b"t:3")),
            (None, None),
            "a claim that was not looked at"
        );
        let other = other.of(4, [&one].into_iter());
        assert_eq!((other.next, other.partition), (0, Some(4)));
    }
}
