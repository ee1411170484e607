//! Topics, keyspace, database and folders of one run, apart from everybody else's.

use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long a single request to a service may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Tests and models may ask for whole tables.
const CLICKHOUSE_TIMEOUT: Duration = Duration::from_secs(300);

/// Everything that one run of the pipeline touches.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// Its name: lower-case letters, digits and `_`.
    pub name: String,
    /// Local stores, audit segments, logs and files of the run.
    pub dir: PathBuf,
    /// Partitions of the events topic.
    pub partitions: i32,
    /// The events topic; of another namespace where one log feeds two sets of views.
    pub events_topic: String,
    /// Kafka's bootstrap servers.
    pub bootstrap_servers: String,
    port_offset: u16,
}

impl Namespace {
    /// A namespace of this name with its files under `dir`.
    pub fn new(name: &str, dir: &Path, partitions: i32) -> Result<Self> {
        let port_offset = match std::env::var("CLAIMS_DEV_PORT_OFFSET") {
            Ok(text) => text.parse().with_context(|| format!("CLAIMS_DEV_PORT_OFFSET={text}"))?,
            Err(_) => 0,
        };
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let dir = dir.canonicalize()?;
        let events_topic = format!("{name}.claims.events.v1");
        let bootstrap_servers = format!("127.0.0.1:{}", 9092 + port_offset);
        Ok(Self { name: name.to_owned(), dir, partitions, events_topic, bootstrap_servers, port_offset })
    }

    /// The same on services whose ports are shifted by `offset`, whatever the environment says.
    pub fn shifted(mut self, offset: u16) -> Self {
        self.bootstrap_servers = format!("127.0.0.1:{}", 9092 + offset);
        self.port_offset = offset;
        self
    }

    fn address(&self, port: u16) -> String {
        format!("127.0.0.1:{}", port + self.port_offset)
    }

    /// Kafka's bootstrap servers.
    pub fn kafka(&self) -> String {
        self.bootstrap_servers.clone()
    }

    /// Base URL of the registry's Confluent API.
    pub fn registry(&self) -> String {
        format!("http://{}/apis/ccompat/v7", self.address(8081))
    }

    /// The CQL node.
    pub fn cql(&self) -> String {
        self.address(9042)
    }

    /// ClickHouse's URL.
    pub fn clickhouse(&self) -> String {
        format!("http://{}", self.address(8123))
    }

    /// A topic's name in this namespace.
    pub fn topic(&self, base: &str) -> String {
        format!("{}.{base}", self.name)
    }

    /// The state topic.
    pub fn state_topic(&self) -> String {
        self.topic("claims.state.v1")
    }

    /// The dead-letter topic.
    pub fn dead_letters_topic(&self) -> String {
        self.topic("claims.dead-letters.v1")
    }

    /// Consumer group of a processor.
    pub fn group(&self, processor: &str) -> String {
        format!("{}.{processor}", self.name)
    }

    /// Folder of the local stores.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Folder of the audit segments.
    pub fn audit_dir(&self) -> PathBuf {
        self.dir.join("audit")
    }

