//! `cargo xtask bench`: services up, everything built as for production, and the benchmark of `benches` run on it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use xtask::{
    alone::{self, Alone},
    services::{self, ModeArgs, RunLength, layout::Layout},
};

use crate::demo::build;

/// Asks whether everything still works, and for no figures.
const TINY: &str = "--tiny";
/// Ask for words, or for arithmetic, alone.
const WORDS: &[&str] = &["--help", "-h", "--list", "scaling"];

/// Runs the benchmark with these arguments; whether it went through. The services stay up.
pub fn run(mode: ModeArgs, arguments: &[String]) -> Result<bool> {
    let asks = |wanted: &[&str]| arguments.iter().any(|argument| wanted.contains(&argument.as_str()));
    if !asks(WORDS) {
        // Before services are started anew, or programs built, that another one uses. The benchmark claims it for itself.
        drop(Alone::claim(&Layout::discover()?.root.join(alone::FOLDER))?);
        services::up(mode, if asks(&[TINY]) { RunLength::Short } else { RunLength::Long })?;
    }
    // Of programs for production only the two that are needed: each is optimised as a whole, for minutes.
    let targets: &[&str] =
        if asks(&[TINY]) { &["--bins"] } else { &["--release", "--bin", "claims", "--bin", "claims-bench"] };
    let programs = std::env::current_exe()?;
    let programs = programs.parent().context("this program lies in no folder")?;
    let programs = if asks(&[TINY]) { programs.to_owned() } else { programs.with_file_name("release") };
    Ok(build(targets)? && run_built(&programs, arguments)?)
}

/// Runs all processors for a long time; whether nothing grew. The services stay up.
pub fn soak(mode: ModeArgs, arguments: &[String]) -> Result<bool> {
    let arguments: Vec<String> =
        std::iter::once("soak".to_owned()).chain(arguments.iter().cloned()).collect();
    run(mode, &arguments)
}

/// Every stage at a tiny size, on programs that are built already.
pub fn run_tiny() -> Result<bool> {
    let programs = std::env::current_exe()?;
    run_built(programs.parent().context("this program lies in no folder")?, &[TINY.to_owned()])
}

fn run_built(programs: &Path, arguments: &[String]) -> Result<bool> {
    let program = programs.join("claims-bench");
    let status = Command::new(&program)
        .args(arguments)
        .status()
        .with_context(|| format!("run {}", program.display()))?;
    Ok(status.success())
}
