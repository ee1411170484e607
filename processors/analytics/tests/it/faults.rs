//! Servers that misbehave: what the sink makes of each. Everything that works is tested against the real engine.

use crate::support::{batch, event, log};
use claims_analytics::{ClickHouseSink, schema};
use claims_runtime::{Sink, SinkError};
use claims_topology::config::ClickHouseConfig;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What the server does with every request.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// Answers with a status and a body, and the exception code in the header if there is one.
    Answer(u16, Option<u32>, &'static str),
    /// Reads and never answers.
    Silence,
    /// Takes the connection and reads nothing.
    Deaf,
    /// Closes the connection in the middle of the request.
    HangUp,
}

async fn server(fault: Fault) -> ClickHouseConfig {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, fault));
        }
    });
    ClickHouseConfig {
        url,
        database: "nowhere".into(),
        send_timeout_ms: 300,
        end_timeout_ms: 300,
        ..ClickHouseConfig::default()
    }
}

async fn serve(mut socket: TcpStream, fault: Fault) {
    let mut buffer = vec![0; 64 * 1024];
    match fault {
        Fault::Deaf => tokio::time::sleep(Duration::from_secs(30)).await,
        Fault::HangUp => {
            let _ = socket.read(&mut buffer).await;
        }
        Fault::Silence => while socket.read(&mut buffer).await.is_ok_and(|n| n > 0) {},
        Fault::Answer(status, code, body) => {
            // A chunked body ends with an empty chunk; a query without one ends with its headers and length.
            let mut seen = vec![];
            while let Ok(n) = socket.read(&mut buffer).await {
                seen.extend_from_slice(&buffer[..n]);
                if n == 0 || seen.ends_with(b"0\r\n\r\n") || !seen.windows(7).any(|w| w == b"chunked") {
                    break;
                }
            }
            let code =
                code.map_or_else(String::new, |code| format!("X-ClickHouse-Exception-Code: {code}\r\n"));
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} Answer\r\n{code}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    }
}

async fn outcome(fault: Fault, rows: u64) -> (Result<(), SinkError>, Duration) {
    let config = server(fault).await;
    let log = log((1..=rows).map(|version| event("c", version, crate::views::created("k"))));
    let started = Instant::now();
    let result = ClickHouseSink::new(&config).write(&batch(1, &log)).await;
    (result, started.elapsed())
}

#[tokio::test]
async fn passing_errors_are_transient() {
    let too_many = "Code: 252. DB::Exception: Too many parts (3000). (TOO_MANY_PARTS) (version 26.7)";
    let memory = "Code: 241. DB::Exception: (total) memory limit exceeded (MEMORY_LIMIT_EXCEEDED)";
    let read_only = "Code: 242. DB::Exception: Table is in readonly mode (TABLE_IS_READ_ONLY)";
    for fault in [
        Fault::Answer(500, Some(252), too_many),
        Fault::Answer(500, Some(241), memory),
        Fault::Answer(500, Some(242), read_only),
        Fault::Answer(500, None, "oops"),
        Fault::Answer(502, None, "<html>Bad Gateway</html>"),
        Fault::Answer(403, Some(516), "Code: 516. DB::Exception: who? (AUTHENTICATION_FAILED)"),
        Fault::HangUp,
    ] {
        let (result, _) = outcome(fault, 3).await;
        assert!(matches!(result, Err(SinkError::Transient(_))), "{fault:?}: {result:?}");
    }
    let mut away = ClickHouseConfig { url: "http://127.0.0.1:1".into(), ..ClickHouseConfig::default() };
    away.end_timeout_ms = 300;
    let result =
        ClickHouseSink::new(&away).write(&batch(1, &log([event("c", 1, crate::views::created("k"))]))).await;
    assert!(matches!(result, Err(SinkError::Transient(_))), "{result:?}");
}

#[tokio::test]
async fn a_server_that_stands_still_is_given_up_in_time() {
    // The second one is large enough to fill the sockets' buffers.
    for (fault, rows) in [(Fault::Silence, 3), (Fault::Deaf, 100_000)] {
        let (result, took) = outcome(fault, rows).await;
        assert!(matches!(result, Err(SinkError::Transient(_))), "{fault:?}: {result:?}");
        assert!(took < Duration::from_secs(10), "{fault:?} took {took:?}");
    }
}

#[tokio::test]
async fn a_missing_table_is_fatal() {
    let body = "Code: 60. DB::Exception: Table nowhere.event_log does not exist. (UNKNOWN_TABLE)";
    let (result, _) = outcome(Fault::Answer(404, Some(60), body), 1).await;
    assert!(matches!(result, Err(SinkError::Fatal(_))), "{result:?}");
}

#[tokio::test]
async fn content_is_not_blamed_while_the_table_cannot_be_looked_at() {
    // The refusal says "content", and so does the answer to the look at the table: nothing proves the rows bad.
    let body = "Code: 27. DB::Exception: Cannot parse input (CANNOT_PARSE_INPUT_ASSERTION_FAILED)";
    let (result, _) = outcome(Fault::Answer(400, Some(27), body), 1).await;
    assert!(matches!(result, Err(SinkError::Fatal(_) | SinkError::Transient(_))), "{result:?}");
}

#[tokio::test]
async fn a_start_waits_for_a_server_that_is_away_and_then_gives_up_with_its_name() {
    let config = ClickHouseConfig { url: "http://127.0.0.1:1".into(), ..ClickHouseConfig::default() };
    let patience = schema::Patience {
        min_backoff: Duration::from_millis(20),
        max_backoff: Duration::from_millis(50),
        deadline: Duration::from_millis(400),
    };
    let started = Instant::now();
    let error = schema::apply_patiently(&config, &patience).await.expect_err("nobody is there");
    assert!(started.elapsed() >= Duration::from_millis(200), "it gave up after {:?}", started.elapsed());
    assert!(error.to_string().contains("http://127.0.0.1:1"), "{error}");
}
