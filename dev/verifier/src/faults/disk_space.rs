//! A small file system for the local store, to be filled.

use anyhow::{Context, Result, ensure};
use std::{
    fs::File,
    io::Write,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Room for the store of a round, and not for much more.
const SIZE: &str = "256m";
const PIECE: &[u8] = &[0; 256 * 1024];

/// A tmpfs, unmounted when dropped.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Whether this user may mount.
    pub fn can_mount() -> bool {
        // The owner of what stands for this process is its effective user.
        std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
    }

    /// Mounts a tmpfs at a folder.
    pub fn mount(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &format!("size={SIZE}"), "claims-faults"]).arg(folder);
        let status = command.status().context("cannot run mount")?;
        ensure!(status.success(), "a tmpfs can't be mounted at {}: {status}", folder.display());
        Ok(Self { folder: folder.to_owned() })
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Takes all the room there is.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.ballast())?;
        let mut piece = PIECE;
        while !piece.is_empty() {
            match file.write(piece) {
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => {
                    piece = &piece[piece.len() / 2 + 1..]
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives it back.
    pub fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open there has it until it ends.
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}
