//! `claims run`: processors, until a signal.

use anyhow::{Context, anyhow, bail};
use claims_runtime::{
    Shutdown,
    control::{Control, run_switched},
    metrics,
    status::{ControlSettings, serve_status},
};
use claims_topology::{
    Config, graph,
    topics::{self, TopicsError},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinSet,
};

/// Run processors until SIGTERM or SIGINT
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Processors: ingress (HTTP, POST /v1/events), current-state (CQL), analytics (ClickHouse), audit (Parquet segments). \
Each is a consumer group of its own. Each serves /metrics, /health/live and /health/ready on its `listen` address, and \
/control, by which `claims replay --restart` stops and starts it (beyond loopback only with telemetry.control_enabled).

A processor that fails is reported and started again after 1 s, then 2 s, 4 s, up to 60 s (from 1 s again once it has \
run for 5 minutes), while the others of the same process go on. Where none of them is left running, as with one \
processor alone, the process ends with the error and exit code 1, for a supervisor to start it again. The exit code \
is 1, too, where a processor is down when the process is stopped.

Missing topics are made at the start. While Kafka is away that is tried again until it answers: processors wait, \
ingress serves and refuses events with 503.

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

/// A processor that failed is started again after this long; doubled with every failure in a row.
const RESTART_MIN_BACKOFF: Duration = Duration::from_secs(1);
const RESTART_MAX_BACKOFF: Duration = Duration::from_secs(60);
/// A processor that ran for so long before it failed begins with the shortest backoff again.
const RESTART_RESET_AFTER: Duration = Duration::from_secs(300);
/// At the start, Kafka is asked for the topics again after this long; doubled every time.
const TOPICS_MIN_BACKOFF: Duration = Duration::from_secs(1);
const TOPICS_MAX_BACKOFF: Duration = Duration::from_secs(10);

fn parser() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(graph::PROCESSORS.iter().copied().chain([ALL]))
}

/// Runs the command.
pub async fn run(args: RunArgs, config: Config) -> anyhow::Result<ExitCode> {
    let chosen = chosen(&args.processors);
    let render = metrics::install().context("installing the metrics")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (trigger, shutdown) = Shutdown::new();
    let (topics_checked, topics_ready) = watch::channel(false);
    let config = Arc::new(config);
    let control = Control::default();
    let needs =
        Needs { config: Arc::clone(&config), shutdown: shutdown.clone(), topics_ready, control, render };
    let mut crew = Crew::new(needs);
    chosen.iter().for_each(|name| crew.start(name));
    tracing::info!(processors = ?chosen, "running");
    let mut topics = pin!(prepare_topics(&config));
    let mut preparing = true;
    // One deadline, made once: it counts from the signal, whatever stops in between.
    let mut deadline = pin!(given_up(shutdown.clone()));
    while !(crew.running.is_empty() && shutdown.is_requested()) {
        tokio::select! {
            Some(ended) = crew.running.join_next() => crew.note(ended?)?,
            Some(name) = crew.waiting.join_next(), if !shutdown.is_requested() => crew.start(name?),
            prepared = &mut topics, if preparing => {
                prepared?;
                preparing = false;
                topics_checked.send_replace(true);
            }
            _ = terminate.recv() => stop(&shutdown, &trigger)?,
            _ = interrupt.recv() => stop(&shutdown, &trigger)?,
            () = &mut deadline => {
                bail!("not everything had stopped {} ms after the signal", SHUTDOWN_LIMIT.as_millis());
            }
        }
    }
    if crew.down.is_empty() { Ok(ExitCode::SUCCESS) } else { bail!(crew.failure()) }
}

/// The processors to run, each once.
fn chosen(names: &[String]) -> Vec<&'static str> {
    let all = names.iter().any(|name| name == ALL);
    graph::PROCESSORS.iter().copied().filter(|known| all || names.iter().any(|name| name == known)).collect()
}

