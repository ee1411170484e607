use super::*;

fn from_file(text: &str) -> Result<Config, ConfigError> {
    from(text, &[], &[])
}

fn from(text: &str, env: &[(&str, &str)], sets: &[&str]) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join(DEFAULT_FILE), text).unwrap();
    let sources = Sources {
        file: None,
        directory: directory.path().to_owned(),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        sets: sets.iter().map(|&set| set.to_owned()).collect(),
    };
    load(&sources).map(|loaded| loaded.config)
}

fn error(result: Result<Config, ConfigError>) -> String {
    let text = result.unwrap_err().to_string();
    // The temporary folder differs from run to run.
    text.split_once(DEFAULT_FILE).map_or(text.clone(), |(_, rest)| format!("{DEFAULT_FILE}{rest}"))
}

#[test]
fn without_anything_the_defaults_hold() {
    let sources = Sources { directory: "/nonexistent".into(), ..Sources::default() };
    let loaded = load(&sources).unwrap();
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.file, None);
}

#[test]
fn flags_win_over_the_environment_over_the_file() {
    let file = "[kafka]\nbootstrap_servers = 'file:1'\ngroup_prefix = 'file'\n[topics]\npartitions = 3\n";
    let env = [("CLAIMS_KAFKA__BOOTSTRAP_SERVERS", "env:2"), ("CLAIMS_KAFKA__GROUP_PREFIX", "env")];
    let config = from(file, &env, &["kafka.group_prefix=flag"]).unwrap();
    assert_eq!(config.kafka.bootstrap_servers, "env:2");
    assert_eq!(config.kafka.group_prefix, "flag");
    assert_eq!(config.topics.partitions, 3);
}

#[test]
fn a_section_that_is_partly_given_keeps_its_own_defaults() {
    let config = from_file("[audit.runtime]\nmax_batch_records = 10\n").unwrap();
    assert_eq!(config.audit.runtime.max_batch_records, 10);
    assert_eq!(config.audit.runtime.max_batch_age_ms, Config::default().audit.runtime.max_batch_age_ms);
    let config = from("", &[("CLAIMS_AUDIT__RUNTIME__MAX_BATCH_RECORDS", "10")], &[]).unwrap();
    assert_eq!(config.audit.runtime.max_batch_age_ms, Config::default().audit.runtime.max_batch_age_ms);
}

#[test]
fn values_are_typed_by_what_the_key_is() {
    let env = [
        ("CLAIMS_CURRENT_STATE__CQL__NODES", "a:9042, b:9042"),
        ("CLAIMS_INGRESS__MAX_LINE_BYTES", "2_000_000"),
        ("CLAIMS_KAFKA__SASL_PASSWORD", "12345"),
        ("CLAIMS_TELEMETRY__LOG_FORMAT", "json"),
        ("CLAIMS_KAFKA__PROPERTIES__SOCKET_TIMEOUT_MS", "5000"),
        ("CLAIMS_KAFKA__SASL_USERNAME", ""),
    ];
    let config = from("", &env, &["topics.settings.events.segment.ms=1000"]).unwrap();
    assert_eq!(config.current_state.cql.nodes, ["a:9042", "b:9042"]);
    assert_eq!(config.ingress.max_line_bytes, 2_000_000);
    assert_eq!(config.kafka.sasl_password.unwrap().expose(), "12345");
    assert_eq!(config.telemetry.log_format, crate::config::LogFormat::Json);
    assert_eq!(config.kafka.properties["socket.timeout.ms"].expose(), "5000");
    assert_eq!(config.kafka.sasl_username, None);
    assert_eq!(config.topics.settings["events"]["segment.ms"], "1000");
}

#[test]
fn unknown_keys_are_refused_with_their_place_and_the_nearest_known_one() {
    assert_eq!(
        error(from_file("[kafka]\n\nbootstrap_server = 'x:1'\n")),
        "claims.toml:3: unknown key kafka.bootstrap_server; did you mean kafka.bootstrap_servers?"
    );
    assert_eq!(error(from_file("[analytic]\nlisten = 'x:1'\n")), "claims.toml:1: unknown key analytic");
    assert_eq!(
        error(from("", &[("CLAIMS_KAFKA_BOOTSTRAP_SERVERS", "x:1")], &[])),
        "environment: unknown key CLAIMS_KAFKA_BOOTSTRAP_SERVERS; did you mean CLAIMS_KAFKA__BOOTSTRAP_SERVERS?"
    );
    assert_eq!(
        error(from("", &[], &["topics.partition=4"])),
        "--set: unknown key topics.partition; did you mean topics.partitions?"
    );
}

