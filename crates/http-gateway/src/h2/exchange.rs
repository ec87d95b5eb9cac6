//! One stream: its request body in, the service, its response out.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use ctl_config::Config;
use futures_util::future::{Either, select};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::request::Parts;
use tokio::time::timeout;

use super::request;
use super::response::{self, BadResponse, Follows};
use crate::drain::Drain;
use crate::extra_fields::is_trailer;
use crate::file_read::read_piece;
use crate::h1::parse::HeadLimits;
use crate::message::{
    Body, BodyError, BodyLength, Connection, Exchange, FileBody, Headers, RequestBody, RequestHead, Response,
    Service, Trail,
};
use crate::pace::{Pace, Paces};
use crate::spool::{BodyStream, Piece};

/// A body in memory up to this is handed to the `h2` crate whole where the client's windows have room for it. Else, and larger ones, go
/// as the windows allow, so that what is stuck is noticed: each stream keeps its own clock, whatever the others do.
const WHOLE_BYTES_MAX: usize = 16 << 10;

/// Asked of the window at once.
pub(super) const WINDOW_BYTES: usize = 64 << 10;

/// What the streams of a connection share.
pub(super) struct Exchanges<'a, S> {
    pub(super) service: &'a S,
    pub(super) config: &'a Config,
    pub(super) limits: HeadLimits,
    pub(super) connection: Connection,
    pub(super) drain: Drain,
    pub(super) paces: Paces,
}

/// The client is gone, or must be told by a reset that the response is not whole.
enum Broken {
    Gone,
    Reset(Reason),
}

impl<S: Service> Exchanges<'_, S> {
    /// From the request's head to the response's last byte.
    pub(super) async fn run(&self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (parts, incoming) = request.into_parts();
        let head_only = parts.method == http::Method::HEAD;
        let (head, expects_continue) = match request::convert(&parts, &self.limits) {
            Ok(converted) => converted,
            Err(refusal) => {
                let response = self.service.refuse(&self.connection, refusal.status, refusal.why);
                self.answer(respond, None, head_only, response).await;
                return;
            }
        };
        if request::is_extended_connect(&parts) {
            drop(parts);
            return Box::pin(self.websocket(head, incoming, respond)).await;
        }
        let mut body = StreamBody {
            length: length(&parts, &incoming),
            incoming,
            respond,
            patience: self.config.timeouts.body,
            continue_due: expects_continue,
        };
        drop(parts);
        let mut response = self.service.call(&self.connection, &head, &mut body).await;
        let upload = match &mut response.body {
            Body::Stream(stream) if !body.continue_due => stream.take_upload(),
            _ => None,
        };
        // What the client still sends of its body is nobody's business any more, unless the app reads on: dropping it lets the
        // window go, and after the response resets the stream with NO_ERROR (RFC 9113, 8.1).
        let StreamBody { respond, incoming, patience, .. } = body;
        let mut rest = RestOfBody { incoming, patience };
        let answering = self.answer(respond, Some(&head), head_only, response);
        if let Some(mut upload) = upload {
            let answering = pin!(answering);
            let uploading = pin!(upload.forward(&mut rest));
            if let Either::Right(((), answering)) = select(answering, uploading).await {
                answering.await;
            }
        } else {
            answering.await;
        }
        drop(rest);
    }

    pub(super) async fn answer(
        &self,
        mut respond: SendResponse<Bytes>,
        request: Option<&RequestHead>,
        head_only: bool,
        response: Response,
    ) {
        if response.is_silence() {
            self.service.finished(&Exchange {
                connection: &self.connection,
                head: request,
                status: response.status,
                body_bytes_sent: 0,
                complete: false,
                trail: &response.trail,
            });
            return respond.send_reset(Reason::ENHANCE_YOUR_CALM);
        }
        let (mut response, head, follows) =
            match response::convert(&response, head_only, &crate::h1::date::now()) {
                Ok((head, follows)) => (response, head, follows),
                Err(BadResponse(why)) => {
                    let request_id = &*response.trail.request_id;
                    tracing::error!(request_id, why, "the app's response cannot be sent: answered 502");
                    let instead =
                        Response { trail: response.trail, ..self.service.refuse(&self.connection, 502, why) };
                    match response::convert(&instead, head_only, &crate::h1::date::now()) {
                        Ok((head, follows)) => (instead, head, follows),
                        Err(_) => return respond.send_reset(Reason::INTERNAL_ERROR),
                    }
                }
            };
        let pace = self.paces.of(&self.config.limits, &mut response);
        let mut told = Told {
            exchanges: self,
            request,
            response: Outcome { status: response.status, trail: response.trail, sent: 0, complete: false },
        };
        let ends = follows == Follows::Nothing;
        // Fails when the client is gone or has reset the stream.
        let Ok(mut send) = respond.send_response(head, ends) else { return };
        let Follows::Body(announced) = follows else {
            told.response.complete = true;
            return;
        };
        let patience = self.config.timeouts.write;
        let mut out = Out { send: &mut send, patience, announced, sent: 0, pace };
        let outcome = out.body(response.body).await;
        told.response.sent = out.sent;
        match outcome {
            Ok(()) => told.response.complete = true,
            Err(Broken::Gone) => {}
            Err(Broken::Reset(reason)) => send.send_reset(reason),
        }
    }
}

