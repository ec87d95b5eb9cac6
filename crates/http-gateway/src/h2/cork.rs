//! The socket under an HTTP/2 connection: reads go through, writes are gathered and sent in large pieces.
//!
//! The `h2` crate flushes after every frame of some size. Here its flush does nothing: the driver flushes once it has
//! gone through all streams, so that a hundred small responses are one call (and over TLS a few full records).

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::PREFACE;
use super::meter::Meter;

/// Output is gathered up to this. Four TLS records of the largest size; larger pieces save nothing more.
const GATHER_BYTES: usize = 64 << 10;

/// What the crate owns.
pub(super) struct Cork<T>(Arc<Mutex<Inner<T>>>);

/// What the driver owns. Both are polled by one task: the lock is never waited for.
pub(super) struct Handle<T>(Arc<Mutex<Inner<T>>>);

struct Inner<T> {
    stream: T,
    /// Read before the protocol was known.
    first: BytesMut,
    gathered: Vec<u8>,
    /// Bytes of `gathered` that the stream took.
    sent: usize,
    /// Bytes that the stream took in all.
    written: u64,
    meter: Meter,
}

impl<T> Cork<T> {
    pub(super) fn new(stream: T, first: BytesMut) -> (Self, Handle<T>) {
        let meter = Meter::new(PREFACE.len(), Instant::now());
        let inner = Inner { stream, first, gathered: Vec::new(), sent: 0, written: 0, meter };
        let inner = Arc::new(Mutex::new(inner));
        (Self(Arc::clone(&inner)), Handle(inner))
    }
}

fn lock<T>(inner: &Arc<Mutex<Inner<T>>>) -> MutexGuard<'_, Inner<T>> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: AsyncRead + Unpin> Inner<T> {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, into);
        }
        let len = self.first.len().min(into.remaining());
        into.put_slice(&self.first.split_to(len));
        if self.first.is_empty() {
            self.first = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    /// Takes one piece of what the crate writes.
    fn gather(&mut self, bytes: &[u8]) {
        self.meter.sent(bytes);
        self.gathered.extend_from_slice(bytes);
    }

    /// Sends until nothing is left.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.gathered.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += sent;
            self.written += sent as u64;
        }
        self.gathered.clear();
        self.sent = 0;
        Pin::new(&mut self.stream).poll_flush(cx)
    }
}

impl<T: AsyncWrite + Unpin> Handle<T> {
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0).poll_send(cx)
    }

    /// Does output wait for the client? And how many bytes were taken in all.
    pub(super) fn waiting(&self) -> (bool, u64) {
        let inner = lock(&self.0);
        (!inner.gathered.is_empty(), inner.written)
    }

    /// The client keeps us busy with nothing, see [`Meter`].
    pub(super) fn is_flooded(&self) -> bool {
        lock(&self.0).meter.is_flooded()
    }

    /// Grows with each frame of an answer.
    pub(super) fn answered(&self) -> u64 {
        lock(&self.0).meter.answered()
    }

    /// An idle connection holds no buffer.
    pub(super) fn release(&self) {
        lock(&self.0).gathered = Vec::new();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Cork<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        if inner.meter.is_flooded() {
            // Nothing more is read: the driver looks after each turn, and ends it.
            return Poll::Pending;
        }
        let before = into.filled().len();
        ready!(inner.poll_read(cx, into))?;
        inner.meter.received(into.filled().get(before..).unwrap_or_default(), Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Cork<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        if inner.gathered.len() >= GATHER_BYTES {
            ready!(inner.poll_send(cx))?;
        }
        inner.gather(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = lock(&self.0);
        if inner.gathered.len() >= GATHER_BYTES {
            ready!(inner.poll_send(cx))?;
        }
        for piece in pieces {
            inner.gather(piece);
        }
        Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// See the top: the driver flushes.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = lock(&self.0);
        ready!(inner.poll_send(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn gathers_until_the_driver_flushes() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (mut cork, handle) = Cork::new(ours, BytesMut::from(&b"PRI"[..]));
        let mut first = [0; 3];
        cork.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"PRI");
        cork.write_all(b"one").await.unwrap();
        cork.flush().await.unwrap();
        cork.write_all(b"two").await.unwrap();
        assert_eq!(handle.waiting(), (true, 0));
        poll_fn(|cx| handle.poll_flush(cx)).await.unwrap();
        assert_eq!(handle.waiting(), (false, 6));
        let mut got = [0; 16];
        assert_eq!(theirs.read(&mut got).await.unwrap(), 6);
        assert_eq!(&got[..6], b"onetwo");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_holds_the_writer_up_at_the_bound() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let (mut cork, handle) = Cork::new(ours, BytesMut::new());
        let mut taken = 0;
        poll_fn(|cx| {
            while Pin::new(&mut cork).poll_write(cx, &[0; 1024]).is_ready() {
                taken += 1024;
            }
            Poll::Ready(())
        })
        .await;
        assert_eq!(taken, GATHER_BYTES);
        assert_eq!(handle.waiting(), (true, 16));
    }
}