#[test]
fn variables_that_are_not_keys_are_left_alone() {
    let env = [
        ("CLAIMS_CONFIG", "/etc/claims.toml"),
        ("CLAIMS_SHARED_DATA", "/data"),
        ("CLAIMS_SERVICE_HOST", "10.0.0.1"),
        ("CLAIMS_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("PATH", "/bin"),
    ];
    assert_eq!(from("", &env, &[]).unwrap(), Config::default());
}

#[test]
fn a_value_of_the_wrong_type_names_its_line_and_key() {
    let text = error(from_file("[topics]\nevents = 'e'\npartitions = 'six'\n"));
    assert!(text.starts_with("claims.toml:3: topics.partitions: invalid type"), "{text}");
    let text = error(from("", &[("CLAIMS_TOPICS__PARTITIONS", "six")], &[]));
    assert_eq!(
        text,
        "environment variable CLAIMS_TOPICS__PARTITIONS: topics.partitions: \"six\" is not a whole number"
    );
    let text = error(from("", &[], &["telemetry.log_format=xml"]));
    assert!(text.starts_with("--set: telemetry.log_format: unknown variant"), "{text}");
    let text = error(from("", &[], &["ingress.max_line_bytes=-1"]));
    assert!(text.starts_with("--set: ingress.max_line_bytes: "), "{text}");
}

#[test]
fn broken_toml_names_line_and_column() {
    let text = error(from_file("[kafka]\ngroup_prefix = 'a\n"));
    assert!(text.starts_with("claims.toml:2:"), "{text}");
}

#[test]
fn a_named_file_that_is_missing_is_an_error() {
    let sources = Sources { file: Some("/nonexistent/claims.toml".into()), ..Sources::default() };
    assert!(load(&sources).unwrap_err().to_string().contains("/nonexistent/claims.toml"));
}

#[test]
fn values_that_make_no_sense_are_all_named() {
    let text = error(from_file(
        "[topics]\npartitions = 0\n[analytics.runtime]\nresume_below_bytes = 9\npause_above_bytes = 9\n",
    ));
    assert!(text.contains("topics.partitions"), "{text}");
    assert!(text.contains("analytics.runtime.resume_below_bytes"), "{text}");
}

#[test]
fn secrets_are_never_shown() {
    let config = from_file("[kafka]\nsasl_password = 'hunter2'\n").unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(!serde_json::to_string(&config).unwrap().contains("hunter2"));
    assert!(!toml::to_string(&config).unwrap().contains("hunter2"));
    let text = error(from_file("[kafka]\nsasl_password = 748159263\n"));
    assert!(!text.contains("748159263"), "{text}");
    assert!(text.contains("claims.toml:2: kafka.sasl_password"), "{text}");
}

#[test]
fn the_port_offset_shifts_defaults_only() {
    let env = [("CLAIMS_DEV_PORT_OFFSET", "100")];
    let config = from("[kafka]\nbootstrap_servers = 'broker:9092'\n", &env, &[]).unwrap();
    assert_eq!(config.kafka.bootstrap_servers, "broker:9092");
    assert_eq!(config.ingress.listen, "127.0.0.1:8180");
    let text = error(from("", &[("CLAIMS_DEV_PORT_OFFSET", "many")], &[]));
    assert!(text.contains("CLAIMS_DEV_PORT_OFFSET"), "{text}");
}

const SAMPLE: &str = include_str!("../../../claims.example.toml");
const DOCS: &str = include_str!("../../../docs/configuration.md");

#[test]
fn the_sample_file_holds_every_default() {
    let sample: Table = toml::from_str(SAMPLE).unwrap();
    assert_eq!(sample, as_table(&Config::default()).unwrap());
}

#[test]
fn the_sample_file_shows_every_key_that_is_unset_by_default() {
    // `#key` is a key that isn't set, `# text` is a comment.
    let is_key = |rest: &&str| !rest.starts_with(' ');
    let all: Vec<&str> =
        SAMPLE.lines().map(|line| line.strip_prefix('#').filter(is_key).unwrap_or(line)).collect();
    let all = all.join("\n");
    from_file(&all).unwrap();
    let all = Value::Table(toml::from_str(&all).unwrap());
    let is_missing = |key: &String| key.split('.').try_fold(&all, |value, name| value.get(name)).is_none();
    let missing: Vec<String> = keys::known().into_keys().filter(is_missing).collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn every_key_is_documented() {
    let is_missing =
        |key: &String| !DOCS.contains(&format!("| `{}` |", key.rsplit('.').next().unwrap_or_default()));
    let missing: Vec<String> = keys::known().into_keys().filter(is_missing).collect();
    assert_eq!(missing, Vec::<String>::new());
}
