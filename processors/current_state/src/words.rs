//! The timeline of a claim in words: what happened, and by whom.

use claims_schemas::{
    EventType, EventView, Text, Timestamp,
    text::heap_bytes,
    view::{DataView, MoneyView},
};
use uuid::Uuid;

/// The longest text of a timeline entry, in characters.
pub const MAX_WORDS_CHARS: usize = 500;

/// One line of a claim's timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineEntry {
    /// The event's version; the entry's place in the timeline.
    pub version: u64,
    /// The event.
    pub event_id: Uuid,
    /// Its type.
    pub event_type: EventType,
    /// When it happened in the business.
    pub occurred_at: Timestamp,
    /// Who did it, if known.
    pub actor: Option<Text>,
    /// What happened, in words.
    pub words: String,
}

impl TimelineEntry {
    /// The entry of an event. Nothing in it differs between two copies of the event.
    pub fn of(event: &EventView<'_>) -> Self {
        Self {
            version: event.version,
            event_id: event.event_id,
            event_type: event.event_type(),
            occurred_at: event.occurred_at,
            actor: actor(event).map(Text::new),
            words: cut(words(&event.data)),
        }
    }

    /// About how much memory it holds, in bytes.
    pub fn approximate_bytes(&self) -> usize {
        size_of::<Self>() + self.heap_bytes()
    }

    /// The same beside itself.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.words.capacity() + self.actor.as_ref().map_or(0, heap_bytes)
    }
}

/// Who did it: named by the data, else by the envelope.
fn actor<'a>(event: &EventView<'a>) -> Option<&'a str> {
    let named = match event.data {
        DataView::ClaimProcessingStarted { processed_by, .. } => Some(processed_by),
        DataView::ClaimClosed { closed_by, .. } => closed_by,
        DataView::ClaimReopened { reopened_by, .. } => reopened_by,
        DataView::ClaimNoteAdded { author, .. } => author,
        DataView::ClaimErased { requested_by, .. } => requested_by,
        DataView::ClaimCreated(_)
        | DataView::ClaimAssigned { .. }
        | DataView::ClaimReassigned { .. }
        | DataView::ClaimResolved(_) => None,
    };
    named.or(event.user_id)
}

/// Most texts fit without growing.
const TYPICAL_WORDS_BYTES: usize = 128;

fn words(data: &DataView<'_>) -> String {
    let mut words = Words(String::with_capacity(TYPICAL_WORDS_BYTES));
    match *data {
        DataView::ClaimCreated(data) => {
            let what = data.title.unwrap_or(data.description);
            words.say("Created: ").say(data.claim_type).say(" of customer ").say(data.customer_id);
            words.say(", urgency ").say(data.urgency.as_str());
            words.money(data.claimed, " claimed").after(": ", Some(what));
        }
        DataView::ClaimAssigned { agent_id, agent_name, assignment_reason, .. } => {
            words.say("Assigned to ").say(agent(agent_name, agent_id)).brackets(assignment_reason);
        }
        DataView::ClaimReassigned { agent_id, agent_name, previous_agent_id, reason } => {
            words.say("Reassigned to ").say(agent(agent_name, agent_id));
            words.after(" from ", previous_agent_id).brackets(reason);
        }
        DataView::ClaimProcessingStarted { note, .. } => {
            words.say("Work started").after(": ", note);
        }
        DataView::ClaimResolved(data) => {
            words.say("Resolved by ").say(data.resolution_type).money(data.settled, " paid");
            words.say(if data.follow_up_required { ", follow-up required" } else { "" });
            words.after(": ", Some(data.resolution));
        }
        DataView::ClaimClosed { reason, .. } => {
            words.say("Closed").brackets(reason);
        }
        DataView::ClaimReopened { reason, .. } => {
            words.say("Reopened").brackets(reason);
        }
        DataView::ClaimNoteAdded { note, kind, .. } => {
            words.say("Note").brackets(kind).after(": ", Some(note));
        }
        DataView::ClaimErased { reason, .. } => {
            words.say("Personal data erased").brackets(reason);
        }
    }
    words.0
}

/// A text that grows by pieces.
struct Words(String);

impl Words {
    fn say(&mut self, text: &str) -> &mut Self {
        self.0.push_str(text);
        self
    }

    fn money(&mut self, money: Option<MoneyView<'_>>, what: &str) -> &mut Self {
        let Some(MoneyView { amount, currency }) = money else { return self };
        self.say(", ").say(&amount.normalize().to_string());
        if let Some(currency) = currency {
            self.say(" ").say(currency);
        }
        self.say(what)
    }

    fn brackets(&mut self, text: Option<&str>) -> &mut Self {
        match text.filter(|text| !text.is_empty()) {
            Some(text) => self.say(" (").say(text).say(")"),
            None => self,
        }
    }

    fn after(&mut self, before: &str, text: Option<&str>) -> &mut Self {
        match text.filter(|text| !text.is_empty()) {
            Some(text) => self.say(before).say(text),
            None => self,
        }
    }
}

