//! The product broken on purpose, to show that the suite can fail: each way of breaking it, and the scenario that must
//! notice. The breaking is in the product behind a cargo feature that is off by default (see ADR 10).

use super::{
    crew::Role,
    report::Report,
    round::{self, Suite},
    scenario::Scenario,
};
use anyhow::{Context, Result};

/// The variable that tells a build with the feature `sabotage` how to break itself.
const VARIABLE: &str = "CLAIMSTREAM_SABOTAGE";
/// A fault falls where chance wants it: so many rounds may pass before the one that must fail.
const MOST_ROUNDS: u64 = 6;

/// One way of breaking the product.
struct Sabotage {
    name: &'static str,
    what: &'static str,
    scenario: &'static str,
    /// The role that the scenario must hit.
    victim: Option<Role>,
    /// Whose check must find it: a part of the problem's text.
    found_by: &'static str,
}

const SABOTAGES: &[Sabotage] = &[
    Sabotage {
        name: "commit-before-flush",
        what: "offsets are committed when a batch is closed, not when it is written",
        scenario: "kill-in-drain",
        victim: Some(Role::Analytics),
        found_by: "ClickHouse|CQL|audit|topic claims.state",
    },
    Sabotage {
        name: "skip-drain",
        what: "a revoked partition is committed where reading stands, without its batches",
        scenario: "members",
        victim: None,
        found_by: "ClickHouse|CQL|audit|topic claims.state",
    },
    Sabotage {
        name: "drop-place-deletes",
        what: "a claim is not removed from the places it has left",
        scenario: "kill-current-state",
        victim: None,
        found_by: "CQL claims_by",
    },
    Sabotage {
        name: "stamp-by-clock",
        what: "rows are stamped with the clock instead of the claim's revision",
        scenario: "clock-jump",
        victim: Some(Role::CurrentState),
        found_by: "CQL",
    },
];

impl Sabotage {
    fn is_found_in(&self, problem: &str) -> bool {
        self.found_by.split('|').any(|check| problem.starts_with(check))
    }
}

/// Breaks the product in every way; whether the suite noticed each time.
pub async fn run(suite: &mut Suite, seed: u64, report: &mut Report) -> Result<bool> {
    let mut all_found = true;
    // Of all sabotages: a number and a seed are a round's own, and so are the topics and tables named after them. What
    // an earlier one broke stays where it is.
    let mut number = 0;
    for sabotage in SABOTAGES {
        println!("sabotage {}: {}", sabotage.name, sabotage.what);
        suite.settings = vec![(VARIABLE.to_owned(), sabotage.name.to_owned())];
        let scenario = Scenario::named(sabotage.scenario).context("a scenario of that name")?;
        let mut found = false;
        for _ in 0..MOST_ROUNDS {
            let outcome = round::run(suite, scenario, sabotage.victim, number, seed + number).await;
            number += 1;
            found = outcome.problems.iter().any(|problem| sabotage.is_found_in(problem));
            report.add(outcome)?;
            if found {
                break;
            }
        }
        println!("sabotage {}: {}", sabotage.name, if found { "found" } else { "NOT FOUND" });
        all_found &= found;
    }
    Ok(all_found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sabotage_has_its_scenario() {
        for sabotage in SABOTAGES {
            assert!(Scenario::named(sabotage.scenario).is_some(), "{}", sabotage.name);
        }
    }
}
