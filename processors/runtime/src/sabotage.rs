//! Breaking the product on purpose, to show that the fault suite notices. Only in builds with the cargo feature
//! `sabotage`, which no other build has.

use std::sync::OnceLock;

/// The variable that names the way of breaking it.
pub const VARIABLE: &str = "CLAIMSTREAM_SABOTAGE";

/// Offsets are committed when a batch is closed, not when it is written.
pub const COMMIT_BEFORE_FLUSH: &str = "commit-before-flush";
/// A revoked partition is committed where reading stands, and its batches are dropped.
pub const SKIP_DRAIN: &str = "skip-drain";
/// A claim stays in the list views where it once stood.
pub const DROP_PLACE_DELETES: &str = "drop-place-deletes";
/// Rows are stamped with the clock instead of the claim's revision.
pub const STAMP_BY_CLOCK: &str = "stamp-by-clock";

static ASKED_FOR: OnceLock<Option<String>> = OnceLock::new();

/// Whether the environment asks for this way of breaking it.
pub fn is_asked_for(sabotage: &str) -> bool {
    ASKED_FOR.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref() == Some(sabotage)
}
