//! The files of addresses that are always shut out or never banned, read again when they change.
//!
//! A file that cannot be read any more, or has a line that is no address, changes nothing: the list of before stays in force,
//! and the log says which line it was. At the start it is an error.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use http_limits::NetworkSet;

/// The largest lists that are published have some ten megabytes; a device or a log is not one.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Both lists as they are in force.
#[derive(Debug, Clone, Default)]
pub(super) struct Lists {
    pub(super) deny: NetworkSet,
    pub(super) allow: NetworkSet,
}

/// A file, and how it was when it was read last.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    seen: Option<Stamp>,
    /// It could not be read: told once.
    told: bool,
}

/// Changes whenever the file is written or another is put in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device_and_inode: (u64, u64),
    len: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// Of the file that is there now.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let meta = path.metadata()?;
        Ok(Self {
            device_and_inode: (meta.dev(), meta.ino()),
            len: meta.len(),
            changed: (meta.mtime(), meta.mtime_nsec()),
        })
    }

    /// How long the file is.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

impl Lists {
    /// At the start; a list that cannot be read is an error for the operator.
    pub(super) fn read(deny: Option<&Path>, allow: Option<&Path>) -> Result<Self, String> {
        let list = |key: &str, path: Option<&Path>| {
            match path {
            None => Ok(NetworkSet::default()),
            Some(path) => read(path).map_err(|why| {
                format!(
                    "the list of addresses cannot be read\n  detail: {}: {why}\n  hint: see {key}; an address or a range a line",
                    path.display()
                )
            }),
        }
        };
        Ok(Self { deny: list("bans.deny_file", deny)?, allow: list("bans.allow_file", allow)? })
    }
}

impl Watched {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, seen: None, told: false }
    }

    /// The list, when the file has changed and can be read. Blocks on the disk.
    pub(super) fn look(&mut self) -> Option<NetworkSet> {
        let stamp = Stamp::of(&self.path);
        if stamp.as_ref().ok() == self.seen.as_ref() && stamp.is_ok() {
            return None;
        }
        let read = stamp.map_err(|error| error.to_string()).and_then(|stamp| {
            // What cannot be read now is tried again when it changes.
            self.seen = Some(stamp);
            read(&self.path)
        });
        match read {
            Ok(list) => {
                self.told = false;
                Some(list)
            }
            Err(why) => {
                if !std::mem::replace(&mut self.told, true) {
                    tracing::error!(
                        file = %self.path.display(),
                        hint = "an address or a range a line; it is read again when it changes",
                        "a list of addresses cannot be read, the one of before stays in force: {why}"
                    );
                }
                None
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn read(path: &Path) -> Result<NetworkSet, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    let bytes = read.map_err(|error| error.to_string())?;
    if bytes as u64 > FILE_BYTES_MAX {
        return Err(format!("it is longer than {} MiB", FILE_BYTES_MAX >> 20));
    }
    NetworkSet::parse(&text).map_err(|error| format!("{error}; {}", error.why.hint))
}
