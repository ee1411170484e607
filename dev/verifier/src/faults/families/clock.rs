//! A wall clock that jumps.

use crate::bench::Bench;
use anyhow::{Context, Result};

/// By a moment, by more than any timeout, by more than Kafka takes for a mistake (an hour), by days.
const JUMPS_MS: &[i64] = &[900, 40_000, 5_400_000, 259_200_000];
const JUMPS: usize = 6;

/// Forwards and back, each time from the true time, which it tells again at the end.
pub async fn jump(bench: &mut Bench) -> Result<()> {
    for _ in 0..JUMPS {
        let jump_ms = bench.random.pick(JUMPS_MS).context("no jumps")?;
        let is_back = bench.random.percent(50);
        let clock = bench.clock.as_ref().context("the scenario has no clock of its own")?;
        clock.shift(if is_back { -jump_ms } else { jump_ms })?;
        bench.pause(600, 1_500).await;
    }
    bench.clock.as_ref().context("the scenario has no clock of its own")?.make_true()
}
