//! A transport with buffers and deadlines.
//!
//! Bytes are read into a buffer of the thread and copied into the connection's own, which is exactly as large as what
//! has not been understood yet: nothing, while a connection is idle. The timer is armed once and then left alone as
//! long as deadlines only move away, as they do from one request to the next.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::input::{FILLED_BYTES_MAX, Filled, Input, LITTLE_BYTES};
use super::transport::Transport;

/// One read takes this much: more than nearly all heads, and little enough to stay in the processor's cache.
const READ_BYTES: usize = 16 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// Why reading or writing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamError {
    /// Reading: the other side has said all it had to. (TLS says so, too: an end without that is a connection that broke.)
    Ended,
    /// The connection broke.
    Gone,
    /// Nothing moved for too long.
    Timeout,
}

impl From<io::Error> for StreamError {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// See the head of this file.
pub(crate) struct Stream<T> {
    transport: T,
    input: Input,
    /// Bytes to be written before everything else.
    pub(crate) output: Vec<u8>,
    timer: Timer,
}

impl<T: Transport> Stream<T> {
    pub(crate) fn new(transport: T, already_read: Vec<u8>) -> Self {
        let input = Input::Own { bytes: already_read, start: 0 };
        Self { transport, input, output: Vec::new(), timer: Timer(None) }
    }

    /// What was read and not consumed.
    pub(crate) fn buffered(&self) -> &[u8] {
        self.input.bytes()
    }

    /// Takes all of [`Self::buffered`].
    pub(crate) fn take_buffered(&mut self) -> Bytes {
        self.input.take()
    }

    /// Ready when `deadline` is over, which starts `timeout` from now when it is not set yet.
    pub(crate) fn poll_deadline(
        &mut self,
        context: &mut Context<'_>,
        deadline: &mut Option<Instant>,
        timeout: Duration,
    ) -> Poll<()> {
        self.timer.poll::<()>(context, deadline, timeout).map(drop)
    }

    /// Marks the first `bytes` of [`Self::buffered`] as done.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.input.consume(bytes);
    }

    /// Gives the memory of empty buffers back.
    pub(crate) fn release(&mut self) {
        if self.buffered().is_empty() {
            self.input = Input::default();
        }
        if self.output.is_empty() {
            self.output = Vec::new();
        }
    }

