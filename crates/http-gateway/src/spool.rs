//! A response body between the worker that makes it and the client that takes it.
//!
//! A slow client must not hold a worker: what the client does not take at once waits in memory, then in an unlinked
//! file, both bounded. Beyond the bounds the worker has to wait: such slots are counted, capped and timed.
//! [`BodyStream`] is the client's end; [`Writer`] the worker's, driven by [`pump`].
//!
//! A body from another server whose client is quick goes past it ([`BodyStream::take_straight`]).
//! An exchange on the long link ([`crate::link::long`]) needs none of this: its window is its bound, and the stream itself the body.
//!
//! # Cancel safety
//! Dropping [`BodyStream`] tells the pump that the client is gone; the worker is cancelled and its slot given back.

mod hold;
mod hooks;
mod pump;
mod slowing;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use ctl_telemetry::metrics::RESPONSE_SPOOLED_TOTAL;
use tokio::sync::Notify;

use crate::compress::Packing;
use crate::encoding::Coding;
use crate::link::long::{End, Item, LongStream};
use crate::message::{FileBody, Headers};
use crate::upload::Upload;
use crate::upstream::Flow;
pub(crate) use hold::Hold;
pub use hold::HoldLimits;
pub(crate) use hooks::Cutter;
pub use pump::PumpLimits;
pub(crate) use pump::pump;
use slowing::Slowed;
pub(crate) use slowing::{Slowing, TooSlow, push};

/// Memory that all spools together may take; above it they go to disk at once. Many clients that are slow at the
/// same time are the normal case behind mobile networks, and must not take the host down.
const MEMORY_BYTES_ALL: u64 = 256 << 20;

static MEMORY_BYTES_NOW: AtomicU64 = AtomicU64::new(0);

/// How much of one response may wait, and where.
#[derive(Debug, Clone)]
pub struct SpoolLimits {
    /// Bytes in memory.
    pub memory_bytes: u64,
    /// Bytes in the file.
    pub disk_bytes: u64,
    /// Directory of the unlinked file.
    pub dir: PathBuf,
}

/// A piece of a streamed body.
#[derive(Debug, Clone)]
pub enum Piece {
    /// Bytes from memory.
    Bytes(Bytes),
    /// A range of a file: spooled to disk before, or handed over by the worker.
    File(FileBody),
}

/// The worker died or gave up after the head was sent: break the connection so that the client can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the response was cut short")]
pub struct Aborted;

/// The two ends of a new spool.
pub fn spool(limits: SpoolLimits) -> (Writer, BodyStream) {
    let shared =
        Arc::new(Shared { state: Mutex::default(), to_reader: Notify::new(), to_writer: Notify::new() });
    (Writer { shared: Arc::clone(&shared), limits }, BodyStream::new(Origin::Spool(shared)))
}

struct Shared {
    state: Mutex<State>,
    to_reader: Notify,
    to_writer: Notify,
}

#[derive(Default)]
struct State {
    pieces: VecDeque<Piece>,
    /// Bytes of `pieces` in memory.
    memory: u64,
    /// The unlinked file, once there was one.
    file: Option<Arc<File>>,
    /// Where the next byte of the file goes; 0 when the reader has taken all of it, and another file begins.
    file_end: u64,
    ended: Option<Result<(), Aborted>>,
    trailers: Option<Headers>,
    reader_gone: bool,
    slowed: Slowed,
    /// The reader is to hurry while more than this waits.
    hurry_above: Option<u64>,
    /// Broken off from outside.
    cut: bool,
    /// See [`hooks`].
    held: Option<hooks::Held>,
}

impl State {
    fn take_memory(&mut self, bytes: u64) {
        self.memory += bytes;
        MEMORY_BYTES_NOW.fetch_add(bytes, Relaxed);
    }

