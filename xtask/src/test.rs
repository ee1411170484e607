//! `cargo xtask test`: everything that must hold before a change is handed in.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use xtask::services::{self, ModeArgs, RunLength};

use crate::{bench, faults};

/// One step; all run through cargo, with the same profile, so that nothing is built twice.
struct Phase {
    name: &'static str,
    arguments: &'static [&'static str],
}

const PHASES: &[Phase] = &[
    Phase { name: "format", arguments: &["fmt", "--all", "--check"] },
    Phase { name: "clippy", arguments: &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"] },
    // The end-to-end tests run the command `claims`, which is not theirs to build. All targets, so that the tests find
    // their dependencies built with the same features.
    Phase { name: "build", arguments: &["build", "--workspace", "--all-targets"] },
    Phase { name: "tests", arguments: &["test", "--workspace", "--no-fail-fast"] },
];

/// Runs all phases up to the first that fails, the benchmark at a tiny size, and a few rounds of the fault suite. Services that were not running before are stopped at the end.
pub fn run(mode: ModeArgs) -> Result<bool> {
    let begin = Instant::now();
    let started = services::up(mode, RunLength::Short)?;
    let mut times = vec![("services", begin.elapsed())];
    let outcome = run_phases(&mut times).and_then(|green| Ok(green && run_benchmark(&mut times)?));
    if !started.is_empty() {
        services::down(mode, &started)?;
    }
    let mut green = outcome?;
    // On services of its own, and last: it takes the whole machine.
    if green && !mode.use_docker()? {
        println!("== faults: the short form");
        let begin = Instant::now();
        green = faults::run_short()?;
        times.push(("faults", begin.elapsed()));
    }
    for (name, time) in &times {
        println!("{name:<9} {:>7.1} s", time.as_secs_f64());
    }
    println!("{:<9} {:>7.1} s", "total", begin.elapsed().as_secs_f64());
    if !has_shared_data() {
        println!("SKIPPED: the tests on real files; set CLAIMS_SHARED_DATA to the folder that holds them");
    }
    Ok(green)
}

/// Every stage of the benchmark, for what comes out of it alone.
fn run_benchmark(times: &mut Vec<(&'static str, Duration)>) -> Result<bool> {
    println!("== bench: every stage at a tiny size");
    let begin = Instant::now();
    let green = bench::run_tiny()?;
    times.push(("bench", begin.elapsed()));
    Ok(green)
}

/// Whether the real files that some tests read are where those tests look for them.
fn has_shared_data() -> bool {
    let dir = std::env::var_os("CLAIMS_SHARED_DATA").map_or_else(|| "../shared/data".into(), PathBuf::from);
    dir.join("incident_event_log.csv.gz").is_file()
}

fn run_phases(times: &mut Vec<(&'static str, Duration)>) -> Result<bool> {
    for phase in PHASES {
        println!("== {}: cargo {}", phase.name, phase.arguments.join(" "));
        let begin = Instant::now();
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(phase.arguments)
            .status()
            .context("cannot run cargo")?;
        times.push((phase.name, begin.elapsed()));
        if !status.success() {
            eprintln!("error: {} failed", phase.name);
            return Ok(false);
        }
    }
    Ok(true)
}
