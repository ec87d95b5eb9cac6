//! A root directory, and the only way to a file in it. Nothing outside is ever opened, whatever the path says and
//! whatever symbolic links lie inside.
//!
//! On Linux the kernel promises that (`openat2` with `RESOLVE_BENEATH`): relative links that stay below the root are followed,
//! absolute ones and those that lead out are refused, as are the magic links of `/proc`. So the links that `collectstatic
//! --link` makes are refused: they are absolute and lead into the apps' source directories. Elsewhere, and on kernels before
//! 5.6 or behind filters that hide the call, the path is walked one component at a time and no link is followed at all.
//!
//! The root's own path is the operator's word and may be a link; it is looked up again when it may have been exchanged
//! (`static -> releases/42`).

#[cfg(target_os = "linux")]
#[path = "root/linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "root/elsewhere.rs"]
mod system;

use std::fs::{File, Metadata};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use self::system::{LOOK, open_beneath, ways};

/// May the calling thread wait for a disk?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// It is a reactor: [`OpenError::WouldBlock`] instead.
    Never,
    /// It belongs to the blocking pool.
    Allowed,
}

/// Why there is no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenError {
    /// Nothing there that could be served.
    Missing,
    /// The root itself is not there.
    NoRoot,
    /// There is something, but a symbolic link on the way leads out of the root.
    Escapes,
    /// There is something that this process may not read.
    Denied,
    /// Not known without waiting for the disk.
    WouldBlock,
    /// The machine is out of something, or broken.
    System(Errno),
}

/// How often at most the root's own path is looked at again. A deploy that exchanges it is seen after this long.
const RECHECK_MS: u64 = 1000;

/// A root directory. It need not exist yet.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    directory: RwLock<Option<Arc<Directory>>>,
    checked_ms: AtomicU64,
}

#[derive(Debug)]
struct Directory {
    fd: OwnedFd,
    identity: (u64, u64),
    ways: Ways,
}

/// What the kernel offers.
#[derive(Debug, Clone, Copy)]
struct Ways {
    /// `openat2` with `RESOLVE_BENEATH`.
    beneath: bool,
    /// And with `RESOLVE_CACHED` (Linux 5.12): answers from the kernel's memory or not at all.
    cached: bool,
}

/// `NONBLOCK`: opening a FIFO must not wait for its other end; for regular files it means nothing.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

impl Root {
    /// `path` must be absolute. Looks once whether it exists.
    pub(super) fn new(path: PathBuf) -> Self {
        let root = Self { path, directory: RwLock::new(None), checked_ms: AtomicU64::new(0) };
        root.look_again();
        root
    }

    /// Opens a regular file for reading. `path` is relative and decoded.
    pub(super) fn open(&self, path: &[u8], wait: Wait) -> Result<(File, Metadata), OpenError> {
        self.find(path, READ, wait)
    }

    /// What lies at this path now, if it is a regular file.
    pub(super) fn look(&self, path: &[u8], wait: Wait) -> Result<Metadata, OpenError> {
        self.find(path, LOOK, wait).map(|(_, metadata)| metadata)
    }

    fn find(&self, path: &[u8], flags: OFlags, wait: Wait) -> Result<(File, Metadata), OpenError> {
        let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner).clone();
        let directory = directory.ok_or(OpenError::NoRoot)?;
        let file = File::from(directory.open(path, flags, wait)?);
        let metadata = file
            .metadata()
            .map_err(|error| OpenError::System(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        if metadata.is_file() { Ok((file, metadata)) } else { Err(OpenError::Missing) }
    }

    /// Looks at the root's own path again if that was not done for a second. `now_ms` is any clock that only goes up.
    /// The path of a directory that is in use is in the kernel's memory, so a reactor may call this.
    pub(super) fn refresh(&self, now_ms: u64) {
        let checked = self.checked_ms.load(Relaxed);
        let due = now_ms.saturating_sub(checked) >= RECHECK_MS;
        if due && self.checked_ms.compare_exchange(checked, now_ms, Relaxed, Relaxed).is_ok() {
            self.look_again();
        }
    }

    fn look_again(&self) {
        use std::os::unix::fs::MetadataExt;

        let now = std::fs::metadata(&self.path).ok().filter(Metadata::is_dir).map(|m| (m.dev(), m.ino()));
        let known =
            self.directory.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|d| d.identity);
        if now != known {
            let directory = now.and_then(|identity| Directory::new(&self.path, identity)).map(Arc::new);
            *self.directory.write().unwrap_or_else(PoisonError::into_inner) = directory;
        }
    }
}

impl Directory {
    fn new(path: &Path, identity: (u64, u64)) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).ok()?;
        let ways = ways(&fd);
        Some(Self { fd, identity, ways })
    }

    fn open(&self, path: &[u8], flags: OFlags, wait: Wait) -> Result<OwnedFd, OpenError> {
        let way = match wait {
            Wait::Never if !self.ways.cached => return Err(OpenError::WouldBlock),
            wait => wait,
        };
        let opened = if self.ways.beneath {
            open_beneath(&self.fd, path, flags, way)
        } else {
            walk(&self.fd, path, flags)
        };
        opened.map_err(|errno| match errno {
            Errno::AGAIN if wait == Wait::Never => OpenError::WouldBlock,
            // NXIO: a socket, or a device without a driver. LOOP: too many links, a magic one, or (walking) any.
            Errno::NOENT | Errno::NOTDIR | Errno::ISDIR | Errno::NAMETOOLONG | Errno::INVAL | Errno::NXIO => {
                OpenError::Missing
            }
            Errno::XDEV | Errno::LOOP => OpenError::Escapes,
            Errno::ACCESS | Errno::PERM => OpenError::Denied,
            other => OpenError::System(other),
        })
    }
}

/// One component after the other, following no link: what cannot leave a directory in any step cannot leave the root.
fn walk(root: &OwnedFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mut parts = path.split(|&b| b == b'/').peekable();
    let mut directory: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        if matches!(part, b"" | b"." | b"..") {
            return Err(Errno::NOENT);
        }
        let here = directory.as_ref().map_or(root.as_fd(), AsFd::as_fd);
        if parts.peek().is_none() {
            let fd = rustix::fs::openat(here, part, flags | OFlags::NOFOLLOW, Mode::empty())?;
            // With O_PATH the link itself is opened instead of an error; the caller then sees no regular file.
            return Ok(fd);
        }
        let flags = LOOK | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        directory = Some(rustix::fs::openat(here, part, flags, Mode::empty())?);
    }
    Err(Errno::NOENT)
}

#[cfg(test)]
mod tests;
