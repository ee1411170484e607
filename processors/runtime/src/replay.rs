//! Replay by offset reset: where a group's offsets go, and what travels with them.
//!
//! Pure. A [`ReplayPlan`] is made from what Kafka says about each partition ([`PartitionFacts`]). It is carried out by
//! committing its offsets while the group has no members; each commit carries a [`CommitNote`] in its metadata, which
//! the stage that is assigned the partition reads, honours, and keeps in its own commits until the replay is through.
//! Offsets that somebody else has reset carry no note, and are as good.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of [`CommitNote`] as text.
const NOTE_VERSION: u32 = 1;

/// What a commit of ours carries beside its offset, as JSON in the offset's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommitNote {
    /// The id of the topic that the offset belongs to: another one now means that the topic was made anew.
    pub topic_id: Option<String>,
    /// The replay that the partition is in.
    pub replay: Option<ReplayNote>,
    /// The start of a log whose older records were removed, where the group began there or somebody has decided to go on
    /// from there: processors do without what was before it. Another start now means that more was removed.
    pub begins_at: Option<i64>,
}

/// A replay of one partition that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayNote {
    /// Names the replay; the same in all of its partitions.
    pub id: String,
    /// The replay is through when this offset is reached: everything from here on is new to the group.
    pub until: i64,
    /// Records per second, at most, until then; `None`: as fast as it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_records_per_s: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct NoteText {
    claims: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replay: Option<ReplayNote>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    begins_at: Option<i64>,
}

impl CommitNote {
    /// The note as metadata of an offset.
    pub fn to_metadata(&self) -> String {
        let Self { topic_id, replay, begins_at } = self.clone();
        let text = NoteText { claims: NOTE_VERSION, topic_id, replay, begins_at };
        // Plain data always has a JSON form; without one the offset would simply carry no note.
        serde_json::to_string(&text).unwrap_or_default()
    }

    /// Reads metadata. What isn't ours, or is of another version, says nothing.
    pub fn from_metadata(metadata: &str) -> Self {
        Self::read(metadata).unwrap_or_default()
    }

    /// What the offset that a group has in a log that begins at `low` says. A group without any begins there; and who set
    /// it to just there, with another tool than ours, wants what is left.
    pub(crate) fn found(metadata: &str, committed: Option<i64>, low: i64) -> Self {
        let read = Self::read(metadata);
        let is_set_by_others = read.is_none() && committed == Some(low);
        let mut note = read.unwrap_or_default();
        if low > 0 && (committed.is_none() || is_set_by_others) {
            note.begins_at = Some(low);
        }
        note
    }

    fn read(metadata: &str) -> Option<Self> {
        match serde_json::from_str::<NoteText>(metadata) {
            Ok(NoteText { claims: NOTE_VERSION, topic_id, replay, begins_at }) => {
                Some(Self { topic_id, replay, begins_at })
            }
            _ => None,
        }
    }
}

/// Where to replay from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayTarget {
    /// The oldest record of each partition.
    Beginning,
    /// After the newest record.
    End,
    /// This offset in each partition.
    Offset(i64),
    /// The first record appended at this time or later, in milliseconds since the Unix epoch.
    Time {
        /// The time.
        at_ms: i64,
    },
    /// So many offsets forward, or back if negative, from where the group stands.
    Shift(i64),
}

/// What Kafka says about a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionFacts {
    /// Its number.
    pub partition: i32,
    /// The group's committed offset.
    pub committed: Option<i64>,
    /// What that commit carries.
    pub note: CommitNote,
    /// The first offset in the log.
    pub low: i64,
    /// The offset after the last record.
    pub high: i64,
    /// For [`ReplayTarget::Time`]: the first offset at that time or later; `None`: no record is so young.
    pub at_time: Option<i64>,
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A shift needs a committed offset to start from.
    #[error(
        "partition {0} has no committed offset to shift; say where to with --to-beginning or --to-offset"
    )]
    NothingToShift(i32),
    /// No partitions were given.
    #[error("there is no partition to replay")]
    NoPartitions,
    /// Every partition gets one record a second at least.
    #[error(
        "a limit of {limit} records a second is too low for {partitions} partitions: take {partitions} or more"
    )]
    RateTooLow {
        /// What was asked for.
        limit: u32,
        /// Partitions to read again.
        partitions: usize,
    },
}

/// Something about a move that its offsets alone don't tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remark {
    /// The wanted offset is before the log's first one, which is taken instead.
    BeforeLog {
        /// What was wanted.
        wanted: i64,
    },
    /// The wanted offset is beyond the log's end, which is taken instead.
    BeyondLog {
        /// What was wanted.
        wanted: i64,
    },
    /// No record is as young as the wanted time: the log's end is taken.
    NothingSoYoung,
    /// The group has committed nothing: without this it would begin at the log's first offset.
    NothingCommitted,
    /// The committed offset is before the log's first one: what was between them is gone.
    CommittedBeforeLog,
    /// The committed offset is beyond the log's end: the topic was made anew, or has lost its end.
    CommittedBeyondLog,
    /// What was before the log's first offset is done without from now on, as was asked for.
    LogStartAccepted {
        /// The log's first offset.
        low: i64,
    },
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingSoYoung => write!(f, "no record is as young as that"),
            Self::BeforeLog { wanted } => write!(f, "{wanted} is before the log"),
            Self::BeyondLog { wanted } => write!(f, "{wanted} is beyond the log"),
            Self::NothingCommitted => f.write_str("nothing committed so far"),
            Self::CommittedBeforeLog => f.write_str("committed offset has left the log"),
            Self::CommittedBeyondLog => f.write_str("committed offset is beyond the log"),
            Self::LogStartAccepted { low } => write!(f, "does without what was before {low}"),
        }
    }
}

