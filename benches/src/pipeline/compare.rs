//! Two runs side by side: whether their ratios agree.

use super::{peer::PEERS, report::Line};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::{fmt::Write as _, fs, path::Path};

/// A ratio of one run may be so much more or less than that of another, as a share of the other's.
const TOLERANCE: f64 = 0.15;

/// What is needed of an earlier run's line.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Earlier {
    stage: String,
    against: String,
    records: u64,
    ratio: f64,
    ours_per_s: f64,
    floor_per_s: f64,
}

impl Earlier {
    /// Whether it is of a stage, held against its floor (of that name itself) or against a peer.
    pub fn is_of(&self, stage: &str, name: &str) -> bool {
        let is_of_peer = PEERS.iter().any(|peer| peer.name == self.against);
        self.stage == stage && if name == stage { !is_of_peer } else { self.against == name }
    }

    /// Records per second, ours and the other's.
    pub fn pace(&self) -> Option<(f64, f64)> {
        let is_known = self.ours_per_s > 0.0 && self.floor_per_s > 0.0;
        is_known.then_some((self.ours_per_s, self.floor_per_s))
    }
}

/// The lines of an earlier run's results.
pub fn read(path: &Path) -> Result<Vec<Earlier>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} holds no results", path.display()))
}

/// The ratios of both runs and their differences, as text; an error where any differs by too much.
pub fn compare(earlier: &[Earlier], now: &[Line]) -> Result<String> {
    let mut text =
        format!("{:<22} {:<26} {:>8} {:>8} {:>11}\n", "stage", "against", "earlier", "now", "difference");
    let (mut compared, mut apart) = (0, Vec::new());
    for line in now {
        let same = |other: &&Earlier| other.stage == line.stage && other.against == line.against;
        let (name, ratio) = (format!("{:<22} {:<26}", line.stage, line.against), line.ratio);
        let Some(before) = earlier.iter().find(same) else {
            writeln!(text, "{name} {:>8} {ratio:>8.2} {:>11}", "-", "new")?;
            continue;
        };
        compared += 1;
        // A short run's ratio is another one than a long run's.
        if before.records != line.records {
            let (then, now) = (before.records, line.records);
            writeln!(
                text,
                "{name} {:>8.2} {ratio:>8.2}  NOT COMPARABLE: {then} records, now {now}",
                before.ratio
            )?;
            apart.push(format!("{} against {}", line.stage, line.against));
            continue;
        }
        let difference = ratio / before.ratio - 1.0;
        // Of two ratios of 0 the difference is no number: nothing worked, so nothing agrees.
        let agrees = difference.abs() <= TOLERANCE;
        let is_apart = !agrees;
        let verdict = if is_apart { "  TOO FAR APART" } else { "" };
        writeln!(text, "{name} {:>8.2} {ratio:>8.2} {:>+10.1}%{verdict}", before.ratio, difference * 100.0)?;
        if is_apart {
            apart.push(format!("{} against {}", line.stage, line.against));
        }
    }
    ensure!(compared > 0, "the earlier results have none of these stages");
    if !apart.is_empty() {
        bail!(
            "{text}{} of {compared} ratios differ by more than {:.0} %, or can't be compared: {}",
            apart.len(),
            TOLERANCE * 100.0,
            apart.join(", ")
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::line;

    fn earlier(ratio: f64) -> Earlier {
        Earlier {
            stage: "analytics".into(),
            against: "clickhouse".into(),
            records: 1_000,
            ratio,
            ours_per_s: 120.0,
            floor_per_s: 120.0,
        }
    }

    #[test]
    fn ratios_agree_within_the_tolerance() {
        // Now 0.8.
        let text = compare(&[earlier(0.7)], &[line(2.0)]).unwrap();
        assert!(text.contains("0.70     0.80      +14.3%\n"), "{text}");
        let error = compare(&[earlier(0.95)], &[line(2.0)]).unwrap_err().to_string();
        assert!(error.contains("-15.8%  TOO FAR APART"), "{error}");
        assert!(error.ends_with(
            "1 of 1 ratios differ by more than 15 %, or can't be compared: analytics against clickhouse"
        ));
        assert!(compare(&[earlier(0.69)], &[line(2.0)]).is_err());
    }

    #[test]
    fn other_sizes_are_not_compared() {
        let error =
            compare(&[Earlier { records: 999, ..earlier(0.8) }], &[line(2.0)]).unwrap_err().to_string();
        assert!(error.contains("NOT COMPARABLE: 999 records, now 1000"), "{error}");
    }

    #[test]
    fn ratios_of_nothing_do_not_agree() {
        let mut now = line(2.0);
        now.ratio = 0.0;
        let error = compare(&[earlier(0.0)], &[now]).unwrap_err().to_string();
        assert!(error.contains("TOO FAR APART"), "{error}");
        assert!(compare(&[earlier(0.0)], &[line(2.0)]).is_err());
    }

    #[test]
    fn nothing_in_common_is_no_agreement() {
        let other = Earlier { against: "bytewax".into(), ..earlier(0.8) };
        assert!(compare(&[other], &[line(2.0)]).is_err());
        assert!(compare(&[], &[]).is_err());
    }

    #[test]
    fn what_a_run_writes_is_what_a_later_one_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.json");
        crate::report::write_json(&path, &[line(2.0)]).unwrap();
        assert_eq!(read(&path).unwrap(), [earlier(0.8)]);
        fs::write(&path, "{}").unwrap();
        assert!(read(&path).is_err());
    }
}
