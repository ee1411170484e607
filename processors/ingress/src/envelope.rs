//! From what a source says to a whole event: defaults, the deterministic id, validation.

use crate::{content, rejects::RowError};
use claims_schemas::{
    Event, EventView, Timestamp,
    json::{DraftView, EventDraft},
    validate,
};
use uuid::Uuid;

/// Completes and checks events. One per reader; it reuses its memory.
#[derive(Debug)]
pub struct Completer {
    default_tenant: String,
    now: Timestamp,
    scratch: Vec<u8>,
}

impl Completer {
    /// Events without a tenant get `default_tenant`.
    pub fn new(default_tenant: &str) -> Self {
        Self { default_tenant: default_tenant.into(), now: Timestamp::now(), scratch: Vec::new() }
    }

    /// Reads the clock, for `recorded_at` and for judging times in the future. Call it once per batch, not per row.
    pub fn read_clock(&mut self) {
        self.now = Timestamp::now();
    }

    /// The clock as last read.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The tenant of events that name none.
    pub fn default_tenant(&self) -> &str {
        &self.default_tenant
    }

    /// Fills in what a draft lacks: the tenant, an id from its content, the time of recording, and the claim as
    /// what correlates.
    pub fn complete(&mut self, draft: EventDraft) -> Result<Event, RowError> {
        let has_id = draft.event_id.is_some();
        let correlation_id = match &draft.correlation_id {
            Some(_) => String::new(),
            None => draft.claim_id.clone(),
        };
        let tenant = &self.default_tenant;
        let event = draft.complete(|| tenant.clone(), Uuid::nil(), self.now, || correlation_id);
        if has_id { self.check(event) } else { self.identify(event) }
    }

    /// The same for a draft whose texts stand elsewhere; `None`: refused, and [`complete`](Self::complete) says why.
    pub fn complete_view<'a>(&'a mut self, draft: DraftView<'a>) -> Option<EventView<'a>> {
        let Self { default_tenant, now, scratch } = self;
        let has_id = draft.event_id.is_some();
        let mut event = draft.complete(default_tenant, Uuid::nil(), *now, draft.claim_id);
        if !has_id {
            event.event_id = content::id_of_view(&event, scratch);
        }
        validate::validate_view(&event, *now).ok().map(|()| event)
    }

    /// Gives the event the id that follows from its content, and checks it.
    pub fn identify(&mut self, mut event: Event) -> Result<Event, RowError> {
        event.event_id = content::event_id(&event, &mut self.scratch);
        self.check(event)
    }

    fn check(&self, event: Event) -> Result<Event, RowError> {
        match validate::validate(&event, self.now) {
            Ok(()) => Ok(event),
            Err(error) => {
                Err(RowError::of(error.reason, error.field, "refused by the rules for every event"))
            }
        }
    }
}
