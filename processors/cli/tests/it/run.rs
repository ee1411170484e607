//! Processors as processes.

use crate::support::{Running, Scene, eventually, text};
use nix::sys::signal::Signal;
use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

fn start(scene: &Scene, args: &[&str], settings: &[(&str, &str)]) -> Running {
    let log = File::create(scene.dir.path().join("log")).unwrap();
    let mut command = scene.command(&[&["run"], args].concat());
    command.envs(settings.iter().copied()).stdout(log.try_clone().unwrap()).stderr(log);
    Running(command.spawn().unwrap())
}

fn log(scene: &Scene) -> String {
    std::fs::read_to_string(scene.dir.path().join("log")).unwrap()
}

fn generate(scene: &Scene) {
    let generated = scene.claims(&["generate", "--events", "200", "--seed", "9"]);
    assert!(generated.status.success(), "{}", text(&generated));
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The answer to a GET, headers and all; empty where nobody listens yet.
fn get(port: u16, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_processor_works_off_its_lag_says_how_it_is_and_stops_on_sigterm() {
    let scene = Scene::prepared();
    generate(&scene);
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut running = start(&scene, &["audit"], &[("CLAIMS_AUDIT__LISTEN", &listen)]);
    eventually("no lag", || scene.lag("audit") == 0);
    eventually("readiness", || get(port, "/health/ready").starts_with("HTTP/1.1 200"));
    let metrics = get(port, "/metrics");
    assert!(metrics.contains("events_processed_total{processor=\"audit\"} 200"), "{metrics}");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.exit_within(SHUTDOWN_LIMIT), Some(0), "{}", log(&scene));
    assert_eq!(scene.json(0, &["audit", "verify", "--json"])["records"], 200);
}

#[test]
fn one_failing_processor_leaves_the_others_running() {
    let scene = Scene::prepared();
    generate(&scene);
    // No ClickHouse there, and little patience.
    let settings = [
        ("CLAIMS_ANALYTICS__CLICKHOUSE__URL", "http://127.0.0.1:9"),
        ("CLAIMS_ANALYTICS__RUNTIME__SINK_RETRY_DEADLINE_MS", "300"),
    ];
    let mut running = start(&scene, &["analytics", "audit"], &settings);
    eventually("the failure is reported", || log(&scene).contains("failed; the others go on"));
    eventually("no lag", || scene.lag("audit") == 0);
    // It is tried again and again; while it waits for the next time, it is down.
    eventually("restarts", || log(&scene).contains("restart_in_ms=4000"));
    assert!(running.0.try_wait().unwrap().is_none(), "{}", log(&scene));
    running.signal(Signal::SIGINT);
    assert_eq!(running.exit_within(SHUTDOWN_LIMIT), Some(1), "{}", log(&scene));
    assert!(log(&scene).contains("error: failed: analytics"), "{}", log(&scene));
}

#[test]
fn a_failed_processor_is_started_again_in_the_same_process() {
    let scene = Scene::prepared();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let settings = [("CLAIMS_AUDIT__LISTEN", &*address.to_string())];
    let mut running = start(&scene, &["ingress", "audit"], &settings);
    eventually("the failure is reported", || log(&scene).contains("failed; the others go on"));
    drop(taken);
    eventually("readiness", || get(address.port(), "/health/ready").starts_with("HTTP/1.1 200"));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.exit_within(SHUTDOWN_LIMIT), Some(0), "{}", log(&scene));
}

#[test]
fn a_processor_alone_ends_with_its_error() {
    let scene = Scene::prepared();
    let settings = [
        ("CLAIMS_ANALYTICS__CLICKHOUSE__URL", "http://127.0.0.1:9"),
        ("CLAIMS_ANALYTICS__RUNTIME__SINK_RETRY_DEADLINE_MS", "300"),
    ];
    let mut running = start(&scene, &["analytics"], &settings);
    assert_eq!(running.exit_within(Duration::from_secs(30)), Some(1));
    assert!(log(&scene).contains("error: failed: analytics: ClickHouse at"), "{}", log(&scene));
}

#[test]
fn topics_are_made_as_soon_as_kafka_is_there() {
    let scene = Scene::new();
    let (kafka_port, port) = (free_port(), free_port());
    let (kafka, listen) = (format!("127.0.0.1:{kafka_port}"), format!("127.0.0.1:{port}"));
    let settings = [
        ("CLAIMS_KAFKA__BOOTSTRAP_SERVERS", kafka.as_str()),
        ("CLAIMS_KAFKA__REQUEST_TIMEOUT_MS", "1000"),
        ("CLAIMS_AUDIT__LISTEN", listen.as_str()),
    ];
    let mut running = start(&scene, &["audit"], &settings);
    eventually("Kafka is missed", || log(&scene).contains("processors wait for Kafka"));
    assert!(get(port, "/health/live").starts_with("HTTP/1.1 200"));
    assert!(get(port, "/health/ready").starts_with("HTTP/1.1 503"));
    forward(&kafka, scene.config.kafka.bootstrap_servers.clone());
    eventually("readiness", || get(port, "/health/ready").starts_with("HTTP/1.1 200"));
    running.signal(Signal::SIGTERM);
    assert_eq!(running.exit_within(SHUTDOWN_LIMIT), Some(0), "{}", log(&scene));
}

/// Passes connections to one address on to another, until the test process ends.
fn forward(from: &str, to: String) {
    let listener = TcpListener::bind(from).unwrap();
    let copy = |mut from: TcpStream, mut to: TcpStream| {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
    };
    std::thread::spawn(move || {
        for incoming in listener.incoming() {
            let (incoming, outgoing) = (incoming.unwrap(), TcpStream::connect(&to).unwrap());
            copy(incoming.try_clone().unwrap(), outgoing.try_clone().unwrap());
            copy(outgoing, incoming);
        }
    });
}

#[test]
fn a_taken_port_is_said_to_be_taken() {
    let scene = Scene::prepared();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let mut running = start(&scene, &["audit"], &[("CLAIMS_AUDIT__LISTEN", &listen)]);
    assert_eq!(running.exit_within(Duration::from_secs(30)), Some(1));
    assert!(log(&scene).contains("is the address free?") && log(&scene).contains(&listen), "{}", log(&scene));
}

#[test]
fn topics_of_another_partition_count_are_not_worked_on() {
    let scene = Scene::prepared();
    let mut running = start(&scene, &["audit"], &[("CLAIMS_TOPICS__PARTITIONS", "5")]);
    assert_eq!(running.exit_within(Duration::from_secs(30)), Some(1));
    assert!(log(&scene).contains("has 3 partitions, the configuration says 5"), "{}", log(&scene));
}
