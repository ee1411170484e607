//! A TCP proxy on the loopback address that can be told to misbehave: the network between a processor and a service.

use super::http;
use anyhow::{Context, Result};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// Bytes passed on at once.
const PIECE_BYTES: usize = 64 * 1024;

/// What happens to bytes on their way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// They go through.
    Pass,
    /// Every piece is held for so long, in both directions.
    Delay(Duration),
    /// Connections are closed, and new ones at once.
    Cut,
    /// Nothing moves, and nobody is told.
    Stall,
    /// Requests go through, answers don't: the server has done the work, and the client doesn't know.
    Mute,
    /// A connection is closed once this many bytes of the client have gone through.
    DropAfter(u64),
    /// The server hears nothing: each HTTP request is answered with this.
    Answer(&'static str),
}

/// One proxy; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    interventions: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on `port` (0: any free one) for connections to `upstream` on the loopback address.
    pub async fn start(port: u16, upstream: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .with_context(|| format!("the proxy can't listen on port {port}"))?;
        let address = listener.local_addr()?;
        let (mode, seen) = watch::channel(Mode::Pass);
        let interventions = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&interventions);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, upstream, seen.clone(), Arc::clone(&counter)));
            }
        });
        Ok(Self { address, mode, interventions, task })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, for connections that are open too.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// How many times it has done anything but pass bytes on: pieces held or swallowed, connections cut, requests
    /// answered. A fault that met no traffic was none.
    pub fn interventions(&self) -> u64 {
        self.interventions.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        // Connections end with the sender of their mode.
    }
}

type Seen = watch::Receiver<Mode>;

async fn serve(client: TcpStream, upstream: u16, mut mode: Seen, counter: Arc<AtomicU64>) {
    let _ = client.set_nodelay(true);
    let now = mode.borrow_and_update().clone();
    match now {
        Mode::Cut => {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        Mode::Answer(answer) => http::answer_all(client, answer, mode, &counter).await,
        _ => {
            let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, upstream)).await else { return };
            let _ = server.set_nodelay(true);
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let up =
                Pump { from: from_client, to: to_server, is_answer: false, counter: Arc::clone(&counter) };
            let down = Pump { from: from_server, to: to_client, is_answer: true, counter };
            // Either way ends the other: half-closed connections are nothing these protocols use.
            tokio::select! {
                () = up.run(mode.clone()) => {}
                () = down.run(mode) => {}
            }
        }
    }
}

struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    is_answer: bool,
    counter: Arc<AtomicU64>,
}

impl Pump {
    async fn run(mut self, mut mode: Seen) {
        let mut buffer = vec![0; PIECE_BYTES];
        let mut passed = 0_u64;
        let mut swallowed = false;
        loop {
            let read = tokio::select! {
                changed = mode.changed() => {
                    let leaves = swallowed || matches!(*mode.borrow_and_update(), Mode::Cut | Mode::Answer(_));
                    if changed.is_err() || leaves {
                        self.note();
                        return;
                    }
                    continue;
                }
                read = self.from.read(&mut buffer) => read,
            };
            let Ok(length @ 1..) = read else { return };
            if !self.let_through(&mut mode, length, &mut passed, &mut swallowed).await {
                return;
            }
            if !swallowed && self.to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }

    /// Waits as the mode says; false when the connection is to end.
    async fn let_through(
        &self,
        mode: &mut Seen,
        length: usize,
        passed: &mut u64,
        swallowed: &mut bool,
    ) -> bool {
        loop {
            let now = mode.borrow_and_update().clone();
            match now {
                Mode::Pass => return true,
                Mode::Cut | Mode::Answer(_) => {
                    self.note();
                    return false;
                }
                Mode::Delay(time) => {
                    self.note();
                    tokio::time::sleep(time).await;
                    return true;
                }
                Mode::Mute => {
                    if self.is_answer {
                        self.note();
                        *swallowed = true;
                    }
                    return true;
                }
                Mode::DropAfter(limit) => {
                    if self.is_answer {
                        return true;
                    }
                    *passed += length as u64;
                    if *passed >= limit {
                        self.note();
                    }
                    return *passed < limit;
                }
                Mode::Stall => {
                    self.note();
                    if mode.changed().await.is_err() {
                        return false;
                    }
                }
            }
        }
    }

    fn note(&self) {
        self.counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// A server that sends back what it gets.
    async fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        port
    }

    async fn says(stream: &mut TcpStream, text: &[u8], within_ms: u64) -> Option<Vec<u8>> {
        stream.write_all(text).await.ok()?;
        let mut answer = vec![0; 1024];
        let read = tokio::time::timeout(Duration::from_millis(within_ms), stream.read(&mut answer));
        let length = read.await.ok()?.ok()?;
        answer.truncate(length);
        Some(answer)
    }

    #[tokio::test]
    async fn bytes_pass_are_held_stand_still_and_pass_again() {
        let proxy = Proxy::start(0, echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(says(&mut stream, b"one", 2_000).await.unwrap(), b"one");
        assert_eq!(proxy.interventions(), 0);

        proxy.set(Mode::Delay(Duration::from_millis(100)));
        let begun = Instant::now();
        assert_eq!(says(&mut stream, b"two", 2_000).await.unwrap(), b"two");
        assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());

        proxy.set(Mode::Stall);
        assert_eq!(says(&mut stream, b"three", 200).await, None);
        assert!(proxy.interventions() > 0);
        proxy.set(Mode::Pass);
        assert_eq!(says(&mut stream, b"", 2_000).await.unwrap(), b"three");
    }

    #[tokio::test]
    async fn a_cut_ends_open_connections_and_new_ones() {
        let proxy = Proxy::start(0, echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(says(&mut stream, b"one", 2_000).await.unwrap(), b"one");
        proxy.set(Mode::Cut);
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
        let mut another = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(another.read(&mut [0; 8]).await.unwrap_or(0), 0);
        proxy.set(Mode::Pass);
        let mut third = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(says(&mut third, b"three", 2_000).await.unwrap(), b"three");
    }

    #[tokio::test]
    async fn muted_answers_are_gone_for_good_and_so_is_their_connection() {
        let proxy = Proxy::start(0, echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.set(Mode::Mute);
        assert_eq!(says(&mut stream, b"one", 300).await, None);
        proxy.set(Mode::Pass);
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }

    #[tokio::test]
    async fn a_connection_ends_after_its_bytes() {
        let proxy = Proxy::start(0, echo().await).await.unwrap();
        proxy.set(Mode::DropAfter(6));
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(says(&mut stream, b"one", 2_000).await.unwrap(), b"one");
        assert_eq!(says(&mut stream, b"two", 2_000).await.unwrap_or_default(), b"");
    }
}