/// What is told to the service, whatever the end.
pub(super) struct Told<'a, S: Service> {
    pub(super) exchanges: &'a Exchanges<'a, S>,
    pub(super) request: Option<&'a RequestHead>,
    pub(super) response: Outcome,
}

pub(super) struct Outcome {
    pub(super) status: u16,
    pub(super) trail: Trail,
    pub(super) sent: u64,
    pub(super) complete: bool,
}

impl<S: Service> Drop for Told<'_, S> {
    fn drop(&mut self) {
        let Outcome { status, trail, sent, complete } = &self.response;
        self.exchanges.service.finished(&Exchange {
            connection: &self.exchanges.connection,
            head: self.request,
            status: *status,
            body_bytes_sent: *sent,
            complete: *complete,
            trail,
        });
    }
}

/// A response body on its way into the stream.
struct Out<'a> {
    send: &'a mut SendStream<Bytes>,
    patience: Duration,
    announced: Option<u64>,
    sent: u64,
    pace: Option<Box<Pace>>,
}

impl Out<'_> {
    async fn body(&mut self, body: Body) -> Result<(), Broken> {
        match body {
            Body::Empty => self.end(None),
            Body::Bytes(bytes) => self.bytes(bytes, true).await,
            Body::File(file) => self.file(file, true).await,
            Body::Stream(stream) => self.stream(stream).await,
        }
    }

    /// Sends `bytes`; `last`: they end the stream.
    async fn bytes(&mut self, mut bytes: Bytes, last: bool) -> Result<(), Broken> {
        if self.announced.is_some_and(|announced| self.sent + bytes.len() as u64 > announced) {
            // More than Content-Length said: the client could not tell.
            return Err(Broken::Reset(Reason::INTERNAL_ERROR));
        }
        if last && (bytes.is_empty() || (bytes.len() <= WHOLE_BYTES_MAX && self.goes_at_once(bytes.len()))) {
            self.sent += bytes.len() as u64;
            return self.send.send_data(bytes, true).map_err(|_| Broken::Gone);
        }
        while !bytes.is_empty() {
            let allowed = match &mut self.pace {
                None => bytes.len(),
                Some(pace) => turn(pace, self.send, bytes.len()).await?,
            };
            let room = self.room(allowed).await?;
            let piece = bytes.split_to(room.min(allowed).min(bytes.len()));
            if let Some(pace) = &mut self.pace {
                pace.spent(piece.len() as u64);
            }
            self.sent += piece.len() as u64;
            self.send.send_data(piece, last && bytes.is_empty()).map_err(|_| Broken::Gone)?;
        }
        Ok(())
    }

    fn goes_at_once(&mut self, len: usize) -> bool {
        self.pace.is_none() && {
            self.send.reserve_capacity(len);
            self.send.capacity() >= len
        }
    }

    /// Waits for the client's window.
    async fn room(&mut self, wanted: usize) -> Result<usize, Broken> {
        self.send.reserve_capacity(wanted.min(WINDOW_BYTES));
        if self.send.capacity() > 0 {
            return Ok(self.send.capacity());
        }
        match timeout(self.patience, poll_fn(|cx| self.send.poll_capacity(cx))).await {
            Ok(Some(Ok(room))) => Ok(room),
            Ok(Some(Err(_)) | None) => Err(Broken::Gone),
            // The client takes nothing: `timeouts.write`.
            Err(_) => Err(Broken::Reset(Reason::CANCEL)),
        }
    }

    async fn file(&mut self, file: FileBody, last: bool) -> Result<(), Broken> {
        let FileBody { file, mut offset, mut len } = file;
        while len > 0 {
            let piece = match read_piece(&file, offset, len).await {
                Ok(piece) => piece,
                Err(error) => {
                    tracing::warn!(%error, "a file broke off while it was sent");
                    return Err(Broken::Reset(Reason::INTERNAL_ERROR));
                }
            };
            offset += piece.len() as u64;
            len -= piece.len() as u64;
            self.bytes(piece, last && len == 0).await?;
        }
        Ok(())
    }

    async fn stream(&mut self, mut stream: BodyStream) -> Result<(), Broken> {
        loop {
            // While the app is silent only a reset tells that the client is gone.
            let piece = tokio::select! {
                biased;
                piece = stream.next() => piece,
                _reason = poll_fn(|cx| self.send.poll_reset(cx)) => return Err(Broken::Gone),
            };
            match piece {
                Some(Ok(Piece::Bytes(bytes))) => self.bytes(bytes, false).await?,
                Some(Ok(Piece::File(file))) => self.file(file, false).await?,
                Some(Err(_aborted)) => return Err(Broken::Reset(Reason::INTERNAL_ERROR)),
                None => return self.end(stream.take_trailers()),
            }
        }
    }

    /// Trailers, or an empty frame, end the stream, if all that was announced has been sent.
    fn end(&mut self, trailers: Option<Headers>) -> Result<(), Broken> {
        if self.announced.is_some_and(|announced| announced != self.sent) {
            return Err(Broken::Reset(Reason::INTERNAL_ERROR));
        }
        match trailers.map(|fields| response::extra_fields(&fields, is_trailer)) {
            Some(fields) if !fields.is_empty() => self.send.send_trailers(fields),
            _ => self.send.send_data(Bytes::new(), true),
        }
        .map_err(|_| Broken::Gone)
    }
}

