//! The audit trail, by the command `claims audit verify`.

use crate::{checks::Check, pipeline::Pipeline};
use anyhow::{Context, Result};
use serde_json::Value;

/// The trail must verify, and hold every record.
pub fn check(pipeline: &Pipeline, records: u64) -> Result<Check> {
    let output = pipeline.output(&["audit", "verify", "--json"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text).with_context(|| {
        format!("claims audit verify printed no JSON: {text}{}", String::from_utf8_lossy(&output.stderr))
    })?;
    let rows = report.get("records").and_then(Value::as_u64).context("no `records` in the audit's report")?;
    let mut check = Check::count("audit segments", rows, records);
    if !output.status.success() {
        check.problems.push(format!("verification ended with {}: {report}", output.status));
    }
    Ok(check)
}
