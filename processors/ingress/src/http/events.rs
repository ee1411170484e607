//! `POST /v1/events`: the body is read, checked and handed to Kafka piece by piece; nothing is held but one piece
//! and one line.

use super::{
    Shared,
    answers::{self, Accepted, Ending, Refused},
};
use crate::{
    publisher::{PublishError, Publisher, Sender},
    records::{Emitted, Records},
    source::{
        lines::LineSplitter,
        ndjson::{self, Dialect, LineParser},
    },
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::Response,
};
use bytes::Bytes;
use claims_runtime::Shutdown;
use claims_topology::{config::IngressConfig, topics::HEADER_TRACEPARENT};
use http_body_util::BodyExt;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// A body that stands still for this long is given up.
const BODY_IDLE_TIMEOUT_MS: u64 = 30_000;
/// A request whose events are not handed over within this long is given up, however steadily they come: each holds
/// one of the places for requests.
const REQUEST_TIMEOUT_MS: u64 = 300_000;
/// The same once the server is to stop.
const REQUEST_TIMEOUT_STOPPING_MS: u64 = 2_000;
/// A full queue is asked again after this long.
const QUEUE_FULL_WAIT_MS: u64 = 5;
/// While waiting for acknowledgements, Kafka's absence is noticed within this long.
const AWAY_CHECK_INTERVAL_MS: u64 = 100;
/// Length of a W3C trace context, version 00.
const TRACEPARENT_BYTES: usize = 55;

/// Takes events in and answers once Kafka has acknowledged all of them.
#[utoipa::path(
    post,
    path = "/v1/events",
    request_body(
        content = String,
        content_type = "application/x-ndjson",
        description = "Events in the canonical JSON form, one per line; with content type application/json one \
                       event or an array of them, no larger than one line may be"
    ),
    responses(
        (status = 202, description = "All events are in Kafka", body = Accepted),
        (status = 400, description = "An event is bad; those before it are in Kafka", body = Refused),
        (status = 413, description = "The body, or a line of it, is too large", body = Refused),
        (status = 429, description = "Kafka can't keep up: wait as Retry-After says, then repeat", body = Refused),
        (status = 503, description = "Kafka is away, or the server stops: wait as Retry-After says, then repeat",
         body = Refused),
    )
)]
pub(super) async fn post_events(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Ok(_room) = shared.room.try_acquire() else {
        return Ending::Busy("too many requests at one time").answer(0);
    };
    let Some(publisher) = shared.publisher() else {
        return Ending::Away("Kafka is away".to_owned()).answer(0);
    };
    let mut request = Request {
        config: &shared.config,
        sender: publisher.sender(),
        events: Emitted::Records(Records::new(publisher.format())),
        publisher,
        parser: LineParser::new(Dialect::Canonical, &shared.config.default_tenant),
        traceparent: traceparent(&headers),
    };
    let declared = declared_length(&headers);
    let take = async {
        if is_json(&headers) {
            request.take_json(body, declared).await
        } else {
            request.take_lines(body, declared).await
        }
    };
    let taken = tokio::select! {
        biased;
        ending = out_of_time(shared.shutdown.clone()) => Err(ending),
        taken = take => taken,
    };
    let settled = request.settle().await;
    let acknowledged = request.sender.delivery().acknowledged();
    match taken.and(settled) {
        Ok(()) => answers::accepted(acknowledged),
        Err(ending) => ending.answer(acknowledged),
    }
}

/// Ends once a request has taken all the time that it may.
async fn out_of_time(mut shutdown: Shutdown) -> Ending {
    let stopping = async {
        shutdown.requested().await;
        tokio::time::sleep(Duration::from_millis(REQUEST_TIMEOUT_STOPPING_MS)).await;
    };
    match tokio::time::timeout(Duration::from_millis(REQUEST_TIMEOUT_MS), stopping).await {
        Ok(()) => Ending::Stopping,
        Err(_) => Ending::Unreadable(format!("not all events came within {REQUEST_TIMEOUT_MS} ms")),
    }
}

struct Request<'a> {
    config: &'a IngressConfig,
    publisher: Arc<Publisher>,
    sender: Sender,
    parser: LineParser,
    /// Of the piece at hand.
    events: Emitted,
    traceparent: Option<String>,
}

