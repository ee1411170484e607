//! The HTTP interface: one connection to the engine per request, bounded in number and in size.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::get;
use futures::stream;
use http_body_util::{BodyExt, Limited};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::blocks::BlockReader;
use crate::engine::{Connection, Engine, EngineError};
use crate::header::HeaderOnce;
use crate::request::{Request, boundary};
use crate::sql::{Statement, classify, identifier, quoted};

/// Pieces of a body or of a result that wait between the network and the engine.
const MAX_WAITING_PIECES: usize = 16;
/// How much of a body is read and dropped after its INSERT was refused for its size.
const MAX_DRAINED_BYTES: usize = 64 << 20;
/// The output format when the request names none, as the real server has it.
const DEFAULT_FORMAT: &str = "TabSeparated";
/// Formats whose pieces put end to end are the whole result.
const STREAMED_FORMATS: &[&str] =
    &["RowBinary", "RowBinaryWithNamesAndTypes", "JSONEachRow", "TabSeparated", "TSV", "CSV", "Native"];

/// What the server allows.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests in the engine at once.
    pub max_concurrent_queries: usize,
    /// How long a request waits for its turn.
    pub max_queue_wait_ms: u64,
    /// Size of a statement.
    pub max_query_bytes: usize,
    /// Size of an INSERT's data as it comes over the wire.
    pub max_insert_bytes: usize,
}

/// What every request needs.
pub struct Shared {
    engine: Arc<Engine>,
    turns: Arc<Semaphore>,
    limits: Limits,
    answered: AtomicU64,
}

impl Shared {
    /// A server on an open engine.
    pub fn new(engine: Arc<Engine>, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            engine,
            turns: Arc::new(Semaphore::new(limits.max_concurrent_queries)),
            limits,
            answered: AtomicU64::new(0),
        })
    }
}

/// The routes: `/ping` and everything else.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/ping", get(|| async { "Ok.\n" }))
        .route("/", get(handle).post(handle))
        .with_state(shared)
}

impl From<String> for EngineError {
    fn from(text: String) -> Self {
        Self(text)
    }
}

fn bad_request(what: impl std::fmt::Display) -> EngineError {
    EngineError(format!("Code: 36. DB::Exception: {what}. (BAD_ARGUMENTS)"))
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    Query(pairs): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match answer(&shared, Request::from_pairs(pairs), &headers, body).await {
        Ok(response) => response,
        Err(error) => failure(&error),
    }
}

async fn answer(
    shared: &Arc<Shared>,
    mut request: Request,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, EngineError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(encoding) = text(header::CONTENT_ENCODING) {
        return Err(bad_request(format!(
            "the development server takes no `Content-Encoding: {encoding}`, use `decompress=1`"
        )));
    }
    if let (None, Some(name)) =
        (&request.database, text(header::HeaderName::from_static("x-clickhouse-database")))
    {
        request.database = Some(name.to_owned());
    }
    let turn = turn(shared).await?;
    if let Statement::InsertData { sql, format } = classify(&request.query, true) {
        return insert(shared, request, &sql, &format, body, turn).await;
    }
    let body = whole(body, shared.limits.max_query_bytes).await?;
    match text(header::CONTENT_TYPE).and_then(boundary) {
        Some(boundary) => request.add_form(&body, boundary).map_err(bad_request)?,
        None => {
            let rest = std::str::from_utf8(&body).map_err(|_| bad_request("the statement is not UTF-8"))?;
            if !request.query.is_empty() && !rest.is_empty() {
                request.query.push('\n');
            }
            request.query.push_str(rest);
        }
    }
    if request.query.trim().is_empty() {
        return Ok(Response::new(Body::from("Ok.\n")));
    }
    select(shared, request, turn).await
}

/// Waits for a free place in the engine.
async fn turn(shared: &Shared) -> Result<OwnedSemaphorePermit, EngineError> {
    let wait = Duration::from_millis(shared.limits.max_queue_wait_ms);
    match tokio::time::timeout(wait, Arc::clone(&shared.turns).acquire_owned()).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => Err(EngineError(format!(
            "Code: 202. DB::Exception: Too many simultaneous queries, maximum: {}. (TOO_MANY_SIMULTANEOUS_QUERIES)",
            shared.limits.max_concurrent_queries
        ))),
    }
}