/// Waits for the stream's turn at the connection's bandwidth, unless the client resets it: many that are reset would pile up here.
async fn turn(pace: &mut Pace, send: &mut SendStream<Bytes>, wanted: usize) -> Result<usize, Broken> {
    if let Some(bytes) = pace.try_allow(wanted as u64) {
        return Ok(usize::try_from(bytes).unwrap_or(wanted));
    }
    // Boxed: few answers wait, and all would carry the room.
    let waiting = Box::pin(async {
        tokio::select! {
            biased;
            _reason = poll_fn(|cx| send.poll_reset(cx)) => Err(Broken::Gone),
            bytes = pace.allow(wanted as u64) => Ok(usize::try_from(bytes).unwrap_or(wanted)),
        }
    });
    waiting.await
}

/// RFC 9113, 8.1.1: the `h2` crate compares what comes with what was announced and resets the stream where they differ.
fn length(parts: &Parts, incoming: &RecvStream) -> BodyLength {
    if incoming.is_end_stream() {
        return BodyLength::None;
    }
    let announced = parts.headers.get(http::header::CONTENT_LENGTH);
    match announced.and_then(|value| value.to_str().ok()).and_then(|digits| digits.parse().ok()) {
        Some(length) => BodyLength::Known(length),
        None => BodyLength::Unknown,
    }
}

/// A request body as the service pulls it.
struct StreamBody {
    incoming: RecvStream,
    respond: SendResponse<Bytes>,
    length: BodyLength,
    patience: Duration,
    continue_due: bool,
}

impl RequestBody for StreamBody {
    fn length(&self) -> BodyLength {
        self.length
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        if self.length == BodyLength::None {
            return Ok(None);
        }
        if std::mem::take(&mut self.continue_due) {
            let mut head = http::Response::new(());
            *head.status_mut() = http::StatusCode::CONTINUE;
            self.respond.send_informational(head).map_err(|_| BodyError::Gone)?;
        }
        pull(&mut self.incoming, self.patience).await
    }

    async fn inform(&mut self, status: u16, headers: &Headers) {
        if let Some(head) = response::informational(status, headers) {
            // Fails when the client has reset the stream, which is noticed elsewhere.
            let _ = self.respond.send_informational(head);
        }
    }

    async fn closed(&mut self) {
        poll_fn(|cx| match self.respond.poll_reset(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        })
        .await;
    }
}

/// What comes of a request's body while it is answered.
struct RestOfBody {
    incoming: RecvStream,
    patience: Duration,
}

impl RequestBody for RestOfBody {
    fn length(&self) -> BodyLength {
        BodyLength::Unknown
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        pull(&mut self.incoming, self.patience).await
    }

    async fn closed(&mut self) {
        // The answer notices.
        std::future::pending::<()>().await;
    }
}

async fn pull(incoming: &mut RecvStream, patience: Duration) -> Result<Option<Bytes>, BodyError> {
    match timeout(patience, incoming.data()).await {
        Ok(Some(Ok(bytes))) => {
            // The window opens again as the service takes: how much it keeps is its own bound.
            let _fails_when_reset = incoming.flow_control().release_capacity(bytes.len());
            Ok(Some(bytes))
        }
        // Trailers, if any, are ignored.
        Ok(None) => Ok(None),
        Ok(Some(Err(_))) => Err(BodyError::Gone),
        Err(_) => Err(BodyError::Timeout),
    }
}
