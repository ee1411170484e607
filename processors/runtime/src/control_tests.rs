use super::*;
use crate::status;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A process with one stage, `echo`, and a status server.
struct Process {
    address: SocketAddr,
    runs: Arc<AtomicUsize>,
    trigger: crate::ShutdownTrigger,
    stage: tokio::task::JoinHandle<Result<(), &'static str>>,
    _server: tokio::task::JoinHandle<()>,
}

async fn process(access: Option<Access>) -> Process {
    let control = Control::default();
    let (trigger, shutdown) = Shutdown::new();
    let (switch, runs) = (control.switch("echo"), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&runs);
    let stage = tokio::spawn(async move {
        run_switched(&switch, shutdown, |mut stop| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                stop.requested().await;
                Ok(())
            }
        })
        .await
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let access = access.unwrap_or(Access::of(address, false));
    let hosts = Hosts::new(["Stage-1.", ".stages.internal."]);
    let app = status::router(String::new).merge(routes(control, access, hosts));
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Process { address, runs, trigger, stage, _server: server }
}

impl Process {
    async fn ask(&self, method: &str, path: &str, header: &str) -> (u16, String) {
        self.ask_host("127.0.0.1:9101", method, path, header).await
    }

    async fn ask_host(&self, host: &str, method: &str, path: &str, header: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: 0\r\n{header}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn post(&self, path: &str) -> (u16, String) {
        self.ask("POST", path, &format!("{CONTROL_HEADER}: yes\r\n")).await
    }
}

#[tokio::test]
async fn a_stage_stops_and_starts_and_its_process_stays() {
    let process = process(None).await;
    let (code, body) = process.post("/control/stages/echo/stop").await;
    assert_eq!((code, body.as_str()), (200, r#"{"processor":"echo","state":"stopped"}"#));
    // Twice is as good as once.
    assert_eq!(process.post("/control/stages/echo/stop").await.0, 200);
    assert_eq!(process.runs.load(Ordering::SeqCst), 1);
    assert!(!process.stage.is_finished());
    let (code, body) = process.ask("GET", "/control/stages", "").await;
    assert_eq!((code, body.as_str()), (200, r#"[{"processor":"echo","state":"stopped"}]"#));
    let (code, body) = process.post("/control/stages/echo/start").await;
    assert_eq!((code, body.as_str()), (200, r#"{"processor":"echo","state":"running"}"#));
    assert_eq!(process.runs.load(Ordering::SeqCst), 2);
    process.trigger.stop();
    assert_eq!(process.stage.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_stopped_stage_still_ends_with_its_process() {
    let process = process(None).await;
    process.post("/control/stages/echo/stop").await;
    process.trigger.stop();
    assert_eq!(process.stage.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_timed_stop_ends_by_itself_unless_another_order_came() {
    let process = process(None).await;
    process.post("/control/stages/echo/stop?for_ms=50").await;
    while process.runs.load(Ordering::SeqCst) < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    process.post("/control/stages/echo/stop?for_ms=50").await;
    process.post("/control/stages/echo/stop").await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(process.runs.load(Ordering::SeqCst), 2, "the later stop has no end");
    assert_eq!(process.post("/control/stages/echo/stop?for_ms=99999999999").await.0, 400);
}

#[tokio::test]
async fn who_may_not_is_told_why() {
    let open = process(None).await;
    let (code, body) = open.post("/control/stages/other/stop").await;
    assert!(code == 404 && body.contains("stages that it runs: echo"), "{code} {body}");
    let (code, body) = open.ask("POST", "/control/stages/echo/stop", "").await;
    assert!(code == 400 && body.contains(CONTROL_HEADER), "{code} {body}");
    assert_eq!(open.ask("GET", "/health/live", "").await.0, 200, "the other routes need nothing");

    let anywhere: SocketAddr = "0.0.0.0:9101".parse().unwrap();
    assert_eq!(Access::of(anywhere, true), Access::Open);
    let closed = process(Some(Access::of(anywhere, false))).await;
    let (code, body) = closed.post("/control/stages/echo/stop").await;
    assert!(code == 403 && body.contains("telemetry.control_enabled"), "{code} {body}");
    assert_eq!(closed.ask("GET", "/control/stages", "").await.0, 403);
    assert_eq!(closed.ask("GET", "/health/live", "").await.0, 200);
}

#[tokio::test]
async fn a_name_that_leads_here_is_not_enough() {
    let process = process(None).await;
    let header = format!("{CONTROL_HEADER}: yes\r\n");
    let stop = async |host: &str| process.ask_host(host, "POST", "/control/stages/echo/stop", &header).await;
    for host in [
        "evil.example",
        "evil.example:9101",
        "localhost.evil.example",
        "stages.internal",
        "127.0.0.1.nip.io",
        "",
    ] {
        let (code, body) = stop(host).await;
        assert!(code == 403 && body.contains("telemetry.control_hosts"), "{host}: {code} {body}");
    }
    assert_eq!(process.runs.load(Ordering::SeqCst), 1);
    assert_eq!(process.ask_host("evil.example", "GET", "/control/stages", "").await.0, 403);
    assert_eq!(process.ask_host("evil.example", "GET", "/health/live", "").await.0, 200);
    let known =
        ["127.0.0.1", "[::1]:9101", "10.1.2.3:80", "LocalHost:9101", "stage-1:9101", "a.stages.internal."];
    for host in known {
        assert_eq!(stop(host).await.0, 200, "{host}");
    }
}

#[tokio::test]
async fn an_error_or_an_end_unasked_ends_the_run() {
    let (switch, (_trigger, shutdown)) = (Control::default().switch("failing"), Shutdown::new());
    let failed = run_switched(&switch, shutdown.clone(), |_| async { Err("no disk") }).await;
    assert_eq!(failed, Err("no disk"));
    assert_eq!(switch.state(), RunState::Failed);
    assert_eq!(run_switched(&switch, shutdown, |_| async { Ok::<_, &str>(()) }).await, Ok(()));
}