fn agent<'a>(name: &'a str, id: &'a str) -> &'a str {
    if name.is_empty() { id } else { name }
}

fn cut(mut words: String) -> String {
    // As many bytes hold no more characters.
    if words.len() > MAX_WORDS_CHARS
        && let Some((at, _)) = words.char_indices().nth(MAX_WORDS_CHARS)
    {
        words.truncate(at);
        words.push('…');
    }
    // A long text that was cut would hold its whole room for as long as the entry lives.
    if words.capacity() - words.len() > TYPICAL_WORDS_BYTES {
        words.shrink_to_fit();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use claims_schemas::{Event, events::*};

    fn event(user: Option<&str>, data: impl Into<EventData>) -> Event {
        Event {
            tenant_id: "t".into(),
            event_id: Uuid::nil(),
            claim_id: "c".into(),
            version: 3,
            occurred_at: Timestamp(1),
            recorded_at: Timestamp(2),
            correlation_id: "x".into(),
            causation_id: None,
            user_id: user.map(Into::into),
            source: None,
            data: data.into(),
        }
    }

    fn told(event: Event) -> TimelineEntry {
        TimelineEntry::of(&EventView::from(&event))
    }

    #[test]
    fn what_happened_and_by_whom() {
        let resolved = ClaimResolved {
            resolution: "New part sent".into(),
            resolution_type: "replacement".into(),
            customer_satisfaction: None,
            follow_up_required: true,
            replacement_tracking: None,
            settled: Some(Money { amount: "12.5000".parse().unwrap(), currency: Some("EUR".into()) }),
        };
        let entry = told(event(Some("smith"), resolved));
        assert_eq!(entry.words, "Resolved by replacement, 12.5 EUR paid, follow-up required: New part sent");
        assert_eq!(entry.actor.as_deref(), Some("smith"));
        let closed = ClaimClosed { closed_by: Some("jones".into()), reason: Some("done".into()) };
        let entry = told(event(Some("smith"), closed));
        assert_eq!((entry.words.as_str(), entry.actor.as_deref()), ("Closed (done)", Some("jones")));
        let assigned = ClaimAssigned {
            agent_id: "a1".into(),
            agent_name: "John Smith".into(),
            assignment_reason: Some("product_expertise".into()),
            estimated_resolution_time: None,
        };
        assert_eq!(told(event(None, assigned)).words, "Assigned to John Smith (product_expertise)");
    }

    #[test]
    fn every_event_type_in_its_words() {
        let text = |text: &str| Some(text.to_owned());
        let created = ClaimCreated {
            customer_id: "c7".into(),
            customer_name: None,
            customer_email: None,
            claim_type: "defect".into(),
            title: text("Broken"),
            description: "The screen".into(),
            product_id: None,
            order_id: None,
            urgency: Urgency::High,
            claimed: Some(Money { amount: "10.00".parse().unwrap(), currency: None }),
        };
        let untitled = ClaimCreated { title: None, claimed: None, ..created.clone() };
        let reassigned = ClaimReassigned {
            agent_id: "a2".into(),
            agent_name: String::new(),
            previous_agent_id: text("a1"),
            reason: text("holiday"),
        };
        let resolved = ClaimResolved {
            resolution: String::new(),
            resolution_type: "refund".into(),
            customer_satisfaction: None,
            follow_up_required: false,
            replacement_tracking: None,
            settled: None,
        };
        let note = |kind| ClaimNoteAdded { author: None, note: "waiting".into(), kind };
        let all: [(EventData, &str); 11] = [
            (created.into(), "Created: defect of customer c7, urgency high, 10 claimed: Broken"),
            (untitled.into(), "Created: defect of customer c7, urgency high: The screen"),
            (reassigned.into(), "Reassigned to a2 from a1 (holiday)"),
            (
                ClaimProcessingStarted { processed_by: "a".into(), note: text("called") }.into(),
                "Work started: called",
            ),
            (ClaimProcessingStarted { processed_by: "a".into(), note: text("") }.into(), "Work started"),
            (resolved.into(), "Resolved by refund"),
            (ClaimClosed::default().into(), "Closed"),
            (ClaimReopened { reopened_by: None, reason: text("again") }.into(), "Reopened (again)"),
            (note(text("awaiting_vendor")).into(), "Note (awaiting_vendor): waiting"),
            (note(None).into(), "Note: waiting"),
            (
                ClaimErased { requested_by: None, reason: text("asked") }.into(),
                "Personal data erased (asked)",
            ),
        ];
        for (data, words) in all {
            assert_eq!(told(event(None, data)).words, words);
        }
    }

    #[test]
    fn long_notes_are_cut_at_a_character() {
        let note = ClaimNoteAdded { author: None, note: "é".repeat(20_000), kind: None };
        let entry = told(event(None, note));
        assert!(
            entry.approximate_bytes() < 2_000,
            "what was cut off is not held: {}",
            entry.words.capacity()
        );
        assert_eq!(entry.words.chars().count(), MAX_WORDS_CHARS + 1);
        assert!(entry.words.ends_with('…'));
    }
}
