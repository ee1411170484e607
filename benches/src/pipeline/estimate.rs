//! How long a run will take: before it is begun.

use super::compare::Earlier;
use std::time::Duration;

/// Around every run: removing what the last one left, topics and schemas, starting, verifying.
const AROUND_RUN: Duration = Duration::from_secs(6);
/// Making an input, and preparing and checking what is compared with it, in seconds per million events.
const INPUT_S_PER_MILLION: f64 = 12.0;
/// A floor's or a peer's preparation, and the comparison with the model, in seconds per million events.
const PREPARE_S_PER_MILLION: f64 = 4.0;
/// Records per second of ours and of what it is held against on two cores, where no earlier run tells.
const USUAL_PER_S: &[(&str, f64, f64)] = &[
    ("ingest-ndjson", 430_000.0, 610_000.0),
    ("ingest-csv", 350_000.0, 500_000.0),
    ("ingest-http", 290_000.0, 330_000.0),
    ("fold", 300_000.0, 1_200_000.0),
    ("current-state-live", 2_500.0, 2_900.0),
    ("current-state-replay", 7_000.0, 4_400.0),
    ("analytics", 165_000.0, 225_000.0),
    ("audit", 340_000.0, 800_000.0),
    ("all-processors", 7_200.0, 8_000.0),
    ("replay-growth", 220_000.0, 217_000.0),
    ("partitions", 150_000.0, 200_000.0),
    ("producer-perf-test", 430_000.0, 250_000.0),
    ("consumer-perf-test", 300_000.0, 500_000.0),
    ("kafka-streams", 300_000.0, 130_000.0),
    ("kafka-streams-eos", 300_000.0, 50_000.0),
    ("naive-clickhouse", 165_000.0, 165_000.0),
    ("clickhouse-kafka-engine", 165_000.0, 14_000.0),
    ("kafka-connect-clickhouse", 165_000.0, 20_000.0),
    ("bytewax", 165_000.0, 30_000.0),
    ("quixstreams", 165_000.0, 30_000.0),
    ("naive-cql", 8_500.0, 7_000.0),
    ("kafka-connect-cql", 7_300.0, 4_000.0),
];

/// Rounds that are to be run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The stage …
    pub stage: &'static str,
    /// … or the peer that it is held against.
    pub name: &'static str,
    /// Rounds, those that warm up with them.
    pub rounds: u32,
    /// Records of a run of ours.
    pub ours: u64,
    /// Records of the other's.
    pub theirs: u64,
    /// Events of inputs that must be made first.
    pub made: u64,
}

/// About how long it takes.
pub fn of(plan: Plan, earlier: &[Earlier]) -> Duration {
    let known = earlier.iter().find(|line| line.is_of(plan.stage, plan.name)).and_then(Earlier::pace);
    let usual = USUAL_PER_S.iter().find(|(name, ..)| *name == plan.name);
    let (ours_per_s, theirs_per_s) =
        known.or(usual.map(|&(_, ours, theirs)| (ours, theirs))).unwrap_or((10_000.0, 10_000.0));
    let (ours, theirs) = (plan.ours as f64, plan.theirs as f64);
    let prepare_s = (ours + theirs) * PREPARE_S_PER_MILLION / 1e6;
    let round =
        AROUND_RUN * 2 + Duration::from_secs_f64(ours / ours_per_s + theirs / theirs_per_s + prepare_s);
    round * plan.rounds + Duration::from_secs_f64(plan.made as f64 * INPUT_S_PER_MILLION / 1e6)
}

/// In minutes, for people.
pub fn minutes(duration: Duration) -> String {
    match (duration.as_secs_f64() / 60.0).round() as u64 {
        0 => "less than a minute".to_owned(),
        1 => "a minute".to_owned(),
        minutes => format!("{minutes} minutes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{peer::PEERS, stage::STAGES};

    #[test]
    fn every_stage_and_peer_has_a_usual_pace() {
        let names = STAGES.iter().map(|stage| stage.name).chain(PEERS.iter().map(|peer| peer.name));
        for name in names {
            assert_eq!(USUAL_PER_S.iter().filter(|(known, ..)| *known == name).count(), 1, "{name}");
        }
        assert_eq!(USUAL_PER_S.len(), STAGES.len() + PEERS.len());
    }

    #[test]
    fn an_earlier_run_knows_better() {
        let plan = Plan {
            stage: "analytics",
            name: "analytics",
            rounds: 2,
            ours: 1_000_000,
            theirs: 1_000_000,
            made: 500_000,
        };
        let usual = of(plan, &[]).as_secs_f64();
        assert!((usual - 2.0 * (12.0 + 1e6 / 1.65e5 + 1e6 / 2.25e5 + 8.0) - 6.0).abs() < 0.01, "{usual}");
        // 120 records per second each.
        let earlier = [crate::report::tests::line(1.0)];
        let text = serde_json::to_string(&earlier).unwrap();
        let slow = of(plan, &serde_json::from_str::<Vec<Earlier>>(&text).unwrap()).as_secs_f64();
        assert!((slow - 2.0 * (12.0 + 2e6 / 120.0 + 8.0) - 6.0).abs() < 0.01, "{slow}");
        assert_eq!(minutes(Duration::from_secs(20)), "less than a minute");
        assert_eq!(minutes(Duration::from_secs(3_540)), "59 minutes");
    }
}
