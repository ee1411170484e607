//! A ClickHouse server for development: HTTP in front of libchdb, the ClickHouse engine as a library.
//!
//! For a machine on which no ClickHouse server can be installed. It has no users, no replication and no asynchronous
//! inserts; see the README beside this crate for what it covers.

mod blocks;
mod engine;
mod header;
mod request;
mod server;
mod sql;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::engine::Engine;
use crate::server::{Limits, Shared, router};

/// How long running requests may take to end after SIGTERM.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// A ClickHouse server for development, on the loopback address only.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The engine: libchdb.so
    #[arg(long)]
    library: PathBuf,
    /// The data folder; one process at a time
    #[arg(long)]
    data: PathBuf,
    /// The HTTP port; 0 takes a free one
    #[arg(long, default_value_t = 8123)]
    port: u16,
    /// Requests in the engine at once; more wait
    #[arg(long, default_value_t = 64)]
    max_concurrent_queries: usize,
    /// How long a request waits for its turn before it is refused
    #[arg(long, default_value_t = 60_000)]
    max_queue_wait_ms: u64,
    /// Largest statement
    #[arg(long, default_value_t = 16 << 20)]
    max_query_bytes: usize,
    /// Largest body of an INSERT, as sent
    #[arg(long, default_value_t = 1 << 30)]
    max_insert_bytes: usize,
}

fn main() -> Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Two blocking tasks never wait for each other, so as many threads as turns are enough.
        .max_blocking_threads(args.max_concurrent_queries.max(1) + 2)
        .enable_all()
        .build()?;
    runtime.block_on(serve(args))
}

async fn serve(args: Args) -> Result<()> {
    fs::create_dir_all(&args.data).with_context(|| format!("cannot create {}", args.data.display()))?;
    let lock_path = args.data.join("claims-dev-clickhouse.lock");
    let lock = fs::File::create(&lock_path)?;
    if lock.try_lock().is_err() {
        bail!("{} is in use by another process", args.data.display());
    }
    let engine = Engine::open(&args.library, &args.data)?;
    // Held open: the engine closes its data folder with its last connection.
    let keeper = engine.connect()?;
    let limits = Limits {
        max_concurrent_queries: args.max_concurrent_queries.max(1),
        max_queue_wait_ms: args.max_queue_wait_ms,
        max_query_bytes: args.max_query_bytes,
        max_insert_bytes: args.max_insert_bytes,
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    tracing::info!(address = %listener.local_addr()?, "ready");
    let app = router(Shared::new(engine, limits));
    let (stopping, mut stopped) = tokio::sync::watch::channel(false);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        let _ = stopping.send(true);
    });
    let too_late = async move {
        let _ = stopped.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(SHUTDOWN_TIMEOUT).await;
    };
    tokio::select! {
        result = server => result?,
        () = too_late => tracing::warn!("requests still running after the grace time are cut off"),
    }
    drop(keeper);
    tracing::info!("stopped");
    // The engine's threads are not joined by anybody: leave without running its global destructors.
    std::process::exit(0);
}
