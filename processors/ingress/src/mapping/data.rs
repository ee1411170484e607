//! Data of an event, field by field, as a mapping says.

use super::{
    MappingError,
    keys::Keys,
    spec::{Compiler, RowView},
    value::{Amount, Text, Time, read_bool, read_urgency, urgency},
};
use crate::rejects::RowError;
use claims_schemas::{
    EventData, EventType,
    events::{
        ClaimAssigned, ClaimClosed, ClaimCreated, ClaimNoteAdded, ClaimProcessingStarted, ClaimReassigned,
        ClaimReopened, ClaimResolved,
    },
};

/// How to make the data of one event type.
#[derive(Debug, Clone)]
pub(super) enum DataPlan {
    Created(Box<CreatedPlan>),
    Assigned { agent_id: Text, agent_name: Option<Text>, reason: Option<Text>, estimate: Option<Time> },
    Reassigned { agent_id: Text, agent_name: Option<Text>, previous: Option<Text>, reason: Option<Text> },
    Started { processed_by: Text, note: Option<Text> },
    Resolved(Box<ResolvedPlan>),
    Closed { closed_by: Option<Text>, reason: Option<Text> },
    Reopened { reopened_by: Option<Text>, reason: Option<Text> },
    NoteAdded { author: Option<Text>, note: Text, kind: Option<Text> },
}

#[derive(Debug, Clone)]
pub(super) struct CreatedPlan {
    customer_id: Text,
    customer_name: Option<Text>,
    customer_email: Option<Text>,
    claim_type: Text,
    title: Option<Text>,
    description: Text,
    product_id: Option<Text>,
    order_id: Option<Text>,
    urgency: Text,
    claimed: Option<Amount>,
}

#[derive(Debug, Clone)]
pub(super) struct ResolvedPlan {
    resolution: Text,
    resolution_type: Text,
    customer_satisfaction: Option<Text>,
    follow_up_required: Option<Text>,
    replacement_tracking: Option<Text>,
    settled: Option<Amount>,
}

impl DataPlan {
    /// Reads a `data` table for an event type.
    pub(super) fn read(
        compiler: &Compiler<'_>,
        event_type: EventType,
        mut keys: Keys,
    ) -> Result<Self, MappingError> {
        let (c, k) = (compiler, &mut keys);
        let plan = match event_type {
            EventType::ClaimCreated => Self::Created(Box::new(CreatedPlan::read(c, k)?)),
            EventType::ClaimAssigned => Self::Assigned {
                agent_id: Text::required(c, k, "agent_id")?,
                agent_name: Text::read(c, k, "agent_name")?,
                reason: Text::read(c, k, "assignment_reason")?,
                estimate: Time::read(c, k, "estimated_resolution_time")?,
            },
            EventType::ClaimReassigned => Self::Reassigned {
                agent_id: Text::required(c, k, "agent_id")?,
                agent_name: Text::read(c, k, "agent_name")?,
                previous: Text::read(c, k, "previous_agent_id")?,
                reason: Text::read(c, k, "reason")?,
            },
            EventType::ClaimProcessingStarted => Self::Started {
                processed_by: Text::required(c, k, "processed_by")?,
                note: Text::read(c, k, "note")?,
            },
            EventType::ClaimResolved => Self::Resolved(Box::new(ResolvedPlan::read(c, k)?)),
            EventType::ClaimClosed => Self::Closed {
                closed_by: Text::read(c, k, "closed_by")?,
                reason: Text::read(c, k, "reason")?,
            },
            EventType::ClaimReopened => Self::Reopened {
                reopened_by: Text::read(c, k, "reopened_by")?,
                reason: Text::read(c, k, "reason")?,
            },
            EventType::ClaimNoteAdded => Self::NoteAdded {
                author: Text::read(c, k, "author")?,
                note: Text::required(c, k, "note")?,
                kind: Text::read(c, k, "kind")?,
            },
            EventType::ClaimErased => {
                return Err(keys.error("", "ClaimErased can't come from a file: erasure is a command"));
            }
        };
        keys.finish()?;
        Ok(plan)
    }

