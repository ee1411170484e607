//! An event whose texts stand elsewhere: in a line of JSON, in an [`Event`]. Costs no allocation, and what writes or
//! checks events works on it, so that there is one set of rules for both.

use crate::{Text, events::*};
use rust_decimal::Decimal;
use uuid::Uuid;

/// The envelope; fields as in [`Event`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct EventView<'a> {
    pub tenant_id: &'a str,
    pub event_id: Uuid,
    pub claim_id: &'a str,
    pub version: u64,
    pub occurred_at: Timestamp,
    pub recorded_at: Timestamp,
    pub correlation_id: &'a str,
    pub causation_id: Option<&'a str>,
    pub user_id: Option<&'a str>,
    pub source: Option<&'a str>,
    pub data: DataView<'a>,
}

/// As [`Money`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct MoneyView<'a> {
    pub amount: Decimal,
    pub currency: Option<&'a str>,
}

/// As [`EventData`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub enum DataView<'a> {
    ClaimCreated(CreatedView<'a>),
    ClaimAssigned {
        agent_id: &'a str,
        agent_name: &'a str,
        assignment_reason: Option<&'a str>,
        estimated_resolution_time: Option<Timestamp>,
    },
    ClaimReassigned {
        agent_id: &'a str,
        agent_name: &'a str,
        previous_agent_id: Option<&'a str>,
        reason: Option<&'a str>,
    },
    ClaimProcessingStarted {
        processed_by: &'a str,
        note: Option<&'a str>,
    },
    ClaimResolved(ResolvedView<'a>),
    ClaimClosed {
        closed_by: Option<&'a str>,
        reason: Option<&'a str>,
    },
    ClaimReopened {
        reopened_by: Option<&'a str>,
        reason: Option<&'a str>,
    },
    ClaimNoteAdded {
        author: Option<&'a str>,
        note: &'a str,
        kind: Option<&'a str>,
    },
    ClaimErased {
        requested_by: Option<&'a str>,
        reason: Option<&'a str>,
    },
}

/// As [`ClaimCreated`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct CreatedView<'a> {
    pub customer_id: &'a str,
    pub customer_name: Option<&'a str>,
    pub customer_email: Option<&'a str>,
    pub claim_type: &'a str,
    pub title: Option<&'a str>,
    pub description: &'a str,
    pub product_id: Option<&'a str>,
    pub order_id: Option<&'a str>,
    pub urgency: Urgency,
    pub claimed: Option<MoneyView<'a>>,
}

/// As [`ClaimResolved`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[allow(missing_docs)]
pub struct ResolvedView<'a> {
    pub resolution: &'a str,
    pub resolution_type: &'a str,
    pub customer_satisfaction: Option<&'a str>,
    pub follow_up_required: bool,
    pub replacement_tracking: Option<&'a str>,
    pub settled: Option<MoneyView<'a>>,
}

impl<'a> EventView<'a> {
    /// The name of what happened.
    pub fn event_type(&self) -> EventType {
        self.data.event_type()
    }

    /// The event with texts of its own.
    pub fn to_event(&self) -> Event {
        Event {
            tenant_id: self.tenant_id.to_owned(),
            event_id: self.event_id,
            claim_id: self.claim_id.to_owned(),
            version: self.version,
            occurred_at: self.occurred_at,
            recorded_at: self.recorded_at,
            correlation_id: self.correlation_id.to_owned(),
            causation_id: owned(self.causation_id),
            user_id: owned(self.user_id),
            source: owned(self.source),
            data: self.data.to_data(),
        }
    }
}

impl<'a> From<&'a Event> for EventView<'a> {
    fn from(event: &'a Event) -> Self {
        Self {
            tenant_id: &event.tenant_id,
            event_id: event.event_id,
            claim_id: &event.claim_id,
            version: event.version,
            occurred_at: event.occurred_at,
            recorded_at: event.recorded_at,
            correlation_id: &event.correlation_id,
            causation_id: event.causation_id.as_deref(),
            user_id: event.user_id.as_deref(),
            source: event.source.as_deref(),
            data: DataView::from(&event.data),
        }
    }
}

impl<'a> From<&'a Money> for MoneyView<'a> {
    fn from(money: &'a Money) -> Self {
        Self { amount: money.amount, currency: money.currency.as_deref() }
    }
}

impl<'a> DataView<'a> {
    /// The name of the variant.
    pub const fn event_type(&self) -> EventType {
        match self {
            Self::ClaimCreated(_) => EventType::ClaimCreated,
            Self::ClaimAssigned { .. } => EventType::ClaimAssigned,
            Self::ClaimReassigned { .. } => EventType::ClaimReassigned,
            Self::ClaimProcessingStarted { .. } => EventType::ClaimProcessingStarted,
            Self::ClaimResolved(_) => EventType::ClaimResolved,
            Self::ClaimClosed { .. } => EventType::ClaimClosed,
            Self::ClaimReopened { .. } => EventType::ClaimReopened,
            Self::ClaimNoteAdded { .. } => EventType::ClaimNoteAdded,
            Self::ClaimErased { .. } => EventType::ClaimErased,
        }
    }

