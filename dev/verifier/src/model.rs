//! The independent model: events as JSON in, one row a claim out.
//!
//! It sorts a claim's events by version and walks through them, as one would by hand: no per-field versions, no
//! incremental state, and no line shared with the product's fold.

use crate::{
    claim::{Claim, ClaimKey, Claims},
    timeline::Timelines,
};
use anyhow::{Context, Result, bail};
use chrono::DateTime;
use rust_decimal::Decimal;
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashSet},
    io::{BufRead, BufReader},
    path::Path,
};

const ERASED: &str = "ClaimErased";

/// What the input amounts to.
#[derive(Debug, Default)]
pub struct Model {
    events: BTreeMap<ClaimKey, Vec<ModelEvent>>,
    event_ids: HashSet<[u8; 16]>,
    /// Events in, copies included.
    pub events_in: u64,
    /// Of those, repeated event ids.
    pub copies: u64,
    /// Events whose version another event had before: they must not show anywhere but in the dead letters.
    pub superseded: u64,
}

#[derive(Debug)]
struct ModelEvent {
    id: uuid::Uuid,
    version: u64,
    occurred_at: i64,
    kind: String,
    data: Value,
}

impl Model {
    /// Reads a file of canonical NDJSON.
    pub fn from_ndjson(path: &Path) -> Result<Self> {
        let mut model = Self::default();
        model.add_ndjson(path)?;
        Ok(model)
    }

    /// Adds a file's events to what is there, as a second import into the same topic would.
    pub fn add_ndjson(&mut self, path: &Path) -> Result<()> {
        let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
        for (number, line) in BufReader::with_capacity(1 << 20, file).lines().enumerate() {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let place = || format!("{}:{}", path.display(), number + 1);
            let value: Value = serde_json::from_str(&line).with_context(place)?;
            self.add(&value).with_context(place)?;
        }
        Ok(())
    }

    /// Adds one event, in the order of the log.
    pub fn add(&mut self, event: &Value) -> Result<()> {
        let text = |name: &str| -> Result<String> {
            let value = event.get(name).and_then(Value::as_str).with_context(|| format!("no {name}"))?;
            Ok(value.to_owned())
        };
        self.events_in += 1;
        let id = uuid::Uuid::parse_str(&text("event_id")?)?;
        if !self.event_ids.insert(id.into_bytes()) {
            self.copies += 1;
            return Ok(());
        }
        let version = event.get("version").and_then(Value::as_u64).context("no version")?;
        let of_claim = self.events.entry((text("tenant_id")?, text("claim_id")?)).or_default();
        if of_claim.iter().any(|e| e.version == version) {
            self.superseded += 1;
            return Ok(());
        }
        of_claim.push(ModelEvent {
            id,
            version,
            occurred_at: millis(&text("occurred_at")?)?,
            kind: text("event_type")?,
            data: event.get("data").cloned().unwrap_or(Value::Null),
        });
        Ok(())
    }

    /// Events that every view must hold: neither copies nor superseded ones.
    pub fn distinct_events(&self) -> u64 {
        self.events.values().map(|events| events.len() as u64).sum()
    }

    /// What the timeline of every claim must hold; of an erased claim only the erasure.
    pub fn timelines(&self) -> Timelines {
        let mut timelines = Timelines::default();
        for (key, events) in &self.events {
            let erased = events.iter().any(|event| event.kind == ERASED);
            for event in events.iter().filter(|event| !erased || event.kind == ERASED) {
                timelines.add(key, event.version, event.id, &event.kind, event.occurred_at);
            }
        }
        timelines
    }

    /// One row a claim.
    pub fn claims(&self) -> Result<Claims> {
        self.events.iter().map(|(key, events)| Ok((key.clone(), walk(events)?))).collect()
    }
}

fn walk(events: &[ModelEvent]) -> Result<Claim> {
    let mut ordered: Vec<&ModelEvent> = events.iter().collect();
    ordered.sort_by_key(|e| e.version);
    let mut claim = Claim { status: "UNKNOWN".into(), revision: ordered.len() as u64, ..Claim::default() };
    for event in &ordered {
        step(&mut claim, event)?;
    }
    if ordered.iter().any(|e| e.kind == ERASED) {
        claim.status = "ERASED".into();
        for personal in [
            &mut claim.customer_id,
            &mut claim.customer_name,
            &mut claim.customer_email,
            &mut claim.title,
            &mut claim.description,
            &mut claim.order_id,
            &mut claim.resolution,
        ] {
            *personal = None;
        }
    }
    Ok(claim)
}

