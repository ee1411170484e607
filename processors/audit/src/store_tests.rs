use super::*;

fn options(entries: &[(&str, &str)]) -> BTreeMap<String, Secret> {
    entries.iter().map(|(k, v)| ((*k).to_owned(), Secret::from((*v).to_owned()))).collect()
}

#[test]
fn a_segment_is_named_by_its_place() {
    assert_eq!(SegmentStore::segment_path("t", 3, 0), "t/3/000/000/000000000.parquet");
    assert_eq!(SegmentStore::segment_path("t", 3, 12_345_678), "t/3/012/345/012345678.parquet");
}

#[tokio::test]
async fn the_end_of_a_chain_is_found_across_folders() {
    let folder = tempfile::tempdir().unwrap();
    let store = SegmentStore::folder(folder.path()).unwrap();
    assert_eq!(store.last_sequence("t", 0).await.unwrap(), None);
    for sequence in [0, 1, 999, 1000, 999_999, 1_000_000, 2_001_001] {
        assert_eq!(store.put_new("t", 0, sequence, Bytes::from_static(b"x")).await.unwrap(), Put::Created);
        assert_eq!(store.last_sequence("t", 0).await.unwrap(), Some(sequence));
    }
    assert_eq!(store.put_new("t", 10, 5, Bytes::from_static(b"x")).await.unwrap(), Put::Created);
    assert_eq!(store.last_sequence("t", 1).await.unwrap(), None, "partition 10 is not partition 1");
    assert_eq!(store.partitions("t").await.unwrap().0, [0, 10]);
    assert_eq!(store.topics().await.unwrap(), ["t"]);
    assert_eq!(store.folders("t", 0).await.unwrap().numbers, [0, 1, 999, 1000, 2001]);
    assert_eq!(store.segments("t", 0, 0).await.unwrap().numbers, [0, 1, 999]);
    std::fs::create_dir_all(folder.path().join("t/0/900/900")).unwrap();
    assert_eq!(store.last_sequence("t", 0).await.unwrap(), Some(2_001_001), "an empty folder is no end");
}

#[tokio::test]
async fn a_segment_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let store = SegmentStore::folder(folder.path()).unwrap();
    assert_eq!(store.put_new("t", 0, 0, Bytes::from_static(b"first")).await.unwrap(), Put::Created);
    assert_eq!(store.put_new("t", 0, 0, Bytes::from_static(b"second")).await.unwrap(), Put::Exists);
    assert_eq!(store.get("t", 0, 0).await.unwrap(), "first");
    assert_eq!(store.get_tail("t", 0, 0).await.unwrap().object_bytes, 5);
    let full = store.put_new("t", 0, MAX_SEGMENTS, Bytes::new()).await;
    assert!(matches!(full, Err(StoreError::Full { partition: 0 })));
}

#[tokio::test]
async fn whatever_has_no_place_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let store = SegmentStore::folder(folder.path()).unwrap();
    store.put_new("t", 0, 0, Bytes::from_static(b"x")).await.unwrap();
    let place = folder.path().join("t/0/000/000");
    for name in ["000000001.csv", "1.parquet", "000001000.parquet", "+00000001.parquet"] {
        std::fs::write(place.join(name), b"x").unwrap();
    }
    std::fs::create_dir(folder.path().join("t/x1")).unwrap();
    let segments = store.segments("t", 0, 0).await.unwrap();
    assert_eq!(segments.numbers, [0]);
    assert_eq!(segments.strangers.len(), 4, "{:?}", segments.strangers);
    assert_eq!(store.partitions("t").await.unwrap().1, ["t/x1"]);
}

#[test]
fn a_bucket_and_its_settings_make_an_s3_store() {
    let config = AuditConfig {
        store: "s3://trail-bucket/audit/claims/".into(),
        store_options: options(&[
            ("aws_region", "eu-west-3"),
            ("AWS_ENDPOINT", "http://127.0.0.1:9"),
            ("aws_allow_http", "true"),
            ("aws_access_key_id", "id"),
            ("aws_secret_access_key", "hidden"),
        ]),
        ..AuditConfig::default()
    };
    let store = SegmentStore::open(&config).unwrap();
    assert_eq!(store.name(), "s3://trail-bucket/audit/claims/");
    assert_eq!(store.root.as_ref(), "audit/claims");
    assert!(store.objects.to_string().contains("trail-bucket"), "{}", store.objects);
    assert!(!format!("{store:?}").contains("hidden"), "the secret shows in {store:?}");
}

#[test]
fn a_store_that_cannot_be_is_refused_with_its_reason() {
    let open = |store: &str, entries: &[(&str, &str)]| {
        let config =
            AuditConfig { store: store.into(), store_options: options(entries), ..AuditConfig::default() };
        SegmentStore::open(&config).unwrap_err().to_string()
    };
    assert!(open("", &[]).contains("is empty"));
    assert!(open("gs://bucket", &[]).contains("no store is reached by gs://"));
    assert!(open("s3://", &[]).contains("names no bucket"));
    assert!(open("s3://bucket", &[("aws_regoin", "x")]).contains("has no \"aws_regoin\""));
    assert!(open("/proc/no-such-place", &[]).contains("can't be made"));
    let config = AuditConfig { store: "no/such/folder".into(), ..AuditConfig::default() };
    let refused = SegmentStore::open_to_read(&config).unwrap_err().to_string();
    assert!(refused.contains("there is no such folder"), "{refused}");
}

#[tokio::test]
async fn a_store_that_is_away_is_a_passing_error() {
    let entries = [
        ("aws_endpoint", "http://127.0.0.1:9"),
        ("aws_allow_http", "true"),
        ("aws_access_key_id", "id"),
        ("aws_secret_access_key", "key"),
        ("aws_region", "eu-west-3"),
    ];
    let store = SegmentStore::s3("s3://bucket/p", &options(&entries)).unwrap();
    let error = store.last_sequence("t", 0).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
}
