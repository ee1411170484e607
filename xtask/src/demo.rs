//! `cargo xtask demo`: services up, the pipeline built, and the demo of `dev/verifier` run on it.

use std::process::Command;

use anyhow::{Context, Result};

use xtask::services::{self, ModeArgs, RunLength};

/// Runs the demo with these arguments; whether every view agreed. The services stay up, to be looked at.
pub fn run(mode: ModeArgs, arguments: &[String]) -> Result<bool> {
    let only_help = arguments.iter().any(|argument| argument == "--help" || argument == "-h");
    if !only_help {
        services::up(mode, RunLength::Short)?;
    }
    // The whole workspace, as `cargo xtask test` builds it: a selection of packages would be another selection of
    // their dependencies' features, and build those anew.
    Ok(build(&["--bins"])? && run_demo(arguments)?)
}

/// Builds these targets of the whole workspace.
pub fn build(targets: &[&str]) -> Result<bool> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--workspace"])
        .args(targets)
        .status()
        .context("cannot run cargo")?;
    Ok(status.success())
}

fn run_demo(arguments: &[String]) -> Result<bool> {
    let program = std::env::current_exe()?.with_file_name("claims-demo");
    let status = Command::new(&program)
        .args(arguments)
        .status()
        .with_context(|| format!("run {}", program.display()))?;
    Ok(status.success())
}
