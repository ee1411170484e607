//! A process that is stopped for so long that the group gives its partitions to another, and then goes on as if nothing
//! had happened, with writes under way.

use crate::bench::Bench;
use crate::{proxy::Mode, round::SESSION_TIMEOUT_MS};
use anyhow::Result;
use nix::sys::signal::Signal;
use std::time::Duration;

/// What the successor needs to have joined and to have caught up, on a busy machine.
const JOIN_MS: u64 = 4_000;

/// Before the stop its database stands still for it alone, so that a batch is under way, and others wait behind it, when
/// it comes back.
pub async fn zombie(bench: &mut Bench) -> Result<()> {
    let role = bench.victim()?;
    let (zombie, successor) = ((role, 0), (role, 1));
    bench.crew.start(successor, Vec::new())?;
    tokio::time::sleep(Duration::from_millis(JOIN_MS)).await;
    bench.first_ways()?.set_sink_of(role, &Mode::Stall);
    bench.pause(300, 1_500).await;
    bench.crew.signal(zombie, Signal::SIGSTOP)?;
    bench.pause(SESSION_TIMEOUT_MS + 2_000, SESSION_TIMEOUT_MS + 4_000).await;
    // In some rounds its connections are whole again before it wakes, in others after.
    if bench.random.percent(50) {
        bench.links.pass();
        bench.pause(1, 200).await;
    }
    // And in some it hears late from the group that its partitions are gone.
    if bench.random.percent(50) {
        let delay = bench.random.millis(300, 800);
        bench.links.set_kafka(&Mode::Delay(delay));
    }
    bench.crew.signal(zombie, Signal::SIGCONT)?;
    bench.pause(1, 800).await;
    bench.links.ways.iter().for_each(|ways| ways.set_sinks(&Mode::Pass));
    bench.pause(1_000, 2_000).await;
    bench.links.pass();
    bench.pause(1_000, 2_000).await;
    bench.crew.stop(successor).await
}
