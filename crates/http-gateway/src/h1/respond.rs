//! Writes a response: its head, then its body as it comes.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use super::body::{AHEAD_BYTES_MAX, Body, BodyState};
use super::encode::{Framing, chunk_head, last_chunk};
use super::file;
use super::slowly;
use super::stream::{Stream, StreamError};
use super::transport::Transport;
use crate::message::{self, FileBody, Headers};
use crate::pace::Pace;
use crate::spool::{Aborted, BodyStream, Piece};
use crate::upload::Upload;
use crate::upstream::Flow;

/// Bodies and pieces up to this are copied behind the head, so that one plain write (or one TLS record) takes both;
/// above, a gathering write is cheaper.
pub(super) const COPY_BYTES_MAX: usize = 4 * 1024;

/// Pieces that are ready at once are gathered up to this before they are written.
const GATHER_BYTES_MAX: usize = 32 * 1024;

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// All of it was handed to the kernel, framed as announced.
    Whole,
    /// All that was announced was sent, but the app has more to say: the connection must not be reused.
    Excess,
    /// Cut short: the client must be able to tell.
    Broken,
}

/// Writes the head that lies in `stream.output`, and `body` behind it as `framing` says; `how` is for
/// streams only.
pub(super) async fn send<T: Transport>(
    stream: &mut Stream<T>,
    body: message::Body,
    framing: Framing,
    mut how: How<'_>,
    sent: &mut u64,
) -> Ended {
    let timeout = how.timeout;
    // A stream looks at each piece.
    let pace = how.pace.take_if(|_| framing != Framing::Nothing && body.known_len().is_some());
    let result = match (framing, body) {
        (_, body) if pace.is_some() => {
            // Boxed: few answers are slowed down, and all would carry the room.
            Box::pin(slowly::body(stream, &body, pace, timeout, sent)).await.map(|()| Ended::Whole)
        }
        (Framing::Nothing, _) | (_, message::Body::Empty) => {
            stream.write(&[], timeout, sent).await.map(|()| Ended::Whole)
        }
        (_, message::Body::Stream(body)) => Sending { stream, framing, how, sent }.stream(body).await,
        (_, message::Body::Bytes(bytes)) if bytes.len() <= COPY_BYTES_MAX => {
            stream.output.extend_from_slice(&bytes);
            let mut all = 0;
            let result = stream.write(&[], timeout, &mut all).await;
            if result.is_ok() {
                *sent = bytes.len() as u64;
            }
            result.map(|()| Ended::Whole)
        }
        (_, message::Body::Bytes(bytes)) => stream.write(&bytes, timeout, sent).await.map(|()| Ended::Whole),
        (_, message::Body::File(body)) => {
            file::send(stream, &body, timeout, sent).await.map(|()| Ended::Whole)
        }
    };
    result.unwrap_or_else(|_| {
        if framing == Framing::UntilClose {
            stream.break_off();
        }
        Ended::Broken
    })
}

/// What else belongs to a response.
pub(super) struct How<'a> {
    /// The client wants the app's trailers.
    pub(super) trailers: bool,
    /// `timeouts.write`.
    pub(super) timeout: Duration,
    /// The app still reads its request.
    pub(super) upload: Option<Uploading<'a>>,
    /// It is sent no faster than this.
    pub(super) pace: Option<Box<Pace>>,
}

/// A request body that goes on while the response does.
pub(super) struct Uploading<'a> {
    pub(super) upload: Upload,
    pub(super) state: &'a mut BodyState,
    /// `timeouts.body`.
    pub(super) timeout: Duration,
}

/// A streamed body on its way.
struct Sending<'a, T> {
    stream: &'a mut Stream<T>,
    framing: Framing,
    how: How<'a>,
    sent: &'a mut u64,
}

