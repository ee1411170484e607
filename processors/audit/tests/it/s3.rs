//! The same trail in a bucket, through the S3 client, against a small server that speaks the part of S3 used here:
//! conditional PUT, GET with a range, listing by folder.

use crate::support::{TOPIC, offsets};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Query, State},
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::Response,
};
use claims_audit::{
    SegmentStore, ShowOptions, VerifyOptions, processor::TrailEnds, show, sink::AuditSink, verify,
};
use claims_runtime::Sink;
use claims_topology::config::AuditConfig;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

const LAST_MODIFIED: &str = "Wed, 01 Jan 2025 00:00:00 GMT";

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

fn answer(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::ETAG, "\"etag\"".parse().unwrap());
    response.headers_mut().insert(header::LAST_MODIFIED, LAST_MODIFIED.parse().unwrap());
    response
}

async fn serve(
    State(objects): State<Objects>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut objects = objects.lock().unwrap();
    let key = uri.path().strip_prefix("/bucket").unwrap().trim_start_matches('/').to_owned();
    if method == Method::PUT {
        assert_eq!(headers.get(header::IF_NONE_MATCH).unwrap(), "*", "only new objects are put");
        if objects.contains_key(&key) {
            return answer(StatusCode::PRECONDITION_FAILED, "");
        }
        objects.insert(key, body);
        return answer(StatusCode::OK, "");
    }
    assert_eq!(method, Method::GET);
    if key.is_empty() {
        return answer(StatusCode::OK, list(&objects, &query));
    }
    let Some(object) = objects.get(&key) else { return answer(StatusCode::NOT_FOUND, "") };
    let Some(range) = headers.get(header::RANGE) else { return answer(StatusCode::OK, object.clone()) };
    let last: usize = range.to_str().unwrap().strip_prefix("bytes=-").unwrap().parse().unwrap();
    let start = object.len().saturating_sub(last);
    let mut response = answer(StatusCode::PARTIAL_CONTENT, object.slice(start..));
    let content_range = format!("bytes {start}-{}/{}", object.len() - 1, object.len());
    response.headers_mut().insert(header::CONTENT_RANGE, content_range.parse().unwrap());
    response
}

fn list(objects: &BTreeMap<String, Bytes>, query: &HashMap<String, String>) -> String {
    assert_eq!((query["list-type"].as_str(), query["delimiter"].as_str()), ("2", "/"));
    let prefix = query.get("prefix").map_or("", String::as_str);
    let mut folders = BTreeSet::new();
    let mut xml = String::from("<?xml version=\"1.0\"?><ListBucketResult>");
    for (key, object) in objects.iter().filter(|(key, _)| key.starts_with(prefix)) {
        match key[prefix.len()..].split_once('/') {
            Some((folder, _)) => drop(folders.insert(format!("{prefix}{folder}/"))),
            None => xml.push_str(&format!(
                "<Contents><Key>{key}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified>\
                 <ETag>\"etag\"</ETag><Size>{}</Size></Contents>",
                object.len()
            )),
        }
    }
    for folder in folders {
        xml.push_str(&format!("<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"));
    }
    xml + "</ListBucketResult>"
}

#[tokio::test]
async fn a_trail_in_a_bucket() {
    let objects = Objects::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let app = Router::new().fallback(serve).with_state(Arc::clone(&objects));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let options = [
        ("aws_endpoint", endpoint.as_str()),
        ("aws_allow_http", "true"),
        ("aws_region", "eu-west-3"),
        ("aws_access_key_id", "id"),
        ("aws_secret_access_key", "key"),
    ];
    let config = AuditConfig {
        store: "s3://bucket/some/prefix".into(),
        store_options: options.map(|(k, v)| (k.to_owned(), v.to_owned().into())).into(),
        ..AuditConfig::default()
    };
    let store = SegmentStore::open(&config).unwrap();
    let sink = || AuditSink::new(store.clone(), TOPIC.into(), TrailEnds::default());

    let (zombie, owner) = (sink(), sink());
    zombie.assigned(&[0]).await.unwrap();
    owner.assigned(&[0]).await.unwrap();
    zombie.write(&offsets(0..5)).await.unwrap();
    owner.write(&offsets(3..9)).await.unwrap();
    sink().write(&offsets(0..12)).await.unwrap();

    let report = verify(&store, &VerifyOptions::default()).await.unwrap();
    assert!(report.holds, "{report:?}");
    assert_eq!((report.records, report.segments), (12, 3));
    let keys: Vec<_> = objects.lock().unwrap().keys().cloned().collect();
    assert_eq!(keys[2], format!("some/prefix/{TOPIC}/0/000/000/000000002.parquet"));
    let wanted = ShowOptions { topic: TOPIC.into(), tenant_id: None, claim_id: "claim-0-1".into() };
    let found = show(&store, &wanted).await.unwrap();
    assert_eq!(found.records.iter().map(|r| r.offset).collect::<Vec<_>>(), [1, 6, 11]);

    objects.lock().unwrap().remove(&keys[1]);
    assert!(!verify(&store, &VerifyOptions::default()).await.unwrap().holds);
}
