//! `claims run`: processors, until a signal.

use anyhow::{Context, bail};
use claims_runtime::{Shutdown, metrics, status::serve_status};
use claims_topology::{
    Config, graph,
    topics::{self, TopicsError},
};
use std::{pin::pin, process::ExitCode, sync::Arc, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

/// Run processors until SIGTERM or SIGINT
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Processors: ingress (HTTP, POST /v1/events), current-state (CQL), analytics (ClickHouse), audit (Parquet segments). \
Each is a consumer group of its own. Each serves /metrics, /health/live and /health/ready on its `listen` address.

A processor that fails is reported, and the others of the same process go on; the exit code is then 1 in the end. \
Running each in a process of its own lets a supervisor start the failed one again.

On SIGTERM or SIGINT every processor flushes what it has, commits and leaves its group, within 10 seconds. A second \
signal ends the process at once.

Examples:
  claims run all
  claims run analytics
  claims run current-state audit --set telemetry.log_format=json")]
pub struct RunArgs {
    /// Which of them
    #[arg(required = true, value_name = "PROCESSOR", value_parser = parser())]
    processors: Vec<String>,
}

const ALL: &str = "all";
const INGRESS: &str = "ingress";
/// So long after a signal the process ends, whether everything has stopped or not.
const SHUTDOWN_LIMIT: Duration = Duration::from_millis(9_500);

fn parser() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(graph::PROCESSORS.iter().copied().chain([ALL]))
}

/// Runs the command.
pub async fn run(args: RunArgs, config: Config) -> anyhow::Result<ExitCode> {
    let chosen = chosen(&args.processors);
    let render = metrics::install().context("installing the metrics")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        prepared = prepare_topics(&config) => prepared?,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    }
    let (trigger, shutdown) = Shutdown::new();
    let config = Arc::new(config);
    let mut running = JoinSet::new();
    for &name in &chosen {
        let (config, shutdown, render) = (Arc::clone(&config), shutdown.clone(), render.clone());
        running.spawn(async move {
            // A task of its own: a processor that panics is one that failed.
            let task = tokio::spawn(async move { start(name, &config, shutdown, render).await });
            let result = task.await.map_err(anyhow::Error::from).and_then(|result| result);
            (name, result)
        });
    }
    tracing::info!(processors = ?chosen, "running");
    let mut failed = Vec::new();
    loop {
        tokio::select! {
            ended = running.join_next() => match ended {
                None => break,
                Some(ended) => note(ended?, shutdown.is_requested(), &mut failed),
            },
            _ = terminate.recv() => if stop(&shutdown, &trigger) { break },
            _ = interrupt.recv() => if stop(&shutdown, &trigger) { break },
            () = given_up(shutdown.clone()) => {
                bail!("not everything had stopped {} ms after the signal", SHUTDOWN_LIMIT.as_millis());
            }
        }
    }
    if shutdown.is_requested() && !running.is_empty() {
        bail!("ended at once by a second signal; what was not committed will be processed again");
    }
    match failed.as_slice() {
        [] => Ok(ExitCode::SUCCESS),
        failed => bail!("failed: {}", failed.join(", ")),
    }
}

/// The processors to run, each once.
fn chosen(names: &[String]) -> Vec<&'static str> {
    let all = names.iter().any(|name| name == ALL);
    graph::PROCESSORS.iter().copied().filter(|known| all || names.iter().any(|name| name == known)).collect()
}

/// Makes missing topics. Where Kafka is away the processors wait for it by themselves; a topic of another partition
/// count than configured would put a claim's events into two partitions.
async fn prepare_topics(config: &Config) -> anyhow::Result<()> {
    match topics::ensure(config).await {
        Ok(()) => Ok(()),
        Err(error @ TopicsError::PartitionCount { .. }) => Err(error.into()),
        Err(error) => {
            tracing::warn!(%error, "topics could not be checked");
            Ok(())
        }
    }
}

/// Asks everything to stop; whether that was asked for already.
fn stop(shutdown: &Shutdown, trigger: &claims_runtime::ShutdownTrigger) -> bool {
    if shutdown.is_requested() {
        return true;
    }
    tracing::info!("stopping");
    trigger.stop();
    false
}

async fn given_up(mut shutdown: Shutdown) {
    shutdown.requested().await;
    tokio::time::sleep(SHUTDOWN_LIMIT).await;
}

fn note((name, result): (&'static str, anyhow::Result<()>), stopping: bool, failed: &mut Vec<&'static str>) {
    match result {
        Ok(()) if stopping => tracing::info!(processor = name, "stopped"),
        Ok(()) => {
            tracing::error!(processor = name, "ended without being asked to");
            failed.push(name);
        }
        Err(error) => {
            tracing::error!(processor = name, error = format!("{error:#}"), "failed; the others go on");
            failed.push(name);
        }
    }
}

/// One processor with its status server. A server that can't listen stops its processor.
async fn start<F>(name: &'static str, config: &Config, stop: Shutdown, render: F) -> anyhow::Result<()>
where
    F: Fn() -> String + Clone + Send + Sync + 'static,
{
    if name == "ingress" {
        // Its own server serves events, metrics and health.
        return Ok(claims_ingress::http::serve(config, stop, render).await?);
    }
    // It has a server of its own, which says all that the status server would.
    if name == INGRESS {
        return Ok(claims_ingress::http::serve(config, stop, render).await?);
    }
    let listen = match name {
        "current-state" => &config.current_state.listen,
        "analytics" => &config.analytics.listen,
        _ => &config.audit.listen,
    };
    let (trigger, own_stop) = Shutdown::new();
    let mut stop_asked = stop.clone();
    let mut work = pin!(processor(name, config, own_stop));
    let mut status = pin!(serve_status(listen, render, stop));
    let (mut serving, mut stopping) = (true, false);
    let mut status_error = None;
    loop {
        tokio::select! {
            result = &mut work => return result.and(status_error.map_or(Ok(()), Err)),
            () = stop_asked.requested(), if !stopping => {
                stopping = true;
                trigger.stop();
            }
            served = &mut status, if serving => {
                serving = false;
                if let Err(error) = served {
                    let advice = format!("is the address free? see `listen` of {name} in the configuration");
                    status_error = Some(anyhow::Error::new(error).context(advice));
                    trigger.stop();
                }
            }
        }
    }
}

async fn processor(name: &'static str, config: &Config, stop: Shutdown) -> anyhow::Result<()> {
    match name {
        "current-state" => claims_current_state::run(config, stop).await?,
        "analytics" => claims_analytics::run(config, stop).await?,
        "audit" => claims_audit::run(config, stop).await?,
        other => bail!("no processor is named {other}"),
    }
    Ok(())
}
