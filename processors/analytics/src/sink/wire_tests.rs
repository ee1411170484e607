//! What goes over the wire, and what is made of the answers: against a server of a few lines.

use super::*;
use crate::row::Columns;
use claims_runtime::{Origin, testing};
use clickhouse::Compression;
use proptest::prelude::*;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const WRITTEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const REFUSED: &str = "HTTP/1.1 500 Internal Server Error\r\nX-ClickHouse-Exception-Code: 469\r\n\
    Content-Length: 42\r\nConnection: close\r\n\r\nCode: 469. (VIOLATED_CONSTRAINT) (secret-x)";

/// When a server answers.
#[derive(Clone, Copy)]
enum Answers {
    /// To the whole request.
    AtTheEnd(&'static str),
    /// To the head of the request, and hangs up.
    AtOnce(&'static str),
}

/// What came of one request.
#[derive(Debug, PartialEq)]
struct Request {
    /// The parameters of the URL, in the order of the alphabet.
    parameters: Vec<String>,
    /// `None`: it never came to its end.
    body: Option<Vec<u8>>,
}

/// Answers one request.
async fn serve(stream: TcpStream, answers: Answers) -> Request {
    let mut stream = BufReader::new(stream);
    let mut parameters = vec![];
    let mut line = String::new();
    while stream.read_line(&mut line).await.expect("a head") > 2 {
        if parameters.is_empty() {
            let url = line.split(' ').nth(1).expect("a request line");
            parameters = url.split(['?', '&']).skip(1).map(str::to_owned).collect();
            parameters.sort_unstable();
        }
        line.clear();
    }
    if let Answers::AtOnce(answer) = answers {
        stream.write_all(answer.as_bytes()).await.expect("answered");
        return Request { parameters, body: None };
    }
    let body = chunks(&mut stream).await;
    if let Answers::AtTheEnd(answer) = answers
        && body.is_some()
    {
        stream.write_all(answer.as_bytes()).await.expect("answered");
    }
    Request { parameters, body }
}

/// A chunked body; `None` if the connection ends before it does.
async fn chunks(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut body = vec![];
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let mut chunk = vec![0; length + 2];
        stream.read_exact(&mut chunk).await.ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(&chunk[..length]);
    }
}

/// A port to be served, and a sink of it that doesn't compress.
async fn unserved() -> (ClickHouseSink, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let mut sink = ClickHouseSink::new(&ClickHouseConfig { url, ..ClickHouseConfig::default() });
    sink.client = sink.client.with_compression(Compression::None);
    (sink, listener)
}

/// A sink of a server that gets so many requests; and those.
async fn served(answers: Answers, requests: usize) -> (ClickHouseSink, JoinHandle<Vec<Request>>) {
    let (sink, listener) = unserved().await;
    let server = tokio::spawn(async move {
        let mut seen = vec![];
        for _ in 0..requests {
            let (stream, _) = listener.accept().await.expect("a connection");
            seen.push(serve(stream, answers).await);
        }
        seen
    });
    (sink, server)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Rows one after the other, at offsets 0, 1, …
fn batch_of(rows: &[Columns<'_>]) -> Batch<EventRow> {
    let mut scratch = vec![];
    let rows = rows
        .iter()
        .zip(0..)
        .map(|(columns, offset)| (Origin { partition: 0, offset }, EventRow::encode(columns, &mut scratch)));
    testing::batch(1, rows)
}

/// Some twelve megabytes: more than sockets hold.
fn large_batch() -> Batch<EventRow> {
    let note = "n".repeat(64 * 1024);
    batch_of(&vec![Columns { note: Some(&note), ..Columns::default() }; 200])
}

/// The values of a row: texts that may be missing, texts, numbers, an event's id, and a flag.
type Values = (Vec<Option<String>>, Vec<String>, Vec<i64>, u128, Option<bool>);

fn values() -> impl Strategy<Value = Values> {
    // Also lengths about which LEB128 takes another byte.
    let text = prop_oneof![
        8 => ".{0,40}",
        1 => (126_usize..130).prop_map(|length| "x".repeat(length)),
        1 => (16_382_usize..16_386).prop_map(|length| "y".repeat(length)),
    ];
    (
        proptest::collection::vec(proptest::option::of(text.clone()), 25),
        proptest::collection::vec(text, 4),
        proptest::collection::vec(any::<i64>(), 9),
        any::<u128>(),
        any::<Option<bool>>(),
    )
}

fn columns((optional, texts, numbers, event_id, flag): &Values) -> Columns<'_> {
    let mut optional = optional.iter().map(Option::as_deref);
    let mut optional = || optional.next().expect("25 of them");
    let sometimes = |number: i64| (number % 3 != 0).then_some(number);
    Columns {
        tenant_id: &texts[0],
        claim_id: &texts[1],
        version: numbers[0].cast_unsigned(),
        event_id: Uuid::from_u128(*event_id),
        event_type: &texts[2],
        occurred_at: numbers[1],
        recorded_at: numbers[2],
        correlation_id: &texts[3],
        causation_id: optional(),
        user_id: optional(),
        source: optional(),
        customer_id: optional(),
        customer_name: optional(),
        customer_email: optional(),
        claim_type: optional(),
        title: optional(),
        description: optional(),
        product_id: optional(),
        order_id: optional(),
        urgency: optional(),
        claimed_amount: sometimes(numbers[3]),
        claimed_currency: optional(),
        agent_id: optional(),
        agent_name: optional(),
        previous_agent_id: optional(),
        estimated_resolution_at: sometimes(numbers[4]),
        actor: optional(),
        reason: optional(),
        note: optional(),
        note_kind: optional(),
        resolution: optional(),
        resolution_type: optional(),
        customer_satisfaction: optional(),
        follow_up_required: *flag,
        replacement_tracking: optional(),
        settled_amount: sometimes(numbers[5]),
        settled_currency: optional(),
        topic_partition: numbers[6] as i32,
        topic_offset: numbers[7],
        appended_at: numbers[8],
    }
}

/// As the `clickhouse` crate does it by itself.
async fn insert_by_the_crate(sink: &ClickHouseSink, rows: &[Columns<'_>], token: String) {
    let insert = sink.client.insert::<Columns<'static>>(schema::EVENT_LOG).await.expect("begun");
    let mut insert = insert.with_setting("insert_deduplication_token", token);
    for row in rows {
        insert.write(row).await.expect("encoded");
    }
    insert.end().await.expect("written");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_request_is_the_one_that_the_crate_would_make(values in proptest::collection::vec(values(), 1..40)) {
        let rows: Vec<Columns<'_>> = values.iter().map(columns).collect();
        let batch = batch_of(&rows);
        let requests = runtime().block_on(async {
            let (sink, server) = served(Answers::AtTheEnd(WRITTEN), 2).await;
            sink.insert(&batch).await.expect("written");
            insert_by_the_crate(&sink, &rows, deduplication_token(sink.epoch, &batch)).await;
            server.await.expect("served")
        });
        prop_assert!(requests[0].body.is_some());
        prop_assert_eq!(&requests[0], &requests[1]);
    }
}

#[tokio::test]
async fn large_batches_and_rows_arrive_whole() {
    let (sink, server) = served(Answers::AtTheEnd(WRITTEN), 1).await;
    let mut batch = large_batch();
    let note = "m".repeat(3 * CHUNK_BYTES);
    batch.rows[100] = EventRow::encode(&Columns { note: Some(&note), ..Columns::default() }, &mut vec![]);
    sink.write(&batch).await.expect("written");
    let wanted: Vec<u8> = batch.rows.iter().flat_map(|row| row.encoded().iter().copied()).collect();
    let requests = server.await.expect("served");
    assert!(requests[0].body.as_ref() == Some(&wanted));
    for setting in ["async_insert=0", "optimize_on_insert=0"] {
        assert!(requests[0].parameters.iter().any(|parameter| parameter == setting), "{setting}");
    }
}

#[tokio::test]
async fn a_refusal_is_told_with_its_code() {
    let (sink, _server) = served(Answers::AtTheEnd(REFUSED), 1).await;
    let refused = sink.insert(&batch_of(&[Columns::default()])).await.expect_err("refused");
    assert_eq!(classify::classify(&refused), Class::Poison, "{refused}");
    assert_eq!(classify::error_code(&refused), Some(469));
}

#[tokio::test]
async fn what_the_server_did_not_take_whole_is_not_written() {
    for answer in ["", WRITTEN, REFUSED] {
        let (sink, _server) = served(Answers::AtOnce(answer), 1).await;
        sink.insert(&large_batch()).await.expect_err("it has not even read it");
    }
    let (sink, _server) = served(Answers::AtTheEnd(""), 1).await;
    let unanswered = sink.insert(&large_batch()).await.expect_err("no answer");
    assert!(classify::classify(&unanswered).is_transient(), "{unanswered}");
}

#[tokio::test]
async fn an_insert_that_is_given_up_never_comes_to_its_end() {
    let (sink, listener) = unserved().await;
    let insert = tokio::spawn(async move { sink.write(&large_batch()).await });
    let (stream, _) = listener.accept().await.expect("a connection");
    insert.abort();
    assert!(insert.await.expect_err("given up").is_cancelled());
    assert_eq!(serve(stream, Answers::AtTheEnd(WRITTEN)).await.body, None);
}
