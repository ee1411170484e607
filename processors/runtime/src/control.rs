//! Stopping and starting the stages of this process from outside, over its status server.
//!
//! - `GET  /control/stages`: the stages of this process and what they are doing.
//! - `POST /control/stages/{processor}/stop[?for_ms=N]`: drain, commit, leave the group; the process stays. With
//!   `for_ms` the stage starts again by itself after that time, whatever becomes of whoever asked.
//! - `POST /control/stages/{processor}/start`: run it again.
//! - `POST /control/stages/{processor}/retry`: give a refused record to its processor once more (see [`crate::retry`]).
//!
//! Every status server of a process answers for all of its stages. A `POST` needs the header [`CONTROL_HEADER`], which
//! a web page can't send to another site's server without being allowed to; and the server must be called by an address
//! or by one of its [`Hosts`], so that a page can't pass it off as its own site by a name that leads to it.

use crate::{Shutdown, health, retry};
use axum::{
    Json, Router,
    extract::{Path, Query, Request, State},
    http::{Method, StatusCode, header, uri::Authority},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// Every `POST` carries this header, with any value.
pub const CONTROL_HEADER: &str = "x-claims-control";

/// An answer waits for the stage this long; after that it says how far it is (202), and asking again goes on waiting.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// A stage can be stopped for so long at most by `for_ms`.
const MAX_STOP_MS: u64 = 24 * 3_600_000;

/// What a stage of this process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// It runs, or waits for what it needs to run.
    Running,
    /// It was asked to stop and drains.
    Stopping,
    /// It was stopped, and stays so until it is started.
    Stopped,
    /// It failed and waits to be started again.
    Failed,
}

/// One stage, as the control routes show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRun {
    /// The processor's name.
    pub processor: String,
    /// What it is doing.
    pub state: RunState,
}

/// The switches of all stages of a process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Control(Arc<Mutex<BTreeMap<String, Arc<Switch>>>>);

impl Control {
    /// The switch of a stage; made, and on, when it is asked for the first time.
    pub fn switch(&self, processor: &str) -> Arc<Switch> {
        let mut switches = self.lock();
        Arc::clone(switches.entry(processor.to_owned()).or_insert_with(|| Arc::new(Switch::new(processor))))
    }

