//! `cargo xtask upgrade --from REV`: an older build of `claims`, made from a commit, side by side with this one.

use crate::demo;
use anyhow::{Context, Result, bail};
use std::{path::Path, process::Command};
use xtask::services::{self, ModeArgs};

/// Sources and target folder of the older build. The target folder is kept: a second run builds little.
const SOURCES: &str = "target/upgrade/sources";
const TARGET: &str = "target/upgrade/target";

/// Builds `claims` as of `revision`, and runs the check of `dev/verifier` with it. The services stay up.
pub fn run(mode: ModeArgs, revision: &str, arguments: &[String]) -> Result<bool> {
    services::up(mode)?;
    build_older(revision)?;
    if !demo::build()? {
        return Ok(false);
    }
    let program = std::env::current_exe()?.with_file_name("claims-upgrade");
    let status = Command::new(&program)
        .args(["--older", &format!("{TARGET}/debug/claims")])
        .args(arguments)
        .status()
        .with_context(|| format!("run {}", program.display()))?;
    Ok(status.success())
}

fn build_older(revision: &str) -> Result<()> {
    if Path::new(SOURCES).exists() {
        command("git", &["-C", SOURCES, "checkout", "--quiet", "--detach", revision])?;
    } else {
        command("git", &["worktree", "add", "--quiet", "--force", "--detach", SOURCES, revision])?;
    }
    let manifest = format!("{SOURCES}/Cargo.toml");
    command(
        &std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()),
        &[
            "build",
            "--manifest-path",
            &manifest,
            "--package",
            "claims-cli",
            "--bin",
            "claims",
            "--target-dir",
            TARGET,
        ],
    )
}

fn command(program: &str, arguments: &[&str]) -> Result<()> {
    println!("== {program} {}", arguments.join(" "));
    let status = Command::new(program).args(arguments).status().with_context(|| format!("run {program}"))?;
    if !status.success() {
        bail!("{program} {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}
