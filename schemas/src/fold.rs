//! The fold: `apply` is total, commutative and idempotent.
//!
//! Any set of events in any order, with any copies, gives the same state, because every field keeps the version that
//! last set it and the higher version wins. What each event sets:
//!
//! | event | fields |
//! | --- | --- |
//! | `ClaimCreated` | customer, type, title, description, product, order, urgency, claimed, created_at, CREATED |
//! | `ClaimAssigned` | agent id and name, estimated resolution time, ASSIGNED |
//! | `ClaimReassigned` | agent id and name; one more reassignment |
//! | `ClaimProcessingStarted` | PROCESSING |
//! | `ClaimResolved` | resolution, its type, satisfaction, follow-up, tracking, settled, resolved_at, RESOLVED |
//! | `ClaimClosed` | closed_at, CLOSED |
//! | `ClaimReopened` | PROCESSING; everything that resolving and closing had set is cleared; one more reopening |
//! | `ClaimNoteAdded` | one more note |
//! | `ClaimErased` | ERASED, for good; personal fields are cleared and stay so, whatever the versions |
//!
//! Every event also sets `updated_at` and `source`, which follow the highest version.
//!
//! The one thing that depends on order: of two different events with one version the first in the log wins.

use crate::{
    Text,
    events::{Event, EventType, Timestamp},
    state::{ClaimState, SeenVersion, Status, Versioned},
    view::{CreatedView, DataView, EventView, MoneyView, ResolvedView},
};

/// What folding one event did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The state has changed (its revision went up by one).
    Changed {
        /// A step that the lifecycle doesn't foresee: applied all the same, to be reported.
        surprise: Option<Surprise>,
    },
    /// A copy of an event already folded; nothing changed.
    Copy,
    /// Another event already holds this version: superseded, not applied.
    Superseded,
}

/// A step that the lifecycle doesn't allow, seen in the facts of a source.
///
/// The event is compared with the present status, and only if its version is higher than that status's. So events
/// that arrive out of order may be reported though their full history is in order, and a late event that fills a gap
/// is never reported. It is a hint for people, not a property of the set of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surprise {
    /// What was odd, in words and without personal data.
    pub what: String,
}

/// Whether the lifecycle allows an event on a claim in this status. Facts are applied all the same; commands are not.
pub const fn allowed(status: Status, event: EventType) -> bool {
    use EventType::*;
    match event {
        ClaimCreated => matches!(status, Status::Unknown),
        ClaimAssigned => matches!(status, Status::Created),
        ClaimReassigned => matches!(status, Status::Assigned | Status::Processing),
        ClaimProcessingStarted => matches!(status, Status::Assigned),
        ClaimResolved => matches!(status, Status::Processing),
        ClaimClosed => matches!(status, Status::Resolved),
        ClaimReopened => matches!(status, Status::Resolved | Status::Closed),
        ClaimNoteAdded => !matches!(status, Status::Unknown | Status::Erased),
        ClaimErased => !matches!(status, Status::Erased),
    }
}

impl ClaimState {
    /// The state of a claim of which nothing is known yet.
    pub fn empty(tenant_id: &str, claim_id: &str) -> Self {
        Self { tenant_id: Text::new(tenant_id), claim_id: Text::new(claim_id), ..Self::default() }
    }

    /// Folds one event of this claim into the state. The caller picks the state by tenant and claim.
    pub fn apply(&mut self, event: &Event) -> Applied {
        self.apply_view(&EventView::from(event))
    }

    /// As [`apply`](Self::apply); texts are copied only where the state takes them.
    pub fn apply_view(&mut self, event: &EventView<'_>) -> Applied {
        if let Some(known) = self.enter_version(event) {
            return known;
        }
        let surprise = self.surprise(event);
        if event.version > self.updated_at.version {
            set(&mut self.updated_at, event.version, Some(event.occurred_at));
            self.source = event.source.map(Text::new);
        }
        self.apply_data(event);
        Applied::Changed { surprise }
    }

    /// Enters the event's version among those seen; `Some` if it is taken already.
    fn enter_version(&mut self, event: &EventView<'_>) -> Option<Applied> {
        let entry = SeenVersion::of(event.version, &event.event_id);
        if self.version() < entry.version {
            self.seen.push(entry);
            return None;
        }
        match self.seen.binary_search_by_key(&entry.version, |seen| seen.version) {
            Ok(at) if self.seen.get(at) == Some(&entry) => Some(Applied::Copy),
            Ok(_) => Some(Applied::Superseded),
            Err(at) => {
                self.seen.insert(at, entry);
                None
            }
        }
    }

    fn surprise(&self, event: &EventView<'_>) -> Option<Surprise> {
        let (status, event_type) = (self.status(), event.event_type());
        if event.version <= self.status.version || allowed(status, event_type) {
            return None;
        }
        let what =
            format!("{event_type} at version {} of a claim that is {}", event.version, status.as_str());
        Some(Surprise { what })
    }

