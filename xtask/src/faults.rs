//! `cargo xtask faults`: the pipeline built, and the fault suite of `dev/verifier` run on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::demo::build;

/// Asks for the product to be broken on purpose.
const SABOTAGE: &str = "--sabotage";

/// Runs the suite with these arguments; whether every round passed.
pub fn run(arguments: &[String]) -> Result<bool> {
    let programs = std::env::current_exe()?;
    let programs = programs.parent().context("this program lies in no folder")?;
    let mut arguments = arguments.to_vec();
    if arguments.iter().any(|argument| argument == SABOTAGE) {
        let broken = build_broken(programs)?;
        arguments.extend(["--sabotaged-claims".to_owned(), broken.display().to_string()]);
    }
    // Last, so that the programs that stay behind are whole ones. The library is the clock of `clock-jump`.
    Ok(build(&["--bins", "--lib"])? && run_built(programs, &arguments)?)
}

/// The short form, on programs that are built already.
pub fn run_short() -> Result<bool> {
    let programs = std::env::current_exe()?;
    run_built(programs.parent().context("this program lies in no folder")?, &["--short".to_owned()])
}

fn run_built(programs: &Path, arguments: &[String]) -> Result<bool> {
    let program = programs.join("claims-faults");
    let status = Command::new(&program)
        .args(arguments)
        .status()
        .with_context(|| format!("run {}", program.display()))?;
    Ok(status.success())
}

/// Builds `claims` with the feature that lets it break itself, and keeps a copy apart: the next build puts a whole one
/// in its place.
fn build_broken(programs: &Path) -> Result<PathBuf> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--workspace", "--bin", "claims", "--features", "claims-cli/sabotage"])
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("`claims` could not be built with the feature `sabotage`");
    }
    let folder = programs.join("sabotage");
    fs::create_dir_all(&folder)?;
    let copy = folder.join("claims");
    fs::copy(programs.join("claims"), &copy).context("cannot copy the broken `claims`")?;
    Ok(copy)
}
