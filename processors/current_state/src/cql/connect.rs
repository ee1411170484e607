//! A session with the configured nodes, user and TLS.

use claims_runtime::SinkError;
use claims_topology::config::CqlConfig;
use scylla::client::{
    execution_profile::ExecutionProfile, session::Session, session::TlsContext,
    session_builder::SessionBuilder,
};
use scylla::statement::Consistency;
use std::time::Duration;

/// Connects. Nodes that don't answer are a passing error; settings that can't be used are final.
pub async fn connect(config: &CqlConfig) -> Result<Session, SinkError> {
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .request_timeout(Some(Duration::from_millis(config.request_timeout_ms)))
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&config.nodes)
        .default_execution_profile_handle(profile.into_handle())
        .tls_context(tls(config)?);
    if let Some(username) = &config.username {
        builder = builder.user(username, config.password.as_ref().map_or("", |p| p.expose()));
    }
    builder.build().await.map_err(|error| {
        SinkError::Transient(format!(
            "the CQL database at {} can't be reached: {error}",
            config.nodes.join(", ")
        ))
    })
}

fn tls(config: &CqlConfig) -> Result<Option<TlsContext>, SinkError> {
    let Some(path) = &config.tls_ca_location else { return Ok(None) };
    let unusable =
        |error: &dyn std::fmt::Display| SinkError::Fatal(format!("cql.tls_ca_location {path}: {error}"));
    let mut context = openssl::ssl::SslContextBuilder::new(openssl::ssl::SslMethod::tls_client())
        .map_err(|e| unusable(&e))?;
    context.set_ca_file(path).map_err(|e| unusable(&e))?;
    context.set_verify(openssl::ssl::SslVerifyMode::PEER);
    Ok(Some(TlsContext::from(context.build())))
}