    fn free_memory(&mut self, bytes: u64) {
        self.memory -= bytes;
        MEMORY_BYTES_NOW.fetch_sub(bytes, Relaxed);
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.free_memory(self.memory);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a protocol driver pulls.
pub struct BodyStream {
    source: Source,
    /// It is compressed on its way.
    packing: Option<Box<Packing>>,
    upload: Option<Upload>,
}

/// The body as the app sends it.
pub(crate) struct Source {
    origin: Origin,
    trailers: Option<Headers>,
}

/// Where it comes from.
enum Origin {
    Spool(Arc<Shared>),
    Long(LongStream),
    /// Straight from another server, until somebody asks who does not know of that. `None`: it was taken.
    Straight(Option<Box<Flow>>),
}

impl std::fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BodyStream")
    }
}

impl BodyStream {
    fn new(origin: Origin) -> Self {
        Self { source: Source { origin, trailers: None }, packing: None, upload: None }
    }

    /// The rest of an exchange on the long link, behind its head.
    pub(crate) fn long(stream: LongStream) -> Self {
        Self::new(Origin::Long(stream))
    }

    /// From another server, for a driver that takes it as it comes ([`Self::take_straight`]); a spool for all others.
    pub(crate) fn straight(flow: Flow) -> Self {
        Self::new(Origin::Straight(Some(Box::new(flow))))
    }

    /// The way past the spool, where there is one.
    pub(crate) fn take_straight(&mut self) -> Option<Box<Flow>> {
        match &mut self.source.origin {
            Origin::Straight(flow) => flow.take(),
            _ => None,
        }
    }

    /// Gives up the straight way: the body is read at its own pace from now on.
    pub(crate) fn settle(&mut self) {
        if let Some(flow) = self.take_straight() {
            std::mem::swap(&mut self.source, &mut flow.spooled().source);
        }
    }

    /// Compresses what comes from now on. `announced`: the app's Content-Length. `false`: it cannot be done now.
    pub(crate) fn pack(&mut self, coding: Coding, announced: Option<u64>) -> bool {
        self.settle();
        self.packing = Packing::new(coding, announced).map(Box::new);
        self.packing.is_some()
    }

    /// The next piece as soon as there is one; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Piece, Aborted>> {
        self.settle();
        if let Some(packing) = &mut self.packing {
            // Boxed: it may read files, and every response would carry the room for that.
            return Box::pin(packing.next(&mut self.source)).await;
        }
        loop {
            if let Some(next) = self.source.try_next() {
                return next;
            }
            self.source.came().await;
        }
    }

    /// The next piece if it is here: `None` when it has still to be made, `Some(None)` at the end.
    #[allow(clippy::option_option)] // "not yet", "never again" and a piece are three answers
    pub fn try_next(&mut self) -> Option<Option<Result<Piece, Aborted>>> {
        self.settle();
        match &mut self.packing {
            Some(packing) => packing.try_next(&mut self.source),
            None => self.source.try_next(),
        }
    }

    /// For who sends it slower than its client takes it. Not for the long link: nobody is held up there.
    pub(crate) fn slowing(&mut self) -> Option<Slowing> {
        self.settle();
        match &self.source.origin {
            Origin::Spool(shared) => Some(Slowing::new(Arc::clone(shared))),
            Origin::Long(_) | Origin::Straight(_) => None,
        }
    }

    /// The app goes on reading its request while it answers.
    pub(crate) fn attach(&mut self, upload: Upload) {
        self.upload = Some(upload);
    }

    /// What the app still wants of its request, for the driver.
    pub fn take_upload(&mut self) -> Option<Upload> {
        self.upload.take()
    }

    /// Fields behind the body, once, after its end.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        self.source.trailers.take()
    }
}

impl Source {
    /// Waits until [`Self::try_next`] may know more.
    pub(crate) async fn came(&self) {
        match &self.origin {
            Origin::Spool(shared) => shared.to_reader.notified().await,
            Origin::Long(stream) => stream.came().await,
            Origin::Straight(_) => {}
        }
    }

