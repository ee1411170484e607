//! Asking the processes that run a processor to give a record to it once more.

use crate::replay::control;
use claims_runtime::{
    control::CONTROL_HEADER,
    retry::{Retried, RetryRequest},
};
use claims_topology::Config;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use std::time::Duration;

/// One answer; the server itself takes up to 60 seconds for it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(75);

#[derive(Deserialize)]
struct Refused {
    error: String,
}

/// Asks.
pub struct Retrier<'a> {
    config: &'a Config,
    control: &'a [String],
    client: Client,
}

impl<'a> Retrier<'a> {
    /// Asks the processes at these base URLs, or else where each processor is configured to listen.
    pub fn new(config: &'a Config, control: &'a [String]) -> anyhow::Result<Self> {
        let client = Client::builder().timeout(REQUEST_TIMEOUT).no_proxy().build()?;
        Ok(Self { config, control, client })
    }

    /// Asks one process after the other, until one of them has the record's partition. An error, in words, if none took
    /// it.
    pub async fn retry(&self, processor: &str, request: &RetryRequest) -> Result<Retried, String> {
        let urls = control::urls(self.config, processor, self.control).map_err(|error| error.to_string())?;
        let mut refusals = Vec::with_capacity(urls.len());
        for url in &urls {
            match self.ask(url, processor, request).await {
                Ok(retried) => return Ok(retried),
                Err(Refusal::Elsewhere(why)) => refusals.push(format!("{url}: {why}")),
                Err(Refusal::Final(why)) => return Err(format!("{url}: {why}")),
            }
        }
        let hint =
            "the process that has the partition must be running (`claims run`) and named with --control";
        Err(format!("{}; {hint}", refusals.join("; ")))
    }

    async fn ask(&self, url: &str, processor: &str, request: &RetryRequest) -> Result<Retried, Refusal> {
        let url = format!("{url}/control/stages/{processor}/retry");
        let sent = self.client.post(url).header(CONTROL_HEADER, "yes").json(request).send().await;
        let response = match sent {
            Ok(response) => response,
            Err(error) if error.is_connect() => {
                return Err(Refusal::Elsewhere("nobody listens there".into()));
            }
            Err(error) => return Err(Refusal::Final(error.to_string())),
        };
        let status = response.status();
        let text = response.text().await.map_err(|error| Refusal::Final(error.to_string()))?;
        if status.is_success() {
            return serde_json::from_str(&text)
                .map_err(|error| Refusal::Final(format!("{error} in {text:?}")));
        }
        let why = serde_json::from_str::<Refused>(&text)
            .map_or_else(|_| status.to_string(), |refused| refused.error);
        match status {
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => Err(Refusal::Elsewhere(why)),
            _ => Err(Refusal::Final(why)),
        }
    }
}

enum Refusal {
    /// Another process may have it.
    Elsewhere(String),
    Final(String),
}
