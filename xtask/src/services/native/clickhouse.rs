//! The ClickHouse engine behind our own HTTP front (`dev/clickhouse`).

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Context as Native;

/// Builds the front when needed, and gives the command that starts it.
pub fn command(native: &Native) -> Result<Command> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(&native.layout.root)
        .args(["build", "--quiet", "-p", "claims-dev-clickhouse"])
        .stdin(Stdio::null())
        .output()
        .context("cannot run cargo")?;
    if !output.status.success() {
        bail!("cargo could not build claims-dev-clickhouse:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    let data = native.layout.data("clickhouse");
    fs::create_dir_all(&data)?;
    // A copy, so that building again does not change the program of the running service.
    let binary = native.layout.home.join("run").join("claims-dev-clickhouse");
    fs::create_dir_all(native.layout.home.join("run"))?;
    let _ = fs::remove_file(&binary);
    fs::copy(target_folder(native).join("debug/claims-dev-clickhouse"), &binary)
        .context("cannot copy claims-dev-clickhouse out of the target folder")?;
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
