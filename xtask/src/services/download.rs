//! Gets the pinned files through Maven and npm, as they are configured on this machine, and verifies them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::layout::Layout;
use super::lock::{Lock, MavenWanted, Pinned, Wanted, sha256_of};
use super::tools;

/// How often the progress is printed where no bar can be drawn.
const PLAIN_PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Whether a pinned file is there and whole.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Good,
    Missing,
    Damaged,
}

/// Makes sure that every pinned file is in the cache with the pinned content, and unpacks the archives.
pub fn ensure(layout: &Layout) -> Result<()> {
    let lock = Lock::load(layout)?;
    let bad = check(layout, &lock)?;
    if !bad.is_empty() {
        fetch(layout, &lock, &bad)?;
        let still = check(layout, &lock)?;
        if let Some(file) = still.first() {
            bail!(
                "{} of {} downloaded files do not have the content pinned in dev/downloads.lock, the first is {}.\n\
                 Run `cargo xtask up` again; if it stays so, the source serves other bytes than those that were pinned.",
                still.len(),
                lock.files.len(),
                file.path.display()
            );
        }
    }
    mark_verified(layout)?;
    unpack(layout, &lock)
}

/// Resolves `dev/downloads.toml` anew and writes `dev/downloads.lock`.
pub fn relock(layout: &Layout) -> Result<()> {
    let wanted = Wanted::load(layout)?;
    fs::create_dir_all(layout.cache())?;
    wait(start_maven(layout, &wanted.maven)?, "mvn", layout)?;
    let mut files = Vec::new();
    for service in wanted.maven.services.keys() {
        let list = pom_folder(layout).join(service).join("classpath");
        let text = fs::read_to_string(&list)
            .with_context(|| format!("Maven left no class path at {}", list.display()))?;
        for path in text.trim().split(':') {
            files.push(pin(layout, service, Path::new(path))?);
        }
    }
    for (service, npm) in &wanted.npm {
        wait(start_npm(layout, &npm.package)?, "npm", layout)?;
        files.push(pin(layout, service, &layout.npm_archives().join(&npm.file))?);
    }
    let lock = Lock { files };
    let bytes: u64 = lock.files.iter().map(|file| file.bytes).sum();
    fs::write(Lock::file(layout), lock.render())?;
    println!("pinned {} files, {} MB, in dev/downloads.lock", lock.files.len(), bytes / 1_000_000);
    Ok(())
}

fn pin(layout: &Layout, service: &str, path: &Path) -> Result<Pinned> {
    let below = path
        .strip_prefix(layout.cache())
        .with_context(|| format!("{} is not below the cache folder", path.display()))?;
    Ok(Pinned {
        service: service.to_owned(),
        sha256: sha256_of(path)?,
        bytes: fs::metadata(path)?.len(),
        path: below.to_path_buf(),
    })
}

/// The pinned files that are missing or damaged. A file's content is read only when it is newer than the last
/// complete verification.
fn check<'a>(layout: &Layout, lock: &'a Lock) -> Result<Vec<&'a Pinned>> {
    let verified = verified_at(layout)?;
    let mut bad = Vec::new();
    for file in &lock.files {
        let path = layout.cache().join(&file.path);
        match state_of(&path, file, verified)? {
            State::Good => {}
            State::Missing => bad.push(file),
            State::Damaged => {
                eprintln!("{} is damaged, fetching it again", path.display());
                remove_with_traces(&path)?;
                bad.push(file);
            }
        }
    }
    Ok(bad)
}

fn state_of(path: &Path, file: &Pinned, verified: Option<std::time::SystemTime>) -> Result<State> {
    let Ok(meta) = fs::metadata(path) else {
        return Ok(State::Missing);
    };
    if meta.len() != file.bytes {
        return Ok(State::Damaged);
    }
    if let (Some(verified), Ok(changed)) = (verified, meta.modified())
        && changed < verified
    {
        return Ok(State::Good);
    }
    Ok(if sha256_of(path)? == file.sha256 { State::Good } else { State::Damaged })
}

/// Removes a file and what Maven keeps beside it, so that it is really fetched again.
fn remove_with_traces(path: &Path) -> Result<()> {
    fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
    if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
        let name = name.to_string_lossy();
        for trace in [format!("{name}.sha1"), format!("{name}.lastUpdated")] {
            let _ = fs::remove_file(folder.join(trace));
        }
        let _ = fs::remove_file(folder.join("_remote.repositories"));
    }
    Ok(())
}

fn stamp(layout: &Layout) -> PathBuf {
    layout.cache().join("verified")
}

