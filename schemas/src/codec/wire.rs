//! The Avro record `ClaimEvent` as serde sees it: borrowed when written, owned when read.

use super::AGGREGATE_TYPE;
use crate::events::{Event, EventData, EventType, Timestamp};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{EnumAccess, Error as _, VariantAccess, Visitor},
};
use std::fmt;
use uuid::Uuid;

/// An event on its way out. Fields in the order of the schema: the serialiser's fast path.
#[derive(Serialize)]
#[serde(rename = "ClaimEvent")]
pub(super) struct EventRef<'a> {
    tenant_id: &'a str,
    aggregate_type: &'static str,
    event_id: Uuid,
    claim_id: &'a str,
    event_type: &'static str,
    version: u64,
    occurred_at: Timestamp,
    recorded_at: Timestamp,
    correlation_id: &'a str,
    causation_id: Option<&'a str>,
    user_id: Option<&'a str>,
    source: Option<&'a str>,
    data: &'a EventData,
}

impl<'a> From<&'a Event> for EventRef<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            tenant_id: &event.tenant_id,
            aggregate_type: AGGREGATE_TYPE,
            event_id: event.event_id,
            claim_id: &event.claim_id,
            event_type: event.event_type().as_str(),
            version: event.version,
            occurred_at: event.occurred_at,
            recorded_at: event.recorded_at,
            correlation_id: &event.correlation_id,
            causation_id: event.causation_id.as_deref(),
            user_id: event.user_id.as_deref(),
            source: event.source.as_deref(),
            data: &event.data,
        }
    }
}

/// An event on its way in. What an older writer's schema lacks gets the default of the schema.
#[derive(Deserialize)]
pub(super) struct EventOwned<'a> {
    tenant_id: String,
    #[serde(borrow, default)]
    aggregate_type: Option<&'a str>,
    event_id: Uuid,
    claim_id: String,
    #[serde(borrow, default)]
    event_type: Option<&'a str>,
    version: u64,
    occurred_at: Timestamp,
    recorded_at: Timestamp,
    correlation_id: String,
    #[serde(default)]
    causation_id: Option<String>,
    #[serde(default)]
    user_id: Option<String>,
    #[serde(default)]
    source: Option<String>,
    #[serde(deserialize_with = "union_by_name")]
    data: EventData,
}

impl EventOwned<'_> {
    /// The event, or what contradicts itself in it.
    pub(super) fn into_event(self) -> Result<Event, String> {
        if self.aggregate_type.is_some_and(|t| t != AGGREGATE_TYPE) {
            return Err(format!("aggregate_type is not {AGGREGATE_TYPE:?}"));
        }
        let branch = self.data.event_type();
        if self.event_type.is_some_and(|t| t != branch.as_str()) {
            return Err(format!("event_type is not the name of the branch of data, {branch}"));
        }
        Ok(Event {
            tenant_id: self.tenant_id,
            event_id: self.event_id,
            claim_id: self.claim_id,
            version: self.version,
            occurred_at: self.occurred_at,
            recorded_at: self.recorded_at,
            correlation_id: self.correlation_id,
            causation_id: self.causation_id,
            user_id: self.user_id,
            source: self.source,
            data: self.data,
        })
    }
}

/// Reads the union `data` by the name of its branch; the deserialiser gives the full name, with namespace.
fn union_by_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EventData, D::Error> {
    deserializer.deserialize_enum("EventData", &[], DataVisitor)
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = EventData;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the data of a claim event")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<EventData, A::Error> {
        let (BranchName(event_type), branch) = access.variant::<BranchName>()?;
        match event_type {
            EventType::ClaimCreated => branch.newtype_variant().map(EventData::ClaimCreated),
            EventType::ClaimAssigned => branch.newtype_variant().map(EventData::ClaimAssigned),
            EventType::ClaimReassigned => branch.newtype_variant().map(EventData::ClaimReassigned),
            EventType::ClaimProcessingStarted => {
                branch.newtype_variant().map(EventData::ClaimProcessingStarted)
            }
            EventType::ClaimResolved => branch.newtype_variant().map(EventData::ClaimResolved),
            EventType::ClaimClosed => branch.newtype_variant().map(EventData::ClaimClosed),
            EventType::ClaimReopened => branch.newtype_variant().map(EventData::ClaimReopened),
            EventType::ClaimNoteAdded => branch.newtype_variant().map(EventData::ClaimNoteAdded),
            EventType::ClaimErased => branch.newtype_variant().map(EventData::ClaimErased),
        }
    }
}

struct BranchName(EventType);

impl<'de> Deserialize<'de> for BranchName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl Visitor<'_> for NameVisitor {
            type Value = BranchName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an event type")
            }

            fn visit_str<E: serde::de::Error>(self, full_name: &str) -> Result<BranchName, E> {
                let name = full_name.rsplit('.').next().unwrap_or(full_name);
                name.parse().map(BranchName).map_err(E::custom)
            }
        }
        deserializer.deserialize_identifier(NameVisitor).map_err(D::Error::custom)
    }
}