    /// As [`BodyStream::try_next`].
    #[allow(clippy::option_option)] // as there
    pub(crate) fn try_next(&mut self) -> Option<Option<Result<Piece, Aborted>>> {
        match &self.origin {
            Origin::Spool(shared) => shared.try_next(&mut self.trailers),
            // Whoever took it has the body.
            Origin::Straight(_) => Some(Some(Err(Aborted))),
            Origin::Long(stream) => loop {
                return match stream.try_next()? {
                    Ok(Item::Piece(piece)) => Some(Some(Ok(piece))),
                    // Nothing else comes behind the head of a response.
                    Ok(Item::Head(_) | Item::Message(..)) => continue,
                    Err(End::Complete(trailers)) => {
                        self.trailers = trailers;
                        Some(None)
                    }
                    Err(End::Aborted | End::Lost | End::Close(..)) => Some(Some(Err(Aborted))),
                };
            },
        }
    }
}

impl Shared {
    #[allow(clippy::option_option)] // as above
    fn try_next(&self, trailers: &mut Option<Headers>) -> Option<Option<Result<Piece, Aborted>>> {
        let mut state = self.state();
        if state.cut {
            return Some(Some(Err(Aborted)));
        }
        let piece = state.pieces.pop_front();
        self.to_writer.notify_one();
        if let Some(piece) = piece {
            if let Piece::Bytes(bytes) = &piece {
                state.free_memory(bytes.len() as u64);
            }
            return Some(Some(Ok(piece)));
        }
        // All that was in the file has been sent.
        state.file_end = 0;
        match state.ended? {
            Ok(()) => {
                *trailers = state.trailers.take();
                Some(None)
            }
            Err(aborted) => Some(Some(Err(aborted))),
        }
    }
}

impl Drop for BodyStream {
    fn drop(&mut self) {
        // A stream of the long link sees to itself.
        let Origin::Spool(shared) = &self.source.origin else { return };
        let mut state = shared.state();
        state.reader_gone = true;
        let pieces = std::mem::take(&mut state.pieces);
        let memory = state.memory;
        state.free_memory(memory);
        drop(state);
        drop(pieces);
        shared.to_writer.notify_one();
    }
}

/// The worker's end.
pub struct Writer {
    shared: Arc<Shared>,
    limits: SpoolLimits,
}

/// Where the next piece may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Memory,
    /// At this offset of the file.
    Disk(u64),
    /// Nowhere until the client takes something.
    None,
}

impl Writer {
    /// Adds a piece, waiting for room where there is none; `waiting` is called once before it waits.
    /// False: the client is gone.
    pub async fn push(&mut self, bytes: Bytes, mut waiting: impl FnMut()) -> io::Result<bool> {
        if bytes.is_empty() {
            return Ok(!self.shared.state().reader_gone);
        }
        let len = bytes.len() as u64;
        loop {
            let room = {
                let mut state = self.shared.state();
                if state.reader_gone {
                    return Ok(false);
                }
                let room = self.room(&state, len);
                if room == Room::Memory {
                    state.take_memory(len);
                    state.pieces.push_back(Piece::Bytes(bytes));
                    drop(state);
                    self.shared.to_reader.notify_one();
                    return Ok(true);
                }
                room
            };
            match room {
                Room::Disk(offset) => return self.push_to_disk(bytes, offset).await,
                Room::Memory | Room::None => {
                    waiting();
                    self.shared.to_writer.notified().await;
                }
            }
        }
    }