fn verified_at(layout: &Layout) -> Result<Option<std::time::SystemTime>> {
    let lock = sha256_of(&Lock::file(layout))?;
    match fs::read_to_string(stamp(layout)) {
        Ok(text) if text.trim() == lock => Ok(fs::metadata(stamp(layout))?.modified().ok()),
        _ => Ok(None),
    }
}

fn mark_verified(layout: &Layout) -> Result<()> {
    if verified_at(layout)?.is_none() {
        fs::write(stamp(layout), sha256_of(&Lock::file(layout))?)?;
    }
    Ok(())
}

fn fetch(layout: &Layout, lock: &Lock, bad: &[&Pinned]) -> Result<()> {
    let wanted = Wanted::load(layout)?;
    fs::create_dir_all(layout.cache())?;
    let _ = fs::remove_file(stamp(layout));
    let total: u64 = lock.files.iter().map(|file| file.bytes).sum();
    println!(
        "downloading {} of {} files ({} MB) into {}",
        bad.len(),
        lock.files.len(),
        bad.iter().map(|file| file.bytes).sum::<u64>() / 1_000_000,
        layout.cache().display()
    );
    let mut running: Vec<(&str, Child)> = Vec::new();
    if bad.iter().any(|file| wanted.maven.services.contains_key(&file.service)) {
        running.push(("mvn", start_maven(layout, &wanted.maven)?));
    }
    for (service, npm) in &wanted.npm {
        if bad.iter().any(|file| &file.service == service) {
            running.push(("npm", start_npm(layout, &npm.package)?));
        }
    }
    let bar = ProgressBar::new(total).with_style(
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut failed = None;
    let mut said = Instant::now();
    while !running.is_empty() {
        let mut index = 0;
        while index < running.len() {
            match running[index].1.try_wait()? {
                None => index += 1,
                Some(status) => {
                    let (tool, _) = running.swap_remove(index);
                    if !status.success() {
                        failed = Some(tool);
                    }
                }
            }
        }
        // The tools keep a few poms and indexes beside the pinned files: never show more than the total.
        let arrived = folder_bytes(&layout.cache()).min(total);
        bar.set_position(arrived);
        if bar.is_hidden() && said.elapsed() > PLAIN_PROGRESS_INTERVAL {
            said = Instant::now();
            println!("{} of {} MB", arrived / 1_000_000, total / 1_000_000);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bar.finish_and_clear();
    let _ = fs::remove_dir_all(npm_cache(layout));
    match failed {
        Some(tool) => Err(tool_failed(layout, tool)),
        None => Ok(()),
    }
}

fn tool_failed(layout: &Layout, tool: &str) -> anyhow::Error {
    let log = tool_log(layout, tool);
    anyhow::anyhow!(
        "{tool} could not download everything; what arrived is kept, run `cargo xtask up` again.\n\
         Its last words ({}):\n{}",
        log.display(),
        super::logs::tail(&log, 20)
    )
}

fn wait(mut child: Child, tool: &str, layout: &Layout) -> Result<()> {
    if child.wait()?.success() { Ok(()) } else { Err(tool_failed(layout, tool)) }
}

fn tool_log(layout: &Layout, tool: &str) -> PathBuf {
    layout.log(&format!("download-{tool}"))
}

fn logged(mut command: Command, log: &Path) -> Result<Child> {
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder)?;
    }
    let out = fs::File::create(log)?;
    command
        .stdin(Stdio::null())
        .stderr(out.try_clone()?)
        .stdout(out)
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))
}

fn pom_folder(layout: &Layout) -> PathBuf {
    layout.cache().join("pom")
}

/// Resolves all class paths in one Maven run, one module per service so that their versions do not mix.
fn start_maven(layout: &Layout, wanted: &MavenWanted) -> Result<Child> {
    tools::require_maven()?;
    let folder = pom_folder(layout);
    let mut modules = String::new();
    for (service, spec) in &wanted.services {
        modules.push_str(&format!("<module>{service}</module>"));
        fs::create_dir_all(folder.join(service))?;
        let mut dependencies = String::new();
        for artifact in &spec.artifacts {
            dependencies.push_str(&dependency(artifact, spec.transitive)?);
        }
        fs::write(
            folder.join(service).join("pom.xml"),
            format!(
                "<project><modelVersion>4.0.0</modelVersion>\
                 <parent><groupId>claims.dev</groupId><artifactId>services</artifactId><version>1</version></parent>\
                 <artifactId>{service}</artifactId><packaging>pom</packaging>\
                 <dependencies>{dependencies}</dependencies></project>\n"
            ),
        )?;
    }
    fs::write(
        folder.join("pom.xml"),
        format!(
            "<project><modelVersion>4.0.0</modelVersion><groupId>claims.dev</groupId>\
             <artifactId>services</artifactId><version>1</version><packaging>pom</packaging>\
             <modules>{modules}</modules></project>\n"
        ),
    )?;
    let mut command = Command::new("mvn");
    command
        .current_dir(&folder)
        .args(["--batch-mode", "--quiet", "--threads", "3"])
        .arg(format!("-Dmaven.repo.local={}", layout.maven_repository().display()))
        .arg(format!("{}:build-classpath", wanted.plugin))
        .arg("-Dmdep.outputFile=classpath");
    logged(command, &tool_log(layout, "mvn"))
}

