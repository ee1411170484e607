//! The schema registry away: processors wait, lose nothing and dead-letter nothing.

use crate::support::{LIMIT, assert_views, fresh, generate, ingest, process, remove, stop};
use anyhow::Result;
use claims_verifier::{model::Model, views::topics};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

#[tokio::test(flavor = "multi_thread")]
async fn while_the_registry_is_away_nothing_is_lost() -> Result<()> {
    let pipeline = fresh("registry", 3)?;
    let file = generate(&pipeline, 5_000, 3)?;
    let records = ingest(&pipeline, &file)?;

    // A port that nobody listens on yet, to become the way to the registry.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    drop(listener);
    let url = format!("http://{address}/apis/ccompat/v7");
    let cut_off = pipeline.clone().with("CLAIMS_REGISTRY__URL", &url);
    let mut running = vec![cut_off.start("analytics")?];
    tokio::time::sleep(Duration::from_secs(5)).await;
    running[0].check()?;
    assert_eq!(pipeline.lag("analytics")?.0, records, "nothing can be decoded, so nothing may be committed");
    let mut letters = 0;
    topics::each_record(&pipeline.namespace, &pipeline.namespace.dead_letters_topic(), |_| {
        letters += 1;
        Ok(())
    })?;
    assert_eq!(letters, 0, "an outage of the registry is not bad data");

    let registry = pipeline.namespace.registry().replace("http://", "");
    let registry = registry.split('/').next().unwrap_or_default().to_owned();
    let listener = TcpListener::bind(address).await?;
    let proxy = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let registry = registry.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(registry).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    pipeline.wait_until_caught_up(&mut running, LIMIT, |_, _| {}).await?;
    stop(running).await?;
    proxy.abort();

    process(&pipeline).await?;
    assert_views(&pipeline, &Model::from_ndjson(&file)?).await?;
    remove(pipeline).await
}
