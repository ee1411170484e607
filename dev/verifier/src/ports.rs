//! Ports of the loopback address for processes that must find the same one again after a restart.
//!
//! Asking the system for any free port gives one that it also gives to outgoing connections: between the question and the
//! start, or while the process is down, a connection can take it. These lie below those.

use anyhow::{Context as _, Result};
use std::{
    net::TcpListener,
    ops::Range,
    sync::atomic::{AtomicU32, Ordering},
};

/// Where Linux says which ports it gives to outgoing connections.
const EPHEMERAL_RANGE_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// What it says by default.
const DEFAULT_EPHEMERAL_START: u16 = 32_768;
/// The services of a fault suite or a benchmark lie below.
const FIRST_PORT: u16 = 16_000;

/// Ports handed out by this process.
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// A port that nobody listens on, and that no outgoing connection is given. Each call of one process gives another one.
pub fn free_port() -> Result<u16> {
    let range = listening_range(std::fs::read_to_string(EPHEMERAL_RANGE_FILE).ok().as_deref());
    // Processes side by side begin at different ports.
    next_free(&range, std::process::id().wrapping_mul(97), &TAKEN)
}

fn next_free(range: &Range<u16>, own_start: u32, taken: &AtomicU32) -> Result<u16> {
    let ports = u32::from(range.end - range.start);
    let mut candidates = (0..ports).map(|_| {
        let step = own_start.wrapping_add(taken.fetch_add(1, Ordering::Relaxed)) % ports;
        range.start + step as u16
    });
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    candidates.find(is_free).with_context(|| format!("none of the ports {range:?} is free"))
}

/// The ports below those of outgoing connections.
fn listening_range(ephemeral: Option<&str>) -> Range<u16> {
    let start = ephemeral.and_then(|text| text.split_whitespace().next()?.parse().ok());
    let start: u16 = start.unwrap_or(DEFAULT_EPHEMERAL_START);
    // Where nearly all ports are for connections there is no better choice than the usual ones.
    let end = if start > FIRST_PORT + 1_000 { start } else { DEFAULT_EPHEMERAL_START };
    FIRST_PORT..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_lie_below_those_of_connections() {
        assert_eq!(listening_range(Some("32768\t60999\n")), 16_000..32_768);
        assert_eq!(listening_range(Some("20000 60999")), 16_000..20_000);
        assert_eq!(listening_range(Some("1024 65535")), 16_000..32_768);
        assert_eq!(listening_range(None), 16_000..32_768);
        assert_eq!(listening_range(Some("nonsense")), 16_000..32_768);
    }

    #[test]
    fn none_is_given_twice_or_while_somebody_listens() {
        let range = listening_range(std::fs::read_to_string(EPHEMERAL_RANGE_FILE).ok().as_deref());
        let (taken, own_start) = (AtomicU32::new(0), 4_711);
        let first = next_free(&range, own_start, &taken).unwrap();
        assert!(range.contains(&first));
        let listener = TcpListener::bind(("127.0.0.1", first)).unwrap();
        // From the beginning once more: the port would have its turn.
        let second = next_free(&range, own_start, &AtomicU32::new(0)).unwrap();
        assert_ne!(first, second);
        drop(listener);
        assert_eq!(next_free(&range, own_start, &AtomicU32::new(0)).unwrap(), first);
        assert_ne!(next_free(&range, own_start, &taken).unwrap(), first);
    }
}