/// The pom entry of `group:artifact:version[:type:classifier]`.
fn dependency(artifact: &str, transitive: bool) -> Result<String> {
    let parts: Vec<&str> = artifact.split(':').collect();
    let extra = match parts.len() {
        3 => String::new(),
        5 => format!("<type>{}</type><classifier>{}</classifier>", parts[3], parts[4]),
        _ => bail!("dev/downloads.toml: `{artifact}` is not group:artifact:version[:type:classifier]"),
    };
    let exclusions = if transitive {
        ""
    } else {
        "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>"
    };
    Ok(format!(
        "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>{extra}{exclusions}</dependency>",
        parts[0], parts[1], parts[2]
    ))
}

fn npm_cache(layout: &Layout) -> PathBuf {
    layout.npm_archives().join("cache")
}

fn start_npm(layout: &Layout, package: &str) -> Result<Child> {
    tools::require_npm()?;
    fs::create_dir_all(layout.npm_archives())?;
    let mut command = Command::new("npm");
    command
        .current_dir(layout.npm_archives())
        .arg("pack")
        .arg(package)
        .arg("--silent")
        .arg("--cache")
        .arg(npm_cache(layout))
        .arg("--pack-destination")
        .arg(layout.npm_archives());
    logged(command, &tool_log(layout, "npm"))
}

/// Unpacks every archive once; a half-done unpacking is never mistaken for a whole one (rename at the end).
fn unpack(layout: &Layout, lock: &Lock) -> Result<()> {
    for file in &lock.files {
        let name = file.path.to_string_lossy();
        if !(name.ends_with(".tar.gz") || name.ends_with(".tgz")) {
            continue;
        }
        let target = layout.unpacked(&file.service);
        let origin = target.join(".origin");
        if fs::read_to_string(&origin).is_ok_and(|text| text == file.sha256) {
            continue;
        }
        println!("unpacking {}", file.service);
        let fresh = target.with_extension("partial");
        let _ = fs::remove_dir_all(&fresh);
        let _ = fs::remove_dir_all(&target);
        fs::create_dir_all(&fresh)?;
        let status = Command::new("tar")
            .arg("-xzf")
            .arg(layout.cache().join(&file.path))
            .arg("-C")
            .arg(&fresh)
            .status()
            .context("cannot run tar")?;
        if !status.success() {
            bail!("tar could not unpack {name} (is the disk full?)");
        }
        fs::write(fresh.join(".origin"), &file.sha256)?;
        fs::rename(&fresh, &target)?;
    }
    Ok(())
}

fn folder_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(bytes: &[u8], folder: &Path) -> Pinned {
        let path = folder.join("pinned");
        fs::write(&path, bytes).unwrap();
        Pinned {
            service: "kafka".into(),
            sha256: sha256_of(&path).unwrap(),
            bytes: bytes.len() as u64,
            path: "x".into(),
        }
    }

    #[test]
    fn half_finished_and_changed_files_are_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let file = pinned(b"whole content", folder.path());
        let path = folder.path().join("file");
        assert_eq!(state_of(&path, &file, None).unwrap(), State::Missing);
        fs::write(&path, b"whole").unwrap();
        assert_eq!(state_of(&path, &file, None).unwrap(), State::Damaged);
        fs::write(&path, b"whole c0ntent").unwrap();
        assert_eq!(state_of(&path, &file, None).unwrap(), State::Damaged);
        fs::write(&path, b"whole content").unwrap();
        assert_eq!(state_of(&path, &file, None).unwrap(), State::Good);
    }

    #[test]
    fn artifacts_become_pom_entries() {
        let plain = dependency("g:a:1", true).unwrap();
        assert!(plain.contains("<artifactId>a</artifactId><version>1</version></dependency>"));
        let archive = dependency("g:a:1:tar.gz:all", false).unwrap();
        assert!(archive.contains("<type>tar.gz</type><classifier>all</classifier><exclusions>"));
        assert!(dependency("g:a", true).is_err());
    }
}