/// Makes missing topics, as soon as Kafka answers. A topic of another partition count than configured would put a
/// claim's events into two partitions.
async fn prepare_topics(config: &Config) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(TOPICS_MIN_BACKOFF, TOPICS_MAX_BACKOFF);
    loop {
        let delay = match topics::ensure(config).await {
            Ok(()) => return Ok(()),
            Err(error @ TopicsError::PartitionCount { .. }) => return Err(error.into()),
            Err(error @ TopicsError::Unavailable { .. }) => {
                let delay = backoff.next();
                let retry_in_ms = delay.as_millis();
                tracing::warn!(%error, retry_in_ms, "topics could not be checked; processors wait for Kafka");
                delay
            }
            // Kafka is there and says no (it may let us read and write only): the processors see for themselves.
            Err(error) => {
                tracing::warn!(%error, "topics could not be checked");
                return Ok(());
            }
        };
        tokio::time::sleep(delay).await;
    }
}

/// Asks everything to stop; an error if that was asked for already.
fn stop(shutdown: &Shutdown, trigger: &claims_runtime::ShutdownTrigger) -> anyhow::Result<()> {
    if shutdown.is_requested() {
        bail!("ended at once by a second signal; what was not committed will be processed again");
    }
    tracing::info!("stopping");
    trigger.stop();
    Ok(())
}

async fn given_up(mut shutdown: Shutdown) {
    shutdown.requested().await;
    tokio::time::sleep(SHUTDOWN_LIMIT).await;
}

/// Time to wait before the next try: doubled with each, up to a limit.
#[derive(Debug)]
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    fn next(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.max);
        delay
    }

    fn reset(&mut self) {
        self.next = self.min;
    }
}

/// What every processor is started with.
#[derive(Clone)]
struct Needs<F> {
    config: Arc<Config>,
    shutdown: Shutdown,
    /// Turns true when the topics are there.
    topics_ready: watch::Receiver<bool>,
    /// Stops and starts processors by request.
    control: Control,
    /// Gives the metrics as text.
    render: F,
}

/// One run of a processor that is over.
struct Ended {
    name: &'static str,
    ran: Duration,
    result: anyhow::Result<()>,
}

/// The processors of this process: those that run, and those that failed and wait to be started again.
struct Crew<F> {
    needs: Needs<F>,
    running: JoinSet<Ended>,
    waiting: JoinSet<&'static str>,
    down: BTreeSet<&'static str>,
    backoffs: BTreeMap<&'static str, Backoff>,
}

impl<F> Crew<F>
where
    F: Fn() -> String + Clone + Send + Sync + 'static,
{
    fn new(needs: Needs<F>) -> Self {
        let (running, waiting) = (JoinSet::new(), JoinSet::new());
        Self { needs, running, waiting, down: BTreeSet::new(), backoffs: BTreeMap::new() }
    }

    fn start(&mut self, name: &'static str) {
        self.down.remove(name);
        let needs = self.needs.clone();
        self.running.spawn(async move {
            let begun = Instant::now();
            // A task of its own: a processor that panics is one that failed.
            let result = tokio::spawn(start(name, needs)).await;
            let result = result.map_err(anyhow::Error::from).and_then(|result| result);
            Ended { name, ran: begun.elapsed(), result }
        });
    }

    /// Takes note of a processor that ended. If it failed it will be started again, unless none is left running: what
    /// waiting mends was waited for by the processor itself, so the error ends the process, and its supervisor acts.
    fn note(&mut self, Ended { name, ran, result }: Ended) -> anyhow::Result<()> {
        let stopping = self.needs.shutdown.is_requested();
        let error = match result {
            Ok(()) if stopping => {
                tracing::info!(processor = name, "stopped");
                return Ok(());
            }
            Ok(()) => anyhow!("it ended without being asked to"),
            Err(error) => error,
        };
        self.down.insert(name);
        let reason = format!("{error:#}");
        if stopping {
            tracing::error!(processor = name, error = reason, "failed while it stopped");
            return Ok(());
        }
        if self.running.is_empty() {
            tracing::error!(processor = name, error = reason, "failed; none is left running");
            return Err(error.context(self.failure()));
        }
        let delay = self.restart_delay(name, ran);
        let restart_in_ms = delay.as_millis();
        tracing::error!(processor = name, error = reason, restart_in_ms, "failed; the others go on");
        self.waiting.spawn(async move {
            tokio::time::sleep(delay).await;
            name
        });
        Ok(())
    }

    fn restart_delay(&mut self, name: &'static str, ran: Duration) -> Duration {
        let fresh = || Backoff::new(RESTART_MIN_BACKOFF, RESTART_MAX_BACKOFF);
        let backoff = self.backoffs.entry(name).or_insert_with(fresh);
        if ran >= RESTART_RESET_AFTER {
            backoff.reset();
        }
        backoff.next()
    }

    fn failure(&self) -> String {
        let names: Vec<_> = self.down.iter().copied().collect();
        format!("failed: {}", names.join(", "))
    }
}

