//! Disaster: the events topic is gone, and is seeded anew from the audit trail.

use crate::support::{assert_views, fresh, generate, head, ingest, process, remove, until};
use anyhow::{Context, Result};
use claims_verifier::{
    model::Model,
    pipeline::{PROCESSORS, Pipeline},
};
use rdkafka::{
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use std::path::{Path, PathBuf};

/// `claims audit restore ARGS`, which must fail: its exit code and what it said.
fn refused(pipeline: &Pipeline, args: &[&str]) -> Result<(Option<i32>, String)> {
    let output = pipeline.output(&[&["audit", "restore"], args].concat())?;
    anyhow::ensure!(!output.status.success(), "audit restore {args:?} should be refused");
    Ok((output.status.code(), String::from_utf8(output.stderr)?))
}

/// A copy of a trail with one byte of one segment changed.
fn tampered(trail: &Path, copy: &Path) -> Result<()> {
    let mut segments = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        std::fs::create_dir_all(copy.join(&folder))?;
        for entry in std::fs::read_dir(trail.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else {
                std::fs::copy(entry.path(), copy.join(&path))?;
                segments.push(copy.join(&path));
            }
        }
    }
    let segment = segments.first().context("a trail without segments")?;
    let mut bytes = std::fs::read(segment)?;
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    Ok(std::fs::write(segment, bytes)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_events_topic_is_seeded_anew_from_the_trail() -> Result<()> {
    let pipeline = fresh("restore", 3)?;
    let file = generate(&pipeline, 6_000, 31)?;
    let first = head(&file, 1_500)?;
    ingest(&pipeline, &first)?;
    let records = 1_500 + ingest(&pipeline, &file)?;
    process(&pipeline).await?;
    let mut model = Model::from_ndjson(&first)?;
    model.add_ndjson(&file)?;
    assert_views(&pipeline, &model).await?;

    let events = pipeline.namespace.events_topic.clone();
    let admin: AdminClient<DefaultClientContext> = pipeline.namespace.kafka_client().create()?;
    admin.delete_topics(&[&events], &AdminOptions::new()).await?;
    until("the topic is gone", || Ok(refused(&pipeline, &[])?.1.contains("claims topics apply"))).await?;
    until("the topic is made anew", || Ok(pipeline.output(&["topics", "apply"])?.status.success())).await?;

    // A trail that doesn't hold brings nothing back.
    let broken = pipeline.namespace.dir.join("tampered");
    tampered(&pipeline.namespace.audit_dir(), &broken)?;
    let (code, said) = refused(&pipeline, &["--from", &broken.display().to_string()])?;
    assert!(code == Some(3) && said.contains("claims audit verify"), "{code:?}: {said}");

    let trail = pipeline.namespace.audit_dir().display().to_string();
    for dry_run in [&["--dry-run"][..], &[]] {
        let restored =
            pipeline.run_json(&[&["audit", "restore", "--json", "--from", &trail], dry_run].concat())?;
        assert_eq!((&restored["events"], &restored["erased"]), (&records.into(), &0.into()), "{restored}");
    }
    let (_, said) = refused(&pipeline, &["--from", &trail])?;
    assert!(said.contains("holds records already"), "the dry run wrote nothing, the other did: {said}");

    // The restored topic has offsets of its own, so it gets a trail of its own.
    let anew = pipeline.namespace.dir.join("audit-of-the-restored").display().to_string();
    let pipeline = pipeline.with("CLAIMS_AUDIT__STORE", &anew);
    for processor in PROCESSORS {
        pipeline.run(&["replay", processor, "--to-beginning"])?;
    }
    process(&pipeline).await?;
    assert_views(&pipeline, &model).await?;
    remove(pipeline).await
}
