//! The services as plain processes of this machine.

mod cassandra;
mod clickhouse;
pub mod cluster;
pub mod kafka;
mod registry;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Serialize;

use super::layout::{Layout, PORT_OFFSET_ENV, Ports};
use super::lock::Lock;
use super::probe::{Probe, holder, is_taken};
use super::process::{Record, resident_bytes, start, stop};
use super::{RunLength, Service, download, logs, tools};

/// How long a service may take until it answers, while the machine may be compiling.
const READY_TIMEOUT: Duration = Duration::from_secs(180);
/// How long a service may take to end by itself.
const STOP_GRACE: Duration = Duration::from_secs(30);
/// The sockets of a process that has ended are closed within this time.
const SOCKETS_CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How many log lines an error shows.
const ERROR_LOG_LINES: usize = 25;
/// How many log lines are shown of a service that had died before.
const DEATH_LOG_LINES: usize = 5;

/// What starting a service needs to know.
pub struct Context {
    /// The folders of this checkout.
    pub layout: Layout,
    /// The ports to listen on.
    pub ports: Ports,
    lock: Lock,
    /// Whether the CQL server acknowledges writes that are not on disk yet. Only the fault suite wants that.
    has_periodic_commit_log: AtomicBool,
    run_length: RunLength,
}

impl Context {
    /// The jars of a service, in class path order.
    pub fn jars(&self, service: &str) -> impl Iterator<Item = PathBuf> {
        self.lock.of(service).map(|file| self.layout.cache().join(&file.path)).collect::<Vec<_>>().into_iter()
    }

    /// The class path of a service.
    pub fn class_path(&self, service: &str) -> Result<std::ffi::OsString> {
        Ok(std::env::join_paths(self.jars(service))?)
    }
}

/// `java` with a temporary folder of its own, which some libraries need to be on a file system that runs programs.
fn java(layout: &Layout, service: &str) -> Result<Command> {
    let temporary = layout.data(service).join("tmp");
    fs::create_dir_all(&temporary)?;
    let mut command = Command::new("java");
    command.arg(format!("-Djava.io.tmpdir={}", temporary.display()));
    Ok(command)
}

/// The ports of a service, the clients' one first.
fn ports_of(service: Service, ports: &Ports) -> Vec<u16> {
    match service {
        Service::Kafka => vec![ports.kafka, ports.kafka_controller],
        Service::Registry => vec![ports.registry],
        Service::Cassandra => vec![ports.cql, ports.cql_storage],
        Service::Clickhouse => vec![ports.clickhouse],
    }
}

fn probe_of(service: Service) -> Probe {
    match service {
        Service::Kafka => Probe::Kafka,
        Service::Registry => Probe::Http("/apis/ccompat/v7/subjects"),
        Service::Cassandra => Probe::Cql,
        Service::Clickhouse => Probe::Http("/ping"),
    }
}

/// Starts what does not run yet and waits until every service answers. Returns the services it started.
/// For a long run a CQL server that was started for a short one is started again.
pub fn up(layout: &Layout, ports: Ports, run_length: RunLength) -> Result<Vec<Service>> {
    let begin = Instant::now();
    refuse_other_ports(layout, &ports)?;
    tools::require_platform()?;
    tools::require_java()?;
    download::ensure(layout)?;
    if run_length == RunLength::Long
        && running(layout, Service::Cassandra).is_some_and(|it| is_for_short_runs(&it))
    {
        down_started(layout, &[Service::Cassandra])?;
    }
    let context = Context {
        layout: layout.clone(),
        ports,
        lock: Lock::load(layout)?,
        has_periodic_commit_log: AtomicBool::default(),
        run_length,
    };
    let context = &context;
    let results: Vec<(Service, Result<bool>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = Service::ALL
            .into_iter()
            .map(|service| (service, scope.spawn(move || up_one(context, service))))
            .collect();
        threads
            .into_iter()
            .map(|(service, thread)| {
                let result =
                    thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the starting thread panicked")));
                (service, result)
            })
            .collect()
    });
    let mut started = Vec::new();
    let mut failures = String::new();
    for (service, result) in results {
        match result {
            Ok(true) => started.push(service),
            Ok(false) => {}
            Err(error) => failures.push_str(&format!("\n{}: {error:#}\n", service.name())),
        }
    }
    if !failures.is_empty() {
        bail!("not every service is up; fix the cause and run `cargo xtask up` again\n{failures}");
    }
    println!("all services ready in {:.1} s", begin.elapsed().as_secs_f64());
    Ok(started)
}

