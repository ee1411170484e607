//! What all entries of the dead-letter topic amount to: one case per refused record and processor. Pure.
//!
//! A reset of offsets refuses malformed records once more, so a record may have many dead letters. Entries may come in
//! any order: those of one record may stand in several partitions of the topic. Of each case only the latest dead letter
//! is kept, without its text, so that a topic with millions of them fits.

use super::letter::{Identity, Letter, Place};
use claims_runtime::dead_letter::{
    HEADER_PROCESSOR, HEADER_REASON, OUTCOME_ALREADY_THERE, OUTCOME_APPLIED, scan::EntryKind,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Which cases are wanted.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Filter {
    /// Only what this processor refused
    #[arg(long)]
    pub processor: Option<String>,
    /// Only what was refused for this reason, such as malformed
    #[arg(long)]
    pub reason: Option<String>,
    /// Only what was refused (last) at this time or later (RFC 3339, or how long ago, such as 2h)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<i64>,
    /// Only what was refused (last) before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<i64>,
    /// Only records whose key begins so, such as default:claim_67890
    #[arg(long, value_name = "PREFIX")]
    pub key: Option<String>,
}

impl Filter {
    /// Whether it lets everything through.
    pub fn is_empty(&self) -> bool {
        let Self { processor, reason, since, until, key } = self;
        processor.is_none() && reason.is_none() && since.is_none() && until.is_none() && key.is_none()
    }

    fn lets_through(&self, letter: &Letter) -> bool {
        let at = letter.failed_at_ms();
        self.processor.as_ref().is_none_or(|wanted| wanted == letter.header(HEADER_PROCESSOR))
            && self.reason.as_ref().is_none_or(|wanted| wanted == letter.header(HEADER_REASON))
            && self.since.is_none_or(|since| at >= since)
            && self.until.is_none_or(|until| at < until)
            && self.key.as_ref().is_none_or(|key| letter.key.as_ref().is_some_and(|k| k.starts_with(key)))
    }
}

/// A time (RFC 3339), or a duration before now, as milliseconds since the Unix epoch.
fn time(text: &str) -> Result<i64, String> {
    if let Ok(at) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok(at.timestamp_millis());
    }
    let ago = humantime::parse_duration(text).map_err(|_| {
        format!("{text:?} is neither a time such as 2025-07-08T14:30:00Z nor a duration such as 2h")
    })?;
    Ok(chrono::Utc::now()
        .timestamp_millis()
        .saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)))
}

/// How a case stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CaseState {
    /// Nobody has settled it.
    Open,
    /// A retry was applied.
    Applied,
    /// A retry found it in the view.
    AlreadyThere,
    /// Somebody is done with it.
    Discarded,
}

impl CaseState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Applied => "applied",
            Self::AlreadyThere => "already there",
            Self::Discarded => "discarded",
        }
    }
}

/// When something was written, and where: later things are greater.
type At = (i64, Place);

/// One refused record, as far as a processor refused it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Case {
    latest: Option<At>,
    reason: u32,
    /// How often it was refused.
    pub refused: u32,
    /// How often it was given again.
    pub retries: u32,
    settled: Option<(At, CaseStateTag, u32)>,
    is_wanted: bool,
}

/// A state that settles a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum CaseStateTag {
    Applied,
    AlreadyThere,
    Discarded,
}

impl Case {
    /// Where its latest dead letter stands.
    pub fn place(&self) -> Option<Place> {
        self.latest.map(|(_, place)| place)
    }

    /// How it stands: a refusal after it was settled opens it again, but for one that was discarded and is refused for
    /// the same reason once more.
    pub fn state(&self) -> CaseState {
        let Some((at, tag, reason)) = self.settled else { return CaseState::Open };
        let is_refused_since = self.latest.is_some_and(|(written, place)| {
            // Two partitions have no order within one millisecond: then it is settled.
            written > at.0
                || (written == at.0 && place.partition == at.1.partition && place.offset > at.1.offset)
        });
        match tag {
            CaseStateTag::Discarded if !is_refused_since || reason == self.reason => CaseState::Discarded,
            _ if is_refused_since => CaseState::Open,
            CaseStateTag::Applied => CaseState::Applied,
            CaseStateTag::AlreadyThere => CaseState::AlreadyThere,
            CaseStateTag::Discarded => CaseState::Discarded,
        }
    }