async fn whole(body: Body, max_bytes: usize) -> Result<Bytes, EngineError> {
    Limited::new(body, max_bytes).collect().await.map(http_body_util::Collected::to_bytes).map_err(|error| {
        bad_request(format!("the body could not be read (at most {max_bytes} bytes): {error}"))
    })
}

/// A connection with the request's database and settings.
fn session(engine: &Arc<Engine>, request: &Request) -> Result<Connection, EngineError> {
    let mut connection =
        engine.connect().map_err(|error| EngineError(format!("Code: 1000. DB::Exception: {error:#}")))?;
    if let Some(database) = &request.database {
        connection.query(&format!("USE {}", identifier(database)), DEFAULT_FORMAT, &[])?;
    }
    for (name, value) in &request.settings {
        connection.query(&format!("SET {}={}", identifier(name), quoted(value)), DEFAULT_FORMAT, &[])?;
    }
    Ok(connection)
}

/// Feeds the body to the engine while it arrives. A body that breaks off cancels the INSERT.
async fn insert(
    shared: &Arc<Shared>,
    request: Request,
    sql: &str,
    format: &str,
    mut body: Body,
    turn: OwnedSemaphorePermit,
) -> Result<Response, EngineError> {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, EngineError>>(MAX_WAITING_PIECES);
    let engine = Arc::clone(&shared.engine);
    let (sql, format) = (sql.to_owned(), format.to_owned());
    let writer = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        write(&engine, &request, &sql, &format, receiver)
    });
    let max_bytes = shared.limits.max_insert_bytes;
    let mut received = 0_usize;
    let mut sender = Some(sender);
    while let Some(frame) = body.frame().await {
        let piece = match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => {
                received = received.saturating_add(data.len());
                if received > max_bytes {
                    Err(bad_request(format!("an INSERT may have at most {max_bytes} bytes")))
                } else {
                    Ok(data)
                }
            }
            Ok(Err(_trailers)) => continue,
            Err(error) => Err(bad_request(format!("the body broke off: {error}"))),
        };
        // After a refusal the rest is read and dropped for a while: a client still sending would never see the answer.
        if received > max_bytes.saturating_add(MAX_DRAINED_BYTES) {
            break;
        }
        let broken = piece.is_err();
        if let Some(open) = &sender
            && (open.send(piece).await.is_err() || broken)
        {
            sender = None;
        }
    }
    drop(sender);
    let rows = joined(writer.await)??;
    let mut response = Response::new(Body::empty());
    if let Ok(summary) = format!("{{\"written_rows\":\"{rows}\"}}").parse() {
        response.headers_mut().insert("x-clickhouse-summary", summary);
    }
    Ok(response)
}

fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, EngineError> {
    result.map_err(|error| EngineError(format!("Code: 1000. DB::Exception: {error}")))
}

fn write(
    engine: &Arc<Engine>,
    request: &Request,
    sql: &str,
    format: &str,
    mut body: mpsc::Receiver<Result<Bytes, EngineError>>,
) -> Result<u64, EngineError> {
    let mut connection = session(engine, request)?;
    let mut insert = connection.insert(sql, format, &request.params)?;
    let mut blocks = BlockReader::default();
    while let Some(piece) = body.blocking_recv() {
        let piece = piece?;
        if request.decompress {
            blocks.push::<EngineError>(&piece, |block| insert.append(block))?;
        } else {
            insert.append(&piece)?;
        }
    }
    if !blocks.is_complete() {
        return Err(bad_request("the body ends inside a compressed block"));
    }
    insert.finish()
}

/// One piece of a result on its way to the client.
type Piece = Result<Bytes, EngineError>;

