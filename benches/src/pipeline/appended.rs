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
    /// The highest version of each claim, and how many versions it has.
    claims: HashMap<u64, (u64, u64)>,
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
            let (highest, versions) = self.claims.entry(self.hasher.hash_one((tenant, claim))).or_default();
            *highest = version.max(*highest);
            *versions += 1;
        } else {
            self.superseded += 1;
        }
    }
}

/// An error unless all three processors have made of a topic what they must: a row for every event in ClickHouse, which was
/// `inserted` so many of them meanwhile; each claim at its highest version in CQL, with an entry of its timeline for every
/// version unless it is erased; a trail of all records; and no dead letters but for conflicts.
pub async fn verify(namespace: &Namespace, inserted: u64) -> Result<()> {
    let appended = Appended::read(namespace).await?;
    let records = records_in(namespace, &namespace.events_topic)?;
    let check = audit::check(&Pipeline::new(namespace.clone())?, records)?;
    ensure!(check.problems.is_empty(), "audit: {}", check.problems.join("; "));
    let (rows, _) = clickhouse::events(namespace).await?;
    same("rows in events", rows, appended.versions.len() as u64)?;
    same("rows given to ClickHouse", inserted, records)?;
    let session = namespace.cql_session().await?;
    let claims = cql::claims(&session, &namespace.name).await?;
    same("claims in claim_by_id", claims.len() as u64, appended.claims.len() as u64)?;
    let timelines = cql::timelines(&session, &namespace.name).await?;
    for (key, row) in &claims {
        let (tenant, claim) = key;
        let wanted = appended.claims.get(&appended.hasher.hash_one((tenant.as_str(), claim.as_str())));
        // Of an erased claim only the erasure is left.
        let entries = if row.status == "ERASED" { None } else { Some(timelines.entries_of(key)) };
        let is_whole = wanted.is_some_and(|&(version, versions)| {
            row.version == version && entries.is_none_or(|entries| entries == versions)
        });
        ensure!(
            is_whole,
            "claim {tenant}:{claim} is at version {} with {entries:?} entries, should be at {wanted:?}",
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
        let of = |claim: &str| appended.claims[&appended.hasher.hash_one(("t", claim))];
        assert_eq!((of("a"), of("b"), appended.claims.len()), ((3, 3), (3, 1), 2));
    }
}
