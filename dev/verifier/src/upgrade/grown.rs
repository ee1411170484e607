//! Events as a newer build takes them: with a field that the older one doesn't know.

use anyhow::{Context, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The event type whose data grows …
pub const GROWING: &str = "ClaimCreated";
/// … by this field, which may be missing, …
const FIELD: &str = "channel";
/// … and has this value.
pub const CHANNEL: &str = "web";

/// Gives the new field to every event of a file that may have it; the new file.
pub fn file(events: &Path) -> Result<PathBuf> {
    let text = std::fs::read_to_string(events)?;
    let lines: Result<String> = text.lines().map(|line| Ok(grown(line)? + "\n")).collect();
    let path = events.with_extension("grown.ndjson");
    std::fs::write(&path, lines?)?;
    Ok(path)
}

fn grown(line: &str) -> Result<String> {
    let mut event: Value = serde_json::from_str(line)?;
    if event.get("event_type").and_then(Value::as_str) == Some(GROWING) {
        let data = event.get_mut("data").and_then(Value::as_object_mut).context("an event without data")?;
        data.insert(FIELD.to_owned(), CHANNEL.into());
    }
    Ok(event.to_string())
}
