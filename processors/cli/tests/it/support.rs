use claims_topology::{Config, kafka::client_config};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use serde_json::Value;
use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// What to do when a service is away: part of each test's failure.
pub const UP: &str = "run `cargo xtask up`";

/// Topics, groups and folders that nobody else uses; the topics are deleted in the end.
pub struct Scene {
    pub config: Config,
    pub dir: tempfile::TempDir,
    settings: Vec<(String, String)>,
}

impl Scene {
    pub fn new() -> Self {
        let run = format!("cli{}", uuid::Uuid::new_v4().simple());
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::for_dev_services();
        config.topics.events = format!("{run}.events");
        config.topics.state = format!("{run}.state");
        config.topics.dead_letters = format!("{run}.dead-letters");
        config.kafka.group_prefix.clone_from(&run);
        let settings = [
            ("TOPICS__EVENTS", config.topics.events.clone()),
            ("TOPICS__STATE", config.topics.state.clone()),
            ("TOPICS__DEAD_LETTERS", config.topics.dead_letters.clone()),
            ("TOPICS__PARTITIONS", "3".to_owned()),
            ("KAFKA__GROUP_PREFIX", run),
            ("AUDIT__STORE", dir.path().join("audit").display().to_string()),
            ("AUDIT__LISTEN", "127.0.0.1:0".to_owned()),
            ("ANALYTICS__LISTEN", "127.0.0.1:0".to_owned()),
            ("INGRESS__LISTEN", "127.0.0.1:0".to_owned()),
        ];
        let settings = settings.map(|(key, value)| (format!("CLAIMS_{key}"), value)).to_vec();
        Self { config, dir, settings }
    }

    /// A scene with topics and schemas.
    pub fn prepared() -> Self {
        let scene = Self::new();
        let applied = scene.claims(&["topics", "apply"]);
        assert!(applied.status.success(), "{}; {UP}", text(&applied));
        let registered = scene.claims(&["schemas", "register"]);
        assert!(registered.status.success(), "{}; {UP}", text(&registered));
        scene
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = command(self.dir.path(), args);
        command.envs(self.settings.iter().cloned());
        command
    }

    pub fn claims(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command printed that must end with this code.
    pub fn stdout(&self, code: i32, args: &[&str]) -> String {
        let output = self.claims(args);
        assert_eq!(output.status.code(), Some(code), "claims {}: {}", args.join(" "), text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn json(&self, code: i32, args: &[&str]) -> Value {
        serde_json::from_str(&self.stdout(code, args)).unwrap()
    }

    /// Records that the processor has not committed.
    pub fn lag(&self, processor: &str) -> i64 {
        self.json(0, &["lag", processor, "--json"])[0]["lag_records"].as_i64().unwrap()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let names = [&self.config.topics.events, &self.config.topics.state, &self.config.topics.dead_letters];
        let names = names.map(String::as_str);
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        let Ok(admin) = client_config(&self.config.kafka).create::<AdminClient<DefaultClientContext>>()
        else {
            return;
        };
        // Some tests never make them.
        let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(5)));
        let _ = runtime.block_on(admin.delete_topics(&names, &options));
    }
}

/// The command in a folder, with nothing of the caller's configuration.
pub fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claims"));
    command.args(args).current_dir(dir).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CLAIMS_") && name != "CLAIMS_DEV_PORT_OFFSET" {
            command.env_remove(name);
        }
    }
    command
}

/// Both outputs, for messages.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A running command that doesn't outlive its test.
pub struct Running(pub Child);

impl Running {
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Its exit code, which must come within this time.
    pub fn exit_within(&mut self, limit: Duration) -> Option<i32> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < limit, "still running after {limit:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(100));
    }
}