impl<T: Transport> Sending<'_, T> {
    async fn stream(mut self, mut body: BodyStream) -> Result<Ended, StreamError> {
        if let Some(flow) = body.take_straight() {
            match self.straight(flow).await? {
                Straight::Ended(ended) => return Ok(ended),
                Straight::Spooled(rest) => body = rest,
            }
        }
        loop {
            let piece = if let Some(piece) = body.try_next() {
                piece
            } else {
                // Nothing more for now: the client gets what there is before we wait.
                self.flush().await?;
                self.wait(&mut body).await?
            };
            match piece {
                Some(Ok(piece)) => {
                    if !self.piece(piece).await? {
                        self.flush().await?;
                        return Ok(Ended::Excess);
                    }
                }
                Some(Err(Aborted)) => {
                    self.flush().await?;
                    return Err(StreamError::Gone);
                }
                None => break,
            }
        }
        self.end(body.take_trailers()).await
    }

    /// Passes on what another server says as it comes, until the client does not take it at once.
    async fn straight(&mut self, flow: Box<Flow>) -> Result<Straight, StreamError> {
        let (mut flow, mut rest) = (Some(flow), None);
        while let Some(reading) = &mut flow {
            let read = match poll_once(reading.next()).await {
                Poll::Ready(read) => read,
                Poll::Pending => {
                    unless_slow(self.flush(), &mut flow, &mut rest).await?;
                    let Some(reading) = &mut flow else { break };
                    self.unless_gone(reading.next()).await?
                }
            };
            match read {
                Some(Ok(piece)) => {
                    if !unless_slow(self.piece(Piece::Bytes(piece)), &mut flow, &mut rest).await? {
                        self.flush().await?;
                        return Ok(Straight::Ended(Ended::Excess));
                    }
                }
                Some(Err(Aborted)) => {
                    self.flush().await?;
                    return Err(StreamError::Gone);
                }
                None => {
                    let trailers = flow.take().and_then(|mut flow| flow.take_trailers());
                    return self.end(trailers).await.map(Straight::Ended);
                }
            }
        }
        rest.map(Straight::Spooled).ok_or(StreamError::Gone)
    }

    /// Behind the last piece.
    async fn end(&mut self, trailers: Option<Headers>) -> Result<Ended, StreamError> {
        if self.framing == Framing::Chunked {
            let trailers = trailers.filter(|_| self.how.trailers);
            last_chunk(&mut self.stream.output, trailers.as_ref());
        }
        self.flush().await?;
        match self.framing {
            // The app promised more.
            Framing::Length(left) if left > 0 => Err(StreamError::Gone),
            _ => Ok(Ended::Whole),
        }
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        // Pieces in the output buffer were counted when they were put there.
        self.stream.write(&[], self.how.timeout, &mut 0).await
    }

    /// The next piece, unless the client goes away before. Meanwhile what it still sends of its body is taken. (Not while we
    /// write: a client that does not read until it has sent everything is held up when our buffers and its are full.)
    async fn wait(&mut self, body: &mut BodyStream) -> Result<Option<Result<Piece, Aborted>>, StreamError> {
        if let Some(Uploading { upload, state, timeout }) = &mut self.how.upload {
            let mut request = Body {
                stream: self.stream,
                state,
                timeout: *timeout,
                write_timeout: *timeout,
                informs: false,
            };
            tokio::select! {
                biased;
                piece = body.next() => return Ok(piece),
                () = upload.forward(&mut request) => {}
            }
            self.how.upload = None;
        }
        self.unless_gone(body.next()).await
    }

    /// What comes next, unless the client goes away before.
    async fn unless_gone<R>(&mut self, next: impl Future<Output = R>) -> Result<R, StreamError> {
        let mut next = pin!(next);
        poll_fn(|context| {
            if let Poll::Ready(piece) = next.as_mut().poll(context) {
                return Poll::Ready(Ok(piece));
            }
            self.stream.poll_closed(context, AHEAD_BYTES_MAX).map(|()| Err(StreamError::Gone))
        })
        .await
    }

    /// Sends or gathers a piece. `false`: the app said more than it announced; what it announced is out.
    async fn piece(&mut self, mut piece: Piece) -> Result<bool, StreamError> {
        let len = match &piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::File(file) => file.len,
        };
        if len == 0 {
            return Ok(true);
        }
        let mut fits = true;
        match &mut self.framing {
            Framing::Length(left) => {
                fits = len <= *left;
                if !fits {
                    piece = shorten(piece, *left);
                }
                *left -= len.min(*left);
            }
            Framing::Chunked => chunk_head(&mut self.stream.output, len),
            Framing::Nothing | Framing::UntilClose => {}
        }
        // `None`: nothing keeps it, or it is paid for.
        let pace = self.how.pace.as_mut().and_then(|pace| slowly::unless_paid(pace, &piece));
        match (piece, pace) {
            (piece, Some(pace)) => {
                let waiting = slowly::piece(self.stream, &piece, pace, self.how.timeout, self.sent);
                Box::pin(waiting).await?;
            }
            (Piece::Bytes(bytes), None) if bytes.len() <= COPY_BYTES_MAX => {
                self.stream.output.extend_from_slice(&bytes);
                *self.sent += bytes.len() as u64;
            }
            (Piece::Bytes(bytes), None) => self.stream.write(&bytes, self.how.timeout, self.sent).await?,
            (Piece::File(body), None) => file::send(self.stream, &body, self.how.timeout, self.sent).await?,
        }
        if self.framing == Framing::Chunked {
            self.stream.output.extend_from_slice(b"\r\n");
        }
        if self.stream.output.len() > GATHER_BYTES_MAX {
            self.flush().await?;
        }
        Ok(fits)
    }
}

/// How the straight way ended.
enum Straight {
    Ended(Ended),
    /// The client is slow: the rest comes from here.
    Spooled(BodyStream),
}

/// Writes; when that has to wait for the client, what is still to be read goes into a spool, `rest`.
async fn unless_slow<R>(
    writing: impl Future<Output = R>,
    flow: &mut Option<Box<Flow>>,
    rest: &mut Option<BodyStream>,
) -> R {
    let mut writing = pin!(writing);
    poll_fn(|context| {
        let written = writing.as_mut().poll(context);
        if written.is_pending()
            && let Some(flow) = flow.take_if(|flow| flow.is_reading())
        {
            *rest = Some(flow.spooled());
        }
        written
    })
    .await
}

/// What a future says without waiting. It must be cancel safe.
async fn poll_once<R>(future: impl Future<Output = R>) -> Poll<R> {
    let mut future = pin!(future);
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// The first `len` bytes of a piece that has more.
fn shorten(piece: Piece, len: u64) -> Piece {
    match piece {
        Piece::Bytes(mut bytes) => {
            bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
            Piece::Bytes(bytes)
        }
        Piece::File(body) => Piece::File(FileBody { len, ..body }),
    }
}
