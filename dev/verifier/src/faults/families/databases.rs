//! Databases that answer wrongly, late or not at all. Made by the proxies before them: the databases themselves are well.

use crate::{bench::Bench, proxy::Mode};
use anyhow::Result;

/// Every request is answered in ClickHouse's place.
pub async fn answers(bench: &mut Bench, answer: &'static str) -> Result<()> {
    bench.first_ways()?.clickhouse.set(Mode::Answer(answer));
    bench.pause(2_500, 5_000).await;
    bench.links.pass();
    Ok(())
}

/// Inserts reach ClickHouse, its answers get lost: the client's timeout ends them.
pub async fn mute(bench: &mut Bench) -> Result<()> {
    bench.first_ways()?.clickhouse.set(Mode::Mute);
    bench.pause(3_000, 6_000).await;
    bench.links.pass();
    Ok(())
}

/// A connection breaks once a chance number of bytes has gone through: in the middle of some insert.
pub async fn cut_inserts(bench: &mut Bench) -> Result<()> {
    for _ in 0..5 {
        let bytes = bench.random.between(500, 80_000);
        bench.first_ways()?.clickhouse.set(Mode::DropAfter(bytes));
        bench.pause(400, 1_000).await;
    }
    bench.links.pass();
    Ok(())
}

/// Every piece of every answer and request is held for a while.
pub async fn slow(bench: &mut Bench) -> Result<()> {
    let delay = bench.random.millis(50, 400);
    bench.first_ways()?.set_sinks(&Mode::Delay(delay));
    bench.pause(4_000, 6_000).await;
    bench.links.pass();
    Ok(())
}

/// Neither can be reached.
pub async fn cut(bench: &mut Bench) -> Result<()> {
    bench.first_ways()?.set_sinks(&Mode::Cut);
    bench.pause(2_000, 5_000).await;
    bench.links.pass();
    Ok(())
}
