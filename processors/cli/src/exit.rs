//! Exit codes, and errors with a word on what to do.

use claims_topology::{registry::RegistryError, topics::TopicsError};
use std::{io, process::ExitCode};

/// Done, and something was found that the caller must look at.
pub const FOUND: u8 = 3;
const UNUSABLE: u8 = 2;
const FAILED: u8 = 1;

/// The process's exit code; prints the error, if it is one.
pub fn code_of(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        // Whoever read our output has enough: `claims tail | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Some(hint) = hint(&error) {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(if error.is::<Usage>() { UNUSABLE } else { FAILED })
        }
    }
}

/// Prints why the configuration can't be used.
pub fn unusable_configuration(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(UNUSABLE)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Somebody is not there: what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{what} at {address} does not answer: {detail}")]
pub struct Away {
    /// What was asked.
    pub what: &'static str,
    /// Where.
    pub address: String,
    /// What the client says.
    pub detail: String,
}

/// Arguments that don't go together, where the definition of the arguments can't say so.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub &'static str);

/// A topic that was asked for isn't there.
#[derive(Debug, thiserror::Error)]
#[error("there is no topic {topic}")]
pub struct NoTopic {
    /// The topic.
    pub topic: String,
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    const KAFKA: &str = "is Kafka running, and kafka.bootstrap_servers right? `cargo xtask up` starts the \
                         services for development";
    const REGISTRY: &str = "is the schema registry running, and registry.url right, path included? \
                            `cargo xtask up` starts the services for development";
    error.chain().find_map(|cause| {
        if let Some(TopicsError::Unavailable { .. }) = cause.downcast_ref() {
            return Some(KAFKA);
        }
        if cause.is::<Away>() {
            return Some(KAFKA);
        }
        if cause.is::<NoTopic>() {
            return Some("`claims topics apply` makes the topics");
        }
        if let Some(RegistryError::Unavailable { .. }) = cause.downcast_ref() {
            return Some(REGISTRY);
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_broken_pipe_is_found_below_context() {
        let result: Result<(), _> = Err(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_broken_pipe(&result.context("writing").unwrap_err()));
        assert!(!is_broken_pipe(&anyhow::anyhow!("else")));
    }

    #[test]
    fn services_that_are_away_come_with_a_hint() {
        let away = RegistryError::Unavailable { url: "http://x".into(), detail: "refused".into() };
        assert!(hint(&anyhow::Error::new(away).context("checking")).unwrap().contains("registry.url"));
        assert!(hint(&anyhow::Error::new(NoTopic { topic: "t".into() })).unwrap().contains("topics apply"));
        assert_eq!(hint(&anyhow::anyhow!("else")), None);
    }
}
