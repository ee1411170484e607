//! Reading the services' log files.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// A log file larger than this is set aside when its service starts.
const MAX_LOG_BYTES: u64 = 32 << 20;
/// How much of a log's end is looked at for its last lines.
const TAIL_BYTES: u64 = 64 << 10;
/// How often `--follow` looks for more.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(300);

/// The last `lines` lines of a file, or a sentence saying that there are none.
pub fn tail(path: &Path, lines: usize) -> String {
    let Ok(text) = end_of(path) else {
        return format!("(no log at {})", path.display());
    };
    let all: Vec<&str> = text.lines().collect();
    if all.is_empty() {
        return "(the log is empty)".to_owned();
    }
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn end_of(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Opens a log for appending; a large one is first renamed to `….log.1`.
pub fn open_for_append(path: &Path) -> Result<fs::File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    if fs::metadata(path).is_ok_and(|meta| meta.len() > MAX_LOG_BYTES) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Prints the ends of the given logs and, when asked to, what is added to them until the process is interrupted.
pub fn show(logs: &[(String, PathBuf)], lines: usize, follow: bool) -> Result<()> {
    let several = logs.len() > 1;
    let mut positions = Vec::new();
    for (name, path) in logs {
        positions.push(fs::metadata(path).map(|meta| meta.len()).unwrap_or(0));
        if several {
            println!("==> {name}: {} <==", path.display());
        }
        println!("{}", tail(path, lines));
    }
    if follow {
        loop {
            std::thread::sleep(FOLLOW_INTERVAL);
            for ((name, path), position) in logs.iter().zip(&mut positions) {
                let added = added_since(path, position)?;
                if added.is_empty() {
                    continue;
                }
                if several {
                    println!("==> {name} <==");
                }
                std::io::stdout().write_all(&added)?;
                std::io::stdout().flush()?;
            }
        }
    }
    Ok(())
}

/// What was added to a file after `position`, which moves on; a file begun anew is read from its start.
fn added_since(path: &Path, position: &mut u64) -> Result<Vec<u8>> {
    let mut added = Vec::new();
    let Ok(mut file) = fs::File::open(path) else {
        return Ok(added);
    };
    let length = file.metadata()?.len();
    if length < *position {
        *position = 0;
    }
    file.seek(SeekFrom::Start(*position))?;
    file.take(length - *position).read_to_end(&mut added)?;
    *position = length;
    Ok(added)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        assert!(tail(&path, 2).contains("no log"));
        fs::write(&path, "1\n2\n3\n").unwrap();
        assert_eq!(tail(&path, 2), "2\n3");
    }

    #[test]
    fn what_is_added_is_seen_once_and_a_new_file_from_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        fs::write(&path, "one\n").unwrap();
        let mut position = 4;
        assert_eq!(added_since(&path, &mut position).unwrap(), b"");
        fs::write(&path, "one\ntwo\n").unwrap();
        assert_eq!(added_since(&path, &mut position).unwrap(), b"two\n");
        fs::write(&path, "new\n").unwrap();
        assert_eq!(added_since(&path, &mut position).unwrap(), b"new\n");
    }

    #[test]
    fn a_large_log_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let file = fs::File::create(&path).unwrap();
        file.set_len(MAX_LOG_BYTES + 1).unwrap();
        open_for_append(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        assert!(folder.path().join("a.log.1").exists());
    }
}
