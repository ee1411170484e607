//! `dev/downloads.toml` (what is wanted) and `dev/downloads.lock` (which bytes it must be).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::layout::Layout;

/// The hand-written list of what the services are made of.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// What comes through Maven.
    pub maven: MavenWanted,
    /// What comes through npm, by service.
    pub npm: BTreeMap<String, NpmWanted>,
}

/// Maven artifacts by service.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MavenWanted {
    /// Coordinates of the dependency plugin.
    pub plugin: String,
    /// One class path per service.
    pub services: BTreeMap<String, MavenService>,
}

/// The artifacts of one service.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MavenService {
    /// `group:artifact:version[:type:classifier]`.
    pub artifacts: Vec<String>,
    /// Whether the artifacts' own dependencies are wanted too.
    #[serde(default = "yes")]
    pub transitive: bool,
}

/// One npm package.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NpmWanted {
    /// `name@version`.
    pub package: String,
    /// The file name `npm pack` gives it.
    pub file: String,
}

fn yes() -> bool {
    true
}

impl Wanted {
    /// Reads `dev/downloads.toml`.
    pub fn load(layout: &Layout) -> Result<Self> {
        let path = layout.root.join("dev/downloads.toml");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not valid", path.display()))
    }
}

/// One pinned file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// The service it belongs to.
    pub service: String,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its path below the cache folder.
    pub path: PathBuf,
}

/// All pinned files, in class path order within a service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock {
    /// The files.
    pub files: Vec<Pinned>,
}

const HEADER: &str = "\
# Every file that `cargo xtask up` may run, by content. Made by `cargo xtask lock-downloads` from downloads.toml.
# service sha256 bytes path-below-the-cache-folder
";

impl Lock {
    /// The committed lock file.
    pub fn file(layout: &Layout) -> PathBuf {
        layout.root.join("dev/downloads.lock")
    }

    /// Reads `dev/downloads.lock`.
    pub fn load(layout: &Layout) -> Result<Self> {
        let path = Self::file(layout);
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read {} (made by `cargo xtask lock-downloads`)", path.display())
        })?;
        Self::parse(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Parses the text form.
    pub fn parse(text: &str) -> Result<Self> {
        let mut files = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut parts = line.splitn(4, ' ');
            let (Some(service), Some(sha256), Some(bytes), Some(path)) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                bail!("line {}: expected `service sha256 bytes path`", index + 1);
            };
            if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                bail!("line {}: `{sha256}` is not a SHA-256", index + 1);
            }
            let path = PathBuf::from(path);
            if !path.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
                bail!("line {}: the path leaves the cache folder", index + 1);
            }
            files.push(Pinned {
                service: service.to_owned(),
                sha256: sha256.to_owned(),
                bytes: bytes.parse().with_context(|| format!("line {}: size", index + 1))?,
                path,
            });
        }
        Ok(Self { files })
    }

    /// The text form that [`Lock::parse`] reads.
    pub fn render(&self) -> String {
        let mut text = HEADER.to_owned();
        for file in &self.files {
            let _ = writeln!(text, "{} {} {} {}", file.service, file.sha256, file.bytes, file.path.display());
        }
        text
    }

    /// The files of one service.
    pub fn of<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a Pinned> {
        self.files.iter().filter(move |file| file.service == service)
    }
}

/// SHA-256 of a file's content, in hexadecimal.
pub fn sha256_of(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("cannot read {}", path.display()))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    let mut text = String::with_capacity(64);
    for byte in hasher.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_is_read_back() {
        let lock = Lock {
            files: vec![Pinned {
                service: "kafka".into(),
                sha256: "a".repeat(64),
                bytes: 12,
                path: "maven/org/x 1.jar".into(),
            }],
        };
        assert_eq!(Lock::parse(&lock.render()).unwrap(), lock);
    }

    #[test]
    fn damage_is_named_with_its_line() {
        for (text, what) in [
            ("kafka abc 1 x.jar", "not a SHA-256"),
            ("kafka", "expected"),
            (&format!("kafka {} 1 ../x", "0".repeat(64)), "leaves"),
            (&format!("kafka {} z x", "0".repeat(64)), "size"),
        ] {
            let error = format!("{:#}", Lock::parse(&format!("# c\n{text}")).unwrap_err());
            assert!(error.contains("line 2") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn the_committed_list_and_lock_are_valid() {
        let layout = Layout::discover().unwrap();
        let wanted = Wanted::load(&layout).unwrap();
        let lock = Lock::load(&layout).unwrap();
        for service in wanted.maven.services.keys().chain(wanted.npm.keys()) {
            assert!(lock.of(service).next().is_some(), "{service} is not locked");
        }
    }
}