impl Request<'_> {
    /// A stream of lines, one event each.
    async fn take_lines(&mut self, body: Body, declared: Option<u64>) -> Result<(), Ending> {
        let mut body = Limited::new(body, self.config.max_request_bytes, declared)?;
        let mut lines = LineSplitter::new(self.config.max_line_bytes);
        loop {
            let piece = body.next().await?;
            match &piece {
                Some(bytes) => lines.feed(bytes),
                None => lines.finish(),
            }
            self.parser.read_clock();
            let parsed = self.parse_lines(&mut lines);
            // What stands before a bad line goes in.
            self.send_events().await?;
            parsed?;
            if piece.is_none() {
                return Ok(());
            }
        }
    }

    fn parse_lines(&mut self, lines: &mut LineSplitter) -> Result<(), Ending> {
        while let Some(line) = lines.next_line() {
            let number = line.number;
            if line.too_long {
                let most = self.config.max_line_bytes;
                return Err(Ending::TooLarge(format!("line {number} is longer than {most} bytes")));
            }
            if line.trimmed().iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let parsed = self.parser.parse(&line, &mut self.events);
            parsed.map_err(|error| Ending::Bad { line: number, error })?;
        }
        Ok(())
    }

    /// One event, or an array of them.
    async fn take_json(&mut self, body: Body, declared: Option<u64>) -> Result<(), Ending> {
        let mut body = Limited::new(body, self.config.max_line_bytes, declared)?;
        let mut text = Vec::new();
        while let Some(bytes) = body.next().await? {
            text.extend_from_slice(&bytes);
        }
        self.parser.read_clock();
        let parsed = self.parse_json(&text);
        // What stands before a bad event goes in.
        self.send_events().await?;
        parsed
    }

    fn parse_json(&mut self, text: &[u8]) -> Result<(), Ending> {
        if self.parser.is_plain(text, &mut self.events) {
            return Ok(());
        }
        let value = ndjson::parse_json(text).map_err(|error| Ending::Bad { line: 1, error })?;
        let values = match value {
            serde_json::Value::Array(values) => values,
            one => vec![one],
        };
        for (value, place) in values.into_iter().zip(1..) {
            let parsed = self.parser.event(value, &mut self.events);
            parsed.map_err(|error| Ending::Bad { line: place, error })?;
        }
        Ok(())
    }

    /// Hands over the events of the piece at hand; waits for room, but for each of them not longer than the
    /// configuration says.
    async fn send_events(&mut self) -> Result<(), Ending> {
        let Emitted::Records(records) = &mut self.events else { return Ok(()) };
        let (mut next, mut give_up_at) = (0, None);
        loop {
            let before = next;
            let sent = self.sender.try_send(records, &mut next, self.traceparent.as_deref());
            if next > before {
                give_up_at = None;
            }
            match sent {
                Ok(()) => break,
                Err(PublishError::QueueFull) => {
                    let limit = Duration::from_millis(self.config.queue_full_timeout_ms);
                    let give_up_at = *give_up_at.get_or_insert_with(|| Instant::now() + limit);
                    if !self.publisher.is_usable() {
                        return Err(Ending::Away("Kafka is away".to_owned()));
                    }
                    if Instant::now() >= give_up_at {
                        return Err(Ending::Busy("Kafka can't keep up"));
                    }
                    tokio::time::sleep(Duration::from_millis(QUEUE_FULL_WAIT_MS)).await;
                }
                Err(error) => return Err(Ending::Away(error.to_string())),
            }
        }
        let failed = records.failure().map(|error| Ending::Away(error.to_string()));
        records.clear();
        failed.map_or(Ok(()), Err)
    }

    /// Waits until Kafka has acknowledged what was handed over, or is known to be away.
    async fn settle(&mut self) -> Result<(), Ending> {
        let interval = Duration::from_millis(AWAY_CHECK_INTERVAL_MS);
        while tokio::time::timeout(interval, self.sender.settled()).await.is_err() {
            if !self.publisher.is_usable() {
                return Err(Ending::Away("Kafka went away before it had acknowledged everything".to_owned()));
            }
        }
        match self.sender.delivery().first_error() {
            None => Ok(()),
            Some(error) => Err(Ending::Away(error.to_owned())),
        }
    }
}

/// A body, its size and its pauses bounded.
struct Limited {
    body: Body,
    remaining: usize,
    most: usize,
}

impl Limited {
    fn new(body: Body, most: usize, declared: Option<u64>) -> Result<Self, Ending> {
        if declared.is_some_and(|length| length > most as u64) {
            return Err(too_large(most));
        }
        Ok(Self { body, remaining: most, most })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Ending> {
        loop {
            let frame = tokio::time::timeout(Duration::from_millis(BODY_IDLE_TIMEOUT_MS), self.body.frame());
            let frame = match frame.await {
                Err(_) => return Err(Ending::Unreadable("the body stood still for too long".to_owned())),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(Ending::Unreadable(error.to_string())),
                Ok(Some(Ok(frame))) => frame,
            };
            // Trailers say nothing here.
            let Ok(bytes) = frame.into_data() else { continue };
            self.remaining = self.remaining.checked_sub(bytes.len()).ok_or_else(|| too_large(self.most))?;
            return Ok(Some(bytes));
        }
    }
}

fn too_large(most: usize) -> Ending {
    Ending::TooLarge(format!("the body is larger than {most} bytes: send it in parts"))
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// The request's trace context, if it looks like one.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(HEADER_TRACEPARENT)?.to_str().ok()?;
    let plain = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    (text.len() == TRACEPARENT_BYTES && plain).then(|| text.to_owned())
}
