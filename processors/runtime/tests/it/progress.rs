//! Progress, health and the status server.

use crate::fixture::*;
use claims_runtime::{RuntimeSettings, Shutdown, StageError, health, status};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_never_answers_is_a_stall() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..10).await;
    let sink = Recording::with(1, 0, |_| Ok(()));
    let settings = RuntimeSettings { stall_timeout_ms: 1_500, ..quick() };
    let running = Running::start(topic.config(settings), Plain::new(), &sink, Registry::none());
    until("the write hangs", || sink.writing.load(Ordering::SeqCst) == 1).await;
    let is_reported = |s: &health::StageStatus| s.state == health::StageState::Stalled && !s.ready;
    until("it is reported first", || health::stages().iter().any(is_reported)).await;
    let error = running.error().await;
    assert!(
        matches!(&error, StageError::Stalled { detail, .. } if detail.contains("0 (10 behind)")),
        "{error}"
    );
    assert_eq!(topic.committed(), [].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_stage_is_no_stall() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..10).await;
    let sink = Recording::new();
    let settings = RuntimeSettings { stall_timeout_ms: 600, ..quick() };
    let running = Running::start(topic.config(settings), Plain::new(), &sink, Registry::none());
    until("ten", || sink.len() == 10).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    running.stop().await;
}

/// A fetch of an idle topic waits at the broker for half a second, and what comes after it on the same connection waits with
/// it: the ends of twelve partitions, asked for one after the other, take five seconds then, of every ten.
#[tokio::test(flavor = "multi_thread")]
async fn no_commit_waits_for_the_ends_of_the_partitions() {
    let topic = Topic::new(12).await;
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    topic.send(0, Some(b"first")).await;
    until("the first is committed", || topic.committed().get(&0) == Some(&1)).await;
    let group = topic.group_client();
    let (begun, mut slow, mut next) = (Instant::now(), 0, 1);
    while begun.elapsed() < Duration::from_secs(24) {
        next = topic.send(0, Some(b"next")).await + 1;
        let sent = Instant::now();
        until("it is committed", || topic.committed_by(&group).get(&0) == Some(&next)).await;
        slow += u32::from(sent.elapsed() > Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // One may be the machine's.
    assert!(slow < 2, "{slow} of {next} commits took longer than two seconds");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_under_their_own_deadline_are_no_stall() {
    let topic = Topic::new(1).await;
    topic.send_numbers(0..10).await;
    let begun = std::time::Instant::now();
    let sink = Recording::answering(move |_| match begun.elapsed().as_millis() < 3_000 {
        true => Err(claims_runtime::SinkError::Transient("too many parts".into())),
        false => Ok(()),
    });
    let settings = RuntimeSettings { stall_timeout_ms: 1_000, ..quick() };
    let running = Running::start(topic.config(settings), Plain::new(), &sink, Registry::none());
    let says_so = |s: &health::StageStatus| {
        s.state == health::StageState::Retrying
            && s.reason.as_deref().is_some_and(|r| r.contains("too many parts"))
    };
    until("the health says why", || health::stages().iter().any(says_so)).await;
    until("ten", || sink.len() == 10).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_server_tells_metrics_and_health() {
    let topic = Topic::new(2).await;
    topic.send_numbers(0..10).await;
    topic.send(0, Some(b"poison")).await;
    let render = claims_runtime::metrics::install().expect("one recorder per process");
    let listen = {
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        probe.local_addr().unwrap().to_string()
    };
    let (trigger, shutdown) = Shutdown::new();
    let address = listen.clone();
    let server =
        tokio::spawn(
            async move { status::serve_status(&address, render, Default::default(), shutdown).await },
        );
    let sink = Recording::new();
    let running = Running::start(topic.config(quick()), Plain::new(), &sink, Registry::none());
    until("all are committed", || topic.committed() == [(0, 6), (1, 5)].into()).await;
    let mut ready = String::new();
    for _ in 0..1_000 {
        ready = get(&listen, "/health/ready").await;
        if ready.contains("\"records_completed\":11") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(ready.contains("\"processor\":\"plain\"") && ready.contains("\"lag_records\":0"), "{ready}");
    let metrics = get(&listen, "/metrics").await;
    for line in [
        "events_processed_total{processor=\"plain\"}",
        "dead_letters_total{processor=\"plain\",reason=\"malformed\"}",
        "event_processing_duration_seconds_bucket{processor=\"plain\"",
        "projection_lag_records{processor=\"plain\",partition=\"0\"}",
        "rebalances_total{processor=\"plain\",kind=\"assign\"}",
    ] {
        assert!(metrics.contains(line), "{line} is missing in:\n{metrics}");
    }
    assert!(get(&listen, "/health/live").await.contains("\"stages\""));
    running.stop().await;
    trigger.stop();
    server.await.unwrap().unwrap();
}

/// The answer to one GET, without a client library.
async fn get(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = loop {
        match tokio::net::TcpStream::connect(address).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