    fn apply_data(&mut self, event: &EventView<'_>) {
        let (version, at) = (event.version, event.occurred_at);
        match &event.data {
            DataView::ClaimCreated(data) => {
                self.apply_created(version, data);
                set(&mut self.created_at, version, Some(at));
                self.set_status(version, at, Status::Created);
            }
            DataView::ClaimAssigned { agent_id, agent_name, estimated_resolution_time, .. } => {
                set_text(&mut self.agent_id, version, Some(agent_id));
                set_text(&mut self.agent_name, version, Some(agent_name));
                set(&mut self.estimated_resolution_at, version, *estimated_resolution_time);
                self.set_status(version, at, Status::Assigned);
            }
            DataView::ClaimReassigned { agent_id, agent_name, .. } => {
                set_text(&mut self.agent_id, version, Some(agent_id));
                set_text(&mut self.agent_name, version, Some(agent_name));
                self.reassignment_count = self.reassignment_count.saturating_add(1);
            }
            DataView::ClaimProcessingStarted { .. } => self.set_status(version, at, Status::Processing),
            DataView::ClaimResolved(data) => {
                self.apply_resolution(version, Some(data));
                set(&mut self.resolved_at, version, Some(at));
                self.set_status(version, at, Status::Resolved);
            }
            DataView::ClaimClosed { .. } => {
                set(&mut self.closed_at, version, Some(at));
                self.set_status(version, at, Status::Closed);
            }
            DataView::ClaimReopened { .. } => {
                self.apply_resolution(version, None);
                set(&mut self.resolved_at, version, None);
                set(&mut self.closed_at, version, None);
                self.reopen_count = self.reopen_count.saturating_add(1);
                self.set_status(version, at, Status::Processing);
            }
            DataView::ClaimNoteAdded { .. } => self.note_count = self.note_count.saturating_add(1),
            DataView::ClaimErased { .. } => self.erase(version, at),
        }
    }

    fn apply_created(&mut self, version: u64, data: &CreatedView<'_>) {
        if !self.is_erased() {
            set_text(&mut self.customer_id, version, Some(data.customer_id));
            set_text(&mut self.customer_name, version, data.customer_name);
            set_text(&mut self.customer_email, version, data.customer_email);
            set_text(&mut self.title, version, data.title);
            set_text(&mut self.description, version, Some(data.description));
            set_text(&mut self.order_id, version, data.order_id);
        }
        set_text(&mut self.claim_type, version, Some(data.claim_type));
        set_text(&mut self.product_id, version, data.product_id);
        set(&mut self.urgency, version, Some(data.urgency));
        set(&mut self.claimed, version, data.claimed.map(MoneyView::to_money));
    }

    /// Sets the resolution, or clears it (`None`: reopened).
    fn apply_resolution(&mut self, version: u64, data: Option<&ResolvedView<'_>>) {
        if !self.is_erased() {
            set_text(&mut self.resolution, version, data.map(|d| d.resolution));
            set_text(&mut self.replacement_tracking, version, data.and_then(|d| d.replacement_tracking));
        }
        set_text(&mut self.resolution_type, version, data.map(|d| d.resolution_type));
        set_text(&mut self.customer_satisfaction, version, data.and_then(|d| d.customer_satisfaction));
        set(&mut self.follow_up_required, version, data.map(|d| d.follow_up_required));
        set(&mut self.settled, version, data.and_then(|d| d.settled).map(MoneyView::to_money));
    }

    fn set_status(&mut self, version: u64, at: Timestamp, status: Status) {
        if !self.is_erased() && version > self.status.version {
            self.status = Versioned { version, value: Some(status) };
            self.status_since = at;
        }
    }

    /// Erasure outranks every version; of several erasures the highest holds the status.
    fn erase(&mut self, version: u64, at: Timestamp) {
        if self.is_erased() && version < self.status.version {
            return;
        }
        self.status = Versioned { version, value: Some(Status::Erased) };
        self.status_since = at;
        // Back to "never set", version included: what arrives later is not set either, so order doesn't show.
        for personal in [
            &mut self.customer_id,
            &mut self.customer_name,
            &mut self.customer_email,
            &mut self.title,
            &mut self.description,
            &mut self.order_id,
            &mut self.resolution,
            &mut self.replacement_tracking,
        ] {
            *personal = Versioned::default();
        }
    }

    fn is_erased(&self) -> bool {
        self.status.value == Some(Status::Erased)
    }
}

/// Sets a field unless a higher version has.
fn set<T>(field: &mut Versioned<Option<T>>, version: u64, value: Option<T>) {
    if version > field.version {
        *field = Versioned { version, value };
    }
}

/// As [`set`], copying the text only if it is taken.
fn set_text(field: &mut Versioned<Option<Text>>, version: u64, value: Option<&str>) {
    if version > field.version {
        *field = Versioned { version, value: value.map(Text::new) };
    }
}

impl SeenVersion {
    /// The entry of an event with this version and id. Of the id both halves count: the first half alone is nearly the
    /// same for two time-ordered ids of one millisecond.
    pub fn of(version: u64, event_id: &uuid::Uuid) -> Self {
        let (high, low) = event_id.as_u64_pair();
        Self { version, event_id_fingerprint: high ^ low }
    }
}