    /// Adds the first piece, which there is always room for.
    pub fn start(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            let mut state = self.shared.state();
            state.take_memory(bytes.len() as u64);
            state.pieces.push_back(Piece::Bytes(bytes));
        }
    }

    /// What is slow to go out holds a worker up, in the end: half of the room is left for that not to happen.
    pub(crate) fn holds_a_slot(&mut self) {
        let room = self.limits.memory_bytes.saturating_add(self.limits.disk_bytes);
        self.shared.state().hurry_above = Some(room / 2);
    }

    fn room(&self, state: &State, len: u64) -> Room {
        let memory_is_short = MEMORY_BYTES_NOW.load(Relaxed) + len > MEMORY_BYTES_ALL;
        // One piece is always taken: a single frame may be larger than a small limit.
        if state.pieces.is_empty() || (state.memory + len <= self.limits.memory_bytes && !memory_is_short) {
            Room::Memory
        } else if state.file_end + len <= self.limits.disk_bytes {
            Room::Disk(state.file_end)
        } else {
            Room::None
        }
    }

    async fn push_to_disk(&mut self, bytes: Bytes, offset: u64) -> io::Result<bool> {
        // The first place of a file is a file's first use: what lay in another one may still be in a socket by reference, where
        // `sendfile` has put it, and would change there.
        let before = self.shared.state().file.take();
        let first = before.is_none();
        let dir = self.limits.dir.clone();
        let len = bytes.len() as u64;
        let file = tokio::task::spawn_blocking(move || -> io::Result<Arc<File>> {
            let existing = before.filter(|_| offset > 0);
            let file = existing.map_or_else(|| unlinked_file(&dir).map(Arc::new), Ok)?;
            file.write_all_at(&bytes, offset)?;
            Ok(file)
        })
        .await
        .map_err(io::Error::other)??;
        if first {
            RESPONSE_SPOOLED_TOTAL.inc();
        }
        let mut state = self.shared.state();
        // The reader may have emptied the line meanwhile and set `file_end` to 0; our bytes lie where they lie.
        state.file_end = offset + len;
        state.file = Some(Arc::clone(&file));
        match state.pieces.back_mut() {
            Some(Piece::File(last)) if Arc::ptr_eq(&last.file, &file) && last.offset + last.len == offset => {
                last.len += len;
            }
            _ => state.pieces.push_back(Piece::File(FileBody { file, offset, len })),
        }
        let gone = state.reader_gone;
        drop(state);
        self.shared.to_reader.notify_one();
        Ok(!gone)
    }

    /// Adds a range of a file that the worker handed over. False: the client is gone.
    pub fn push_file(&mut self, file: FileBody) -> bool {
        let mut state = self.shared.state();
        if file.len > 0 {
            state.pieces.push_back(Piece::File(file));
        }
        let gone = state.reader_gone;
        drop(state);
        self.shared.to_reader.notify_one();
        !gone
    }

    /// Says that nothing more comes.
    pub fn end(self, how: Result<(), Aborted>) {
        self.shared.state().ended = Some(how);
        self.shared.to_reader.notify_one();
    }

    /// Says that these fields come behind the body.
    pub fn trailers(&self, fields: Headers) {
        self.shared.state().trailers = Some(fields);
    }

    /// Resolves when the client is gone. Cancel safe.
    pub async fn reader_gone(&self) {
        while !self.shared.state().reader_gone {
            self.shared.to_writer.notified().await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if state.ended.is_none() {
            state.ended = Some(Err(Aborted));
        }
        let held = state.held.take();
        drop(state);
        drop(held);
        self.shared.to_reader.notify_one();
    }
}

/// A file without a name: gone with its last descriptor, whatever happens to us.
pub fn unlinked_file(dir: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    match rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
        Ok(descriptor) => Ok(File::from(descriptor)),
        // Not every file system has O_TMPFILE.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
            named_then_unlinked(dir)
        }
        Err(error) => Err(error.into()),
    }
}