    /// Reads once into the input buffer.
    pub(crate) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.transport).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Err(StreamError::Ended));
            }
            self.input.append(read.filled());
            Poll::Ready(Ok(()))
        })
    }

    /// As [`Self::poll_fill`], but takes as much as one read brings, where nothing is there yet: for what is mostly passed on.
    pub(crate) fn poll_fill_much(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        if !self.buffered().is_empty() {
            return self.poll_fill(context);
        }
        let filled = ready!(Filled::poll_read(&mut self.transport, context, FILLED_BYTES_MAX))?;
        self.input = Input::Filled(filled.ok_or(StreamError::Ended)?);
        Poll::Ready(Ok(()))
    }

    /// Reads once, until `deadline`, which starts `timeout` from now when it is not set yet and nothing is there.
    /// Cancel safe.
    pub(crate) async fn fill(
        &mut self,
        deadline: &mut Option<Instant>,
        timeout: Duration,
    ) -> Result<(), StreamError> {
        poll_fn(|context| self.poll_fill_until(context, deadline, timeout)).await
    }

    /// See [`Self::fill`].
    pub(crate) fn poll_fill_until(
        &mut self,
        context: &mut Context<'_>,
        deadline: &mut Option<Instant>,
        timeout: Duration,
    ) -> Poll<Result<(), StreamError>> {
        match self.poll_fill(context) {
            Poll::Pending => self.timer.poll(context, deadline, timeout),
            Poll::Ready(done) => Poll::Ready(done),
        }
    }

    /// Reads once, past the input buffer (which must be empty), at most `bytes_max`. Cancel safe.
    pub(crate) async fn read_piece(
        &mut self,
        bytes_max: usize,
        timeout: Duration,
    ) -> Result<Bytes, StreamError> {
        let mut deadline = None;
        if bytes_max <= LITTLE_BYTES {
            return self.read_little(bytes_max, timeout).await;
        }
        poll_fn(|context| match Filled::poll_read(&mut self.transport, context, bytes_max) {
            Poll::Ready(Ok(Some(filled))) => Poll::Ready(Ok(filled.into_bytes())),
            Poll::Ready(Ok(None)) => Poll::Ready(Err(StreamError::Ended)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => self.timer.poll(context, &mut deadline, timeout),
        })
        .await
    }

    /// The same into memory of its own.
    async fn read_little(&mut self, bytes_max: usize, timeout: Duration) -> Result<Bytes, StreamError> {
        let mut piece = BytesMut::with_capacity(bytes_max);
        let mut deadline = None;
        poll_fn(|context| {
            let read = pin!(self.transport.read_buf(&mut piece)).poll(context);
            match read {
                Poll::Ready(Ok(0)) => Poll::Ready(Err(StreamError::Ended)),
                Poll::Ready(read) => Poll::Ready(read.map(drop).map_err(StreamError::from)),
                Poll::Pending => self.timer.poll(context, &mut deadline, timeout),
            }
        })
        .await?;
        // Who sends little at a time must not make its pieces hold much.
        let is_sparse = piece.len() < piece.capacity() / 4;
        Ok(if is_sparse { Bytes::copy_from_slice(&piece) } else { piece.freeze() })
    }

    /// Resolves when the client is gone. Meanwhile takes what it sends ahead, up to `bytes_max`; beyond, it can not
    /// be seen any more. Cancel safe.
    pub(crate) async fn closed(&mut self, bytes_max: usize) {
        poll_fn(|context| self.poll_closed(context, bytes_max)).await;
    }

    /// See [`Self::closed`].
    pub(crate) fn poll_closed(&mut self, context: &mut Context<'_>, bytes_max: usize) -> Poll<()> {
        while self.buffered().len() < bytes_max {
            if ready!(self.poll_fill(context)).is_err() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Writes the output buffer and then `body`, in one call where the kernel takes it. `timeout` starts anew
    /// whenever bytes move. Adds the bytes of `body` that were taken to `sent`.
    pub(crate) async fn write(
        &mut self,
        body: &[u8],
        timeout: Duration,
        sent: &mut u64,
    ) -> Result<(), StreamError> {
        let head_bytes = self.output.len();
        let mut written = 0;
        let mut deadline = None;
        let result = poll_fn(|context| {
            while written < head_bytes + body.len() {
                let head = self.output.get(written..).unwrap_or_default();
                let rest = body.get(written.saturating_sub(head_bytes)..).unwrap_or_default();
                let transport = Pin::new(&mut self.transport);
                let step = if head.is_empty() {
                    transport.poll_write(context, rest)
                } else if rest.is_empty() {
                    transport.poll_write(context, head)
                } else {
                    transport.poll_write_vectored(context, &[IoSlice::new(head), IoSlice::new(rest)])
                };
                match step {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(StreamError::Gone)),
                    Poll::Ready(Ok(bytes)) => {
                        written += bytes;
                        deadline = None;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => return self.timer.poll(context, &mut deadline, timeout),
                }
            }
            match Pin::new(&mut self.transport).poll_flush(context) {
                Poll::Ready(done) => Poll::Ready(done.map_err(StreamError::from)),
                Poll::Pending => self.timer.poll(context, &mut deadline, timeout),
            }
        })
        .await;
        *sent += written.saturating_sub(head_bytes) as u64;
        self.output.clear();
        result
    }

    /// Writes `bytes`, which are shortened by what was taken; ready when nothing of them is left anywhere here.
    pub(crate) fn poll_send(
        &mut self,
        context: &mut Context<'_>,
        bytes: &mut (impl Buf + ?Sized),
    ) -> Poll<Result<(), StreamError>> {
        while bytes.has_remaining() {
            match ready!(Pin::new(&mut self.transport).poll_write(context, bytes.chunk()))? {
                0 => return Poll::Ready(Err(StreamError::Gone)),
                taken => bytes.advance(taken),
            }
        }
        Pin::new(&mut self.transport).poll_flush(context).map_err(StreamError::from)
    }

    /// Writes of the output buffer what goes without waiting; the next write sends the rest.
    pub(crate) async fn try_write(&mut self) {
        poll_fn(|context| {
            while let Poll::Ready(Ok(bytes @ 1..)) =
                Pin::new(&mut self.transport).poll_write(context, &self.output)
            {
                self.output.drain(..bytes);
                if self.output.is_empty() {
                    break;
                }
            }
            let _the_next_write_sees_errors = Pin::new(&mut self.transport).poll_flush(context);
            Poll::Ready(())
        })
        .await;
    }

    /// Writes the output buffer; other bytes follow at once.
    pub(crate) async fn write_more(&mut self, timeout: Duration) -> Result<(), StreamError> {
        let mut written = 0;
        let mut deadline = None;
        let result = poll_fn(|context| {
            while written < self.output.len() {
                let rest = self.output.get(written..).unwrap_or_default();
                match self.transport.poll_write_more(context, rest) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(StreamError::Gone)),
                    Poll::Ready(Ok(bytes)) => {
                        written += bytes;
                        deadline = None;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => return self.timer.poll(context, &mut deadline, timeout),
                }
            }
            Poll::Ready(Ok(()))
        })
        .await;
        self.output.clear();
        result
    }

    /// Writes a part of `bytes`, which is shortened by it. Cancel safe: for what must not be sent twice.
    pub(crate) async fn write_static(
        &mut self,
        bytes: &mut &'static [u8],
        timeout: Duration,
    ) -> Result<(), StreamError> {
        let mut deadline = None;
        poll_fn(|context| {
            while !bytes.is_empty() {
                match Pin::new(&mut self.transport).poll_write(context, bytes) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(StreamError::Gone)),
                    Poll::Ready(Ok(taken)) => *bytes = bytes.get(taken..).unwrap_or_default(),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                    Poll::Pending => return self.timer.poll(context, &mut deadline, timeout),
                }
            }
            match Pin::new(&mut self.transport).poll_flush(context) {
                Poll::Ready(done) => Poll::Ready(done.map_err(StreamError::from)),
                Poll::Pending => self.timer.poll(context, &mut deadline, timeout),
            }
        })
        .await
    }

    /// Sends a part of a file within the kernel; see [`Transport::poll_send_file`].
    pub(crate) async fn send_file(
        &mut self,
        file: &std::fs::File,
        offset: u64,
        len: usize,
        timeout: Duration,
    ) -> Result<usize, StreamError> {
        let mut deadline = None;
        let mut taken = 0;
        poll_fn(|context| match self.transport.poll_send_file(context, file, offset, len) {
            Poll::Ready(Ok(bytes)) => {
                taken = bytes;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => self.timer.poll(context, &mut deadline, timeout),
        })
        .await?;
        Ok(taken)
    }

    /// Makes the close that follows a reset.
    pub(crate) fn break_off(&mut self) {
        self.transport.break_off();
    }

    /// Closes our side.
    pub(crate) async fn shutdown(&mut self, timeout: Duration) -> Result<(), StreamError> {
        let mut deadline = None;
        poll_fn(|context| match Pin::new(&mut self.transport).poll_shutdown(context) {
            Poll::Ready(done) => Poll::Ready(done.map_err(StreamError::from)),
            Poll::Pending => self.timer.poll(context, &mut deadline, timeout),
        })
        .await
    }

    /// Reads and drops until the client closes, is silent for `silence_max`, or `until`.
    pub(crate) async fn discard(&mut self, silence_max: Duration, until: Instant) {
        self.input.clear();
        loop {
            let mut deadline = Some(until.min(Instant::now() + silence_max));
            if self.fill(&mut deadline, silence_max).await.is_err() || Instant::now() >= until {
                return;
            }
            self.input.clear();
        }
    }
}

/// One timer for all deadlines of a connection.
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Ready with [`StreamError::Timeout`] when `deadline` is over.
    fn poll<R>(
        &mut self,
        context: &mut Context<'_>,
        deadline: &mut Option<Instant>,
        timeout: Duration,
    ) -> Poll<Result<R, StreamError>> {
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + timeout);
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        // A timer that is early costs a wake-up now and then; moving it for each request would cost each request.
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(context));
            if sleep.deadline() >= deadline {
                return Poll::Ready(Err(StreamError::Timeout));
            }
            sleep.as_mut().reset(deadline);
        }
    }
}
