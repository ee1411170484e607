//! Synthetic claims: lifecycles spread over time with thousands of others between a claim's events, customers and
//! agents of very different weight, reassignments, reopenings, notes, exact copies, and events that come late.
//!
//! The same settings give the same events, bit for bit, on every machine: only integers are drawn. Memory holds the
//! claims under way, some ten thousand whatever the number of events asked for.

mod lifecycle;
mod random;
mod words;

use crate::{
    content,
    publisher::{PublishError, Publisher},
};
use claims_schemas::{Event, Timestamp};
use lifecycle::Claim;
use random::Random;
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// Generated time ends here: 2025-01-01T00:00:00Z.
const END_MS: i64 = 1_735_689_600_000;
const DAY_MS: i64 = 86_400_000;
/// Generated time spans this many days, for each ten million events begun.
const SPAN_DAYS: i64 = 366;
const EVENTS_PER_SPAN: u64 = 10_000_000;
/// Mean number of events of one claim, for spreading the arrivals; measured in a test.
const MEAN_EVENTS_PER_CLAIM: u64 = 6;
const LATE_PERCENT: u64 = 1;
const COPY_PERCENT: u64 = 1;

/// What to generate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneratorSettings {
    /// How many events in all, copies included.
    pub events: u64,
    /// Another seed, other claims.
    pub seed: u64,
}

/// What happens next, in the order of time.
#[derive(Debug)]
enum Next {
    /// A claim takes its next step.
    Step(Box<Claim>),
    /// An event held back, or a copy.
    Deliver(Box<Event>),
}

#[derive(Debug)]
struct Due {
    at_ms: i64,
    /// Makes the order of things due at one moment definite.
    ticket: u64,
    next: Next,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.ticket == other.ticket
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.ticket).cmp(&(other.at_ms, other.ticket))
    }
}

/// The events, one after the other, as a source would send them.
#[derive(Debug)]
pub struct Generator {
    random: Random,
    remaining: u64,
    /// Late events and copies still to come; they count towards the number asked for.
    held_back: u64,
    arrival_at_ms: i64,
    mean_arrival_ms: u64,
    claims: u64,
    expected_claims: u64,
    tickets: u64,
    due: BinaryHeap<Reverse<Due>>,
    scratch: Vec<u8>,
}

impl Generator {
    /// A generator at its beginning.
    pub fn new(settings: GeneratorSettings) -> Self {
        let spans = settings.events.div_ceil(EVENTS_PER_SPAN).max(1) as i64;
        let span_ms = SPAN_DAYS * DAY_MS * spans;
        let expected_claims = settings.events / MEAN_EVENTS_PER_CLAIM + 1;
        Self {
            random: Random::new(settings.seed),
            remaining: settings.events,
            held_back: 0,
            arrival_at_ms: END_MS - span_ms,
            mean_arrival_ms: (span_ms as u64 / expected_claims).max(1),
            claims: 0,
            expected_claims,
            tickets: 0,
            due: BinaryHeap::new(),
            scratch: Vec::new(),
        }
    }

    /// The next thing to happen: an arrival, a step, or the delivery of something held back. Once what is held
    /// back fills the rest, nothing new begins.
    fn advance(&mut self) -> Option<Event> {
        let draining = self.held_back >= self.remaining;
        let due_at_ms = self.due.peek().map(|Reverse(due)| due.at_ms);
        if !draining && due_at_ms.is_none_or(|at| self.arrival_at_ms <= at) {
            return self.arrive();
        }
        let Reverse(Due { at_ms, next, .. }) = self.due.pop()?;
        match next {
            Next::Deliver(event) => {
                self.held_back -= 1;
                Some(*event)
            }
            Next::Step(_) if draining => None,
            Next::Step(claim) => self.step(claim, at_ms),
        }
    }

    fn arrive(&mut self) -> Option<Event> {
        let at_ms = self.arrival_at_ms;
        self.claims += 1;
        let claim = Claim::new(self.claims, self.expected_claims, &mut self.random);
        self.arrival_at_ms += 1 + self.random.below(2 * self.mean_arrival_ms) as i64;
        self.step(Box::new(claim), at_ms)
    }

    /// Emits the claim's next event, unless it is held back, and plans the one after.
    fn step(&mut self, mut claim: Box<Claim>, at_ms: i64) -> Option<Event> {
        let mut event = claim.take_step(Timestamp(at_ms), &mut self.random)?;
        event.event_id = content::event_id(&event, &mut self.scratch);
        event.recorded_at = Timestamp(at_ms + 20 + self.random.below(2_000) as i64);
        let goes_on = claim.wait_ms(&mut self.random);
        if let Some(wait_ms) = goes_on {
            self.plan(at_ms + wait_ms, Next::Step(claim));
        }
        if self.random.percent(COPY_PERCENT) {
            let copy_at_ms = at_ms + self.random.between_log(1_000, 3 * DAY_MS as u64) as i64;
            self.hold_back(copy_at_ms, event.clone());
        }
        if self.random.percent(LATE_PERCENT) {
            let late_ms = self.random.between_log(DAY_MS as u64 / 4, 10 * DAY_MS as u64) as i64;
            event.recorded_at.0 += late_ms;
            self.hold_back(at_ms + late_ms, event);
            return None;
        }
        Some(event)
    }

    fn hold_back(&mut self, at_ms: i64, event: Event) {
        self.held_back += 1;
        self.plan(at_ms, Next::Deliver(Box::new(event)));
    }

    fn plan(&mut self, at_ms: i64, next: Next) {
        self.tickets += 1;
        self.due.push(Reverse(Due { at_ms, ticket: self.tickets, next }));
    }
}

impl Iterator for Generator {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        while self.remaining > 0 {
            if let Some(event) = self.advance() {
                self.remaining -= 1;
                return Some(event);
            }
        }
        None
    }
}

/// Tells about progress, and sends at most so fast, after every so many events.
const EVENTS_PER_STEP: u64 = 500;

/// Generates into Kafka, recorded now, at most `max_events_per_second`. Returns how many events Kafka acknowledged:
/// all of them, or it is an error. `progress` is told the number handed over so far.
pub async fn generate_into_kafka(
    publisher: &Arc<Publisher>,
    settings: GeneratorSettings,
    max_events_per_second: Option<u64>,
    mut progress: impl FnMut(u64) + Send + 'static,
) -> Result<u64, PublishError> {
    let mut sender = publisher.sender();
    let generating = tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let mut handed_over = 0;
        let step =
            max_events_per_second.map_or(EVENTS_PER_STEP, |rate| EVENTS_PER_STEP.min(rate.div_ceil(20)));
        let mut now = Timestamp::now();
        for mut event in Generator::new(settings) {
            event.recorded_at = now;
            sender.send(&event)?;
            handed_over += 1;
            if handed_over % step.max(1) == 0 {
                progress(handed_over);
                if let Some(rate) = max_events_per_second {
                    let due = Duration::from_secs_f64(handed_over as f64 / rate.max(1) as f64);
                    thread::sleep(due.saturating_sub(begun.elapsed()));
                }
                now = Timestamp::now();
            }
        }
        progress(handed_over);
        Ok::<_, PublishError>(sender)
    });
    let mut sender = match generating.await {
        Ok(sender) => sender?,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    };
    sender.flush().await?;
    Ok(sender.delivery().acknowledged())
}

#[cfg(test)]
mod tests;
