//! Ctrl-C while something is being watched.

use anyhow::{Result, ensure};
use std::sync::atomic::{AtomicBool, Ordering};

static ASKED_FOR: AtomicBool = AtomicBool::new(false);

/// Notes that somebody wants an end.
pub fn ask() {
    ASKED_FOR.store(true, Ordering::Relaxed);
}

/// An error once somebody does. Whatever waits asks this again and again.
pub fn check() -> Result<()> {
    ensure!(!ASKED_FOR.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