/// Runs a statement; the first piece decides the status, later errors go into the body under a tag.
async fn select(
    shared: &Arc<Shared>,
    request: Request,
    turn: OwnedSemaphorePermit,
) -> Result<Response, EngineError> {
    let (sender, mut receiver) = mpsc::channel::<Piece>(MAX_WAITING_PIECES);
    let engine = Arc::clone(&shared.engine);
    let format = request.default_format.clone().unwrap_or_else(|| DEFAULT_FORMAT.to_owned());
    let asked = format.clone();
    let reader = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        if let Err(error) = read(&engine, &request, &asked, &sender) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    let first = receiver.recv().await.transpose()?;
    if first.is_none() {
        joined(reader.await)?;
    }
    let tag = format!("{:016x}", shared.answered.fetch_add(1, Ordering::Relaxed));
    let body_tag = tag.clone();
    let pieces = stream::unfold(Some((first, receiver)), move |state| {
        let tag = body_tag.clone();
        async move {
            let (first, mut receiver) = state?;
            let piece = match first {
                Some(piece) => Some(Ok(piece)),
                None => receiver.recv().await,
            };
            match piece? {
                Ok(bytes) => Some((Ok::<_, std::convert::Infallible>(bytes), Some((None, receiver)))),
                Err(error) => Some((Ok(tagged(&error, &tag)), None)),
            }
        }
    });
    let mut response = Response::new(Body::from_stream(pieces));
    for (name, value) in [("x-clickhouse-exception-tag", tag), ("x-clickhouse-format", format)] {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

fn read(
    engine: &Arc<Engine>,
    request: &Request,
    format: &str,
    sender: &mpsc::Sender<Piece>,
) -> Result<(), EngineError> {
    let mut connection = session(engine, request)?;
    if classify(&request.query, false) != Statement::Select || !STREAMED_FORMATS.contains(&format) {
        let outcome = connection.query(&request.query, format, &request.params)?;
        let bytes = outcome.bytes();
        if !bytes.is_empty() {
            let _ = sender.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        }
        return Ok(());
    }
    let mut header = HeaderOnce::default();
    let with_header = format == "RowBinaryWithNamesAndTypes";
    let mut select = connection.stream(&request.query, format, &request.params)?;
    let mut sent = false;
    while let Some(piece) = select.next()? {
        let bytes = if with_header { header.strip(piece.bytes()) } else { piece.bytes() };
        sent = true;
        // The client has gone: dropping the stream cancels the SELECT.
        if sender.blocking_send(Ok(Bytes::copy_from_slice(bytes))).is_err() {
            return Ok(());
        }
    }
    drop(select);
    if with_header && !sent {
        // A streamed result without rows has no pieces, so no header either; the client wants the header.
        let outcome = connection.query(&request.query, format, &request.params)?;
        let _ = sender.blocking_send(Ok(Bytes::copy_from_slice(outcome.bytes())));
    }
    Ok(())
}

/// An error after the first bytes, as ClickHouse 25.11 and later mark it in the body.
fn tagged(error: &EngineError, tag: &str) -> Bytes {
    let text = format!("{}\n", error.0.trim_end());
    Bytes::from(format!("\r\n__exception__\r\n{tag}\r\n{text}{} {tag}\r\n__exception__\r\n", text.len()))
}

fn failure(error: &EngineError) -> Response {
    let code = error.code();
    let status = match code {
        6 | 26 | 27 | 36 | 38 | 41 | 43 | 47 | 53 | 62 | 70 | 117 => StatusCode::BAD_REQUEST,
        16 | 60 | 81 => StatusCode::NOT_FOUND,
        202 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    tracing::warn!(code, status = status.as_u16(), "statement failed");
    let mut response = Response::new(Body::from(format!("{}\n", error.0.trim_end())));
    *response.status_mut() = status;
    response.headers_mut().insert("x-clickhouse-exception-code", code.into());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_error_can_be_cut_out_by_its_length() {
        let body = tagged(&EngineError("Code: 395. DB::Exception: x".into()), "00aa");
        let text = std::str::from_utf8(&body).unwrap();
        let rest = text.strip_suffix(" 00aa\r\n__exception__\r\n").unwrap();
        let (before, length) = rest.rsplit_once('\n').unwrap();
        let length: usize = length.parse().unwrap();
        assert_eq!(&rest[before.len() + 1 - length..=before.len()], "Code: 395. DB::Exception: x\n");
    }

    #[test]
    fn errors_have_the_servers_status() {
        let status = |code| failure(&EngineError(format!("Code: {code}. DB::Exception: x"))).status();
        assert_eq!(status(60), 404);
        assert_eq!(status(62), 400);
        assert_eq!(status(241), 500);
        assert_eq!(status(202), 503);
    }
}
