//! The file in which bans and counts outlive the process: written beside and renamed, so that it is always a whole one.
//!
//! Two processes may know it during an upgrade: the elder writes a last time when it hands over, and the heir takes that in
//! when it sees that somebody else has written. What is lost when the machine dies are the last seconds.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use http_limits::{Seed, Snapshot};

use super::lists::Stamp;

/// In `server.state_dir`.
const FILE: &str = "limits";

/// All tables at their largest would be more: then it is not read, and everybody begins anew.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Where it is and who we are.
pub(super) struct Keeper {
    dir: Option<PathBuf>,
    writer: u64,
    /// How the file was when it was read or written last.
    seen: Mutex<Option<Stamp>>,
    /// It could not be written: told once.
    told: AtomicBool,
}

impl Keeper {
    /// Reads what is there.
    pub(super) fn open(dir: Option<PathBuf>) -> (Self, Option<Snapshot>) {
        let keeper = Self { dir, writer: random(), seen: Mutex::new(None), told: AtomicBool::new(false) };
        let kept = keeper.look();
        (keeper, kept)
    }

    pub(super) fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    pub(super) fn writer(&self) -> u64 {
        self.writer
    }

    /// What another process has written since the last look. Blocks on the disk.
    pub(super) fn look(&self) -> Option<Snapshot> {
        let path = self.path()?;
        let stamp = Stamp::of(&path).ok()?;
        if self.seen.lock().unwrap_or_else(PoisonError::into_inner).replace(stamp) == Some(stamp) {
            return None;
        }
        match read(&path) {
            Ok(kept) => Some(kept).filter(|kept| kept.writer != self.writer),
            Err(why) => {
                tracing::warn!(
                    file = %path.display(),
                    hint = "bans and counts begin anew; the file is written again",
                    "what was kept of bans and limits cannot be read: {why}"
                );
                None
            }
        }
    }

    /// Writes it; with nothing to keep only where a file is that says something else. Blocks on the disk.
    pub(super) fn write(&self, snapshot: &Snapshot) {
        let Some((dir, path)) = self.dir.as_deref().zip(self.path()) else { return };
        let is_empty = snapshot.bans.is_empty() && snapshot.limits.is_empty();
        if is_empty && !path.exists() {
            return;
        }
        match write(dir, &path, &snapshot.encode()) {
            Ok(()) => {
                self.told.store(false, Relaxed);
                *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Stamp::of(&path).ok();
            }
            Err(error) if !self.told.swap(true, Relaxed) => tracing::warn!(
                file = %path.display(),
                hint = "name a directory that quintet may write to in server.state_dir",
                "bans and counts will not outlive a restart: {error}"
            ),
            Err(_) => {}
        }
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(FILE))
    }
}

fn read(path: &Path) -> Result<Snapshot, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|error| error.to_string())?;
    Snapshot::decode(&bytes).map_err(|error| error.to_string())
}

fn write(dir: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    // The seed of all hashes stands in it: nobody else is to read it.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let beside = dir.join(format!(".{FILE}-{}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// From the standard library's keys, which the system's random numbers make.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The secret of all hashes, from the system.
pub(super) fn random_seed() -> Seed {
    let mut bytes = [0; 16];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    if filled.is_ok_and(|filled| filled == bytes.len()) {
        return Seed::from_bytes(bytes);
    }
    // A sandbox without getrandom(2): the standard library knows other ways.
    let halves = [random(), random()];
    let number = u128::from(halves[0]) | u128::from(halves[1]) << 64;
    Seed::from_bytes(number.to_le_bytes())
}
