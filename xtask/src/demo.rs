//! `cargo xtask demo`: services up, the pipeline built, and the demo of `dev/verifier` run on it.

use std::process::Command;

use anyhow::{Context, Result};

use crate::services::{self, ModeArgs};

/// Runs the demo with these arguments; whether every view agreed. The services stay up, to be looked at.
pub fn run(mode: ModeArgs, arguments: &[String]) -> Result<bool> {
    let only_help = arguments.iter().any(|argument| argument == "--help" || argument == "-h");
    if !only_help {
        services::up(mode)?;
    }
    let built = cargo(&["build", "--package", "claims-cli", "--package", "claims-verifier"], &[])?;
    Ok(built
        && cargo(
            &["run", "--quiet", "--package", "claims-verifier", "--bin", "claims-demo", "--"],
            arguments,
        )?)
}

fn cargo(arguments: &[&str], more: &[String]) -> Result<bool> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .args(more)
        .status()
        .context("cannot run cargo")?;
    Ok(status.success())
}
