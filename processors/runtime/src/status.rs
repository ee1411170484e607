//! The small HTTP server beside a running stage: `/metrics`, `/health/live`, `/health/ready`, and `/control/…` (see
//! [`crate::control`]).

use crate::{
    Shutdown,
    control::{self, Access, Control, Hosts},
    health::{self, StageStatus},
};
use axum::{
    Json, Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde::Serialize;

/// The server could not listen, or broke.
#[derive(Debug, thiserror::Error)]
#[error("status server on {listen}: {source}")]
pub struct StatusError {
    listen: String,
    source: std::io::Error,
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    stages: Vec<StageStatus>,
}

/// What a status server controls, and for whom.
#[derive(Debug, Clone, Default)]
pub struct ControlSettings {
    /// The switches of the process's stages.
    pub control: Control,
    /// Whether a server that listens beyond loopback offers control, too.
    pub is_enabled_everywhere: bool,
    /// Names by which control may be called, beside that in the listen address.
    pub hosts: Vec<String>,
}

/// Serves until `shutdown`. `render` gives the metrics in Prometheus' text format (see [`crate::metrics::install`]).
pub async fn serve_status<F>(
    listen: &str,
    render: F,
    settings: ControlSettings,
    mut shutdown: Shutdown,
) -> Result<(), StatusError>
where
    F: Fn() -> String + Clone + Send + Sync + 'static,
{
    let failed = |source| StatusError { listen: listen.to_owned(), source };
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let access = Access::of(address, settings.is_enabled_everywhere);
    let control = access == Access::Open;
    let own = listen.rsplit_once(':').map(|(host, _)| host.to_owned());
    let hosts = Hosts::new(settings.hosts.into_iter().chain(own));
    tracing::info!(%address, control, "serving /metrics, /health/live, /health/ready, /control");
    axum::serve(listener, router(render).merge(control::routes(settings.control, access, hosts)))
        .with_graceful_shutdown(async move { shutdown.requested().await })
        .await
        .map_err(failed)
}

/// The routes, for a server of one's own.
pub fn router<F>(render: F) -> Router
where
    F: Fn() -> String + Clone + Send + Sync + 'static,
{
    let metrics = move || {
        let text = render();
        async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
    };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health/live", get(|| async { answer(health::is_live) }))
        .route("/health/ready", get(|| async { answer(health::is_ready) }))
}

fn answer(is_good: impl Fn(&[StageStatus]) -> bool) -> impl IntoResponse {
    let stages = health::stages();
    let (code, status) = match is_good(&stages) {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    (code, Json(Health { status, stages }))
}
