//! What needs no services.

use crate::support::{Scene, command, text};
use std::process::Stdio;

fn run(args: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let output = command(dir.path(), args).output().unwrap();
    (output.status.code(), text(&output))
}

#[test]
fn a_configuration_that_cannot_be_used_is_exit_code_2_and_names_the_place() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("claims.toml"), "[topics]\npartition = 3\n").unwrap();
    for args in [&["config", "check"][..], &["lag"], &["topics", "plan"]] {
        let output = command(dir.path(), args).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let text = text(&output);
        assert!(text.contains("claims.toml:2") && text.contains("did you mean topics.partitions?"), "{text}");
    }
    let (code, text) = run(&["config", "check", "--set", "telemetry.log_filter=claims=loud"]);
    assert_eq!(code, Some(2), "{text}");
}

#[test]
fn the_configuration_that_holds_is_shown_without_secrets() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("other.toml"), "[kafka]\nsasl_password = 'hunter2'\n").unwrap();
    for args in [&["config", "show"][..], &["config", "show", "--json"]] {
        let output = command(dir.path(), args)
            .env("CLAIMS_CONFIG", "other.toml")
            .env("CLAIMS_TOPICS__PARTITIONS", "7")
            .output()
            .unwrap();
        let text = text(&output);
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(text.contains("***") && !text.contains("hunter2"), "{text}");
        assert!(text.contains("partitions = 7") || text.contains("\"partitions\": 7"), "{text}");
    }
}

#[test]
fn what_is_shown_can_be_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let shown = command(dir.path(), &["config", "show"]).output().unwrap();
    std::fs::write(dir.path().join("claims.toml"), &shown.stdout).unwrap();
    let checked = command(dir.path(), &["config", "check"]).output().unwrap();
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in [&[][..], &["fly"], &["run"], &["run", "nothing"], &["dead-letters", "show", "17"]] {
        assert_eq!(run(args).0, Some(2), "{args:?}");
    }
    for format in ["ndjson", "legacy"] {
        let (code, text) = run(&["ingest", "--format", format, "--mapping", "m.toml"]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("--mapping is for CSV"), "{text}");
    }
}

#[test]
fn every_shell_gets_its_completions_even_with_a_broken_configuration() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, text) = run(&["completions", shell, "--config", "/nonexistent"]);
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("dead-letters"), "{shell}");
    }
}

#[test]
fn the_graph_is_mermaid_or_json() {
    let (code, text) = run(&["topology"]);
    assert_eq!(code, Some(0));
    assert!(text.starts_with("flowchart"), "{text}");
    let (_, json) = run(&["topology", "--json"]);
    let nodes: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(nodes.as_array().unwrap().len(), 4);
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = command(dir.path(), &["config", "show", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output), "");
}

#[test]
fn services_that_are_away_are_named_with_advice() {
    let scene = Scene::new();
    let away = ["--set", "kafka.bootstrap_servers=127.0.0.1:9", "--set", "kafka.request_timeout_ms=500"];
    for command in [&["lag"][..], &["topics", "plan"], &["tail", "--no-follow"], &["dead-letters", "list"]] {
        let output = scene.claims(&[&away, command].concat());
        let text = text(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("127.0.0.1:9") && text.contains("cargo xtask up"), "{text}");
    }
    let output = scene.claims(&["schemas", "check", "--set", "registry.url=http://127.0.0.1:9"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("registry.url") && text.contains("cargo xtask up"), "{text}");
}
