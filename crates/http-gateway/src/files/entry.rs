//! A file that is ready to be sent: its representation with headers made beforehand, and how to tell that it has changed.

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::Notify;

use super::conditional::{Validators, whole_seconds};
use super::media_type::{self, MediaType};
use super::mount::{Kind, Mount};
use super::path;
use super::root::{OpenError, Root, Wait};
use crate::encoding::{Coding, CodingSet};
use crate::message::{Body, FileBody, Headers};

/// Files up to this size are kept in memory; larger ones are kept open and sent by the kernel.
///
/// Two costs meet here: copying into the socket, and what `sendfile` costs for each page. Over loopback 100 kB take 25 µs of
/// CPU from memory and 30 µs by `sendfile`; over TLS and HTTP/2 the bytes go through memory anyway. Beyond this size few files
/// of a site are asked for often, and each would push many small ones out.
pub(super) const IN_MEMORY_MAX: u64 = 256 << 10;

/// A change within this time of looking could leave every date as it is: clocks of file systems tick in steps of up to two
/// seconds (FAT), mostly some milliseconds.
const SETTLING: Duration = Duration::from_secs(2);

/// Which file, in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
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
    fn is_dated(&self) -> bool {
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

/// Where bytes come from.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// From memory.
    Memory(Bytes),
    /// From an open file.
    Open(Arc<File>),
}

/// What is sent: bytes in a coding, their validators and headers.
#[derive(Debug)]
pub(super) struct Representation {
    /// Of a 200.
    pub(super) headers: Headers,
    /// Of a 304 (RFC 9110, 15.4.5).
    pub(super) not_modified: Headers,
    pub(super) etag: Box<[u8]>,
    pub(super) modified: Option<SystemTime>,
    pub(super) media_type: &'static str,
    pub(super) size: u64,
    pub(super) content: Content,
}

impl Representation {
    pub(super) fn validators(&self) -> Validators<'_> {
        Validators { etag: &self.etag, modified: self.modified }
    }

    /// A part of it, or all, as a body.
    pub(super) fn body(&self, start: u64, len: u64) -> Body {
        match &self.content {
            Content::Memory(bytes) => {
                let all = 0..bytes.len();
                let end = start.saturating_add(len).min(bytes.len() as u64) as usize;
                let range = (start as usize).min(end)..end;
                Body::Bytes(if range == all { bytes.clone() } else { bytes.slice(range) })
            }
            Content::Open(file) => Body::File(FileBody { file: Arc::clone(file), offset: start, len }),
        }
    }

    /// About what it costs in memory.
    pub(super) fn weight(&self) -> u64 {
        /// Two sets of headers and this struct, measured roughly.
        const OVERHEAD: u64 = 1536;
        OVERHEAD
            + match &self.content {
                Content::Memory(bytes) => bytes.len() as u64,
                Content::Open(_) => 0,
            }
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

/// Reads a file: all of it when it is small.
pub(super) fn content(file: File, size: u64, wait: Wait) -> Result<Content, OpenError> {
    if size > IN_MEMORY_MAX {
        return Ok(Content::Open(Arc::new(file)));
    }
    read(&file, 0, size, wait).map(|bytes| Content::Memory(bytes.into()))
}

/// Reads `len` bytes from `start`, or fewer when the file has become shorter.
pub(super) fn read(file: &File, start: u64, len: u64, wait: Wait) -> Result<Vec<u8>, OpenError> {
    let mut bytes = vec![0; len as usize];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read_some(file, rest, start + filled as u64, wait) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::OPNOTSUPP) if wait == Wait::Never => {
                return Err(OpenError::WouldBlock);
            }
            Err(other) => return Err(OpenError::System(other)),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(target_os = "linux")]
fn read_some(file: &File, buffer: &mut [u8], offset: u64, wait: Wait) -> rustix::io::Result<usize> {
    use rustix::io::ReadWriteFlags;

    if wait == Wait::Never {
        // From the page cache or not at all.
        let mut buffers = [std::io::IoSliceMut::new(buffer)];
        return rustix::io::preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT);
    }
    read_waiting(file, buffer, offset)
}

#[cfg(not(target_os = "linux"))]
fn read_some(file: &File, buffer: &mut [u8], offset: u64, wait: Wait) -> rustix::io::Result<usize> {
    if wait == Wait::Never { Err(rustix::io::Errno::AGAIN) } else { read_waiting(file, buffer, offset) }
}

fn read_waiting(file: &File, buffer: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    file.read_at(buffer, offset)
        .map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))
}

/// All that the headers of a representation depend on.
pub(super) struct Recipe<'a> {
    pub(super) mount: &'a Mount,
    /// Relative to the mount, without a sibling's extension.
    pub(super) path: &'a [u8],
    /// The file whose bytes these are, or were made from.
    pub(super) file: Identity,
    /// Other codings exist or may be made.
    pub(super) varies: bool,
    pub(super) coding: Coding,
    /// In seconds.
    pub(super) max_age: u64,
}

