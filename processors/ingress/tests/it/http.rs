use crate::support;
use claims_ingress::{
    generate::{Generator, GeneratorSettings},
    http::{Accepted, Refused, serve},
    import::write_ndjson,
    publisher::{PublishError, Publisher},
};
use claims_runtime::{Shutdown, ShutdownTrigger};
use claims_topology::Config;
use rdkafka::{
    mocking::MockCluster,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use reqwest::{Client, Response, StatusCode};
use std::{net::TcpListener, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

struct Server {
    url: String,
    client: Client,
    trigger: ShutdownTrigger,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(mut config: Config) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        config.ingress.listen = address.to_string();
        let (trigger, shutdown) = Shutdown::new();
        let task = tokio::spawn(async move {
            serve(&config, shutdown, || "a_metric 1\n".to_owned()).await.unwrap();
        });
        Self { url: format!("http://{address}"), client: Client::new(), trigger, task }
    }

    async fn start_connected(config: Config) -> Self {
        let server = Self::start(config).await;
        for _ in 0..300 {
            if let Ok(health) = server.client.get(format!("{}/health", server.url)).send().await
                && health.status() == StatusCode::OK
            {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server did not connect: run `cargo xtask up`");
    }

    async fn post(&self, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
        let request = self.client.post(format!("{}/v1/events", self.url));
        request.header("content-type", content_type).body(body).send().await.unwrap()
    }

    async fn stop(self) {
        self.trigger.stop();
        tokio::time::timeout(Duration::from_secs(10), self.task).await.unwrap().unwrap();
    }
}

fn lines(events: u64) -> Vec<Vec<u8>> {
    Generator::new(GeneratorSettings { events, seed: 11 })
        .map(|event| {
            let mut line = Vec::new();
            write_ndjson(&mut line, &event).unwrap();
            line
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_lines_is_accepted_and_in_kafka() {
    let config = support::config().await;
    let server = Server::start_connected(config.clone()).await;
    let lines = lines(3_000);
    let answer = server.post("application/x-ndjson", lines.concat()).await;
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    assert_eq!(answer.json::<Accepted>().await.unwrap(), Accepted { accepted: 3_000 });
    assert_eq!(support::read_events(&config).await.len(), 3_000);

    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = server.client.post(format!("{}/v1/events", server.url)).header("traceparent", trace);
    let draft = serde_json::json!({
        "claim_id": "only-what-is-needed", "event_type": "ClaimClosed", "version": 9,
        "occurred_at": "2024-05-06T07:08:09.000Z", "data": {},
    });
    let answer = request.json(&serde_json::json!([draft])).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::ACCEPTED, "{:?}", answer.text().await);
    let found = support::read_events(&config).await;
    let (record, event) = found.iter().find(|(_, event)| event.claim_id == "only-what-is-needed").unwrap();
    assert_eq!(record.headers["traceparent"], trace);
    assert_eq!((event.tenant_id.as_str(), event.version), ("default", 9));
    assert!(!event.event_id.is_nil());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_is_named_and_those_before_it_are_in() {
    let config = support::config().await;
    let server = Server::start_connected(config.clone()).await;
    let mut lines = lines(20);
    lines[9] = String::from_utf8(lines[9].clone())
        .unwrap()
        .replace("\"version\":", "\"versoin\":1,\"version\":")
        .into_bytes();
    let answer = server.post("application/x-ndjson", lines.concat()).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    let refused: Refused = answer.json().await.unwrap();
    assert_eq!((refused.line, refused.accepted, refused.reason.as_str()), (Some(10), 9, "invalid-event"));
    assert_eq!(refused.field.as_deref(), Some("versoin"));
    assert_eq!(support::read_events(&config).await.len(), 9);

    for (body, reason) in [("{\"a\":", "invalid-json"), ("no json", "invalid-json"), ("[1]", "invalid-event")]
    {
        let answer = server.post("application/json", body).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.json::<Refused>().await.unwrap().reason, reason, "{body}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_answered_413() {
    let mut config = support::config().await;
    config.ingress.max_line_bytes = 2_000;
    config.ingress.max_request_bytes = 10_000;
    let server = Server::start_connected(config.clone()).await;
    let long_line = "x".repeat(3_000);
    for (kind, body) in [
        ("application/x-ndjson", long_line.clone()),
        ("application/x-ndjson", "\n".repeat(10_001)),
        ("application/json", long_line),
    ] {
        let answer = server.post(kind, body.clone()).await;
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "{kind}");
        // The same without a declared length.
        let streamed = reqwest::Body::from(body);
        assert_eq!(server.post(kind, streamed).await.status(), StatusCode::PAYLOAD_TOO_LARGE, "{kind}");
    }
    assert!(support::read_all(&config, &config.topics.events).is_empty());
    server.stop().await;
}

/// A queue for one event at most: with `linger.ms` at its most, the second event of a request finds it full.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_answered_429_and_repeating_brings_everything_in() {
    let mut config = support::config().await;
    config.ingress.max_in_flight_events = 1;
    config.ingress.queue_full_timeout_ms = 50;
    config.kafka.properties.insert("linger.ms".into(), "900".to_owned().into());
    let server = Server::start_connected(config.clone()).await;
    let answer = server.post("application/x-ndjson", lines(20).concat()).await;
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(answer.headers()["retry-after"], "1");
    let refused: Refused = answer.json().await.unwrap();
    assert_eq!(refused.reason, "busy");
    assert!(refused.accepted < 20);
    assert_eq!(support::read_events(&config).await.len() as u64, refused.accepted);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_events_are_answered_503_and_the_server_stays() {
    let mut config = Config::default();
    config.kafka.bootstrap_servers = "127.0.0.1:1".into();
    let server = Server::start(config).await;
    let mut answer = None;
    for _ in 0..100 {
        let request = server.client.post(format!("{}/v1/events", server.url)).body(lines(1).concat());
        match request.send().await {
            Ok(found) => {
                answer = Some(found);
                break;
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    let answer = answer.expect("the server listens");
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["retry-after"], "1");
    let get = |path: &str| server.client.get(format!("{}{path}", server.url)).send();
    assert_eq!(get("/health/ready").await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get("/health/live").await.unwrap().status(), StatusCode::OK);
    assert_eq!(get("/metrics").await.unwrap().text().await.unwrap(), "a_metric 1\n");
    let api: serde_json::Value = get("/openapi.json").await.unwrap().json().await.unwrap();
    assert!(api["paths"]["/v1/events"]["post"].is_object());
    server.stop().await;
}

/// A broker that refuses the first producer for good: its sends would fail for ever. Another one is made.
#[tokio::test(flavor = "multi_thread")]
async fn a_producer_that_failed_is_replaced() {
    let mut config = support::config().await;
    let brokers = MockCluster::new(1).unwrap();
    brokers.create_topic(&config.topics.events, 3, 1).unwrap();
    config.kafka.bootstrap_servers = brokers.bootstrap_servers();
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED;
    brokers.request_errors(RDKafkaApiKey::InitProducerId, &[refused]);

    let failing = Arc::new(Publisher::connect(&config).await.unwrap());
    let mut waited_ms = 0;
    while failing.failure().is_none() {
        assert!(waited_ms < 10_000, "the broker's refusal ends the producer");
        tokio::time::sleep(Duration::from_millis(20)).await;
        waited_ms += 20;
    }
    assert!(!failing.is_usable() && !failing.is_down());
    let event = Generator::new(GeneratorSettings { events: 1, seed: 12 }).next().unwrap();
    assert!(matches!(failing.sender().send(&event), Err(PublishError::Refused(_))));

    brokers.request_errors(RDKafkaApiKey::InitProducerId, &[refused]);
    let server = Server::start(config).await;
    let (mut refusals, mut accepted) = (0, false);
    for _ in 0..300 {
        let request = server.client.post(format!("{}/v1/events", server.url)).body(lines(1).concat());
        match request.send().await.map(|answer| answer.status()) {
            Ok(StatusCode::ACCEPTED) => {
                accepted = true;
                break;
            }
            Ok(StatusCode::SERVICE_UNAVAILABLE) => refusals += 1,
            Ok(other) => panic!("{other}"),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(accepted, "after {refusals} refusals");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_never_ends_does_not_hold_up_the_stop() {
    let server = Server::start_connected(support::config().await).await;
    let mut slow = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    slow.write_all(b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
    slow.write_all(&lines(1).concat()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.trigger.stop();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(6), slow.read_to_string(&mut answer));
    read.await.expect("an answer soon after the stop").unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\"stopping\"") && answer.contains("\"accepted\":1"), "{answer}");
    server.stop().await;
}
