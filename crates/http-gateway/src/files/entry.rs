//! A file as it was found below a mount, and how to tell that it has changed.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use super::mount::{Kind, Mount};
use super::pack;
use super::representation::{self, Recipe, Representation};
use super::root::{OpenError, Root, Wait};
use crate::encoding::{Coding, CodingSet};

/// A change within this time of looking could leave every date as it is: clocks of file systems tick in steps of up to two
/// seconds (FAT), mostly some milliseconds.
const SETTLING: Duration = Duration::from_secs(2);

/// Which file, in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    pub(super) size: u64,
    /// Seconds, nanoseconds.
    pub(super) modified: (i64, i64),
    pub(super) changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Could the file have changed since without a trace in its dates?
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as i64;
        now.saturating_sub(self.changed.0) > SETTLING.as_secs() as i64
    }

    /// Does the date of change say anything? Builds that can be repeated put the same one on every file of every release: the
    /// epoch, or 1980, where ZIP begins.
    pub(super) fn is_dated(&self) -> bool {
        /// The end of January 2 1980, so that no time zone matters.
        const FIRST: i64 = 315_705_600;
        self.modified.0 > FIRST
    }

    /// Is a compressed sibling at least as new as its original? Tools that copy the original's date onto it lose
    /// fractions of a second, so these do not count.
    pub(super) fn is_no_older_than(&self, original: &Self) -> bool {
        self.modified.0 >= original.modified.0
    }
}

/// A file as found below a mount.
#[derive(Debug)]
pub(super) struct Entry {
    /// Distinguishes one reading of a file from the next; what was made from it refers to it.
    pub(super) id: u64,
    pub(super) found: Found,
    /// See [`SETTLING`].
    pub(super) settled: bool,
    pub(super) identity: Representation,
    /// Codings that it can be sent in: siblings, and what may be made.
    pub(super) codings: CodingSet,
    /// When it was last compared with the disk, by the clock of [`super::Files`].
    pub(super) checked_ms: AtomicU64,
    /// How far compression has come, by coding; see [`super::pack`].
    pub(super) packing: [AtomicU8; 4],
    /// Somebody waits for it.
    pub(super) packed: Notify,
}

/// What was found where; compared again to see that nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) root: usize,
    pub(super) file: Identity,
    /// In the order of [`Coding::BY_PREFERENCE`].
    pub(super) siblings: [Option<Identity>; 3],
}

impl Found {
    pub(super) fn sibling(&self, coding: Coding) -> Option<Identity> {
        let at = Coding::BY_PREFERENCE.iter().position(|&c| c == coding)?;
        self.siblings.get(at).copied().flatten()
    }
}

/// Looks for a file in the mount's roots, in order.
pub(super) fn find<T>(
    mount: &Mount,
    path: &[u8],
    wait: Wait,
    take: impl Fn(&Root, &[u8]) -> Result<(T, Metadata), OpenError>,
) -> Result<(T, Found), OpenError> {
    let mut error = OpenError::NoRoot;
    for (i, root, below) in mount.candidates(path) {
        match take(root, below) {
            Ok((taken, metadata)) => {
                let file = Identity::of(&metadata);
                let siblings = siblings(mount, root, below, &file, wait)?;
                return Ok((taken, Found { root: i, file, siblings }));
            }
            Err(OpenError::NoRoot) => {}
            // One root that is there is enough to know that the file is not.
            Err(OpenError::Missing) => error = OpenError::Missing,
            Err(other) => return Err(other),
        }
    }
    Err(error)
}

/// The path of a file's compressed sibling.
pub(super) fn sibling_path(path: &[u8], coding: Coding) -> Vec<u8> {
    let extension: &[u8] = match coding {
        Coding::Identity => b"",
        Coding::Gzip => b".gz",
        Coding::Zstd => b".zst",
        Coding::Brotli => b".br",
    };
    [path, extension].concat()
}

fn siblings(
    mount: &Mount,
    root: &Root,
    path: &[u8],
    original: &Identity,
    wait: Wait,
) -> Result<[Option<Identity>; 3], OpenError> {
    let mut siblings = [None; 3];
    // Sources that somebody edits have none; what the app sends by its own word goes as it is.
    if mount.plan.edited || mount.plan.kind == Kind::Accel {
        return Ok(siblings);
    }
    for (place, coding) in siblings.iter_mut().zip(Coding::BY_PREFERENCE) {
        *place = match root.look(&sibling_path(path, coding), wait) {
            Ok(metadata) => {
                Some(Identity::of(&metadata)).filter(|sibling| sibling.is_no_older_than(original))
            }
            Err(OpenError::WouldBlock) => return Err(OpenError::WouldBlock),
            Err(_) => None,
        };
    }
    Ok(siblings)
}

/// Opens and reads a file into an entry. `compress`: codings may be made for it.
pub(super) fn load(
    mount: &Mount,
    path: &[u8],
    max_age: u64,
    compress: CodingSet,
    wait: Wait,
) -> Result<Entry, OpenError> {
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);

    let (file, found) = find(mount, path, wait, |root, below| root.open(below, wait))?;
    let now = SystemTime::now();
    let content = representation::content(file, found.file.size, wait)?;
    let made = if pack::is_worthwhile(path, found.file.size) { compress } else { CodingSet::IDENTITY };
    let codings = Coding::BY_PREFERENCE
        .into_iter()
        .filter(|&coding| found.sibling(coding).is_some())
        .fold(made, CodingSet::with);
    let varies = codings != CodingSet::IDENTITY;
    let recipe = Recipe { mount, path, file: found.file, varies, coding: Coding::Identity, max_age };
    Ok(Entry {
        id: NEXT_ID.fetch_add(1, Relaxed),
        found,
        settled: found.file.is_settled(now),
        identity: recipe.make(content, None),
        codings,
        checked_ms: AtomicU64::new(0),
        packing: Default::default(),
        packed: Notify::new(),
    })
}