impl Recipe<'_> {
    /// Makes a representation. `tag` is the opaque part of another entity tag that these bytes follow from; without it one
    /// is made.
    pub(super) fn make(&self, content: Content, tag: Option<&[u8]>) -> Representation {
        let size = match &content {
            Content::Memory(bytes) => bytes.len() as u64,
            Content::Open(_) => self.file.size,
        };
        let tag = tag.map_or_else(|| tag_of(&content, &self.file), <[u8]>::to_vec);
        // RFC 9110, 8.8.3.3: a strong tag differs between codings.
        let suffix = if self.coding == Coding::Identity { "" } else { self.coding.token() };
        let dash: &[u8] = if suffix.is_empty() { b"" } else { b"-" };
        let etag = [b"\"", tag.as_slice(), dash, suffix.as_bytes(), b"\""].concat().into_boxed_slice();
        let modified = self.file.is_dated().then(|| {
            let date = UNIX_EPOCH + Duration::from_secs(self.file.modified.0.max(0) as u64);
            whole_seconds(date, SystemTime::now())
        });
        let media = media_type::of(self.path);
        let not_modified = self.common(&etag, modified, &media);
        let mut headers = Headers::with_capacity(12, 512);
        headers.push(b"Content-Type", media.value.as_bytes());
        headers.push(b"Content-Length", itoa::Buffer::new().format(size).as_bytes());
        if self.coding != Coding::Identity {
            headers.push(b"Content-Encoding", self.coding.token().as_bytes());
        }
        headers.push(b"Accept-Ranges", b"bytes");
        not_modified.iter().for_each(|(name, value)| headers.push(name, value));
        Representation { headers, not_modified, etag, modified, media_type: media.value, size, content }
    }

    /// The headers of 200 and 304 alike.
    fn common(&self, etag: &[u8], modified: Option<SystemTime>, media: &MediaType) -> Headers {
        let mut headers = Headers::with_capacity(8, 256);
        headers.push(b"ETag", etag);
        if let Some(modified) = modified {
            headers.push(b"Last-Modified", httpdate::fmt_http_date(modified).as_bytes());
        }
        if self.varies {
            headers.push(b"Vary", b"Accept-Encoding");
        }
        match self.mount.plan.kind {
            Kind::Static => {
                self.cache_control(&mut headers);
                // They are public already; fonts and modules are not used across origins (a CDN) without it.
                headers.push(b"Access-Control-Allow-Origin", b"*");
            }
            Kind::Media => {
                self.cache_control(&mut headers);
                headers.push(b"X-Content-Type-Options", b"nosniff");
                if media.active {
                    // What a user has uploaded may be looked at, but does not act in the site's name.
                    headers.push(b"Content-Security-Policy", b"sandbox");
                }
            }
            // What the app sends is the app's to say.
            Kind::Accel => {}
        }
        headers
    }

    fn cache_control(&self, headers: &mut Headers) {
        if self.mount.plan.hashed && path::is_hashed(self.path) {
            // A year: RFC 9111 names no bound, but long past this the value is no better. `immutable`: RFC 8246.
            headers.push(b"Cache-Control", b"public, max-age=31536000, immutable");
        } else if self.max_age == 0 {
            headers.push(b"Cache-Control", b"no-cache");
        } else {
            headers.push(b"Cache-Control", format!("public, max-age={}", self.max_age).as_bytes());
        }
    }
}

/// The opaque part of an entity tag.
///
/// Of what is in memory: from the bytes, so that every host says the same, whatever the dates. Of large files: size and date,
/// to the nanosecond; where the date says nothing, the inode's own.
fn tag_of(content: &Content, file: &Identity) -> Vec<u8> {
    match content {
        Content::Memory(bytes) => {
            let hash = twox_hash::XxHash3_64::oneshot(bytes);
            format!("{:x}-{hash:016x}", bytes.len()).into_bytes()
        }
        Content::Open(_) => {
            let (seconds, nanoseconds) = if file.is_dated() { file.modified } else { file.changed };
            format!("{:x}-{seconds:x}.{nanoseconds:x}", file.size).into_bytes()
        }
    }
}

/// Opens and reads a file into an entry. `compress`: codings may be made for it.
pub(super) fn load(
    mount: &Mount,
    path: &[u8],
    max_age: u64,
    compress: CodingSet,
    wait: Wait,
) -> Result<Entry, OpenError> {
    use std::sync::atomic::Ordering::Relaxed;
    static NEXT_ID: AtomicU64 = AtomicU64::new(1);

    let (file, found) = find(mount, path, wait, |root, below| root.open(below, wait))?;
    let now = SystemTime::now();
    let content = content(file, found.file.size, wait)?;
    let made = if super::pack::is_worthwhile(path, found.file.size) { compress } else { CodingSet::IDENTITY };
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
