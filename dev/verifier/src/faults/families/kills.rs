//! `kill -9` of one of the product's processes.

use crate::{bench::Bench, proxy::Mode};
use anyhow::Result;
use nix::sys::signal::Signal;

/// At a random moment; in some rounds a second time, soon after its restart.
pub async fn at_once(bench: &mut Bench) -> Result<()> {
    let victim = (bench.victim()?, 0);
    bench.crew.kill(victim)?;
    if bench.random.percent(40) {
        bench.pause(400, 3_000).await;
        bench.crew.kill(victim)?;
    }
    Ok(())
}

/// The victim commits once a minute: whatever its sink has acknowledged by now is not committed. Once it runs again, it
/// commits as usual.
pub async fn before_commit(bench: &mut Bench) -> Result<()> {
    let victim = (bench.victim()?, 0);
    bench.crew.set(victim, Vec::new());
    bench.crew.kill(victim)
}

/// It is asked to stop while its sink is slow, so that it has to wait for its batches, and is killed meanwhile. (The
/// audit's sink is a folder, which can't be slowed: its drain is short, and so is the time to the kill.)
pub async fn in_drain(bench: &mut Bench) -> Result<()> {
    let role = bench.victim()?;
    let delay = bench.random.millis(300, 900);
    bench.first_ways()?.set_sink_of(role, &Mode::Delay(delay));
    bench.pause(400, 1_200).await;
    bench.crew.signal((role, 0), Signal::SIGTERM)?;
    let most_ms = if role == crate::crew::Role::Audit { 60 } else { 900 };
    bench.pause(1, most_ms).await;
    bench.crew.kill((role, 0))?;
    bench.links.pass();
    Ok(())
}
