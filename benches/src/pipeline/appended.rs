//! What the views must hold after events were appended of which no file is left: counted from the topic itself.

use super::{
    offsets::records_in,
    ours::{no_dead_letters, same},
};
use anyhow::{Context, Result, ensure};
use claims_schemas::SchemaCache;
use claims_verifier::{
    namespace::Namespace,
    pipeline::Pipeline,
    views::{audit, clickhouse, cql, topics},
};
use rdkafka::Message;
use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
};

/// The events of a topic, by hashes of what tells them apart: millions of them fit into memory.
#[derive(Default)]
struct Appended {
    hasher: RandomState,
    events: HashSet<uuid::Uuid>,
    versions: HashSet<u64>,
    /// The highest version of each claim.
    claims: HashMap<u64, u64>,
    superseded: u64,
}

impl Appended {
    async fn read(namespace: &Namespace) -> Result<Self> {
        let subject = format!("{}-value", namespace.events_topic);
        let id = topics::latest_schema_id(namespace, &subject).await?;
        let schemas = SchemaCache::default();
        schemas.insert(id, &topics::schema_text(namespace, id).await?)?;
        let mut appended = Self::default();
        topics::each_record(namespace, &namespace.events_topic, |message| {
            let event = schemas.decode(message.payload().context("a tombstone")?)?;
            appended.add(&event.tenant_id, &event.claim_id, event.version, event.event_id);
            Ok(())
        })?;
        Ok(appended)
    }

    /// Of two events with one version the first in the log counts.
    fn add(&mut self, tenant: &str, claim: &str, version: u64, id: uuid::Uuid) {
        if !self.events.insert(id) {
            return;
        }
        if self.versions.insert(self.hasher.hash_one((tenant, claim, version))) {
            let highest = self.claims.entry(self.hasher.hash_one((tenant, claim))).or_default();
            *highest = version.max(*highest);
        } else {
            self.superseded += 1;
        }
    }
}

/// An error unless all three processors have made of a topic what they must: a row for every event in ClickHouse, each claim
/// at its highest version in CQL, a trail of all records, and no dead letters but for conflicts.
pub async fn verify(namespace: &Namespace) -> Result<()> {
    let appended = Appended::read(namespace).await?;
    let records = records_in(namespace, &namespace.events_topic)?;
    let check = audit::check(&Pipeline::new(namespace.clone())?, records)?;
    ensure!(check.problems.is_empty(), "audit: {}", check.problems.join("; "));
    let (rows, distinct) = clickhouse::events(namespace).await?;
    same("rows in events", rows, appended.versions.len() as u64)?;
    same("distinct rows in events", distinct, appended.versions.len() as u64)?;
    let session = namespace.cql_session().await?;
    let claims = cql::claims(&session, &namespace.name).await?;
    same("claims in claim_by_id", claims.len() as u64, appended.claims.len() as u64)?;
    for ((tenant, claim), row) in &claims {
        let wanted = appended.claims.get(&appended.hasher.hash_one((tenant.as_str(), claim.as_str())));
        ensure!(
            wanted == Some(&row.version),
            "claim {tenant}:{claim} is at version {} in claim_by_id, should be at {wanted:?}",
            row.version
        );
    }
    no_dead_letters(namespace, appended.superseded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_and_conflicts_are_told_apart() {
        let mut appended = Appended::default();
        for (claim, version, id) in
            [("a", 1, 1), ("a", 3, 2), ("a", 1, 1), ("a", 3, 9), ("b", 3, 3), ("a", 2, 4)]
        {
            appended.add("t", claim, version, uuid::Uuid::from_u128(id));
        }
        assert_eq!((appended.versions.len(), appended.superseded), (4, 1));
        let mut highest: Vec<u64> = appended.claims.values().copied().collect();
        highest.sort_unstable();
        assert_eq!(highest, [3, 3]);
        assert_eq!(appended.claims[&appended.hasher.hash_one(("t", "a"))], 3);
    }
}
