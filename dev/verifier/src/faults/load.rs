//! The load: generated events over HTTP, in their order, each repeated until ingress has acknowledged it.

use anyhow::{Context, Result, bail};
use claims_verifier::pipeline::{OutputLines, Pipeline};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Events per second that are offered; more once an outage has left some behind.
pub const RATE_PER_S: u64 = 2_200;
/// Events of one request at the usual rate …
const REQUEST_EVENTS: usize = 110;
/// … and of one that catches up.
const MAX_REQUEST_EVENTS: usize = 2_200;
/// An unanswered request is given up, and repeated.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two tries of a request that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// A request must be acknowledged this long after its first try.
const LATEST: Duration = Duration::from_secs(90);

/// How far the load is. Shared with whoever watches.
#[derive(Debug, Default)]
pub struct Progress {
    acknowledged: AtomicU64,
    repeated_requests: AtomicU64,
    enough: AtomicBool,
}

impl Progress {
    /// Events acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// The load may end.
    pub fn set_enough(&self) {
        self.enough.store(true, Ordering::Relaxed);
    }

    fn is_enough(&self) -> bool {
        self.enough.load(Ordering::Relaxed)
    }

    /// Requests sent again because they failed or were not answered.
    pub fn repeated_requests(&self) -> u64 {
        self.repeated_requests.load(Ordering::Relaxed)
    }
}

/// Events in their order, made as they are needed: a round sends a part of what there could be.
#[derive(Debug)]
pub struct Events<L = OutputLines> {
    lines: L,
    made: Vec<String>,
    total: usize,
}

impl Events {
    /// The first `total` events of a seed.
    pub fn generate(pipeline: &Pipeline, total: u64, seed: u64) -> Result<Self> {
        let (events, seed) = (total.to_string(), seed.to_string());
        let lines = pipeline.lines(&["generate", "--events", &events, "--seed", &seed, "--output", "-"])?;
        Ok(Self::new(lines, usize::try_from(total)?))
    }
}

impl<L: Iterator<Item = std::io::Result<String>>> Events<L> {
    fn new(lines: L, total: usize) -> Self {
        Self { lines, made: Vec::new(), total }
    }

    /// The events from one up to (not with) another. Blocks until they are made.
    fn get(&mut self, from: usize, to: usize) -> Result<&[String]> {
        while self.made.len() < to {
            let line =
                self.lines.next().with_context(|| format!("only {} events are made", self.made.len()))?;
            self.made.push(line.context("events are made no more")?);
        }
        self.made.get(from..to).context("no such events")
    }
}

/// What was sent, and how long it took.
#[derive(Debug)]
pub struct Sent {
    /// All of it acknowledged.
    pub events: Vec<String>,
    /// From the first request to the last answer.
    pub took: Duration,
}

/// Sends events, the next ones only once those before are acknowledged: a claim has one writer. Ends after `at_least`
/// as soon as `enough` is set, and in any case with the last event.
pub async fn send_all<L: Iterator<Item = std::io::Result<String>>>(
    url: String,
    mut events: Events<L>,
    progress: Arc<Progress>,
    at_least: Duration,
) -> Result<Sent> {
    let client = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build()?;
    let begun = Instant::now();
    let mut sent = 0;
    while sent < events.total && !(begun.elapsed() >= at_least && progress.is_enough()) {
        let due = (begun.elapsed().as_millis() as u64 * RATE_PER_S / 1_000) as usize;
        let ready = due.min(events.total).saturating_sub(sent);
        if ready < REQUEST_EVENTS && sent + ready < events.total {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let until = sent + ready.min(MAX_REQUEST_EVENTS);
        let batch = tokio::task::block_in_place(|| events.get(sent, until))?;
        let body = batch.join("\n") + "\n";
        let first_try = Instant::now();
        while let Err(error) = send(&client, &url, body.clone(), batch.len()).await {
            progress.repeated_requests.fetch_add(1, Ordering::Relaxed);
            if first_try.elapsed() > LATEST {
                bail!("ingress does not take events: {error:#}");
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        sent = until;
        progress.acknowledged.store(sent as u64, Ordering::Relaxed);
    }
    let took = begun.elapsed();
    events.made.truncate(sent);
    Ok(Sent { events: events.made, took })
}

async fn send(client: &reqwest::Client, url: &str, body: String, events: usize) -> Result<()> {
    let answer = client.post(url).header("content-type", "application/x-ndjson").body(body).send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    if status.as_u16() != 202 {
        bail!("{status}: {}", text.trim());
    }
    let answer: serde_json::Value = serde_json::from_str(&text)?;
    let accepted = answer.get("accepted").and_then(serde_json::Value::as_u64);
    if accepted != Some(events as u64) {
        bail!("{events} events sent, but the answer is {text}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_made_once_and_in_order() {
        let lines = (0..5).map(|n| Ok(n.to_string()));
        let mut events = Events::new(lines, 7);
        assert_eq!(events.get(0, 2).unwrap(), ["0", "1"]);
        assert_eq!(events.made.len(), 2, "no more than was asked for");
        assert_eq!(events.get(1, 4).unwrap(), ["1", "2", "3"]);
        assert!(events.get(4, 7).unwrap_err().to_string().contains("only 5 events"));
    }
}