    /// The environment that points the command `claims` at this namespace.
    pub fn environment(&self) -> Vec<(String, String)> {
        let pairs = [
            ("CLAIMS_KAFKA__BOOTSTRAP_SERVERS", self.kafka()),
            ("CLAIMS_KAFKA__GROUP_PREFIX", self.name.clone()),
            ("CLAIMS_REGISTRY__URL", self.registry()),
            ("CLAIMS_TOPICS__EVENTS", self.events_topic.clone()),
            ("CLAIMS_TOPICS__STATE", self.state_topic()),
            ("CLAIMS_TOPICS__DEAD_LETTERS", self.dead_letters_topic()),
            ("CLAIMS_TOPICS__PARTITIONS", self.partitions.to_string()),
            ("CLAIMS_CURRENT_STATE__CQL__NODES", self.cql()),
            ("CLAIMS_CURRENT_STATE__CQL__KEYSPACE", self.name.clone()),
            ("CLAIMS_CURRENT_STATE__STATE_DIR", self.state_dir().display().to_string()),
            ("CLAIMS_CURRENT_STATE__LISTEN", "127.0.0.1:0".to_owned()),
            ("CLAIMS_ANALYTICS__CLICKHOUSE__URL", self.clickhouse()),
            ("CLAIMS_ANALYTICS__CLICKHOUSE__DATABASE", self.name.clone()),
            ("CLAIMS_ANALYTICS__LISTEN", "127.0.0.1:0".to_owned()),
            ("CLAIMS_AUDIT__STORE", self.audit_dir().display().to_string()),
            ("CLAIMS_AUDIT__LISTEN", "127.0.0.1:0".to_owned()),
            ("CLAIMS_INGRESS__LISTEN", "127.0.0.1:0".to_owned()),
            ("CLAIMS_TELEMETRY__LOG_FORMAT", "text".to_owned()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Client settings for Kafka.
    pub fn kafka_client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka());
        config
    }

    /// Removes everything of an earlier run of this namespace: topics, groups, keyspace, database, files.
    pub async fn reset(&self) -> Result<()> {
        self.delete_topics().await?;
        self.drop_keyspace().await?;
        self.clickhouse_sql(&format!("DROP DATABASE IF EXISTS {} SYNC", self.name)).await?;
        for dir in [self.state_dir(), self.audit_dir()] {
            if dir.exists() {
                std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
            }
        }
        Ok(())
    }

    async fn delete_topics(&self) -> Result<()> {
        let prefix = format!("{}.", self.name);
        let admin: AdminClient<DefaultClientContext> = self.kafka_client().create()?;
        let probe: BaseConsumer = self.kafka_client().create()?;
        let ours = || -> Result<Vec<String>> {
            let metadata = probe.fetch_metadata(None, REQUEST_TIMEOUT).with_context(|| {
                format!("Kafka at {} does not answer; run `cargo xtask up`", self.kafka())
            })?;
            Ok(metadata
                .topics()
                .iter()
                .map(|t| t.name().to_owned())
                .filter(|t| t.starts_with(&prefix))
                .collect())
        };
        let topics = ours()?;
        if topics.is_empty() {
            return Ok(());
        }
        let groups: Vec<String> =
            ["current-state", "analytics", "audit"].iter().map(|p| self.group(p)).collect();
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        // A group that never was is an error of its own in the result, and none of ours.
        let _ = admin.delete_groups(&groups, &AdminOptions::new()).await?;
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        for outcome in admin.delete_topics(&names, &AdminOptions::new()).await? {
            if let Err((topic, code)) = outcome {
                bail!("topic {topic} can't be deleted: {code}");
            }
        }
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        while !ours()?.is_empty() {
            if Instant::now() > deadline {
                bail!(
                    "topics {names:?} are still there {} s after their deletion",
                    REQUEST_TIMEOUT.as_secs()
                );
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    async fn drop_keyspace(&self) -> Result<()> {
        let session = self.cql_session().await?;
        session
            .query_unpaged(format!("DROP KEYSPACE IF EXISTS {}", self.name), ())
            .await
            .with_context(|| format!("drop keyspace {}", self.name))?;
        Ok(())
    }

    /// A session with the CQL server.
    pub async fn cql_session(&self) -> Result<scylla::client::session::Session> {
        let profile = scylla::client::execution_profile::ExecutionProfile::builder()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .build();
        scylla::client::session_builder::SessionBuilder::new()
            .known_node(self.cql())
            .default_execution_profile_handle(profile.into_handle())
            .build()
            .await
            .with_context(|| format!("no CQL server at {}; run `cargo xtask up`", self.cql()))
    }

    /// Runs SQL in ClickHouse and gives the answer's text.
    pub async fn clickhouse_sql(&self, sql: &str) -> Result<String> {
        self.clickhouse_sql_by(&clickhouse_client()?, sql).await
    }

    /// The same, by a client that is kept: making one reads the machine's certificates, which costs more than a query.
    pub async fn clickhouse_sql_by(&self, client: &reqwest::Client, sql: &str) -> Result<String> {
        let response = client
            .post(self.clickhouse())
            .body(sql.to_owned())
            .send()
            .await
            .with_context(|| format!("no ClickHouse at {}; run `cargo xtask up`", self.clickhouse()))?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("ClickHouse refused: {}\n  in: {sql}", text.trim());
        }
        Ok(text)
    }
}

/// For [`Namespace::clickhouse_sql_by`].
pub fn clickhouse_client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().timeout(CLICKHOUSE_TIMEOUT).build()?)
}