/// Services left running on other ports would be missed by every client of this run.
fn refuse_other_ports(layout: &Layout, ports: &Ports) -> Result<()> {
    for service in Service::ALL {
        if let Some(record) = running(layout, service)
            && record.ports != ports_of(service, ports)
        {
            bail!(
                "{} runs on port {}, but {PORT_OFFSET_ENV} now asks for {}: run `cargo xtask down` first",
                service.name(),
                record.ports.first().copied().unwrap_or_default(),
                ports_of(service, ports).first().copied().unwrap_or_default(),
            );
        }
    }
    Ok(())
}

fn running(layout: &Layout, service: Service) -> Option<Record> {
    Record::load(&layout.run_file(service.name())).filter(Record::is_alive)
}

/// By its command line.
fn is_for_short_runs(cassandra: &Record) -> bool {
    let command = fs::read_to_string(format!("/proc/{}/cmdline", cassandra.pid)).unwrap_or_default();
    command.split('\0').any(|argument| argument == cassandra::FIRST_COMPILER_ALONE)
}

/// Starts one service unless it runs, and waits until it answers. Returns whether it was started here.
fn up_one(context: &Context, service: Service) -> Result<bool> {
    let begun = Instant::now();
    let ports = ports_of(service, &context.ports);
    let port = ports.first().copied().unwrap_or_default();
    let (record, fresh) = match running(&context.layout, service) {
        Some(record) => (record, false),
        None => {
            report_death(&context.layout, service);
            (launch(context, service, ports)?, true)
        }
    };
    wait_until_ready(&record, probe_of(service), &context.layout.log(service.name()))?;
    if fresh {
        println!(
            "{:<11} ready on 127.0.0.1:{port} after {:.1} s (pid {})",
            service.name(),
            begun.elapsed().as_secs_f64(),
            record.pid
        );
    } else {
        println!("{:<11} already up on 127.0.0.1:{port} (pid {})", service.name(), record.pid);
    }
    Ok(fresh)
}

