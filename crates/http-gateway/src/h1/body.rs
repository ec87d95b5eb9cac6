//! The request body as the service pulls it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::chunked::ChunkedDecoder;
use super::encode::informational;
use super::stream::{Stream, StreamError};
use super::transport::Transport;
use crate::message::{BodyError, BodyLength, Headers, RequestBody};

/// One piece read past the input buffer: large enough that a big upload costs few calls.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// What a client may send ahead (pipelined requests) while its request is worked on.
pub(super) const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// A body that the service left unread is read and dropped up to this, to keep the connection; beyond, closing is
/// cheaper for both sides.
const UNREAD_BYTES_MAX: u64 = 256 * 1024;

/// … and for as long as this.
const UNREAD_TIME_MAX: Duration = Duration::from_secs(1);

/// Where in the body the connection stands.
#[derive(Debug)]
enum State {
    Left(u64),
    Chunked(Box<ChunkedDecoder>),
    Done,
    Failed(BodyError),
}

/// The part of a body that outlives the call of the service.
#[derive(Debug)]
pub(super) struct BodyState {
    announced: BodyLength,
    state: State,
    /// What is still to be written of `100 Continue`.
    continue_left: &'static [u8],
}

impl BodyState {
    pub(super) fn new(announced: BodyLength, expects_continue: bool) -> Self {
        let state = match announced {
            BodyLength::None | BodyLength::Known(0) => State::Done,
            BodyLength::Known(length) => State::Left(length),
            BodyLength::Unknown => State::Chunked(Box::default()),
        };
        let continue_left: &[u8] = if expects_continue { b"HTTP/1.1 100 Continue\r\n\r\n" } else { b"" };
        Self { announced, state, continue_left }
    }

    /// Has the whole body been read?
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Was the client asked to send it, if it waits for that?
    pub(super) fn was_asked_for(&self) -> bool {
        self.continue_left.is_empty()
    }

    /// Can the connection be kept after the response? Known before its head is written.
    pub(super) fn allows_keep_alive(&self) -> bool {
        match self.state {
            State::Done => true,
            State::Failed(_) => false,
            // RFC 9110, 10.1.1: without a 100 the client may send the body or not; we could not tell which.
            _ if !self.continue_left.is_empty() => false,
            State::Left(left) => left <= UNREAD_BYTES_MAX,
            State::Chunked(_) => true,
        }
    }

    /// Reads what the service left. `false`: the connection must be closed.
    pub(super) async fn drop_rest<T: Transport>(&mut self, stream: &mut Stream<T>) -> bool {
        if self.is_done() {
            return true;
        }
        let mut body = Body {
            stream,
            state: self,
            timeout: UNREAD_TIME_MAX,
            write_timeout: UNREAD_TIME_MAX,
            informs: false,
        };
        let read = async {
            let mut bytes = 0;
            while let Ok(Some(piece)) = body.chunk().await {
                bytes += piece.len() as u64;
                if bytes > UNREAD_BYTES_MAX {
                    return;
                }
            }
        };
        // Rarely needed, so a timer of its own does no harm.
        let _elapsed = tokio::time::timeout(UNREAD_TIME_MAX, read).await;
        self.is_done()
    }
}

/// A body while the service runs.
pub(super) struct Body<'a, T> {
    pub(super) stream: &'a mut Stream<T>,
    pub(super) state: &'a mut BodyState,
    /// Between two pieces.
    pub(super) timeout: Duration,
    /// For `100 Continue`.
    pub(super) write_timeout: Duration,
    /// The client understands informational responses.
    pub(super) informs: bool,
}

impl<T: Transport> Body<'_, T> {
    /// Data out of the input buffer; `None` when more must be read first.
    fn take_buffered(&mut self) -> Result<Option<Bytes>, BodyError> {
        let buffered = self.stream.buffered();
        let (piece, used) = match &mut self.state.state {
            _ if buffered.is_empty() => return Ok(None),
            State::Left(left) => {
                let len = usize::try_from(*left).unwrap_or(usize::MAX).min(buffered.len());
                let piece = Bytes::copy_from_slice(buffered.get(..len).unwrap_or_default());
                *left -= len as u64;
                if *left == 0 {
                    self.state.state = State::Done;
                }
                (piece, len)
            }
            State::Chunked(decoder) => {
                let mut piece = BytesMut::new();
                let used = decoder.decode(buffered, &mut piece).map_err(|_| BodyError::Malformed)?;
                if decoder.is_done() {
                    self.state.state = State::Done;
                }
                (piece.freeze(), used)
            }
            State::Done | State::Failed(_) => return Ok(None),
        };
        self.stream.consume(used);
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }

    async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            if let State::Failed(error) = self.state.state {
                return Err(error);
            }
            if self.state.is_done() {
                return Ok(None);
            }
            if let Some(piece) = self.take_buffered()? {
                return Ok(Some(piece));
            }
            if self.state.is_done() {
                return Ok(None);
            }
            if !self.state.continue_left.is_empty() {
                self.stream.write_static(&mut self.state.continue_left, self.write_timeout).await?;
            }
            match &mut self.state.state {
                State::Left(left) => {
                    let bytes_max = usize::try_from(*left).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX);
                    let piece = self.stream.read_piece(bytes_max, self.timeout).await?;
                    *left = left.saturating_sub(piece.len() as u64);
                    if *left == 0 {
                        self.state.state = State::Done;
                    }
                    return Ok(Some(piece));
                }
                _ => self.stream.fill(&mut None, self.timeout).await?,
            }
        }
    }
}

impl From<StreamError> for BodyError {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::Ended | StreamError::Gone => Self::Gone,
            StreamError::Timeout => Self::Timeout,
        }
    }
}

impl<T: Transport> RequestBody for Body<'_, T> {
    fn length(&self) -> BodyLength {
        self.state.announced
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        let next = self.next().await;
        if let Err(error) = next {
            self.state.state = State::Failed(error);
        }
        next
    }

    async fn closed(&mut self) {
        self.stream.closed(AHEAD_BYTES_MAX).await;
    }

    async fn inform(&mut self, status: u16, headers: &Headers) {
        // A client that waits for 100 sends its body first; one that has not taken the last hint takes no other.
        if self.informs && self.state.continue_left.is_empty() && self.stream.output.is_empty() {
            informational(&mut self.stream.output, status, headers);
            self.stream.try_write().await;
        }
    }
}