/// One processor with its status server. A server that can't listen stops its processor.
async fn start<F>(name: &'static str, needs: Needs<F>) -> anyhow::Result<()>
where
    F: Fn() -> String + Clone + Send + Sync + 'static,
{
    let Needs { config, shutdown: stop, topics_ready, control, render } = needs;
    // It has a server of its own, which says all that the status server would, and waits for Kafka by itself.
    if name == INGRESS {
        return Ok(claims_ingress::http::serve(&config, stop, render).await?);
    }
    let listen = match name {
        "current-state" => &config.current_state.listen,
        "analytics" => &config.analytics.listen,
        _ => &config.audit.listen,
    };
    let (trigger, own_stop) = Shutdown::new();
    let mut stop_asked = stop.clone();
    let switch = control.switch(name);
    let mut work =
        pin!(run_switched(&switch, own_stop, |stop| processor(name, &config, topics_ready.clone(), stop)));
    let settings = ControlSettings {
        control,
        is_enabled_everywhere: config.telemetry.control_enabled,
        hosts: config.telemetry.control_hosts.clone(),
    };
    let mut status = pin!(serve_status(listen, render, settings, stop));
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

async fn processor(
    name: &'static str,
    config: &Config,
    mut topics_ready: watch::Receiver<bool>,
    mut stop: Shutdown,
) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        () = stop.requested() => return Ok(()),
        ready = topics_ready.wait_for(|ready| *ready) => { ready?; }
    }
    match name {
        "current-state" => claims_current_state::run(config, stop).await?,
        "analytics" => claims_analytics::run(config, stop).await?,
        "audit" => claims_audit::run(config, stop).await?,
        other => bail!("no processor is named {other}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crew() -> (claims_runtime::ShutdownTrigger, Crew<fn() -> String>) {
        let (trigger, shutdown) = Shutdown::new();
        let (_, topics_ready) = watch::channel(false);
        let render = String::new as fn() -> String;
        let (config, control) = (Arc::default(), Control::default());
        let needs = Needs { config, shutdown, topics_ready, control, render };
        (trigger, Crew::new(needs))
    }

    fn failed(name: &'static str) -> Ended {
        Ended { name, ran: Duration::ZERO, result: Err(anyhow!("the sink is away")) }
    }

    #[test]
    fn restarts_come_later_and_later_until_a_long_run() {
        let (_trigger, mut crew) = crew();
        let delays: Vec<_> =
            (0..8).map(|_| crew.restart_delay("audit", Duration::from_secs(299)).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(crew.restart_delay("analytics", Duration::ZERO).as_secs(), 1);
        assert_eq!(crew.restart_delay("audit", RESTART_RESET_AFTER).as_secs(), 1);
        assert_eq!(crew.restart_delay("audit", Duration::ZERO).as_secs(), 2);
    }

    #[tokio::test]
    async fn the_last_one_to_fail_ends_the_process_with_its_error() {
        let (_trigger, mut crew) = crew();
        crew.running.spawn(std::future::pending());
        crew.note(failed("audit")).unwrap();
        assert_eq!(crew.waiting.len(), 1);
        crew.running.shutdown().await;
        let error = crew.note(failed("analytics")).unwrap_err();
        assert_eq!(format!("{error:#}"), "failed: analytics, audit: the sink is away");
    }

    #[tokio::test]
    async fn nothing_is_started_again_once_the_stop_was_asked_for() {
        let (trigger, mut crew) = crew();
        trigger.stop();
        crew.note(Ended { name: "audit", ran: Duration::ZERO, result: Ok(()) }).unwrap();
        assert!(crew.down.is_empty());
        crew.note(failed("analytics")).unwrap();
        assert!(crew.waiting.is_empty());
        assert_eq!(crew.failure(), "failed: analytics");
    }

    #[test]
    fn an_end_that_nobody_asked_for_is_a_failure() {
        let (_trigger, mut crew) = crew();
        let ended = Ended { name: "audit", ran: Duration::ZERO, result: Ok(()) };
        let error = crew.note(ended).unwrap_err();
        assert_eq!(format!("{error:#}"), "failed: audit: it ended without being asked to");
    }
}
