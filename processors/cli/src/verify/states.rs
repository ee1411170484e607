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

/// The name under which differences are told.
const VIEW: &str = "state topic";

/// Reads the state topic.
pub struct States {
    reader: Reader,
    decoder: Decoder,
    topic: String,
}

impl States {
    /// A reader of the configured topic.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            reader: Reader::new(&config.kafka, &format!("{}.verify", config.kafka.group_prefix))?,
            decoder: Decoder::new(config)?,
            topic: config.topics.state.clone(),
        })
    }

    /// Compares these claims, all of one partition, with their last records in the same partition of the state topic.
    pub async fn compare(&self, partition: i32, claims: &[&Folded]) -> anyhow::Result<Vec<Difference>> {
        let mut last: HashMap<Vec<u8>, Option<Vec<u8>>> = HashMap::new();
        let keys: HashMap<Vec<u8>, &Folded> =
            claims.iter().map(|claim| (key(&claim.claim.state), *claim)).collect();
        self.each_record(partition, |key, value| {
            if keys.contains_key(key) {
                last.insert(key.to_vec(), value.map(<[u8]>::to_vec));
            }
        })
        .await?;
        let mut found = Vec::new();
        for (key, claim) in keys {
            let what = match last.get(&key) {
                // Compaction takes the record of an erasure away after a while.
                None if claim.claim.state.status() == Status::Erased => None,
                None => Some(MISSING.to_owned()),
                Some(value) => self.differs(value.as_deref(), &claim.claim.state).await?,
            };
            found.extend(what.map(|what| difference(VIEW, claim, what)));
        }
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

    /// Every record that the partition holds now, in order: its key and its value.
    async fn each_record(
        &self,
        partition: i32,
        mut take: impl FnMut(&[u8], Option<&[u8]>),
    ) -> anyhow::Result<()> {
        let bounds = self.reader.bounds(&self.topic, &[partition])?;
        let bounds = bounds.get(&partition).context("Kafka doesn't know the partition")?;
        let mut span = self.reader.span(&self.topic, partition, bounds.start, bounds.end)?;
        while let Some(record) = span.next().await? {
            take(record.key().unwrap_or_default(), record.payload());
        }
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