    /// The data in this row.
    pub(super) fn get(&self, row: &RowView<'_>) -> Result<EventData, RowError> {
        Ok(match self {
            Self::Created(plan) => plan.get(row)?.into(),
            Self::Assigned { agent_id, agent_name, reason, estimate } => ClaimAssigned {
                agent_id: agent_id.needed(row)?,
                agent_name: optional(agent_name, row)?.map_or_else(|| agent_id.needed(row), Ok)?,
                assignment_reason: optional(reason, row)?,
                estimated_resolution_time: match estimate {
                    Some(time) => time.optional(row)?,
                    None => None,
                },
            }
            .into(),
            Self::Reassigned { agent_id, agent_name, previous, reason } => ClaimReassigned {
                agent_id: agent_id.needed(row)?,
                agent_name: optional(agent_name, row)?.map_or_else(|| agent_id.needed(row), Ok)?,
                previous_agent_id: optional(previous, row)?,
                reason: optional(reason, row)?,
            }
            .into(),
            Self::Started { processed_by, note } => {
                ClaimProcessingStarted { processed_by: processed_by.needed(row)?, note: optional(note, row)? }
                    .into()
            }
            Self::Resolved(plan) => plan.get(row)?.into(),
            Self::Closed { closed_by, reason } => {
                ClaimClosed { closed_by: optional(closed_by, row)?, reason: optional(reason, row)? }.into()
            }
            Self::Reopened { reopened_by, reason } => {
                ClaimReopened { reopened_by: optional(reopened_by, row)?, reason: optional(reason, row)? }
                    .into()
            }
            Self::NoteAdded { author, note, kind } => ClaimNoteAdded {
                author: optional(author, row)?,
                note: note.needed(row)?,
                kind: optional(kind, row)?,
            }
            .into(),
        })
    }
}

impl CreatedPlan {
    fn read(compiler: &Compiler<'_>, keys: &mut Keys) -> Result<Self, MappingError> {
        let plan = Self {
            customer_id: Text::required(compiler, keys, "customer_id")?,
            customer_name: Text::read(compiler, keys, "customer_name")?,
            customer_email: Text::read(compiler, keys, "customer_email")?,
            claim_type: Text::required(compiler, keys, "claim_type")?,
            title: Text::read(compiler, keys, "title")?,
            description: Text::required(compiler, keys, "description")?,
            product_id: Text::read(compiler, keys, "product_id")?,
            order_id: Text::read(compiler, keys, "order_id")?,
            urgency: Text::required(compiler, keys, "urgency")?,
            claimed: Amount::read(compiler, keys, "claimed")?,
        };
        match plan.urgency.constant() {
            Some(constant) if urgency(constant).is_none() => {
                Err(keys.error("urgency", "must be low, medium, high or critical"))
            }
            _ => Ok(plan),
        }
    }

    fn get(&self, row: &RowView<'_>) -> Result<ClaimCreated, RowError> {
        Ok(ClaimCreated {
            customer_id: self.customer_id.needed(row)?,
            customer_name: optional(&self.customer_name, row)?,
            customer_email: optional(&self.customer_email, row)?,
            claim_type: self.claim_type.needed(row)?,
            title: optional(&self.title, row)?,
            description: self.description.needed(row)?,
            product_id: optional(&self.product_id, row)?,
            order_id: optional(&self.order_id, row)?,
            urgency: read_urgency(&self.urgency, row)?,
            claimed: amount(&self.claimed, row)?,
        })
    }
}

impl ResolvedPlan {
    fn read(compiler: &Compiler<'_>, keys: &mut Keys) -> Result<Self, MappingError> {
        Ok(Self {
            resolution: Text::required(compiler, keys, "resolution")?,
            resolution_type: Text::required(compiler, keys, "resolution_type")?,
            customer_satisfaction: Text::read(compiler, keys, "customer_satisfaction")?,
            follow_up_required: Text::read(compiler, keys, "follow_up_required")?,
            replacement_tracking: Text::read(compiler, keys, "replacement_tracking")?,
            settled: Amount::read(compiler, keys, "settled")?,
        })
    }

    fn get(&self, row: &RowView<'_>) -> Result<ClaimResolved, RowError> {
        Ok(ClaimResolved {
            resolution: self.resolution.needed(row)?,
            resolution_type: self.resolution_type.needed(row)?,
            customer_satisfaction: optional(&self.customer_satisfaction, row)?,
            follow_up_required: match &self.follow_up_required {
                Some(text) => read_bool(text, row)?.unwrap_or(false),
                None => false,
            },
            replacement_tracking: optional(&self.replacement_tracking, row)?,
            settled: amount(&self.settled, row)?,
        })
    }
}

fn optional(text: &Option<Text>, row: &RowView<'_>) -> Result<Option<String>, RowError> {
    match text {
        Some(text) => text.optional(row),
        None => Ok(None),
    }
}

fn amount(amount: &Option<Amount>, row: &RowView<'_>) -> Result<Option<claims_schemas::Money>, RowError> {
    match amount {
        Some(amount) => amount.get(row),
        None => Ok(None),
    }
}