    fn to_data(self) -> EventData {
        match self {
            Self::ClaimCreated(created) => created.to_created().into(),
            Self::ClaimAssigned { agent_id, agent_name, assignment_reason, estimated_resolution_time } => {
                ClaimAssigned {
                    agent_id: agent_id.to_owned(),
                    agent_name: agent_name.to_owned(),
                    assignment_reason: owned(assignment_reason),
                    estimated_resolution_time,
                }
                .into()
            }
            Self::ClaimReassigned { agent_id, agent_name, previous_agent_id, reason } => ClaimReassigned {
                agent_id: agent_id.to_owned(),
                agent_name: agent_name.to_owned(),
                previous_agent_id: owned(previous_agent_id),
                reason: owned(reason),
            }
            .into(),
            Self::ClaimProcessingStarted { processed_by, note } => {
                ClaimProcessingStarted { processed_by: processed_by.to_owned(), note: owned(note) }.into()
            }
            Self::ClaimResolved(resolved) => resolved.to_resolved().into(),
            Self::ClaimClosed { closed_by, reason } => {
                ClaimClosed { closed_by: owned(closed_by), reason: owned(reason) }.into()
            }
            Self::ClaimReopened { reopened_by, reason } => {
                ClaimReopened { reopened_by: owned(reopened_by), reason: owned(reason) }.into()
            }
            Self::ClaimNoteAdded { author, note, kind } => {
                ClaimNoteAdded { author: owned(author), note: note.to_owned(), kind: owned(kind) }.into()
            }
            Self::ClaimErased { requested_by, reason } => {
                ClaimErased { requested_by: owned(requested_by), reason: owned(reason) }.into()
            }
        }
    }
}

// Every field by name, here and in what writes and checks: a field added to an event makes the compiler ask.
impl<'a> From<&'a EventData> for DataView<'a> {
    fn from(data: &'a EventData) -> Self {
        match data {
            EventData::ClaimCreated(created) => Self::ClaimCreated(created.into()),
            EventData::ClaimAssigned(ClaimAssigned {
                agent_id,
                agent_name,
                assignment_reason,
                estimated_resolution_time,
            }) => Self::ClaimAssigned {
                agent_id,
                agent_name,
                assignment_reason: assignment_reason.as_deref(),
                estimated_resolution_time: *estimated_resolution_time,
            },
            EventData::ClaimReassigned(ClaimReassigned {
                agent_id,
                agent_name,
                previous_agent_id,
                reason,
            }) => Self::ClaimReassigned {
                agent_id,
                agent_name,
                previous_agent_id: previous_agent_id.as_deref(),
                reason: reason.as_deref(),
            },
            EventData::ClaimProcessingStarted(ClaimProcessingStarted { processed_by, note }) => {
                Self::ClaimProcessingStarted { processed_by, note: note.as_deref() }
            }
            EventData::ClaimResolved(resolved) => Self::ClaimResolved(resolved.into()),
            EventData::ClaimClosed(ClaimClosed { closed_by, reason }) => {
                Self::ClaimClosed { closed_by: closed_by.as_deref(), reason: reason.as_deref() }
            }
            EventData::ClaimReopened(ClaimReopened { reopened_by, reason }) => {
                Self::ClaimReopened { reopened_by: reopened_by.as_deref(), reason: reason.as_deref() }
            }
            EventData::ClaimNoteAdded(ClaimNoteAdded { author, note, kind }) => {
                Self::ClaimNoteAdded { author: author.as_deref(), note, kind: kind.as_deref() }
            }
            EventData::ClaimErased(ClaimErased { requested_by, reason }) => {
                Self::ClaimErased { requested_by: requested_by.as_deref(), reason: reason.as_deref() }
            }
        }
    }
}

impl<'a> From<&'a ClaimCreated> for CreatedView<'a> {
    fn from(created: &'a ClaimCreated) -> Self {
        let ClaimCreated {
            customer_id,
            customer_name,
            customer_email,
            claim_type,
            title,
            description,
            product_id,
            order_id,
            urgency,
            claimed,
        } = created;
        Self {
            customer_id,
            customer_name: customer_name.as_deref(),
            customer_email: customer_email.as_deref(),
            claim_type,
            title: title.as_deref(),
            description,
            product_id: product_id.as_deref(),
            order_id: order_id.as_deref(),
            urgency: *urgency,
            claimed: claimed.as_ref().map(MoneyView::from),
        }
    }
}

impl<'a> From<&'a ClaimResolved> for ResolvedView<'a> {
    fn from(resolved: &'a ClaimResolved) -> Self {
        let ClaimResolved {
            resolution,
            resolution_type,
            customer_satisfaction,
            follow_up_required,
            replacement_tracking,
            settled,
        } = resolved;
        Self {
            resolution,
            resolution_type,
            customer_satisfaction: customer_satisfaction.as_deref(),
            follow_up_required: *follow_up_required,
            replacement_tracking: replacement_tracking.as_deref(),
            settled: settled.as_ref().map(MoneyView::from),
        }
    }
}

impl CreatedView<'_> {
    fn to_created(self) -> ClaimCreated {
        ClaimCreated {
            customer_id: self.customer_id.to_owned(),
            customer_name: owned(self.customer_name),
            customer_email: owned(self.customer_email),
            claim_type: self.claim_type.to_owned(),
            title: owned(self.title),
            description: self.description.to_owned(),
            product_id: owned(self.product_id),
            order_id: owned(self.order_id),
            urgency: self.urgency,
            claimed: self.claimed.map(MoneyView::to_money),
        }
    }
}

impl ResolvedView<'_> {
    fn to_resolved(self) -> ClaimResolved {
        ClaimResolved {
            resolution: self.resolution.to_owned(),
            resolution_type: self.resolution_type.to_owned(),
            customer_satisfaction: owned(self.customer_satisfaction),
            follow_up_required: self.follow_up_required,
            replacement_tracking: owned(self.replacement_tracking),
            settled: self.settled.map(MoneyView::to_money),
        }
    }
}

impl MoneyView<'_> {
    pub(crate) fn to_money(self) -> Money {
        Money { amount: self.amount, currency: self.currency.map(Text::new) }
    }
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}
