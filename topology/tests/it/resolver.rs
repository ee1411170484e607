use crate::{UP, config, fake_registry::FakeRegistry};
use claims_runtime::{ResolveError, SchemaResolver};
use claims_schemas::SchemaCache;
use claims_topology::{
    Config,
    registry::{self, RegistryClient, RegistryResolver},
};

fn resolver(config: &Config) -> RegistryResolver {
    RegistryResolver::new(config, SchemaCache::default()).unwrap()
}

#[tokio::test]
async fn a_registered_schema_is_fetched_into_the_cache() {
    let config = config();
    let ids = registry::ensure_registered(&config).await.expect(UP);
    resolver(&config).resolve(ids.event).await.unwrap();
}

#[tokio::test]
async fn an_id_that_the_registry_does_not_have_is_not_found() {
    let config = config();
    registry::check(&config).await.expect(UP);
    let missing = 2_000_000_000;
    let error = resolver(&config).resolve(missing).await.unwrap_err();
    assert_eq!(error, ResolveError::NotFound { schema_id: missing });
}

#[tokio::test]
async fn a_schema_that_no_build_can_use_is_unusable() {
    let config = config();
    let client = RegistryClient::new(&config.registry).unwrap();
    let id = client.register(&format!("{}-other", config.topics.events), r#""string""#).await.expect(UP);
    let error = resolver(&config).resolve(id).await.unwrap_err();
    assert!(matches!(error, ResolveError::Unusable { schema_id, .. } if schema_id == id), "{error}");
}

#[tokio::test]
async fn a_registry_that_is_away_or_broken_is_no_verdict_on_the_record() {
    let mut config = config();
    config.registry.request_timeout_ms = 300;
    config.registry.url = "http://127.0.0.1:9".into();
    let error = resolver(&config).resolve(1).await.unwrap_err();
    assert!(matches!(error, ResolveError::Unavailable(_)), "{error}");

    let html = "<html>down for maintenance</html>";
    let not_found = r#"{"error_code":404,"message":"no such path"}"#;
    for (status, body) in [(500, "{}"), (503, html), (404, html), (404, not_found), (401, "{}"), (200, html)]
    {
        let fake = FakeRegistry::answering(status, body).await;
        config.registry.url = fake.url.clone();
        let error = resolver(&config).resolve(1).await.unwrap_err();
        assert!(matches!(error, ResolveError::Unavailable(_)), "{status} {body}: {error}");
    }
    let silent = FakeRegistry::silent().await;
    config.registry.url = silent.url.clone();
    let error = resolver(&config).resolve(1).await.unwrap_err();
    assert!(matches!(error, ResolveError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn the_registrys_own_404_is_a_verdict() {
    let mut config = config();
    let fake = FakeRegistry::answering(404, r#"{"error_code":40403,"message":"Schema not found"}"#).await;
    config.registry.url = fake.url.clone();
    let error = resolver(&config).resolve(77).await.unwrap_err();
    assert_eq!(error, ResolveError::NotFound { schema_id: 77 });
}

#[tokio::test]
async fn concurrent_asks_share_a_request_and_refusals_are_remembered() {
    let mut config = config();
    let fake = FakeRegistry::answering(404, r#"{"error_code":40403,"message":"Schema not found"}"#).await;
    config.registry.url = fake.url.clone();
    let resolver = resolver(&config);
    let (a, b, c) = tokio::join!(resolver.resolve(77), resolver.resolve(77), resolver.resolve(77));
    assert!(a.is_err() && b.is_err() && c.is_err());
    assert!(resolver.resolve(77).await.is_err());
    assert_eq!(fake.requests().len(), 1, "{:?}", fake.requests());
    assert!(resolver.resolve(78).await.is_err());
    assert_eq!(fake.requests().len(), 2);
}

#[tokio::test]
async fn a_registry_that_comes_back_is_asked_again() {
    let mut config = config();
    config.registry.request_timeout_ms = 300;
    let schema = serde_json::json!({ "schema": claims_schemas::codec::CLAIM_EVENT_SCHEMA }).to_string();
    let fake = FakeRegistry::answering(503, "{}").await;
    config.registry.url = fake.url.clone();
    let resolver = resolver(&config);
    assert!(matches!(resolver.resolve(5).await, Err(ResolveError::Unavailable(_))));
    fake.answer_now(200, &schema);
    resolver.resolve(5).await.unwrap();
}
