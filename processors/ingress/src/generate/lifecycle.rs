//! One synthetic claim: what happens to it next, and after how long.

use super::{random::Random, words};
use claims_schemas::{
    Event, EventData, Money, Timestamp, Urgency,
    events::{
        ClaimAssigned, ClaimClosed, ClaimCreated, ClaimNoteAdded, ClaimProcessingStarted, ClaimReassigned,
        ClaimReopened, ClaimResolved,
    },
};
use rust_decimal::Decimal;
use uuid::Uuid;

/// Synthetic claims say that they are.
pub(super) const SOURCE: &str = "generator";
const AGENTS: u64 = 300;
/// Tenants and their share, of a hundred.
const TENANTS: &[(&str, u64)] = &[("default", 70), ("acme", 20), ("globex", 10)];
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// Of a hundred claims, this many are never taken up.
const NEVER_ASSIGNED_PERCENT: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Create,
    Assign,
    Reassign,
    Start,
    Note,
    Resolve,
    Close,
    Reopen,
}

#[derive(Debug)]
pub(super) struct Claim {
    number: u64,
    tenant: &'static str,
    claim_type: &'static words::ClaimType,
    customer: u64,
    agent: u64,
    claimed_cents: Option<u64>,
    version: u64,
    step: Step,
    started: bool,
}

impl Claim {
    /// The `number`-th claim of about `expected_claims`.
    pub(super) fn new(number: u64, expected_claims: u64, random: &mut Random) -> Self {
        let claim_type = weighted(words::CLAIM_TYPES, |t| t.weight, random);
        let (tenant, _) = weighted(TENANTS, |t| t.1, random);
        Self {
            number,
            tenant,
            claim_type,
            customer: random.skewed(expected_claims / 2 + 10),
            agent: random.skewed(AGENTS),
            claimed_cents: claim_type.cents.map(|(low, high)| random.between_log(low, high)),
            version: 0,
            step: Step::Create,
            started: false,
        }
    }

    /// The event of the step that is due; its id and time of recording are the caller's.
    pub(super) fn take_step(&mut self, at: Timestamp, random: &mut Random) -> Option<Event> {
        let data = self.data(at, random);
        self.version += 1;
        Some(Event {
            tenant_id: self.tenant.to_owned(),
            event_id: Uuid::nil(),
            claim_id: format!("CLM-{:09}", self.number),
            version: self.version,
            occurred_at: at,
            recorded_at: at,
            correlation_id: format!("corr-{:09}", self.number),
            causation_id: None,
            user_id: (self.step != Step::Create).then(|| agent_id(self.agent)),
            source: Some(SOURCE.to_owned()),
            data,
        })
    }

    /// Decides what comes after the step just taken; the wait until then in milliseconds, `None`: nothing more.
    pub(super) fn wait_ms(&mut self, random: &mut Random) -> Option<i64> {
        let dice = random.below(100);
        let (next, low, high) = match self.step {
            Step::Create if dice < NEVER_ASSIGNED_PERCENT => return None,
            Step::Create => (Step::Assign, HOUR_MS, 4 * DAY_MS),
            Step::Assign | Step::Reassign if !self.started => match dice {
                0..12 => (Step::Reassign, 2 * HOUR_MS, 4 * DAY_MS),
                _ => (Step::Start, 2 * HOUR_MS, 6 * DAY_MS),
            },
            Step::Assign | Step::Reassign | Step::Start | Step::Note | Step::Reopen => match dice {
                0..28 => (Step::Note, 6 * HOUR_MS, 10 * DAY_MS),
                28..36 => (Step::Reassign, 6 * HOUR_MS, 10 * DAY_MS),
                _ => (Step::Resolve, 12 * HOUR_MS, 20 * DAY_MS),
            },
            Step::Resolve => match dice {
                0..4 => (Step::Reopen, 12 * HOUR_MS, 10 * DAY_MS),
                4..10 => return None,
                _ => (Step::Close, DAY_MS, 21 * DAY_MS),
            },
            Step::Close => match dice {
                0..3 => (Step::Reopen, DAY_MS, 30 * DAY_MS),
                _ => return None,
            },
        };
        self.step = next;
        Some(random.between_log(low, high) as i64)
    }