fn step(claim: &mut Claim, event: &ModelEvent) -> Result<()> {
    let text = |name: &str| event.data.get(name).and_then(Value::as_str).map(str::to_owned);
    claim.version = event.version;
    claim.updated_at = Some(event.occurred_at);
    match event.kind.as_str() {
        "ClaimCreated" => {
            claim.status = "CREATED".into();
            claim.created_at = Some(event.occurred_at);
            claim.customer_id = text("customer_id");
            claim.claim_type = text("claim_type");
            claim.urgency = text("urgency");
            claim.description = text("description");
            claim.customer_name = text("customer_name");
            claim.customer_email = text("customer_email");
            claim.title = text("title");
            claim.product_id = text("product_id");
            claim.order_id = text("order_id");
            claim.claimed_amount = amount(&event.data, "claimed")?;
        }
        "ClaimAssigned" => {
            claim.status = "ASSIGNED".into();
            claim.agent_id = text("agent_id");
            claim.agent_name = text("agent_name");
        }
        "ClaimReassigned" => {
            claim.agent_id = text("agent_id");
            claim.agent_name = text("agent_name");
            claim.reassignment_count += 1;
        }
        "ClaimProcessingStarted" => claim.status = "PROCESSING".into(),
        "ClaimResolved" => {
            claim.status = "RESOLVED".into();
            claim.resolved_at = Some(event.occurred_at);
            claim.resolution = text("resolution");
            claim.resolution_type = text("resolution_type");
            claim.settled_amount = amount(&event.data, "settled")?;
        }
        "ClaimClosed" => {
            claim.status = "CLOSED".into();
            claim.closed_at = Some(event.occurred_at);
        }
        "ClaimReopened" => {
            claim.status = "PROCESSING".into();
            claim.reopen_count += 1;
            claim.resolution = None;
            claim.resolution_type = None;
            claim.settled_amount = None;
            claim.resolved_at = None;
            claim.closed_at = None;
        }
        "ClaimNoteAdded" => claim.note_count += 1,
        ERASED => {}
        other => bail!("the model knows no event type {other:?}"),
    }
    Ok(())
}

fn amount(data: &Value, name: &str) -> Result<Option<Decimal>> {
    let Some(text) = data.get(name).and_then(|money| money.get("amount")).and_then(Value::as_str) else {
        return Ok(None);
    };
    Ok(Some(text.parse().with_context(|| format!("{name}: amount {text:?}"))?))
}

fn millis(text: &str) -> Result<i64> {
    Ok(DateTime::parse_from_rfc3339(text).with_context(|| format!("time {text:?}"))?.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(id: u128, version: u64, kind: &str, data: Value) -> Value {
        json!({
            "tenant_id": "t", "claim_id": "c", "event_id": uuid::Uuid::from_u128(id).to_string(),
            "event_type": kind, "version": version, "occurred_at": format!("2025-01-01T00:00:0{version}.000Z"),
            "data": data,
        })
    }

    #[test]
    fn copies_and_superseded_events_change_nothing_and_order_does_not_matter() {
        let created =
            event(1, 1, "ClaimCreated", json!({"customer_id": "k", "claim_type": "x", "urgency": "low"}));
        let resolved =
            event(2, 3, "ClaimResolved", json!({"resolution_type": "refund", "settled": {"amount": "5.10"}}));
        let assigned = event(3, 2, "ClaimAssigned", json!({"agent_id": "a"}));
        let conflict = event(4, 2, "ClaimAssigned", json!({"agent_id": "b"}));
        let mut model = Model::default();
        for e in [&resolved, &created, &assigned, &conflict, &created] {
            model.add(e).unwrap();
        }
        assert_eq!((model.events_in, model.copies, model.superseded, model.distinct_events()), (5, 1, 1, 3));
        let claims = model.claims().unwrap();
        let claim = &claims[&("t".to_owned(), "c".to_owned())];
        assert_eq!(
            (claim.status.as_str(), claim.agent_id.as_deref(), claim.revision),
            ("RESOLVED", Some("a"), 3)
        );
        assert_eq!(claim.settled_amount, "5.1".parse().ok());
    }
}
