use crate::{UP, config, fake_registry::FakeRegistry};
use claims_topology::registry::{
    self, COMPATIBILITY, Compatibility, RegistryClient, RegistryError, value_subject,
};

#[tokio::test]
async fn schemas_are_registered_once_and_held_to_the_rule() {
    let config = config();
    let before = registry::check(&config).await.expect(UP);
    assert!(before.iter().all(|check| check.compatibility == Compatibility::Registrable), "{before:?}");

    let ids = registry::ensure_registered(&config).await.unwrap();
    assert_ne!(ids.event, ids.state);
    assert_eq!(registry::ensure_registered(&config).await.unwrap(), ids, "the same ids again");

    let after = registry::check(&config).await.unwrap();
    assert!(after.iter().all(|check| check.is_in_order()), "{after:?}");
    assert_eq!(after[0].compatibility, Compatibility::Registered { id: ids.event, version: 1 });
}

#[tokio::test]
async fn a_schema_that_reads_less_is_refused_and_the_difference_named() {
    let mut config = config();
    let client = RegistryClient::new(&config.registry).unwrap();
    // Somebody has registered a schema with which ours has nothing in common but the name.
    let other = r#"{"type":"record","name":"ClaimEvent","namespace":"claims.v1","fields":[{"name":"only","type":"string"}]}"#;
    client.register(&value_subject(&config.topics.events), other).await.expect(UP);

    let check = registry::check(&config).await.unwrap().swap_remove(0);
    assert!(!check.is_in_order());
    assert_ne!(check.compatibility_level.as_deref(), Some(COMPATIBILITY), "the rule isn't set yet");
    let error = registry::ensure_registered(&config).await.unwrap_err();
    assert!(matches!(error, RegistryError::Refused { .. }), "{error}");

    let check = registry::check(&config).await.unwrap().swap_remove(0);
    assert_eq!(
        check.compatibility_level.as_deref(),
        Some(COMPATIBILITY),
        "set before the schema was offered"
    );
    let Compatibility::Incompatible { differences } = check.compatibility else { panic!("{check:?}") };
    assert!(!differences.is_empty());

    // A wrong level is put right by registering.
    config.topics.events.push_str(".b");
    registry::ensure_registered(&config).await.unwrap();
    let subject = value_subject(&config.topics.events);
    client.set_compatibility_level(&subject, "NONE").await.unwrap();
    assert!(!registry::check(&config).await.unwrap()[0].is_in_order());
    registry::ensure_registered(&config).await.unwrap();
    assert!(registry::check(&config).await.unwrap()[0].is_in_order());
}

#[tokio::test]
async fn what_answers_and_is_no_registry_is_unavailable() {
    let mut config = config();
    config.registry.url = config.registry.url.replace("/apis/ccompat/v7", "/no/such/path");
    for result in
        [registry::check(&config).await.map(|_| ()), registry::ensure_registered(&config).await.map(|_| ())]
    {
        let error = result.unwrap_err();
        assert!(!matches!(error, RegistryError::NotFound { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_registry_that_never_answers_is_given_up_in_time() {
    let silent = FakeRegistry::silent().await;
    let mut config = config();
    config.registry.url = silent.url.clone();
    config.registry.request_timeout_ms = 200;
    let begun = std::time::Instant::now();
    let error = registry::ensure_registered(&config).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains(&silent.url), "{error}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
}

#[tokio::test]
async fn the_password_is_sent_and_never_shown() {
    let fake = FakeRegistry::answering(401, r#"{"error_code":401,"message":"who are you"}"#).await;
    let mut config = config();
    config.registry.url = fake.url.clone();
    config.registry.username = Some("claims".into());
    config.registry.password = Some("hunter2".to_owned().into());
    let error = registry::ensure_registered(&config).await.unwrap_err();
    // Basic claims:hunter2
    assert!(fake.requests()[0].to_lowercase().contains("authorization: basic"), "{:?}", fake.requests());
    assert!(fake.requests()[0].contains("Y2xhaW1zOmh1bnRlcjI="));
    let client = RegistryClient::new(&config.registry).unwrap();
    for shown in [format!("{error} {error:?}"), format!("{client:?}")] {
        assert!(!shown.contains("hunter2") && !shown.contains("Y2xhaW1zOmh1bnRlcjI="), "{shown}");
    }
}