/// Where one partition goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionMove {
    /// Its number.
    pub partition: i32,
    /// The committed offset now.
    pub from: Option<i64>,
    /// The offset to commit, always within the log.
    pub to: i64,
    /// Records read again, at most: offsets that a compacted log no longer has are counted.
    pub records_again: i64,
    /// Records that will not be read, at most; counted likewise.
    pub records_left_out: i64,
    /// Whatever else there is to say.
    pub remarks: Vec<Remark>,
    /// The replay that the commit tells of; `None`: nothing is read again.
    pub replay: Option<ReplayNote>,
    /// Where a log begins whose older records are done without: of a move to its start, noted before, or asked for.
    pub begins_at: Option<i64>,
}

/// What a replay does to one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayPlan {
    /// Names the replay, in notes and logs.
    pub id: String,
    /// The topic's id, where the cluster has such.
    pub topic_id: Option<String>,
    /// One move per partition, as the facts were given.
    pub moves: Vec<PartitionMove>,
}

impl ReplayPlan {
    /// Plans a replay. `max_records_per_s` holds for all partitions together, each gets its share by what it reads
    /// again, so that all are through at about the same time.
    pub fn new(
        id: String,
        topic_id: Option<String>,
        target: ReplayTarget,
        max_records_per_s: Option<u32>,
        facts: &[PartitionFacts],
    ) -> Result<Self, PlanError> {
        if facts.is_empty() {
            return Err(PlanError::NoPartitions);
        }
        let mut moves =
            facts.iter().map(|facts| plan_one(&id, target, facts)).collect::<Result<Vec<_>, _>>()?;
        if let Some(rate) = max_records_per_s {
            let spans: Vec<i64> = moves.iter().filter_map(span).collect();
            if usize::try_from(rate).unwrap_or(usize::MAX) < spans.len() {
                return Err(PlanError::RateTooLow { limit: rate, partitions: spans.len() });
            }
            let all: i64 = spans.iter().sum();
            for planned in &mut moves {
                let Some(own) = span(planned) else { continue };
                let share = i128::from(rate) * i128::from(own) / i128::from(all.max(1));
                if let Some(replay) = &mut planned.replay {
                    replay.max_records_per_s = Some(u32::try_from(share).unwrap_or(rate).max(1));
                }
            }
        }
        Ok(Self { id, topic_id, moves })
    }

    /// The same plan, which also does without what was before the start of each log, wherever the target is. Takes the
    /// facts that the plan was made from; logs that have lost nothing are left as they are.
    pub fn accepting_log_start(mut self, facts: &[PartitionFacts]) -> Self {
        for (planned, &PartitionFacts { low, .. }) in self.moves.iter_mut().zip(facts) {
            if low > 0 {
                planned.begins_at = Some(low);
                planned.remarks.push(Remark::LogStartAccepted { low });
            }
        }
        self
    }

    /// Records read again, at most.
    pub fn records_again(&self) -> i64 {
        self.moves.iter().map(|planned| planned.records_again).sum()
    }

    /// Records left out, at most.
    pub fn records_left_out(&self) -> i64 {
        self.moves.iter().map(|planned| planned.records_left_out).sum()
    }

    /// What the commit of a move carries.
    pub fn note(&self, planned: &PartitionMove) -> CommitNote {
        let (replay, begins_at) = (planned.replay.clone(), planned.begins_at);
        CommitNote { topic_id: self.topic_id.clone(), replay, begins_at }
    }
}

/// How far the replay of a partition reaches.
fn span(planned: &PartitionMove) -> Option<i64> {
    planned.replay.as_ref().map(|replay| replay.until - planned.to)
}

fn plan_one(id: &str, target: ReplayTarget, facts: &PartitionFacts) -> Result<PartitionMove, PlanError> {
    let &PartitionFacts { partition, committed, low, high, .. } = facts;
    let wanted = match target {
        ReplayTarget::Beginning => low,
        ReplayTarget::End => high,
        ReplayTarget::Offset(offset) => offset,
        ReplayTarget::Time { .. } => facts.at_time.unwrap_or(high),
        ReplayTarget::Shift(by) => committed.ok_or(PlanError::NothingToShift(partition))?.saturating_add(by),
    };
    let to = wanted.clamp(low, high.max(low));
    let mut remarks = Vec::new();
    match committed {
        None => remarks.push(Remark::NothingCommitted),
        Some(offset) if offset < low => remarks.push(Remark::CommittedBeforeLog),
        Some(offset) if offset > high => remarks.push(Remark::CommittedBeyondLog),
        Some(_) => {}
    }
    if matches!(target, ReplayTarget::Time { .. }) && facts.at_time.is_none() && to > low {
        remarks.push(Remark::NothingSoYoung);
    }
    if wanted < to {
        remarks.push(Remark::BeforeLog { wanted });
    } else if wanted > to {
        remarks.push(Remark::BeyondLog { wanted });
    }
    // Where reading would go on as things are: all before this was read.
    let position = committed.unwrap_or(low).clamp(low, high.max(low));
    // A replay that isn't through yet has gone back from further on.
    let earlier =
        facts.note.replay.as_ref().map_or(position, |replay| replay.until.clamp(low, high.max(low)));
    let until = position.max(earlier);
    Ok(PartitionMove {
        partition,
        from: committed,
        to,
        records_again: (position - to).max(0),
        records_left_out: (to - position).max(0),
        remarks,
        replay: (to < until).then(|| ReplayNote { id: id.to_owned(), until, max_records_per_s: None }),
        begins_at: (low > 0 && (to == low || facts.note.begins_at == Some(low))).then_some(low),
    })
}

#[cfg(test)]
#[path = "replay_tests.rs"]
mod tests;
