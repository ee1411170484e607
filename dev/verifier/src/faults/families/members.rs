//! Consumers that come and go.

use crate::{
    bench::Bench,
    crew::{Role, Who},
};
use anyhow::Result;
use std::time::{Duration, Instant};

const SPAN: Duration = Duration::from_secs(8);

/// A second and a third process of every role are started, stopped and killed in a chance order; the first ones stay.
pub async fn come_and_go(bench: &mut Bench) -> Result<()> {
    let others: Vec<Who> =
        Role::PROCESSORS.into_iter().flat_map(|role| [1, 2].map(|instance| (role, instance))).collect();
    let begun = Instant::now();
    while begun.elapsed() < SPAN {
        let Some(who) = bench.random.pick(&others) else { break };
        if !bench.crew.has(who) {
            bench.crew.start(who, Vec::new())?;
        } else if bench.random.percent(30) {
            bench.crew.remove(who)?;
        } else {
            bench.crew.stop(who).await?;
        }
        bench.pause(300, 900).await;
    }
    for who in others {
        if bench.crew.has(who) {
            bench.crew.stop(who).await?;
        }
    }
    Ok(())
}