    fn data(&mut self, at: Timestamp, random: &mut Random) -> EventData {
        match self.step {
            Step::Create => self.created(random).into(),
            Step::Assign => ClaimAssigned {
                agent_id: agent_id(self.agent),
                agent_name: agent_name(self.agent),
                assignment_reason: Some(self.claim_type.name.to_owned()),
                estimated_resolution_time: random.percent(50).then_some(Timestamp(at.0 + 5 * DAY_MS as i64)),
            }
            .into(),
            Step::Reassign => {
                let previous = self.agent;
                self.agent = (previous + 1 + random.skewed(AGENTS - 1)) % AGENTS;
                ClaimReassigned {
                    agent_id: agent_id(self.agent),
                    agent_name: agent_name(self.agent),
                    previous_agent_id: Some(agent_id(previous)),
                    reason: Some((*random.pick(words::REASSIGNMENTS)).to_owned()),
                }
                .into()
            }
            Step::Start => {
                self.started = true;
                ClaimProcessingStarted { processed_by: agent_id(self.agent), note: None }.into()
            }
            Step::Note => {
                let (note, kind) = *random.pick(words::NOTES);
                ClaimNoteAdded {
                    author: Some(agent_id(self.agent)),
                    note: note.to_owned(),
                    kind: kind.map(str::to_owned),
                }
                .into()
            }
            Step::Resolve => self.resolved(random).into(),
            Step::Close => ClaimClosed { closed_by: Some(agent_id(self.agent)), reason: None }.into(),
            Step::Reopen => ClaimReopened {
                reopened_by: Some(customer_id(self.customer)),
                reason: Some((*random.pick(words::REOPENINGS)).to_owned()),
            }
            .into(),
        }
    }

    fn created(&self, random: &mut Random) -> ClaimCreated {
        let title = *random.pick(self.claim_type.titles);
        let named = random.percent(60);
        ClaimCreated {
            customer_id: customer_id(self.customer),
            customer_name: named.then(|| format!("Customer {}", self.customer)),
            customer_email: named.then(|| format!("customer-{}@example.com", self.customer)),
            claim_type: self.claim_type.name.to_owned(),
            title: Some(title.to_owned()),
            description: format!("{title}. {}", random.pick(words::DETAILS)),
            product_id: random.percent(70).then(|| format!("prod-{:04}", random.skewed(2_000))),
            order_id: random.percent(80).then(|| format!("order-{:08}", self.number * 7 % 100_000_000)),
            urgency: match random.below(100) {
                0..25 => Urgency::Low,
                25..80 => Urgency::Medium,
                80..96 => Urgency::High,
                _ => Urgency::Critical,
            },
            claimed: self.claimed_cents.map(euros),
        }
    }

    fn resolved(&self, random: &mut Random) -> ClaimResolved {
        let (resolution, kind, paid_percent) = *random.pick(words::RESOLUTIONS);
        ClaimResolved {
            resolution: resolution.to_owned(),
            resolution_type: kind.to_owned(),
            customer_satisfaction: random.percent(40).then(|| (*random.pick(words::SATISFACTION)).to_owned()),
            follow_up_required: random.percent(5),
            replacement_tracking: (kind == "replacement").then(|| format!("track-{:09}", self.number)),
            settled: self
                .claimed_cents
                .filter(|_| paid_percent > 0)
                .map(|cents| euros((cents * paid_percent).div_ceil(100))),
        }
    }
}

fn agent_id(agent: u64) -> String {
    format!("agent-{agent:03}")
}

fn agent_name(agent: u64) -> String {
    format!("Agent {agent:03}")
}

fn customer_id(customer: u64) -> String {
    format!("cust-{customer:07}")
}

fn euros(cents: u64) -> Money {
    Money { amount: Decimal::new(cents as i64, 2), currency: Some("EUR".into()) }
}

/// One of `of`, by weights that add up to 100.
fn weighted<T>(of: &'static [T], weight: impl Fn(&T) -> u64, random: &mut Random) -> &'static T {
    let mut dice = random.below(100);
    for candidate in of {
        if dice < weight(candidate) {
            return candidate;
        }
        dice -= weight(candidate);
    }
    &of[0]
}
