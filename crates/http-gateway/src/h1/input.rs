//! What was read from a connection and not consumed yet.
//!
//! From clients: a buffer that is exactly as large as what has not been understood. From other servers, whose bodies are mostly
//! passed on: large ones, each filled by one read, and used again by the thread that lets go of them. Memory of this size costs a
//! page fault for every 4 KiB whenever it is new, and what was just written from is still in the processor's cache.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

/// One read takes this much: on a fast way most of what a sender's buffer held, and little enough that several stay in the
/// processor's second cache.
pub(super) const FILLED_BYTES_MAX: usize = 64 * 1024;

/// As much as this is worth a large buffer while somebody has it; less is copied, so that it does not hold much.
pub(super) const LITTLE_BYTES: usize = FILLED_BYTES_MAX / 4;

/// Spare buffers of a thread: one is read into while others are written from. More would lie about.
const SPARE_MAX: usize = 4;

thread_local! {
    static SPARE: RefCell<[Option<Box<Room>>; SPARE_MAX]> = const { RefCell::new([const { None }; SPARE_MAX]) };
}

/// See the head of this file.
pub(super) enum Input {
    /// From `start` on not consumed.
    Own { bytes: Vec<u8>, start: usize },
    /// One read, instead.
    Filled(Filled),
}

impl Default for Input {
    fn default() -> Self {
        Self::Own { bytes: Vec::new(), start: 0 }
    }
}

impl Input {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Own { bytes, start } => bytes.get(*start..).unwrap_or_default(),
            Self::Filled(filled) => filled.bytes(),
        }
    }

    /// Marks the first `count` bytes as done.
    pub(super) fn consume(&mut self, count: usize) {
        match self {
            Self::Own { bytes, start } => {
                *start += count;
                if *start >= bytes.len() {
                    bytes.clear();
                    *start = 0;
                }
            }
            Self::Filled(filled) => {
                if !filled.consume(count) {
                    *self = Self::default();
                }
            }
        }
    }

    pub(super) fn append(&mut self, more: &[u8]) {
        match self {
            Self::Own { bytes, start } => {
                if *start > 0 {
                    bytes.drain(..*start);
                    *start = 0;
                }
                bytes.extend_from_slice(more);
            }
            Self::Filled(filled) => *self = Self::Own { bytes: [filled.bytes(), more].concat(), start: 0 },
        }
    }

    /// Takes all of it.
    pub(super) fn take(&mut self) -> Bytes {
        match std::mem::take(self) {
            Self::Own { bytes, start } => Bytes::from(bytes).split_off(start),
            Self::Filled(filled) => filled.into_bytes(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.consume(usize::MAX / 2);
    }
}

struct Room {
    bytes: Box<[u8]>,
    /// Of `bytes`, what was read and not consumed.
    start: usize,
    end: usize,
}

/// What one read has brought. Goes back to its thread's spare ones when it is dropped.
pub(super) struct Filled(Option<Box<Room>>);

impl Filled {
    /// Reads once, at most `bytes_max`; `None`: the other side has said all it had to.
    pub(super) fn poll_read(
        transport: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
        bytes_max: usize,
    ) -> Poll<io::Result<Option<Self>>> {
        let spare = SPARE.with_borrow_mut(|spare| spare.iter_mut().find_map(Option::take));
        let mut filled = Self(Some(spare.unwrap_or_else(|| {
            Box::new(Room { bytes: vec![0; FILLED_BYTES_MAX].into(), start: 0, end: 0 })
        })));
        let Some(room) = &mut filled.0 else { return Poll::Ready(Ok(None)) };
        let bytes_max = bytes_max.min(room.bytes.len());
        let mut read = ReadBuf::new(room.bytes.get_mut(..bytes_max).unwrap_or_default());
        ready!(Pin::new(transport).poll_read(context, &mut read))?;
        (room.start, room.end) = (0, read.filled().len());
        Poll::Ready(Ok((room.end > 0).then_some(filled)))
    }

    /// What is left.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_ref().and_then(|room| room.bytes.get(room.start..room.end)).unwrap_or_default()
    }

    /// Marks the first `bytes` as done. `false`: nothing is left.
    pub(super) fn consume(&mut self, bytes: usize) -> bool {
        let Some(room) = &mut self.0 else { return false };
        room.start = (room.start + bytes).min(room.end);
        room.start < room.end
    }

    /// What is left, for as long as somebody has it; see [`LITTLE_BYTES`].
    pub(super) fn into_bytes(self) -> Bytes {
        let bytes = self.bytes();
        if bytes.len() < LITTLE_BYTES {
            return Bytes::copy_from_slice(bytes);
        }
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        let Some(room) = self.0.take() else { return };
        // The thread may be about to end: then its spare ones are gone already.
        let _gone = SPARE.try_with(|spare| {
            if let Ok(mut spare) = spare.try_borrow_mut()
                && let Some(place) = spare.iter_mut().find(|place| place.is_none())
            {
                *place = Some(room);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    async fn read(bytes: &[u8], bytes_max: usize) -> Filled {
        let (mut near, mut far) = tokio::io::duplex(1 << 20);
        near.write_all(bytes).await.unwrap();
        poll_fn(|context| Filled::poll_read(&mut far, context, bytes_max)).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn what_is_left_outlives_its_place() {
        let mut filled = read(&[b"head".to_vec(), vec![7; 40_000]].concat(), usize::MAX).await;
        assert!(filled.consume(4));
        let address = filled.bytes().as_ptr();
        let kept = filled.into_bytes();
        assert_eq!((kept.as_ptr(), kept.len()), (address, 40_000), "not copied");
        let other = read(&vec![8; 40_000], usize::MAX).await;
        assert_eq!(
            (kept[0], kept[39_999], other.bytes()[0]),
            (7, 7, 8),
            "nobody else has its memory meanwhile"
        );
        drop((kept, other));
        let again = read(b"x", 1).await;
        assert_eq!(again.bytes(), b"x");
        assert!(again.into_bytes().is_unique(), "little is copied");
    }

    #[tokio::test]
    async fn an_end_is_told() {
        let (near, mut far) = tokio::io::duplex(64);
        drop(near);
        let read = poll_fn(|context| Filled::poll_read(&mut far, context, 10)).await.unwrap();
        assert!(read.is_none());
        let mut filled = self::read(b"abc", 2).await;
        assert_eq!(filled.bytes(), b"ab");
        assert!(!filled.consume(9) && filled.bytes().is_empty());
    }
}