fn named_then_unlinked(dir: &Path) -> io::Result<File> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Relaxed);
    let path = dir.join(format!(".quintet-{}-{number}", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(memory_bytes: u64, disk_bytes: u64) -> SpoolLimits {
        SpoolLimits { memory_bytes, disk_bytes, dir: std::env::temp_dir() }
    }

    async fn read_all(mut stream: BodyStream) -> Result<Vec<u8>, Aborted> {
        let mut all = Vec::new();
        while let Some(piece) = stream.next().await {
            match piece? {
                Piece::Bytes(bytes) => all.extend_from_slice(&bytes),
                Piece::File(part) => {
                    let mut bytes = vec![0; part.len as usize];
                    part.file.read_exact_at(&mut bytes, part.offset).expect("spooled");
                    all.extend_from_slice(&bytes);
                }
            }
        }
        Ok(all)
    }

    /// A socket may refer to the file long after a `sendfile` is done.
    #[tokio::test]
    async fn what_was_handed_over_is_never_written_again() {
        let (mut writer, mut stream) = spool(limits(1, 100));
        let mut sent = Vec::new();
        for round in 0..30_u8 {
            assert!(writer.push(vec![round; 7].into(), || panic!("there is room")).await.expect("disk"));
            if round % 4 == 3 {
                while let Some(Some(Ok(piece))) = stream.try_next() {
                    if let Piece::File(part) = piece {
                        let mut bytes = vec![0; part.len as usize];
                        part.file.read_exact_at(&mut bytes, part.offset).expect("spooled");
                        sent.push((part, bytes));
                    }
                }
            }
        }
        assert!(sent.len() > 5, "{} pieces went through a file", sent.len());
        for (part, bytes) in sent {
            let mut now = vec![0; bytes.len()];
            part.file.read_exact_at(&mut now, part.offset).expect("spooled");
            assert_eq!(now, bytes);
        }
    }

    #[tokio::test]
    async fn order_is_kept_over_memory_disk_and_memory() {
        let (mut writer, mut stream) = spool(limits(10, 100));
        let mut expected = Vec::new();
        let mut got = Vec::new();
        for round in 0..40_u8 {
            let piece = vec![round; 7];
            expected.extend_from_slice(&piece);
            assert!(writer.push(piece.into(), || panic!("there is room")).await.expect("disk"));
            // Read in fits and starts.
            if round % 5 == 4 {
                while let Some(Some(Ok(piece))) = stream.try_next() {
                    match piece {
                        Piece::Bytes(bytes) => got.extend_from_slice(&bytes),
                        Piece::File(part) => {
                            let mut bytes = vec![0; part.len as usize];
                            part.file.read_exact_at(&mut bytes, part.offset).expect("spooled");
                            got.extend_from_slice(&bytes);
                        }
                    }
                }
            }
        }
        writer.end(Ok(()));
        got.extend(read_all(stream).await.expect("complete"));
        assert_eq!(got, expected);
    }

    #[tokio::test]
    async fn beyond_the_bounds_the_writer_waits_and_says_so() {
        let (mut writer, mut stream) = spool(limits(4, 4));
        for _ in 0..2 {
            writer.push(Bytes::from_static(b"1234"), || panic!("there is room")).await.expect("disk");
        }
        let mut waited = 0;
        {
            let push = writer.push(Bytes::from_static(b"5678"), || waited += 1);
            tokio::pin!(push);
            tokio::select! {
                biased;
                _ = &mut push => panic!("nothing has been taken yet"),
                () = tokio::time::sleep(std::time::Duration::from_millis(20)) => {}
            }
            while let Some(Some(_)) = stream.try_next() {}
            assert!(push.await.expect("memory"));
        }
        assert_eq!(waited, 1);
    }

    #[tokio::test]
    async fn a_gone_reader_is_told_to_the_writer_and_the_other_way_round() {
        let (mut writer, stream) = spool(limits(4, 4));
        drop(stream);
        writer.reader_gone().await;
        assert!(!writer.push(Bytes::from_static(b"x"), || ()).await.expect("memory"));

        let (writer, stream) = spool(limits(4, 4));
        drop(writer);
        assert_eq!(read_all(stream).await, Err(Aborted));
    }
}