    /// When it was settled, milliseconds since the Unix epoch.
    pub fn settled_at_ms(&self) -> Option<i64> {
        self.settled.map(|((at, _), ..)| at)
    }
}

/// All cases.
#[derive(Debug, Default)]
pub struct Book {
    cases: BTreeMap<Identity, Case>,
    reasons: Vec<String>,
    /// Cases named by the place of one of their dead letters.
    named: BTreeSet<Place>,
    by_name: BTreeMap<Place, Option<Identity>>,
}

impl Book {
    /// A book that also finds the cases of these places.
    pub fn looking_for(places: &[Place]) -> Self {
        Self { named: places.iter().copied().collect(), ..Self::default() }
    }

    /// Takes one entry of the topic.
    pub fn enter(&mut self, letter: &Letter, filter: &Filter) {
        let Some(entry) = letter.entry() else { return };
        let (identity, place, at) =
            (letter.identity(), letter.place(), (letter.written_at_ms, letter.place()));
        let reason = self.reason(letter.header(HEADER_REASON));
        if self.named.contains(&place) {
            let is_refusal = entry.kind == EntryKind::Refused;
            self.by_name.insert(place, is_refusal.then(|| identity.clone()));
        }
        let case = self.cases.entry(identity).or_default();
        let settled = match entry.kind {
            EntryKind::Refused => {
                case.refused += 1;
                if case.latest.is_none_or(|latest| latest < at) {
                    case.latest = Some(at);
                    case.reason = reason;
                    case.is_wanted = filter.lets_through(letter);
                }
                return;
            }
            EntryKind::RetryStarted => return,
            EntryKind::Retried { outcome } => {
                case.retries += 1;
                match outcome.as_str() {
                    OUTCOME_APPLIED => CaseStateTag::Applied,
                    OUTCOME_ALREADY_THERE => CaseStateTag::AlreadyThere,
                    _ => return,
                }
            }
            EntryKind::Discarded => CaseStateTag::Discarded,
        };
        if case.settled.is_none_or(|(latest, ..)| latest < at) {
            case.settled = Some((at, settled, reason));
        }
    }

    fn reason(&mut self, reason: &str) -> u32 {
        let known = self.reasons.iter().position(|known| known == reason);
        let at = known.unwrap_or_else(|| {
            self.reasons.push(reason.to_owned());
            self.reasons.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    /// The reason of a case's latest refusal.
    pub fn reason_of(&self, case: &Case) -> &str {
        self.reasons.get(case.reason as usize).map_or("", String::as_str)
    }

    /// The cases that the filter lets through, oldest refusal first; without `all` only open ones.
    pub fn wanted(&self, all: bool) -> Vec<(&Identity, &Case)> {
        let mut found: Vec<_> = self
            .cases
            .iter()
            // What became of a record whose dead letters are gone by age is no case any more.
            .filter(|(_, case)| case.latest.is_some() && case.is_wanted)
            .filter(|(_, case)| all || case.state() == CaseState::Open)
            .collect();
        found.sort_by_key(|(_, case)| case.latest);
        found
    }

    /// The case whose dead letter stands at `place`; an error in words if there is none.
    pub fn at(&self, place: Place) -> Result<(&Identity, &Case), String> {
        match self.by_name.get(&place) {
            Some(Some(identity)) => {
                self.cases.get_key_value(identity).ok_or_else(|| format!("{place}: no dead letter"))
            }
            Some(None) => Err(format!("{place} is no dead letter: it says what became of one")),
            None => Err(format!("there is no dead letter at {place}")),
        }
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
