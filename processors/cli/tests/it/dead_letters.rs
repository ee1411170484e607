//! Dead letters that are put back, and those that somebody is done with.

use crate::support::{Running, Scene, eventually, text};
use claims_topology::kafka::client_config;
use nix::sys::signal::Signal;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::TcpListener,
    time::Duration,
};

/// A registry that knows no schema; its URL.
fn empty_registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let body = r#"{"error_code":40403,"message":"Schema not found"}"#;
            let head = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nConnection: close\r\n";
            let _ = write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    format!("http://{address}")
}

/// An address that is free now.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn run_audit(scene: &Scene, listen: &str, registry: Option<&str>) -> Running {
    let mut command = scene.command(&["run", "audit"]);
    command.env("CLAIMS_AUDIT__LISTEN", listen).env("CLAIMS_AUDIT__RUNTIME__COMMIT_INTERVAL_MS", "50");
    if let Some(url) = registry {
        command.env("CLAIMS_REGISTRY__URL", url);
    }
    Running(command.spawn().unwrap())
}

fn stop(mut running: Running) {
    running.signal(Signal::SIGTERM);
    assert_eq!(running.exit_within(Duration::from_secs(15)), Some(0));
}

fn outcomes(settled: &Value) -> Vec<&str> {
    settled.as_array().unwrap().iter().map(|one| one["outcome"].as_str().unwrap()).collect()
}

#[test]
fn what_was_refused_is_put_back_or_discarded_once() {
    let scene = Scene::prepared();
    let generated = scene.claims(&["generate", "--events", "3", "--seed", "5"]);
    assert!(generated.status.success(), "{}", text(&generated));
    let producer: BaseProducer = client_config(&scene.config.kafka).create().unwrap();
    let garbage =
        BaseRecord::to(&scene.config.topics.events).key("acme:c-9:e").payload("no frame").partition(0);
    producer.send(garbage).unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();

    // While the registry has lost its schemas everything is refused.
    let registry = empty_registry();
    let running = run_audit(&scene, &free_address(), Some(&registry));
    eventually("all four are refused", || scene.lag("audit") == 0);
    stop(running);
    let listed = scene.json(0, &["dead-letters", "list", "--json"]);
    assert_eq!(listed.as_array().unwrap().len(), 4);

    let listen = free_address();
    let control = format!("http://{listen}");
    let retry = |code, more: &[&str]| {
        scene.json(code, &[&["dead-letters", "retry", "--json", "--control", &control], more].concat())
    };
    let settled = retry(1, &["--processor", "audit"]);
    assert_eq!(outcomes(&settled), ["not-retried"; 4], "nobody runs it: {settled}");
    assert!(settled[0]["detail"].as_str().unwrap().contains("nobody listens there"), "{settled}");

    let running = run_audit(&scene, &listen, None);
    eventually("it has its partitions", || {
        let settled = scene.claims(&[
            "dead-letters",
            "retry",
            "--json",
            "--control",
            &control,
            "--reason",
            "malformed",
        ]);
        settled.status.code() == Some(3)
    });
    let dry = retry(0, &["--reason", "unknown-schema", "--dry-run"]);
    assert_eq!(outcomes(&dry), ["would-do"; 3]);
    // By offset, along the chain of each partition.
    let settled = retry(0, &["--reason", "unknown-schema", "--since", "1h"]);
    assert_eq!(outcomes(&settled), ["applied"; 3]);
    let place = settled[0]["place"].as_str().unwrap();
    let again = retry(0, &[place]);
    assert!(again[0]["detail"].as_str().unwrap().contains("nothing to do"), "{again}");
    assert_eq!(outcomes(&retry(0, &["--reason", "unknown-schema"])), [""; 0]);
    stop(running);
    let verified = scene.stdout(0, &["audit", "verify"]);
    assert!(verified.contains('3'), "{verified}");

    let open = scene.json(0, &["dead-letters", "list", "--json"]);
    assert_eq!((open.as_array().unwrap().len(), open[0]["state"].as_str()), (1, Some("open")), "{open}");
    assert!(open[0]["retries"].as_u64().unwrap() >= 1);
    let discarded = scene.json(0, &["dead-letters", "discard", "--json", "--key", "acme:c-9"]);
    assert_eq!(outcomes(&discarded), ["discarded"]);
    assert!(scene.stdout(0, &["dead-letters", "list"]).contains("no open dead letters"));
    let all = scene.json(0, &["dead-letters", "list", "--all", "--json"]);
    let states: Vec<_> = all.as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(states.iter().filter(|state| **state == "applied").count(), 3, "{states:?}");
    assert_eq!(states.iter().filter(|state| **state == "discarded").count(), 1, "{states:?}");
    scene.stdout(2, &["dead-letters", "discard"]);
}
