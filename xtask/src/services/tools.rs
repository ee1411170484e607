//! The programs the native services need, and what to say when one is missing.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

const JAVA_MAJOR_MIN: u32 = 17;

/// The pinned ClickHouse engine is built for one platform.
pub fn require_platform() -> Result<()> {
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Ok(());
    }
    bail!(
        "the services run natively on Linux x86-64 only; elsewhere install Docker, then `cargo xtask up` uses docker-compose.kafka.yml"
    )
}

/// Java 17 or newer must answer.
pub fn require_java() -> Result<()> {
    let install = "install it with `sudo apt-get install openjdk-17-jre-headless`";
    let Some(text) = output("java", "-version") else {
        bail!("Java {JAVA_MAJOR_MIN} is needed to run Kafka, the registry and Cassandra: {install}");
    };
    match java_major(&text) {
        Some(major) if major >= JAVA_MAJOR_MIN => Ok(()),
        Some(major) => bail!("`java` is version {major}, {JAVA_MAJOR_MIN} is needed: {install}"),
        None => bail!("`java -version` did not name a version ({}): {install}", text.trim()),
    }
}

/// Maven must answer.
pub fn require_maven() -> Result<()> {
    if output("mvn", "-version").is_none() {
        bail!(
            "Maven is needed to download Kafka, the registry and Cassandra: install it with `sudo apt-get install maven`"
        );
    }
    Ok(())
}

/// npm must answer.
pub fn require_npm() -> Result<()> {
    if output("npm", "--version").is_none() {
        bail!("npm is needed to download the ClickHouse engine: install it with `sudo apt-get install npm`");
    }
    Ok(())
}

/// What a program prints, or `None` when it cannot be run or fails.
fn output(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// The major version in what `java -version` prints (`"17.0.15"`, `"1.8.0_292"`).
fn java_major(text: &str) -> Option<u32> {
    let version = text.split('"').nth(1)?;
    let mut parts = version.split(['.', '-', '+', '_']);
    let first: u32 = parts.next()?.parse().ok()?;
    if first == 1 { parts.next()?.parse().ok() } else { Some(first) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn java_versions_old_and_new_are_read() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15"), Some(17));
        assert_eq!(java_major("java version \"1.8.0_292\""), Some(8));
        assert_eq!(java_major("openjdk version \"21-ea\""), Some(21));
        assert_eq!(java_major("no java here"), None);
    }
}
