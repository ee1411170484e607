//! Stopping and starting a processor in running processes, by the control routes of their status servers.

use anyhow::{bail, ensure};
use claims_runtime::control::{CONTROL_HEADER, RunState, StageRun};
use claims_topology::Config;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use std::time::{Duration, Instant};

/// A stop ends by itself after this long, should we not come back to end it.
const STOP_FOR_MS: u64 = 180_000;
/// A processor must have stopped, or started, within this time.
const LIMIT: Duration = Duration::from_secs(60);
/// One answer; the server itself takes up to 20 seconds for it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Where a processor's processes are controlled: what was given, or else the address that it is configured to listen on.
pub fn urls(config: &Config, processor: &str, given: &[String]) -> anyhow::Result<Vec<String>> {
    if !given.is_empty() {
        return Ok(given.iter().map(|url| url.trim_end_matches('/').to_owned()).collect());
    }
    let listen = match processor {
        "current-state" => &config.current_state.listen,
        "analytics" => &config.analytics.listen,
        _ => &config.audit.listen,
    };
    let (host, port) = listen.rsplit_once(':').unwrap_or((listen, "0"));
    ensure!(
        port != "0",
        "{processor} listens on a port that the system chooses ({listen}): name its process with --control URL"
    );
    // Who listens everywhere is reached here.
    let host = if matches!(host, "0.0.0.0" | "[::]") { "127.0.0.1" } else { host };
    Ok(vec![format!("http://{host}:{port}")])
}

/// Processes in which a processor was stopped.
#[derive(Debug)]
pub struct Stopped {
    processor: String,
    urls: Vec<String>,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

impl Stopped {
    /// Nothing was stopped.
    pub fn none(processor: &str) -> Self {
        Self { processor: processor.to_owned(), urls: Vec::new() }
    }

    /// Whether nothing was stopped.
    pub fn is_empty(&self) -> bool {
        self.urls.is_empty()
    }

    /// The processes' addresses.
    pub fn into_urls(self) -> Vec<String> {
        self.urls
    }

    /// Starts it again everywhere, as far as possible; an error names where that failed.
    pub async fn start(&self) -> anyhow::Result<()> {
        let mut failures = Vec::new();
        for url in &self.urls {
            match order(url, &self.processor, "start", &[RunState::Running]).await {
                Ok(Answer::Done) => {}
                Ok(Answer::NotThere(why)) => failures.push(format!("{url}: {why}")),
                Err(error) => failures.push(format!("{url}: {error:#}")),
            }
        }
        match failures.is_empty() {
            true => Ok(()),
            false => bail!("{}", failures.join("; ")),
        }
    }
}

/// Stops a processor in every process that runs it. Where none answers there may be nothing to stop: whether the group
/// is empty decides.
pub async fn stop(urls: &[String], processor: &str) -> anyhow::Result<Stopped> {
    let mut stopped = Stopped::none(processor);
    for url in urls {
        match order(url, processor, &format!("stop?for_ms={STOP_FOR_MS}"), &[RunState::Stopped]).await {
            Ok(Answer::Done) => stopped.urls.push(url.clone()),
            Ok(Answer::NotThere(why)) => eprintln!("note: {url}: {why}"),
            Err(error) => {
                // It may stop yet.
                stopped.urls.push(url.clone());
                let back = match stopped.start().await {
                    Ok(()) => "it was started again".to_owned(),
                    Err(error) => format!("starting it again failed, too ({error:#})"),
                };
                bail!("{processor} could not be stopped at {url}: {error:#}; nothing was changed, {back}");
            }
        }
    }
    Ok(stopped)
}

enum Answer {
    Done,
    /// The process, or the processor in it, isn't there.
    NotThere(String),
}

async fn order(url: &str, processor: &str, what: &str, wanted: &[RunState]) -> anyhow::Result<Answer> {
    let client = Client::builder().timeout(REQUEST_TIMEOUT).no_proxy().build()?;
    let begun = Instant::now();
    loop {
        let request = client.post(format!("{url}/control/stages/{processor}/{what}"));
        let response = match request.header(CONTROL_HEADER, "yes").send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                return Ok(Answer::NotThere("nobody listens there".to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        let status = response.status();
        let text = response.text().await?;
        if status == StatusCode::NOT_FOUND {
            let refused = serde_json::from_str::<Refused>(&text);
            let why = refused.map_or_else(|_| "it has no control".to_owned(), |refused| refused.error);
            return Ok(Answer::NotThere(why));
        }
        if !status.is_success() {
            let why = serde_json::from_str::<Refused>(&text).map_or(text, |refused| refused.error);
            bail!("{status}: {why}");
        }
        let run: StageRun = serde_json::from_str(&text)?;
        if wanted.contains(&run.state) {
            return Ok(Answer::Done);
        }
        if begun.elapsed() >= LIMIT {
            bail!("it is still {:?} after {} s", run.state, LIMIT.as_secs());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_controlled_where_it_listens_unless_told_otherwise() {
        let mut config = Config::default();
        config.audit.listen = "0.0.0.0:9103".into();
        assert_eq!(urls(&config, "audit", &[]).unwrap(), ["http://127.0.0.1:9103"]);
        let given = ["http://a:1/".to_owned(), "http://b:2".to_owned()];
        assert_eq!(urls(&config, "audit", &given).unwrap(), ["http://a:1", "http://b:2"]);
        config.analytics.listen = "127.0.0.1:0".into();
        let error = urls(&config, "analytics", &[]).unwrap_err().to_string();
        assert!(error.contains("--control URL"), "{error}");
    }
}
