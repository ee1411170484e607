//! Recipes of other systems: scripts below `benches/peers` with the verbs `build`, `start`, `count` and `clean`.

use super::{child::Program, input::Input};
use anyhow::{Context, Result, ensure};
use claims_verifier::{namespace::Namespace, views::topics};
use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::PathBuf,
    process::Command,
    time::Duration,
};
use xtask::services::layout::Layout;

const RECIPES: &str = "benches/peers";
/// Downloads and builds of the peers, kept between runs.
const CACHE: &str = ".claims/cache/peers";

/// The first build downloads.
const BUILD_LIMIT: Duration = Duration::from_secs(1_200);
/// Counting and cleaning end within this time.
const VERB_LIMIT: Duration = Duration::from_secs(300);
/// Where a producer finds what it sends, in its folder.
const PAYLOADS: &str = "payloads";
/// Payloads to choose from; more would repeat as little within a batch.
const MOST_PAYLOADS: u64 = 20_000;

/// What a recipe does with the topic, and so how it is followed and what it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    /// Writes a row for every record, until it is stopped.
    WriteRecords,
    /// Keeps a row for every claim, until it is stopped.
    FoldClaims,
    /// Reads every record once, and ends.
    ReadOnce,
    /// Fills an empty topic with as many records, and ends.
    Produce,
}

impl Does {
    /// Whether it ends by itself.
    pub fn ends(self) -> bool {
        matches!(self, Self::ReadOnce | Self::Produce)
    }
}

/// A recipe.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    /// Its folder.
    pub folder: &'static str,
    /// Further environment.
    pub environment: &'static [(&'static str, &'static str)],
    /// What it does.
    pub does: Does,
}

impl Recipe {
    /// The program with the verbs.
    pub fn script(self) -> Result<PathBuf> {
        let script = Layout::discover()?.root.join(RECIPES).join(self.folder).join("run");
        ensure!(script.is_file(), "no recipe {}", script.display());
        Ok(script)
    }

    /// The consumer group of the peer that runs it.
    pub fn group(peer: &str, namespace: &Namespace) -> String {
        namespace.group(peer)
    }

    fn command(self, peer: &str, verb: &str, namespace: &Namespace) -> Result<Command> {
        let cache = Layout::discover()?.root.join(CACHE);
        let folder = namespace.dir.join(peer);
        fs::create_dir_all(&cache)?;
        fs::create_dir_all(&folder)?;
        let mut command = Command::new(self.script()?);
        command
            .arg(verb)
            .env("PEER_KAFKA", namespace.kafka())
            .env("PEER_REGISTRY", namespace.registry())
            .env("PEER_CLICKHOUSE", namespace.clickhouse())
            .env("PEER_CQL", namespace.cql())
            .env("PEER_TOPIC", &namespace.events_topic)
            .env("PEER_GROUP", Self::group(peer, namespace))
            .env("PEER_NAME", format!("{}_{}", namespace.name, peer.replace('-', "_")))
            .env("PEER_DIR", folder)
            .env("PEER_CACHE", cache)
            .envs(self.environment.iter().copied());
        Ok(command)
    }

    /// Runs a verb to its end; what it printed.
    fn do_it(self, peer: &str, verb: &str, namespace: &Namespace, limit: Duration) -> Result<String> {
        let name = format!("{peer}-{verb}");
        let program =
            Program::start(&name, self.command(peer, verb, namespace)?, &namespace.dir)?.finishing();
        let log = namespace.dir.join(format!("{name}.log"));
        program.wait(limit)?;
        Ok(fs::read_to_string(log)?)
    }

    /// Downloads and compiles it, unless that was done.
    pub fn build(self, peer: &str, namespace: &Namespace) -> Result<()> {
        self.do_it(peer, "build", namespace, BUILD_LIMIT).map(drop)
    }

    /// Starts it on a topic that holds, or is to hold, so many records.
    pub fn start(self, peer: &str, namespace: &Namespace, records: u64) -> Result<Program> {
        let mut command = self.command(peer, "start", namespace)?;
        command.env("PEER_RECORDS", records.to_string());
        let program = Program::start(peer, command, &namespace.dir)?;
        Ok(if self.does.ends() { program.finishing() } else { program })
    }

    /// What it counts, and everything it says of it.
    pub fn count(self, peer: &str, namespace: &Namespace) -> Result<(Option<u64>, String)> {
        let said = self.do_it(peer, "count", namespace, VERB_LIMIT)?;
        Ok((said.lines().rev().find_map(|line| line.trim().parse().ok()), said))
    }

    /// Removes what it has made.
    pub fn clean(self, peer: &str, namespace: &Namespace) -> Result<()> {
        self.do_it(peer, "clean", namespace, VERB_LIMIT).map(drop)
    }

    /// Writes what a producer sends: lines as long as an input's records, and about as compressible.
    pub fn write_payloads(self, peer: &str, namespace: &Namespace, input: &Input) -> Result<()> {
        let path = namespace.dir.join(peer).join(PAYLOADS);
        let mut file = BufWriter::new(File::create(&path).with_context(|| path.display().to_string())?);
        let mut written = 0;
        topics::each_record(&input.namespace, &input.namespace.events_topic, |message| {
            if written < MOST_PAYLOADS {
                written += 1;
                file.write_all(&line_of(message))?;
            }
            Ok(())
        })?;
        Ok(file.flush()?)
    }
}

/// A record's key, headers and value as a line: the tool that sends it knows text only.
fn line_of(message: &BorrowedMessage<'_>) -> Vec<u8> {
    let mut line = message.key().unwrap_or_default().to_vec();
    for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
        line.extend(header.key.bytes());
        line.extend(header.value.unwrap_or_default());
    }
    line.extend(message.payload().unwrap_or_default());
    line.iter_mut().for_each(|byte| *byte = as_text(*byte));
    line.push(b'\n');
    line
}

/// A byte that is a character of its own, and none that ends a line.
fn as_text(byte: u8) -> u8 {
    match byte & 0x7f {
        b'\n' | b'\r' => b' ',
        text => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_lines_of_ascii() {
        let all: Vec<u8> = (0..=u8::MAX).map(as_text).collect();
        assert!(all.is_ascii() && !all.contains(&b'\n') && !all.contains(&b'\r'));
        assert_eq!((as_text(b'a'), as_text(b'a' | 0x80)), (b'a', b'a'));
    }
}
