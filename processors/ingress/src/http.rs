//! Events over HTTP: `POST /v1/events`, and what an operator asks of a running server.

mod answers;
mod events;

pub use answers::{Accepted, Refused};

use crate::publisher::{PublishError, Publisher};
use axum::{
    Json, Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use claims_runtime::Shutdown;
use claims_topology::Config;
use serde::Serialize;
use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::Semaphore;
use utoipa::OpenApi;

/// Requests that bring events, worked on at one time; more are answered 429.
const MAX_REQUESTS_AT_ONCE: usize = 256;
/// While Kafka is away it is asked this often.
const PROBE_INTERVAL_MS: u64 = 1_000;
/// How long one such question may take.
const PROBE_TIMEOUT_MS: u64 = 2_000;

/// The server could not listen, or broke.
#[derive(Debug, thiserror::Error)]
#[error("HTTP server on {listen}: {error}; is the address free? see ingress.listen in the configuration")]
pub struct HttpError {
    listen: String,
    error: io::Error,
}

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Empty until Kafka and the registry have answered for the first time.
    publisher: OnceLock<Arc<Publisher>>,
    config: claims_topology::config::IngressConfig,
    room: Semaphore,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Claimstream ingress", description = "Claim events into Kafka"),
    paths(events::post_events),
    components(schemas(Accepted, Refused))
)]
struct ApiDoc;

#[derive(Serialize)]
struct Health {
    status: &'static str,
    kafka: &'static str,
}

/// Serves until `shutdown`; requests under way are finished. Kafka needn't be there yet: until it is, events are
/// answered 503. `render` gives the metrics in Prometheus' text format.
pub async fn serve<F>(config: &Config, mut shutdown: Shutdown, render: F) -> Result<(), HttpError>
where
    F: Fn() -> String + Clone + Send + Sync + 'static,
{
    let listen = config.ingress.listen.clone();
    let failed = |error| HttpError { listen: listen.clone(), error };
    let listener = tokio::net::TcpListener::bind(&listen).await.map_err(failed)?;
    let shared = Arc::new(Shared {
        publisher: OnceLock::new(),
        config: config.ingress.clone(),
        room: Semaphore::new(MAX_REQUESTS_AT_ONCE),
    });
    tracing::info!(%listen, "serving POST /v1/events");
    let connection = tokio::spawn(keep_connected(config.clone(), Arc::clone(&shared)));
    let served = axum::serve(listener, router(shared, render))
        .with_graceful_shutdown(async move { shutdown.requested().await })
        .await;
    connection.abort();
    served.map_err(failed)
}

fn router<F>(shared: Arc<Shared>, render: F) -> Router
where
    F: Fn() -> String + Clone + Send + Sync + 'static,
{
    let metrics = move || {
        let text = render();
        async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
    };
    let health = |shared: &Arc<Shared>| {
        let shared = Arc::clone(shared);
        move || async move { shared.health() }
    };
    Router::new()
        .route("/v1/events", post(events::post_events))
        .route("/health", get(health(&shared)))
        .route("/health/ready", get(health(&shared)))
        .route("/health/live", get(|| async { StatusCode::OK }))
        .route("/openapi.json", get(|| async { Json(ApiDoc::openapi()) }))
        .route("/metrics", get(metrics))
        .with_state(shared)
}

impl Shared {
    /// The way into Kafka; `None`: not connected yet, or the brokers are away.
    fn publisher(&self) -> Option<&Arc<Publisher>> {
        self.publisher.get().filter(|publisher| !publisher.is_down())
    }

    fn health(&self) -> impl IntoResponse + use<> {
        match (self.publisher.get(), self.publisher()) {
            (_, Some(_)) => (StatusCode::OK, Json(Health { status: "ok", kafka: "up" })),
            (Some(_), None) => {
                (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "unavailable", kafka: "down" }))
            }
            (None, _) => {
                (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "unavailable", kafka: "connecting" }))
            }
        }
    }
}

/// Connects as soon as Kafka and the registry are there, and finds out when brokers that were away are back.
async fn keep_connected(config: Config, shared: Arc<Shared>) {
    let interval = Duration::from_millis(PROBE_INTERVAL_MS);
    let mut told = false;
    loop {
        match Publisher::connect(&config).await {
            Ok(publisher) => {
                let _ = shared.publisher.set(Arc::new(publisher));
                tracing::info!("connected to Kafka");
                break;
            }
            Err(error) => tell(&error, &mut told),
        }
        tokio::time::sleep(interval).await;
    }
    loop {
        tokio::time::sleep(interval).await;
        if let Some(publisher) = shared.publisher.get().filter(|publisher| publisher.is_down()).cloned() {
            let probe = move || publisher.probe(Duration::from_millis(PROBE_TIMEOUT_MS));
            if matches!(tokio::task::spawn_blocking(probe).await, Ok(true)) {
                tracing::info!("Kafka is back");
            }
        }
    }
}

fn tell(error: &PublishError, told: &mut bool) {
    if *told {
        tracing::debug!(%error, "still waiting for Kafka");
    } else {
        tracing::warn!(%error, "waiting for Kafka; events are answered 503");
        *told = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_describes_itself() {
        let doc = serde_json::to_value(ApiDoc::openapi()).unwrap();
        let responses = doc["paths"]["/v1/events"]["post"]["responses"].as_object().unwrap();
        let codes: Vec<_> = responses.keys().map(String::as_str).collect();
        assert_eq!(codes, ["202", "400", "413", "429", "503"]);
    }
}
