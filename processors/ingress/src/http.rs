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
    future::IntoFuture,
    io,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::Semaphore;
use utoipa::OpenApi;

/// Requests that bring events, worked on at one time; more are answered 429.
const MAX_REQUESTS_AT_ONCE: usize = 256;
/// While Kafka is away it is asked this often; a producer that failed is replaced within this long.
const PROBE_INTERVAL_MS: u64 = 1_000;
/// How long one such question may take.
const PROBE_TIMEOUT_MS: u64 = 2_000;
/// Connections that are still open this long after the stop was asked for are cut. Shorter than the process waits.
const DRAIN_TIMEOUT_MS: u64 = 8_000;

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
    /// Empty while there is no connection: until Kafka and the registry have answered, and after the producer failed.
    publisher: RwLock<Option<Arc<Publisher>>>,
    config: claims_topology::config::IngressConfig,
    room: Semaphore,
    shutdown: Shutdown,
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

/// Serves until `shutdown`; requests whose body arrives soon after it are finished. Kafka needn't be there yet: until
/// it is, events are answered 503. `render` gives the metrics in Prometheus' text format.
pub async fn serve<F>(config: &Config, mut shutdown: Shutdown, render: F) -> Result<(), HttpError>
where
    F: Fn() -> String + Clone + Send + Sync + 'static,
{
    let listen = config.ingress.listen.clone();
    let failed = |error| HttpError { listen: listen.clone(), error };
    let listener = tokio::net::TcpListener::bind(&listen).await.map_err(failed)?;
    let shared = Arc::new(Shared {
        publisher: RwLock::new(None),
        config: config.ingress.clone(),
        room: Semaphore::new(MAX_REQUESTS_AT_ONCE),
        shutdown: shutdown.clone(),
    });
    tracing::info!(%listen, "serving POST /v1/events");
    let connection = tokio::spawn(keep_connected(config.clone(), Arc::clone(&shared)));
    let mut stop = shutdown.clone();
    let serving = axum::serve(listener, router(shared, render))
        .with_graceful_shutdown(async move { stop.requested().await })
        .into_future();
    let drained = async {
        shutdown.requested().await;
        tokio::time::sleep(Duration::from_millis(DRAIN_TIMEOUT_MS)).await;
    };
    let served = tokio::select! {
        served = serving => served,
        () = drained => {
            tracing::warn!(timeout_ms = DRAIN_TIMEOUT_MS, "connections did not end in time and are cut");
            Ok(())
        }
    };
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
    /// The way into Kafka; `None`: not connected, the brokers are away, or the producer failed.
    fn publisher(&self) -> Option<Arc<Publisher>> {
        self.connected().filter(|publisher| publisher.is_usable())
    }

    /// The same, whether or not it can be used.
    fn connected(&self) -> Option<Arc<Publisher>> {
        self.publisher.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the one before.
    fn replace_publisher(&self, publisher: Option<Arc<Publisher>>) -> Option<Arc<Publisher>> {
        let mut place = self.publisher.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *place, publisher)
    }

    fn health(&self) -> impl IntoResponse + use<> {
        let unavailable =
            |kafka| (StatusCode::SERVICE_UNAVAILABLE, Json(Health { status: "unavailable", kafka }));
        match self.connected() {
            None => unavailable("connecting"),
            Some(publisher) if publisher.is_usable() => {
                (StatusCode::OK, Json(Health { status: "ok", kafka: "up" }))
            }
            Some(publisher) if publisher.failure().is_some() => unavailable("reconnecting"),
            Some(_) => unavailable("down"),
        }
    }
}

/// Connects as soon as Kafka and the registry are there, and anew after the producer failed.
async fn keep_connected(config: Config, shared: Arc<Shared>) {
    let mut told = false;
    loop {
        match Publisher::connect(&config).await {
            Ok(publisher) => {
                let publisher = Arc::new(publisher);
                shared.replace_publisher(Some(Arc::clone(&publisher)));
                tracing::info!("connected to Kafka");
                told = false;
                let error = watch(publisher).await;
                tracing::error!(%error, "the Kafka producer failed and is replaced; events are answered 503");
                let failed = shared.replace_publisher(None);
                // Closing a producer waits for its threads.
                tokio::task::spawn_blocking(move || drop(failed));
            }
            Err(error) => tell(&error, &mut told),
        }
        tokio::time::sleep(Duration::from_millis(PROBE_INTERVAL_MS)).await;
    }
}

/// Finds out when brokers that were away are back. Returns why the producer failed once it did.
async fn watch(publisher: Arc<Publisher>) -> String {
    loop {
        tokio::time::sleep(Duration::from_millis(PROBE_INTERVAL_MS)).await;
        if let Some(failure) = publisher.failure() {
            return failure;
        }
        if publisher.is_down() {
            let publisher = Arc::clone(&publisher);
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
