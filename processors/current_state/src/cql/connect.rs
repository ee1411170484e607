//! A session with the configured nodes, user and TLS.

use claims_runtime::SinkError;
use claims_topology::config::CqlConfig;
use scylla::client::{
    execution_profile::ExecutionProfile, session::Session, session::TlsContext,
    session_builder::SessionBuilder,
};
use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, MetadataError,
    NewSessionError,
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
    builder.build().await.map_err(|error| classify(&error, config))
}

/// Refused credentials and settings that can't work are final; a database that is away passes.
fn classify(error: &NewSessionError, config: &CqlConfig) -> SinkError {
    let nodes = config.nodes.join(", ");
    if is_refused_login(error) {
        let user = config.username.as_deref().unwrap_or("none");
        return SinkError::Fatal(format!(
            "the CQL database at {nodes} refuses the login (current_state.cql.username: {user}): {error}"
        ));
    }
    match error {
        NewSessionError::EmptyKnownNodesList | NewSessionError::IllegalConfig(_) => {
            SinkError::Fatal(format!("current_state.cql: {error}"))
        }
        _ => SinkError::Transient(format!("the CQL database at {nodes} can't be reached: {error}")),
    }
}

fn is_refused_login(error: &NewSessionError) -> bool {
    let NewSessionError::MetadataError(MetadataError::ConnectionPoolError(ConnectionPoolError::Broken {
        last_connection_error: ConnectionError::ConnectionSetupRequestError(refused),
    })) = error
    else {
        return false;
    };
    matches!(
        refused.get_error(),
        ConnectionSetupRequestErrorKind::DbError(DbError::AuthenticationError | DbError::Unauthorized, _)
            | ConnectionSetupRequestErrorKind::MissingAuthentication
    )
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    #[test]
    fn an_absent_database_passes_and_senseless_settings_do_not() {
        let config = CqlConfig { nodes: vec!["db1:9042".into()], ..CqlConfig::default() };
        let absent =
            NewSessionError::MetadataError(MetadataError::ConnectionPoolError(ConnectionPoolError::Broken {
                last_connection_error: ConnectionError::ConnectTimeout,
            }));
        let SinkError::Transient(detail) = classify(&absent, &config) else { panic!() };
        assert!(detail.contains("db1:9042"), "{detail}");
        let senseless = NewSessionError::IllegalConfig("x".into());
        assert!(matches!(classify(&senseless, &config), SinkError::Fatal(_)));
    }

    /// A server that lets nobody in: it answers the first question, and refuses what comes next.
    async fn refusing_server() -> String {
        const OPTIONS: u8 = 0x05;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut peer, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut header = [0; 9];
                    while peer.read_exact(&mut header).await.is_ok() {
                        let mut body = vec![0; u32::from_be_bytes(header[5..].try_into().unwrap()) as usize];
                        peer.read_exact(&mut body).await.unwrap();
                        // SUPPORTED, with nothing in it; or ERROR 0x0100 (bad credentials) with a message.
                        let (opcode, answer): (u8, &[u8]) = match header[4] {
                            OPTIONS => (0x06, &[0, 0]),
                            _ => (0x00, b"\0\0\x01\0\0\x06go off"),
                        };
                        let mut frame = vec![0x84, 0, header[2], header[3], opcode];
                        frame.extend((answer.len() as u32).to_be_bytes());
                        frame.extend(answer);
                        peer.write_all(&frame).await.unwrap();
                    }
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn a_refused_login_is_final() {
        let config = CqlConfig {
            nodes: vec![refusing_server().await],
            username: Some("somebody".into()),
            password: Some("s3cret".to_owned().into()),
            ..CqlConfig::default()
        };
        let Err(SinkError::Fatal(detail)) = connect(&config).await else { panic!("should be final") };
        assert!(detail.contains("go off") && detail.contains("username: somebody"), "{detail}");
        assert!(!detail.contains("s3cret"));
    }
}
