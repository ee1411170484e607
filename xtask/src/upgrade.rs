//! `cargo xtask upgrade --from REV`: an older build of `claims`, made from a commit, side by side with a newer one, which
//! is the last commit with a schema that has one field more.

use crate::demo;
use anyhow::{Context, Result, bail, ensure};
use std::{fs, path::Path, process::Command};
use xtask::services::{self, ModeArgs};

/// Sources and target folder of both builds. They are kept: a second run builds little.
const SOURCES: &str = "target/upgrade/sources";
const TARGET: &str = "target/upgrade/target";
/// What a newer build is made of: the schema of events, in which …
const SCHEMA: &str = "schemas/avro/claim_event.avsc";
/// … this field follows after that.
const BEFORE: &str = r#"{"name": "customer_id", "type": "string"},"#;
const GROWN: &str = r#"{"name": "channel", "type": ["null", "string"], "default": null}"#;

/// Builds `claims` as of `revision` and a newer one, and runs the check of `dev/verifier` with both. The services stay
/// up.
pub fn run(mode: ModeArgs, revision: &str, arguments: &[String]) -> Result<bool> {
    services::up(mode)?;
    let older = build_claims("older", revision, |_| Ok(()))?;
    let newer = build_claims("newer", "HEAD", grow)?;
    if !demo::build(&["--bins"])? {
        return Ok(false);
    }
    let program = std::env::current_exe()?.with_file_name("claims-upgrade");
    let status = Command::new(&program)
        .args(["--older", &older, "--newer", &newer])
        .args(arguments)
        .status()
        .with_context(|| format!("run {}", program.display()))?;
    Ok(status.success())
}

/// Builds `claims` from a commit, changed first; where it lies.
fn build_claims(name: &str, revision: &str, change: fn(&Path) -> Result<()>) -> Result<String> {
    // Without this file git would take the folder for a part of the checkout around it.
    if Path::new(SOURCES).join(".git").is_file() {
        command("git", &["-C", SOURCES, "checkout", "--quiet", "--force", "--detach", &commit(revision)?])?;
    } else {
        if Path::new(SOURCES).exists() {
            fs::remove_dir_all(SOURCES).with_context(|| format!("remove {SOURCES}"))?;
        }
        command("git", &["worktree", "add", "--quiet", "--force", "--detach", SOURCES, revision])?;
    }
    change(Path::new(SOURCES))?;
    let manifest = format!("{SOURCES}/Cargo.toml");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let package = ["--package", "claims-cli", "--bin", "claims"];
    let arguments = [&["build", "--manifest-path", &manifest, "--target-dir", TARGET], &package[..]].concat();
    command(&cargo, &arguments)?;
    let copy = format!("target/upgrade/claims-{name}");
    fs::copy(format!("{TARGET}/debug/claims"), &copy).with_context(|| format!("copy to {copy}"))?;
    Ok(copy)
}

/// The commit that a name stands for here: in the other work tree `HEAD` is its own.
fn commit(revision: &str) -> Result<String> {
    let output =
        Command::new("git").args(["rev-parse", "--verify", &format!("{revision}^{{commit}}")]).output()?;
    ensure!(
        output.status.success(),
        "no commit {revision}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Adds the field that makes a build a newer one. Fields are only ever appended.
fn grow(sources: &Path) -> Result<()> {
    let path = sources.join(SCHEMA);
    let schema = fs::read_to_string(&path)?;
    let (before, after) = schema.split_once(BEFORE).with_context(|| format!("{SCHEMA} has no {BEFORE}"))?;
    // The end of the record that begins with that field: the first line that ends a list of fields.
    let end = after.find("\n      ]}").with_context(|| format!("{SCHEMA}: where does the record end?"))?;
    let (fields, rest) = after.split_at(end);
    fs::write(&path, format!("{before}{BEFORE}{fields},\n        {GROWN}{rest}"))
        .with_context(|| format!("write {}", path.display()))
}

fn command(program: &str, arguments: &[&str]) -> Result<()> {
    println!("== {program} {}", arguments.join(" "));
    let status = Command::new(program).args(arguments).status().with_context(|| format!("run {program}"))?;
    if !status.success() {
        bail!("{program} {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}
