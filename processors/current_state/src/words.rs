//! The timeline of a claim in words: what happened, and by whom.

use claims_schemas::{Event, EventData, EventType, Timestamp, events::Money};
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
    pub actor: Option<String>,
    /// What happened, in words.
    pub words: String,
}

impl TimelineEntry {
    /// The entry of an event. Nothing in it differs between two copies of the event.
    pub fn of(event: &Event) -> Self {
        Self {
            version: event.version,
            event_id: event.event_id,
            event_type: event.event_type(),
            occurred_at: event.occurred_at,
            actor: actor(event).map(str::to_owned),
            words: cut(words(&event.data)),
        }
    }

    /// About how much memory it holds, in bytes.
    pub fn approximate_bytes(&self) -> usize {
        size_of::<Self>() + self.words.len() + self.actor.as_ref().map_or(0, String::len)
    }
}

/// Who did it: named by the data, else by the envelope.
fn actor(event: &Event) -> Option<&str> {
    let named = match &event.data {
        EventData::ClaimProcessingStarted(data) => Some(data.processed_by.as_str()),
        EventData::ClaimClosed(data) => data.closed_by.as_deref(),
        EventData::ClaimReopened(data) => data.reopened_by.as_deref(),
        EventData::ClaimNoteAdded(data) => data.author.as_deref(),
        EventData::ClaimErased(data) => data.requested_by.as_deref(),
        EventData::ClaimCreated(_)
        | EventData::ClaimAssigned(_)
        | EventData::ClaimReassigned(_)
        | EventData::ClaimResolved(_) => None,
    };
    named.or(event.user_id.as_deref())
}

fn words(data: &EventData) -> String {
    match data {
        EventData::ClaimCreated(data) => {
            let what = data.title.as_ref().unwrap_or(&data.description);
            let claimed =
                data.claimed.as_ref().map_or_else(String::new, |m| format!(", {} claimed", money(m)));
            format!(
                "Created: {} of customer {}, urgency {}{claimed}{}",
                data.claim_type,
                data.customer_id,
                data.urgency.as_str(),
                after(": ", Some(what)),
            )
        }
        EventData::ClaimAssigned(data) => {
            format!(
                "Assigned to {}{}",
                agent(&data.agent_name, &data.agent_id),
                brackets(&data.assignment_reason)
            )
        }
        EventData::ClaimReassigned(data) => format!(
            "Reassigned to {}{}{}",
            agent(&data.agent_name, &data.agent_id),
            after(" from ", data.previous_agent_id.as_ref()),
            brackets(&data.reason),
        ),
        EventData::ClaimProcessingStarted(data) => format!("Work started{}", after(": ", data.note.as_ref())),
        EventData::ClaimResolved(data) => format!(
            "Resolved by {}{}{}{}",
            data.resolution_type,
            data.settled.as_ref().map_or_else(String::new, |m| format!(", {} paid", money(m))),
            if data.follow_up_required { ", follow-up required" } else { "" },
            after(": ", Some(&data.resolution)),
        ),
        EventData::ClaimClosed(data) => format!("Closed{}", brackets(&data.reason)),
        EventData::ClaimReopened(data) => format!("Reopened{}", brackets(&data.reason)),
        EventData::ClaimNoteAdded(data) => {
            format!("Note{}{}", brackets(&data.kind), after(": ", Some(&data.note)))
        }
        EventData::ClaimErased(data) => format!("Personal data erased{}", brackets(&data.reason)),
    }
}

fn money(money: &Money) -> String {
    match &money.currency {
        Some(currency) => format!("{} {currency}", money.amount.normalize()),
        None => money.amount.normalize().to_string(),
    }
}

fn agent<'a>(name: &'a str, id: &'a str) -> &'a str {
    if name.is_empty() { id } else { name }
}

fn brackets(text: &Option<String>) -> String {
    text.as_ref().filter(|t| !t.is_empty()).map_or_else(String::new, |t| format!(" ({t})"))
}

fn after(before: &str, text: Option<&String>) -> String {
    text.filter(|t| !t.is_empty()).map_or_else(String::new, |t| format!("{before}{t}"))
}

fn cut(mut words: String) -> String {
    if let Some((at, _)) = words.char_indices().nth(MAX_WORDS_CHARS) {
        words.truncate(at);
        words.push('…');
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use claims_schemas::events::*;

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
        let entry = TimelineEntry::of(&event(Some("smith"), resolved));
        assert_eq!(entry.words, "Resolved by replacement, 12.5 EUR paid, follow-up required: New part sent");
        assert_eq!(entry.actor.as_deref(), Some("smith"));
        let closed = ClaimClosed { closed_by: Some("jones".into()), reason: Some("done".into()) };
        let entry = TimelineEntry::of(&event(Some("smith"), closed));
        assert_eq!((entry.words.as_str(), entry.actor.as_deref()), ("Closed (done)", Some("jones")));
        let assigned = ClaimAssigned {
            agent_id: "a1".into(),
            agent_name: "John Smith".into(),
            assignment_reason: Some("product_expertise".into()),
            estimated_resolution_time: None,
        };
        assert_eq!(
            TimelineEntry::of(&event(None, assigned)).words,
            "Assigned to John Smith (product_expertise)"
        );
    }

    #[test]
    fn long_notes_are_cut_at_a_character() {
        let note = ClaimNoteAdded { author: None, note: "é".repeat(2_000), kind: None };
        let entry = TimelineEntry::of(&event(None, note));
        assert_eq!(entry.words.chars().count(), MAX_WORDS_CHARS + 1);
        assert!(entry.words.ends_with('…'));
    }
}
