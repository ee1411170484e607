//! The network between the product and the brokers. The brokers reach each other all the time.

use crate::{bench::Bench, proxy::Mode, round::SESSION_TIMEOUT_MS};
use anyhow::Result;

/// Connections are cut, and refused.
pub async fn cut(bench: &mut Bench) -> Result<()> {
    bench.links.set_kafka(&Mode::Cut);
    bench.pause(1_000, SESSION_TIMEOUT_MS + 3_000).await;
    bench.links.pass();
    Ok(())
}

/// Nothing moves, and no connection breaks: the group takes every member for dead.
pub async fn stall(bench: &mut Bench) -> Result<()> {
    bench.links.set_kafka(&Mode::Stall);
    bench.pause(SESSION_TIMEOUT_MS + 1_000, SESSION_TIMEOUT_MS + 3_000).await;
    bench.links.pass();
    Ok(())
}

/// Every piece is held for a while, both ways.
pub async fn delay(bench: &mut Bench) -> Result<()> {
    let delay = bench.random.millis(30, 200);
    bench.links.set_kafka(&Mode::Delay(delay));
    bench.pause(4_000, 6_000).await;
    bench.links.pass();
    Ok(())
}