/// Waits until the service answers on its first port; an error with the end of its log if it ends or takes too long.
fn wait_until_ready(record: &Record, probe: Probe, log: &Path) -> Result<()> {
    let begun = Instant::now();
    let port = record.ports.first().copied().unwrap_or_default();
    while !probe.answers(port) {
        if !record.is_alive() {
            bail!(
                "it ended before it was ready; the end of {}:\n{}",
                log.display(),
                logs::tail(log, ERROR_LOG_LINES)
            );
        }
        if begun.elapsed() > READY_TIMEOUT {
            bail!(
                "no answer on port {port} after {} s; the end of {}:\n{}",
                READY_TIMEOUT.as_secs(),
                log.display(),
                logs::tail(log, ERROR_LOG_LINES)
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Says so when the service had been started and neither runs nor was stopped by `down`.
fn report_death(layout: &Layout, service: Service) {
    let name = service.name();
    if let Some(record) = Record::load(&layout.run_file(name)) {
        println!(
            "{name:<11} had died (pid {}, started {}), starting it again; its last words:\n{}",
            record.pid,
            record.started_at,
            logs::tail(&layout.log(name), DEATH_LOG_LINES)
        );
    }
}

fn launch(context: &Context, service: Service, ports: Vec<u16>) -> Result<Record> {
    refuse_taken_ports(&ports)?;
    let command = command_of(context, service)?;
    start(command, &context.layout.log(service.name()), &context.layout.run_file(service.name()), ports)
}

/// An error if somebody else listens on one of the ports. The system closes the sockets of a process that has ended a
/// little after the process is gone: a port without a holder is waited for.
fn refuse_taken_ports(ports: &[u16]) -> Result<()> {
    let begun = Instant::now();
    for port in ports {
        while is_taken(*port) {
            let holder = holder(*port);
            if holder.is_some() || begun.elapsed() > SOCKETS_CLOSE_TIMEOUT {
                let who = holder.unwrap_or_else(|| "a process this user cannot see".to_owned());
                bail!(
                    "port {port} is taken by {who}. Stop it, or set {PORT_OFFSET_ENV} (for example 1000) to use other ports."
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

fn command_of(context: &Context, service: Service) -> Result<Command> {
    match service {
        Service::Kafka => kafka::command(context, &kafka::Node::single(&context.ports)),
        Service::Registry => registry::command(context),
        Service::Cassandra => cassandra::command(context),
        Service::Clickhouse => clickhouse::command(context),
    }
}

/// Stops those of the given services that were started natively; says nothing of the others.
pub fn down_started(layout: &Layout, services: &[Service]) -> Result<()> {
    let started: Vec<Service> =
        services.iter().copied().filter(|service| layout.run_file(service.name()).exists()).collect();
    down(layout, &started)
}

/// Stops the given services side by side; data stays.
pub fn down(layout: &Layout, services: &[Service]) -> Result<()> {
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            services.iter().map(|service| scope.spawn(move || down_one(layout, *service))).collect();
        threads
            .into_iter()
            .map(|thread| {
                thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the stopping thread panicked")))
            })
            .collect()
    });
    results.into_iter().collect()
}

fn down_one(layout: &Layout, service: Service) -> Result<()> {
    let run_file = layout.run_file(service.name());
    match running(layout, service) {
        None => println!("{:<11} was not running", service.name()),
        Some(record) => {
            let begin = Instant::now();
            let killed = stop(&record, STOP_GRACE)?;
            println!(
                "{:<11} {} after {:.1} s",
                service.name(),
                if killed { "killed" } else { "stopped" },
                begin.elapsed().as_secs_f64()
            );
        }
    }
    match fs::remove_file(&run_file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// One service as `status` shows it.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The service's name.
    pub service: &'static str,
    /// `ready`, `starting` (runs, does not answer), `dead` (was started, no longer runs) or `stopped`.
    pub state: &'static str,
    /// Process id.
    pub pid: Option<i32>,
    /// The clients' port.
    pub port: Option<u16>,
    /// Resident memory in bytes.
    pub resident_bytes: Option<u64>,
    /// Seconds since it was started.
    pub uptime_s: Option<u64>,
}

/// The state of every service.
pub fn status(layout: &Layout) -> Vec<Status> {
    Service::ALL.into_iter().map(|service| status_of(layout, service)).collect()
}

fn status_of(layout: &Layout, service: Service) -> Status {
    let name = service.name();
    let record = Record::load(&layout.run_file(name));
    let Some(record) = record else {
        return Status {
            service: name,
            state: "stopped",
            pid: None,
            port: None,
            resident_bytes: None,
            uptime_s: None,
        };
    };
    let port = record.ports.first().copied();
    let alive = record.is_alive();
    let state = match port {
        _ if !alive => "dead",
        Some(port) if probe_of(service).answers(port) => "ready",
        _ => "starting",
    };
    Status {
        service: name,
        state,
        pid: alive.then_some(record.pid),
        port,
        resident_bytes: alive.then(|| resident_bytes(record.pid)).flatten(),
        uptime_s: alive.then(|| record.uptime()).flatten().map(|uptime| uptime.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read as _,
        net::{TcpListener, TcpStream},
    };

    #[test]
    fn a_port_with_a_listener_is_refused_at_once_and_names_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let begun = Instant::now();
        let error = refuse_taken_ports(&[port]).unwrap_err().to_string();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        assert!(begun.elapsed() < SOCKETS_CLOSE_TIMEOUT / 2);
        drop(listener);
        refuse_taken_ports(&[port]).unwrap();
    }

    #[test]
    fn a_port_without_a_holder_is_waited_for() {
        // The port of an outgoing connection has no listener, like those of a process that has ended.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = connection.local_addr().unwrap().port();
        let (peer, _) = listener.accept().unwrap();
        let closing = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            drop(peer);
            // Where both ends close at once, each waits for a minute (TIME_WAIT), and this one's port is taken as long.
            assert_eq!(connection.read(&mut [0]).unwrap(), 0);
        });
        let begun = Instant::now();
        refuse_taken_ports(&[port]).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(250));
        closing.join().unwrap();
    }
}
