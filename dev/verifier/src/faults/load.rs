//! The load: generated events over HTTP, in their order, each repeated until ingress has acknowledged it.

use anyhow::{Context, Result, bail};
use std::{
    path::Path,
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

/// The events of a file, one a line.
pub fn read_events(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Sends events, the next ones only once those before are acknowledged: a claim has one writer. Ends after `at_least`
/// as soon as `enough` is set, and in any case with the last event. Returns how long it took.
pub async fn send_all(
    url: String,
    events: Arc<Vec<String>>,
    progress: Arc<Progress>,
    at_least: Duration,
) -> Result<Duration> {
    let client = reqwest::Client::builder().timeout(REQUEST_TIMEOUT).build()?;
    let begun = Instant::now();
    let mut sent = 0;
    while sent < events.len() && !(begun.elapsed() >= at_least && progress.is_enough()) {
        let due = (begun.elapsed().as_millis() as u64 * RATE_PER_S / 1_000) as usize;
        let ready = due.min(events.len()).saturating_sub(sent);
        if ready < REQUEST_EVENTS && sent + ready < events.len() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        let batch = &events[sent..sent + ready.min(MAX_REQUEST_EVENTS)];
        let body = batch.join("\n") + "\n";
        let first_try = Instant::now();
        while let Err(error) = send(&client, &url, body.clone(), batch.len()).await {
            progress.repeated_requests.fetch_add(1, Ordering::Relaxed);
            if first_try.elapsed() > LATEST {
                bail!("ingress does not take events: {error:#}");
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        sent += batch.len();
        progress.acknowledged.store(sent as u64, Ordering::Relaxed);
    }
    Ok(begun.elapsed())
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
