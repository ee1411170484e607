//! `kill -9` of each processor while it has a backlog and the others run on.

use crate::support::{LIMIT, assert_views, fresh, generate, ingest, remove, stop, until};
use anyhow::Result;
use claims_verifier::{model::Model, pipeline::PROCESSORS};

const EVENTS: u64 = 200_000;
const BACKLOG: u64 = 50_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_processor_goes_on_where_it_stood() -> Result<()> {
    // Small batches and frequent commits: the kill falls between many of them.
    let mut pipeline = fresh("kill", 6)?;
    for processor in ["CURRENT_STATE", "ANALYTICS", "AUDIT"] {
        pipeline = pipeline
            .with(&format!("CLAIMS_{processor}__RUNTIME__MAX_BATCH_RECORDS"), "4000")
            .with(&format!("CLAIMS_{processor}__RUNTIME__COMMIT_INTERVAL_MS"), "50");
    }
    let file = generate(&pipeline, EVENTS, 11)?;
    let records = ingest(&pipeline, &file)?;

    // Each in its turn: killed half-way, while those started before it run on.
    let mut running = Vec::new();
    for victim in PROCESSORS {
        // So slowly that the kill can't come too late, however fast the machine and however long a look at the lag takes.
        let variable = victim.to_uppercase().replace('-', "_");
        let slow = pipeline.clone().with(&format!("CLAIMS_{variable}__RUNTIME__MAX_BATCH_RECORDS"), "200");
        let process = slow.start(victim)?;
        let mut lag = records;
        until(&format!("{victim} has committed something"), || {
            lag = pipeline.lag(victim)?.0;
            Ok(lag < records)
        })
        .await?;
        process.kill()?;
        assert!(lag > BACKLOG, "{victim} was down to a lag of {lag} before it could be killed");
        running.iter_mut().try_for_each(claims_verifier::pipeline::Running::check)?;
        running.push(pipeline.start(victim)?);
    }

    pipeline.wait_until_caught_up(&mut running, LIMIT, |_, _| {}).await?;
    stop(running).await?;
    assert_views(&pipeline, &Model::from_ndjson(&file)?).await?;
    remove(pipeline).await
}
