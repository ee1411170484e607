//! Events over HTTP, as an application sends them: some connections side by side, each request after the last one's answer.

use super::{
    child::Program,
    input::Input,
    offsets::{Run, Topic, follow},
    ours,
    profile::Profiler,
};
use anyhow::{Context, Result, bail, ensure};
use claims_verifier::{namespace::Namespace, ports};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;

/// Requests under way.
const CONNECTIONS: usize = 4;
/// Events of a request.
const REQUEST_EVENTS: usize = 2_000;
/// A request is answered within this time.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Ingress takes requests this long after its start.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Sends an input's file to an ingress of its own.
pub async fn run(namespace: &Namespace, input: &Input, profiler: Option<&Profiler>) -> Result<Run> {
    let bodies = bodies(&input.file)?;
    let address = format!("127.0.0.1:{}", ports::free_port()?);
    let mut command = ours::claims(namespace, &["run", "ingress"])?;
    command.env("CLAIMS_INGRESS__LISTEN", &address);
    let mut program = Program::start("ingress", command, &namespace.dir)?;
    let url = format!("http://{address}/v1/events");
    ready(&mut program, &url).await?;
    let (begun, topic) = (Instant::now(), Topic::of(namespace, &namespace.events_topic)?);
    let mut sending = JoinSet::new();
    for own in bodies {
        sending.spawn(send(url.clone(), own));
    }
    let followed = tokio::task::block_in_place(|| {
        follow(std::slice::from_mut(&mut program), begun, input.records, profiler, || topic.records())
    });
    // Why a request was refused says more than that nothing came.
    while let Some(sent) = sending.try_join_next() {
        sent??;
    }
    let run = followed?;
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    program.stop()?;
    Ok(run)
}

/// A file's events as bodies of requests, for each connection some.
fn bodies(file: &Path) -> Result<Vec<Vec<String>>> {
    let text = std::fs::read_to_string(file)?;
    let lines: Vec<&str> = text.lines().collect();
    let mut bodies = vec![Vec::new(); CONNECTIONS];
    for (lines, connection) in lines.chunks(REQUEST_EVENTS).zip((0..CONNECTIONS).cycle()) {
        if let Some(own) = bodies.get_mut(connection) {
            own.push(lines.join("\n") + "\n");
        }
    }
    Ok(bodies)
}

/// Waits until ingress answers a request without events.
async fn ready(program: &mut Program, url: &str) -> Result<()> {
    let (client, begun) = (client()?, Instant::now());
    loop {
        let answer = client.post(url).header("content-type", "application/x-ndjson").body("").send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        program.check()?;
        ensure!(begun.elapsed() < READY_LIMIT, "ingress takes nothing within {} s", READY_LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build()?)
}

async fn send(url: String, bodies: Vec<String>) -> Result<()> {
    let client = client()?;
    for body in bodies {
        let request = client.post(&url).header("content-type", "application/x-ndjson").body(body);
        let answer = request.send().await.context("no answer from ingress")?;
        if !answer.status().is_success() {
            bail!("ingress answered {}: {}", answer.status(), answer.text().await?);
        }
    }
    Ok(())
}
