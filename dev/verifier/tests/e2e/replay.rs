//! Offset resets of every processor, by our command and by Kafka's own tool: the views stay what they were, and views
//! that had lost rows are whole again.

use crate::support::{LIMIT, assert_views, fresh, generate, head, ingest, process, remove, stop, until};
use anyhow::{Context, Result};
use claims_verifier::{
    checks, kafka_tool,
    model::Model,
    pipeline::{PROCESSORS, Pipeline, Running},
};
use rdkafka::{
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

const EVENTS: u64 = 12_000;

/// All processors in one process, with a known address for their control.
struct Process {
    running: Running,
    control: String,
}

fn start(pipeline: &Pipeline) -> Result<Process> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let listen = format!("127.0.0.1:{port}");
    let args = ["run", "current-state", "analytics", "audit"];
    let pipeline = pipeline.clone().with("CLAIMS_AUDIT__LISTEN", &listen);
    Ok(Process { running: pipeline.spawn("all", &args)?, control: format!("http://{listen}") })
}

impl Process {
    /// Waits until every processor has committed all there is.
    async fn caught_up(&mut self, pipeline: &Pipeline) -> Result<()> {
        let begun = std::time::Instant::now();
        while PROCESSORS.iter().map(|name| Ok(pipeline.lag(name)?.0)).sum::<Result<u64>>()? > 0 {
            self.running.check()?;
            anyhow::ensure!(begun.elapsed() < LIMIT, "there is lag left");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// `claims replay PROCESSOR TARGET… --restart`, to its end.
    fn replay(&self, pipeline: &Pipeline, args: &[&str]) -> Result<serde_json::Value> {
        let fixed = ["--restart", "--control", &self.control, "--json"];
        pipeline.run_json(&[&["replay"], args, &fixed].concat())
    }

    async fn stop(self) -> Result<()> {
        stop(vec![self.running]).await
    }
}

fn sum(report: &serde_json::Value, name: &str) -> i64 {
    let processors = report.as_array().into_iter().flatten();
    processors.filter_map(|processor| processor.get(name)?.as_i64()).sum()
}

/// What a group's `claims replay` must say that was read again.
fn assert_read_again(report: &serde_json::Value, processors: i64, each: u64) -> Result<()> {
    anyhow::ensure!(sum(report, "records_again") == processors * i64::try_from(each)?, "{report}");
    for processor in report.as_array().context("a list")? {
        anyhow::ensure!(processor["applied"] == true && processor["seconds"].is_number(), "{processor}");
    }
    Ok(())
}

/// A quarter of the events twice, so that there are copies; the time in the middle; the rest.
struct Input {
    model: Model,
    records: u64,
    later: u64,
    middle: String,
}

async fn bring_in(pipeline: &Pipeline) -> Result<Input> {
    let file = generate(pipeline, EVENTS, 21)?;
    let part = head(&file, 4_000)?;
    let mut records = ingest(pipeline, &part)?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let middle = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    let later = ingest(pipeline, &file)?;
    records += later;
    let mut model = Model::default();
    model.add_ndjson(&part)?;
    model.add_ndjson(&file)?;
    Ok(Input { model, records, later, middle })
}

async fn truncate(pipeline: &Pipeline) -> Result<()> {
    let keyspace = &pipeline.namespace.name;
    let session = pipeline.namespace.cql_session().await?;
    session.query_unpaged(format!("TRUNCATE {keyspace}.claims_by_status"), ()).await?;
    pipeline.namespace.clickhouse_sql(&format!("TRUNCATE TABLE {keyspace}.event_log")).await?;
    Ok(())
}

async fn problems(pipeline: &Pipeline, input: &Input) -> Result<Vec<String>> {
    let checks = checks::all(pipeline, &input.model, input.records).await?;
    Ok(checks.into_iter().filter(|check| !check.problems.is_empty()).map(|check| check.name).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_by_the_command_leave_the_views_and_mend_them() -> Result<()> {
    let pipeline = fresh("replay", 3)?;
    let input = bring_in(&pipeline).await?;
    let mut process = start(&pipeline)?;
    process.caught_up(&pipeline).await?;
    assert_views(&pipeline, &input.model).await?;

    let refused = pipeline.output(&["replay", "analytics", "--to-beginning"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("claimstream on "), "members are named: {said}");

    let report = process.replay(&pipeline, &["all", "--to-time", &input.middle])?;
    assert_read_again(&report, 3, input.later)?;
    assert_views(&pipeline, &input.model).await?;

    truncate(&pipeline).await?;
    let damaged = problems(&pipeline, &input).await?;
    assert!(damaged.contains(&"CQL claims_by_status".to_owned()), "{damaged:?}");
    assert!(damaged.contains(&"ClickHouse latest".to_owned()), "{damaged:?}");
    let report = process.replay(&pipeline, &["all", "--to-beginning"])?;
    assert_read_again(&report, 3, input.records)?;
    assert_views(&pipeline, &input.model).await?;
    process.stop().await?;
    remove(pipeline).await
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_by_kafkas_own_tool_leave_the_views_and_mend_them() -> Result<()> {
    let pipeline = fresh("kafkatool", 3)?;
    let input = bring_in(&pipeline).await?;
    let mut process = start(&pipeline)?;
    process.caught_up(&pipeline).await?;
    process.stop().await?;
    assert_views(&pipeline, &input.model).await?;

    let middle = input.middle.trim_end_matches('Z');
    for target in [&["--to-datetime", middle][..], &["--to-earliest"]] {
        if target == ["--to-earliest"] {
            truncate(&pipeline).await?;
        }
        kafka_tool::reset_offsets(&pipeline.namespace, &PROCESSORS, target)?;
        let wanted = if target.len() == 2 { input.later } else { input.records };
        for processor in PROCESSORS {
            assert_eq!(pipeline.lag(processor)?.0, wanted, "{processor} {target:?}");
        }
        let mut process = start(&pipeline)?;
        process.caught_up(&pipeline).await?;
        process.stop().await?;
        assert_views(&pipeline, &input.model).await?;
    }
    remove(pipeline).await
}

/// Some lines of a file, as a file beside it.
fn lines(file: &Path, from: usize, to: usize) -> Result<PathBuf> {
    let text = std::fs::read_to_string(file)?;
    let path = file.with_extension(format!("lines-{from}-{to}"));
    let part: String = text.split_inclusive('\n').skip(from).take(to - from).collect();
    std::fs::write(&path, part)?;
    Ok(path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_forward_says_what_it_leaves_out_and_a_replay_mends_it() -> Result<()> {
    let pipeline = fresh("jump", 3)?;
    let file = generate(&pipeline, EVENTS, 22)?;
    let parts = [lines(&file, 0, 4_000)?, lines(&file, 4_000, 9_000)?, lines(&file, 9_000, 12_000)?];
    let mut model = Model::default();
    parts.iter().try_for_each(|part| model.add_ndjson(part))?;

    let mut records = ingest(&pipeline, &parts[0])?;
    let mut process = start(&pipeline)?;
    process.caught_up(&pipeline).await?;
    process.stop().await?;
    let left_out = ingest(&pipeline, &parts[1])?;

    let refused = pipeline.output(&["replay", "all", "--to-end", "--json"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("the audit can't leave records out"), "{said}");
    for processor in ["current-state", "analytics"] {
        assert_eq!(pipeline.lag(processor)?.0, left_out, "a refusal changes nothing, of any processor");
        let said = pipeline.run(&["replay", processor, "--to-end"])?;
        assert!(said.contains(&format!("{processor} leaves out up to {left_out} records: ")), "{said}");
        assert_eq!(pipeline.lag(processor)?.0, 0);
    }
    records += left_out + ingest(&pipeline, &parts[2])?;
    let input = Input { model, records, later: 0, middle: String::new() };
    let mut process = start(&pipeline)?;
    process.caught_up(&pipeline).await?;
    let damaged = problems(&pipeline, &input).await?;
    for view in ["CQL claim_by_id", "CQL claims_by_status", "CQL claim_timeline", "ClickHouse events"] {
        assert!(damaged.contains(&view.to_owned()), "{view} has nothing left out: {damaged:?}");
    }
    assert!(!damaged.contains(&"audit segments".to_owned()), "{damaged:?}");

    let report = process.replay(&pipeline, &["all", "--to-beginning"])?;
    assert_read_again(&report, 3, input.records)?;
    assert_views(&pipeline, &input.model).await?;
    process.stop().await?;
    remove(pipeline).await
}

/// Starts a processor that must end by itself; the end of its log.
async fn fails(pipeline: &Pipeline, processor: &str) -> Result<String> {
    let mut running = pipeline.start(processor)?;
    let mut said = String::new();
    until(&format!("{processor} ends"), || {
        said = running.check().err().map(|error| error.to_string()).unwrap_or_default();
        Ok(!said.is_empty())
    })
    .await?;
    Ok(said)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_made_anew_is_taken_only_on_purpose() -> Result<()> {
    let pipeline = fresh("anew", 2)?;
    let file = generate(&pipeline, 2_000, 23)?;
    ingest(&pipeline, &file)?;
    process(&pipeline).await?;

    let events = pipeline.namespace.events_topic.clone();
    let admin: AdminClient<DefaultClientContext> = pipeline.namespace.kafka_client().create()?;
    admin.delete_topics(&[&events], &AdminOptions::new()).await?;
    until("the topic is made anew", || Ok(pipeline.output(&["topics", "apply"])?.status.success())).await?;
    ingest(&pipeline, &file)?;
    // A process on another machine, or one that has lost its disk, has no store that could remember.
    let (stores, kept) = (pipeline.namespace.state_dir(), pipeline.namespace.dir.join("kept-stores"));
    std::fs::rename(&stores, &kept)?;
    let said = fails(&pipeline, "current-state").await?;
    assert!(
        said.contains("holds the claims of topic") && said.contains("claims replay current-state"),
        "{said}"
    );
    std::fs::remove_dir_all(&stores)?;
    std::fs::rename(&kept, &stores)?;
    for processor in ["current-state", "analytics"] {
        let said = fails(&pipeline, processor).await?;
        assert!(said.contains(&format!("claims replay {processor} --to-beginning")), "{said}");
        pipeline.run(&["replay", processor, "--to-beginning"])?;
    }
    let said = fails(&pipeline, "audit").await?;
    assert!(said.contains("made anew") && said.contains("empty store"), "{said}");
    std::fs::rename(pipeline.namespace.audit_dir(), pipeline.namespace.dir.join("former-audit"))?;
    pipeline.run(&["replay", "audit", "--to-beginning"])?;
    process(&pipeline).await?;
    assert_views(&pipeline, &Model::from_ndjson(&file)?).await?;
    remove(pipeline).await
}
