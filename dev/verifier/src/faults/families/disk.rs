//! No room left on the device.

use crate::bench::Bench;
use anyhow::{Context, Result};

/// The file system of the local store is filled to the last byte, and later has room again.
pub async fn full(bench: &mut Bench) -> Result<()> {
    bench.disk.as_ref().context("the scenario has no file system of its own")?.fill()?;
    bench.pause(3_000, 6_000).await;
    bench.disk.as_ref().context("the scenario has no file system of its own")?.free()
}