    fn find(&self, processor: &str) -> Result<Arc<Switch>, Refusal> {
        let switches = self.lock();
        switches.get(processor).cloned().ok_or_else(|| {
            let here: Vec<_> = switches.keys().map(String::as_str).collect();
            let here = if here.is_empty() { "none".to_owned() } else { here.join(", ") };
            Refusal::new(
                StatusCode::NOT_FOUND,
                format!("this process runs no {processor}; stages that it runs: {here}"),
            )
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Switch>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a stage should run, and whether it does.
#[derive(Debug)]
pub struct Switch {
    processor: String,
    wanted: watch::Sender<Wanted>,
    is_running: watch::Sender<Actual>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    on: bool,
    /// Grows with every order, so that the end of a timed stop doesn't undo a later one.
    order: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Actual {
    Up,
    Down,
}

impl Switch {
    fn new(processor: &str) -> Self {
        Self {
            processor: processor.to_owned(),
            wanted: watch::Sender::new(Wanted { on: true, order: 0 }),
            is_running: watch::Sender::new(Actual::Down),
        }
    }

    fn order(&self, on: bool) -> u64 {
        let mut order = 0;
        self.wanted.send_modify(|wanted| {
            wanted.on = on;
            wanted.order += 1;
            order = wanted.order;
        });
        order
    }

    fn state(&self) -> RunState {
        match (self.wanted.borrow().on, *self.is_running.borrow()) {
            (true, Actual::Up) => RunState::Running,
            (false, Actual::Up) => RunState::Stopping,
            (false, Actual::Down) => RunState::Stopped,
            (true, Actual::Down) => RunState::Failed,
        }
    }

    fn run(&self) -> StageRun {
        StageRun { processor: self.processor.clone(), state: self.state() }
    }

    async fn until_wanted(&self, on: bool) {
        let _ = self.wanted.subscribe().wait_for(|wanted| wanted.on == on).await;
    }

    async fn until(&self, state: Actual) {
        let _ = self.is_running.subscribe().wait_for(|actual| *actual == state).await;
    }
}

/// Runs `work` for as long as its switch is on, again and again, until `shutdown`. `work` is given its own stop, and
/// an end without that being asked for ends this, too: with the error, or else as `work` itself did.
pub async fn run_switched<F, Fut, E>(switch: &Switch, mut shutdown: Shutdown, mut work: F) -> Result<(), E>
where
    F: FnMut(Shutdown) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    loop {
        tokio::select! {
            biased;
            () = shutdown.requested() => return Ok(()),
            () = switch.until_wanted(true) => {}
        }
        let is_up = Up::of(switch);
        let (trigger, stop) = Shutdown::new();
        let mut running = std::pin::pin!(work(stop));
        let mut is_asked = false;
        let result = loop {
            tokio::select! {
                result = &mut running => break result,
                () = shutdown.requested(), if !is_asked => is_asked = true,
                () = switch.until_wanted(false), if !is_asked => {
                    tracing::info!(processor = switch.processor, "stopping by request; the process stays");
                    is_asked = true;
                }
            }
            trigger.stop();
        };
        result?;
        if shutdown.is_requested() || !is_asked {
            return Ok(());
        }
        health::note_stopped(&switch.processor);
        drop(is_up);
        tracing::warn!(processor = switch.processor, "stopped by request until it is started again");
    }
}

/// Says that the stage runs, for as long as it is held.
struct Up<'a>(&'a Switch);

impl<'a> Up<'a> {
    fn of(switch: &'a Switch) -> Self {
        switch.is_running.send_replace(Actual::Up);
        Self(switch)
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.0.is_running.send_replace(Actual::Down);
    }
}

/// Who may use the control routes of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever reaches the server.
    Open,
    /// Nobody.
    Closed {
        /// Where the server listens.
        listen: SocketAddr,
    },
}

impl Access {
    /// On loopback control is open; elsewhere only where the configuration says so.
    pub fn of(listen: SocketAddr, is_enabled: bool) -> Self {
        if is_enabled || listen.ip().is_loopback() { Self::Open } else { Self::Closed { listen } }
    }
}

/// The names by which the control routes of a server may be called, beside addresses and `localhost`. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Arc<[String]>);

impl Hosts {
    /// These names; one that begins with a dot stands for all names below it.
    pub fn new(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let plain = |name: String| name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase();
        Self(names.into_iter().map(|name| plain(name.into())).collect())
    }

    /// Whether a request to this `host[:port]` may be meant for the server.
    fn admit(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else { return false };
        let host = authority.host().to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        // A name can be made to lead anywhere; an address can't.
        let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let is_known = |name: &String| match name.starts_with('.') {
            true => host.ends_with(name.as_str()),
            false => host == name,
        };
        is_address || host == "localhost" || self.0.iter().any(is_known)
    }
}

/// The control routes.
pub fn routes(control: Control, access: Access, hosts: Hosts) -> Router {
    Router::new()
        .route("/control/stages", get(list))
        .route("/control/stages/{processor}/stop", post(stop))
        .route("/control/stages/{processor}/start", post(start))
        .route("/control/stages/{processor}/retry", post(retry::handle))
        .route_layer(middleware::from_fn(move |request, next| admit(access, hosts.clone(), request, next)))
        .with_state(control)
}

/// Why a control request was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    code: StatusCode,
    error: String,
}

impl Refusal {
    pub(crate) fn new(code: StatusCode, error: impl Into<String>) -> Self {
        Self { code, error: error.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.code, Json(serde_json::json!({ "error": self.error }))).into_response()
    }
}

async fn admit(access: Access, hosts: Hosts, request: Request, next: Next) -> Response {
    if let Access::Closed { listen } = access {
        let error = format!(
            "control is off: this server listens on {listen}, beyond loopback, and telemetry.control_enabled is false"
        );
        return Refusal::new(StatusCode::FORBIDDEN, error).into_response();
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| request.uri().authority().map(Authority::as_str)).unwrap_or_default();
    if !hosts.admit(host) {
        let error = format!(
            "control is not for requests to {host:?}: call the server by its address, or add the name to \
             telemetry.control_hosts"
        );
        return Refusal::new(StatusCode::FORBIDDEN, error).into_response();
    }
    if request.method() == Method::POST && !request.headers().contains_key(CONTROL_HEADER) {
        let error = format!("send the header `{CONTROL_HEADER}: yes`");
        return Refusal::new(StatusCode::BAD_REQUEST, error).into_response();
    }
    next.run(request).await
}

async fn list(State(control): State<Control>) -> Json<Vec<StageRun>> {
    let switches: Vec<_> = control.lock().values().cloned().collect();
    Json(switches.iter().map(|switch| switch.run()).collect())
}

#[derive(Debug, Deserialize)]
struct StopFor {
    for_ms: Option<u64>,
}

async fn stop(
    State(control): State<Control>,
    Path(processor): Path<String>,
    Query(StopFor { for_ms }): Query<StopFor>,
) -> Result<(StatusCode, Json<StageRun>), Refusal> {
    let switch = control.find(&processor)?;
    if for_ms.is_some_and(|ms| ms > MAX_STOP_MS) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("for_ms is more than {MAX_STOP_MS}")));
    }
    let order = switch.order(false);
    if let Some(ms) = for_ms {
        let switch = Arc::clone(&switch);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            if *switch.wanted.borrow() == (Wanted { on: false, order }) {
                tracing::warn!(processor = switch.processor, "the time of its stop is over; starting again");
                switch.order(true);
            }
        });
    }
    Ok(answer(&switch, Actual::Down).await)
}

async fn start(
    State(control): State<Control>,
    Path(processor): Path<String>,
) -> Result<(StatusCode, Json<StageRun>), Refusal> {
    let switch = control.find(&processor)?;
    switch.order(true);
    Ok(answer(&switch, Actual::Up).await)
}

async fn answer(switch: &Switch, wanted: Actual) -> (StatusCode, Json<StageRun>) {
    let reached = tokio::time::timeout(ANSWER_TIMEOUT, switch.until(wanted)).await;
    let code = if reached.is_ok() { StatusCode::OK } else { StatusCode::ACCEPTED };
    (code, Json(switch.run()))
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
