//! The ClickHouse engine behind our own HTTP front (`dev/clickhouse`).

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Context as Native;

/// Builds the front when needed, and gives the command that starts it.
pub fn command(native: &Native) -> Result<Command> {
    let built = target_folder(native).join("debug/claims-dev-clickhouse");
    if !is_current(native, &built) {
        build(native)?;
    }
    let data = native.layout.data("clickhouse");
    fs::create_dir_all(&data)?;
    // A copy, so that building again does not change the program of the running service.
    let binary = native.layout.run_folder().join("claims-dev-clickhouse");
    fs::create_dir_all(native.layout.run_folder())?;
    let _ = fs::remove_file(&binary);
    fs::copy(&built, &binary).context("cannot copy claims-dev-clickhouse out of the target folder")?;
    let mut command = Command::new(binary);
    command
        .arg("--library")
        .arg(native.layout.unpacked("clickhouse").join("package/libchdb.so"))
        .arg("--data")
        .arg(data)
        .arg("--port")
        .arg(native.ports.clickhouse.to_string());
    Ok(command)
}

fn target_folder(native: &Native) -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| native.layout.root.join("target"), |folder| native.layout.root.join(folder))
}

/// Whether the binary is newer than its own sources; that a dependency has changed can wait for the next build. Asking
/// cargo would be simpler, but cargo makes us wait for every other build in this checkout.
fn is_current(native: &Native, binary: &Path) -> bool {
    let crate_folder = native.layout.root.join("dev/clickhouse");
    let mut sources = vec![crate_folder.join("Cargo.toml")];
    let Ok(entries) = fs::read_dir(crate_folder.join("src")) else {
        return false;
    };
    sources.extend(entries.flatten().map(|entry| entry.path()));
    let changed = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let Some(built) = changed(binary) else {
        return false;
    };
    sources.iter().all(|source| changed(source).is_some_and(|time| time < built))
}

fn build(native: &Native) -> Result<()> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(&native.layout.root)
        .args(["build", "--quiet", "-p", "claims-dev-clickhouse"])
        .stdin(Stdio::null())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo could not build claims-dev-clickhouse:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
