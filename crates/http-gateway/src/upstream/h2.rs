//! HTTP/2 to upstreams, by the `h2` crate: one request in a stream, and its answer.
//!
//! Framing and flow control are the crate's, and it compares what comes with what was announced. What is the same as over
//! HTTP/1.1 is the same code: what is said of a request (`request.rs`), where its body comes from (`outgoing.rs`), the clocks.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use ctl_telemetry::metrics::UpstreamMetrics;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::warn;

use super::exchange::{CONTINUE_WAIT, INFORMATIONAL_MAX, Lost, Patience};
use super::outgoing::Outgoing;
use super::parse::{Answer, BadAnswer, Framing};
use super::pump::{Bounds, SILENT, Short, blame, push};
use super::session::Lease;
use crate::h1::parse_content_length;
use crate::message::{BodyError, Headers, RequestBody};
use crate::request_id::RequestId;
use crate::spool::{Aborted, Writer};
use crate::upload::Coming;

/// Asked of the server's window at once.
const WINDOW_BYTES: usize = 64 << 10;

/// Fields that HTTP/2 does not have (RFC 9113, 8.2.2): an answer that has one is malformed.
const OF_HTTP1: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// The request's side of a stream.
pub(super) struct Sending {
    send: SendStream<Bytes>,
    pub(super) out: Outgoing,
    /// The end has been sent.
    over: bool,
}

impl Sending {
    /// Hands on what is ready, as the server's window allows.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ()>> {
        while self.out.ready.has_remaining() {
            let wanted = self.out.ready.len();
            self.send.reserve_capacity(wanted.min(WINDOW_BYTES));
            let mut room = self.send.capacity();
            if room == 0 {
                room = match ready!(self.send.poll_capacity(context)) {
                    Some(Ok(room)) => room,
                    Some(Err(_)) | None => return Poll::Ready(Err(())),
                };
            }
            let piece = self.out.ready.split_to(room.min(wanted));
            if !piece.is_empty() && self.send.send_data(piece, false).is_err() {
                return Poll::Ready(Err(()));
            }
        }
        self.out.sending = false;
        Poll::Ready(Ok(()))
    }

    /// Takes the next piece from where it lies, and ends the stream's half when there is none.
    async fn refill(&mut self) -> std::io::Result<()> {
        self.out.refill().await?;
        if self.out.is_done() && !self.over {
            self.over = true;
            // Fails when the server has reset the stream, which the answer tells.
            let _ = self.send.send_data(Bytes::new(), true);
        }
        Ok(())
    }

    /// The server takes no more, or the client sends no more: the stream must not look whole.
    fn give_up(&mut self) {
        self.out.give_up();
        if !self.over {
            self.over = true;
            self.send.send_reset(Reason::CANCEL);
        }
    }
}

/// What happened while a head was waited for.
enum Happened {
    Sent,
    Refused,
    Informed(http::Response<()>),
    Answered(Result<http::Response<RecvStream>, h2::Error>),
    Client(Result<Option<Bytes>, BodyError>),
    ClientGone,
    Still,
}

/// Sends a request and waits for the answer's head; hints are passed on. `pulled` says whether some of the client's body was
/// taken.
pub(super) async fn ask<B: RequestBody>(
    lease: &mut Lease,
    request: http::Request<()>,
    mut out: Outgoing,
    body: &mut B,
    patience: Patience,
    pulled: &mut bool,
) -> Result<(http::Response<RecvStream>, Sending), (Lost, bool)> {
    let ends = out.is_done();
    let sent = lease.sender.send_request(request, ends);
    let (mut response, send) = sent.map_err(|error| lost(&error, true))?;
    out.touched = true;
    let mut sending = Sending { send, out, over: ends };
    let is_streamed = sending.out.is_clients();
    let mut since = Instant::now();
    let mut informational = 0;
    loop {
        sending.refill().await.map_err(|error| (Lost::Disk(error), false))?;
        let out = &sending.out;
        let clients_turn = out.wants_client();
        let until = if out.awaits_continue && !out.sending {
            Some(CONTINUE_WAIT)
        } else if out.sending {
            Some(patience.idle)
        } else {
            (!clients_turn).then_some(patience.response)
        };
        let streams = is_streamed && out.is_clients();
        let happened = tokio::select! {
            biased;
            happened = poll_fn(|context| poll(context, &mut sending, &mut response)) => happened,
            said = client(body, clients_turn, streams) => said,
            () = sleep_until(since + until.unwrap_or_default()), if until.is_some() => Happened::Still,
        };
        match happened {
            Happened::Answered(Ok(response)) => return Ok((response, sending)),
            Happened::Answered(Err(error)) => return Err(lost(&error, false)),
            Happened::Informed(head) => {
                informational += 1;
                if informational > INFORMATIONAL_MAX {
                    let why = BadAnswer("there are too many informational responses");
                    return Err((Lost::Bad(why), false));
                }
                match head.status().as_u16() {
                    100 => sending.out.awaits_continue = false,
                    103 => body.inform(103, &fields(head.headers())).await,
                    // RFC 9110, 15.2: one that is not understood is ignored.
                    _ => {}
                }
            }
            Happened::Sent => since = Instant::now(),
            // What it says next may be the reason.
            Happened::Refused => {
                sending.out.give_up();
                (sending.over, since) = (true, Instant::now());
            }
            Happened::Client(Ok(piece)) => {
                *pulled = true;
                since = Instant::now();
                sending.out.take_piece(piece).map_err(|error| (Lost::Client(error), false))?;
            }
            Happened::Client(Err(error)) => return Err((Lost::Client(error), false)),
            Happened::ClientGone => return Err((Lost::ClientGone, false)),
            Happened::Still if sending.out.awaits_continue && !sending.out.sending => {
                sending.out.awaits_continue = false;
                since = Instant::now();
            }
            Happened::Still if sending.out.sending => return Err((Lost::Stalled, false)),
            Happened::Still => return Err((Lost::TimedOut, false)),
        }
    }
}

fn poll(context: &mut Context<'_>, sending: &mut Sending, response: &mut ResponseFuture) -> Poll<Happened> {
    if let Poll::Ready(Some(Ok(head))) = response.poll_informational(context) {
        return Poll::Ready(Happened::Informed(head));
    }
    if let Poll::Ready(answered) = Pin::new(response).poll(context) {
        return Poll::Ready(Happened::Answered(answered));
    }
    if sending.out.sending {
        return sending.poll(context).map(|sent| sent.map_or(Happened::Refused, |()| Happened::Sent));
    }
    Poll::Pending
}

async fn client<B: RequestBody>(body: &mut B, is_its_turn: bool, is_streamed: bool) -> Happened {
    if is_its_turn {
        Happened::Client(body.chunk().await)
    } else if is_streamed {
        // What it sends meanwhile is its body: it must stay where it is.
        std::future::pending().await
    } else {
        body.closed().await;
        Happened::ClientGone
    }
}

/// Why there is no answer, and whether the server can have done nothing of what was asked (RFC 9113, 8.7).
fn lost(error: &h2::Error, unsent: bool) -> (Lost, bool) {
    let untouched = unsent
        || error.reason() == Some(Reason::REFUSED_STREAM)
        || (error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR));
    let lost = match error.reason() {
        // The crate ends what the server malforms so.
        Some(Reason::PROTOCOL_ERROR) if error.is_library() => {
            Lost::Bad(BadAnswer("the answer breaks the rules of HTTP/2"))
        }
        _ => Lost::Closed,
    };
    (lost, untouched)
}

fn fields(from: &http::HeaderMap) -> Headers {
    let mut headers = Headers::with_capacity(from.len(), 512);
    for (name, value) in from {
        headers.push(name.as_str().as_bytes(), value.as_bytes());
    }
    headers
}

/// The head as HTTP/1.1's would be; a body of an unknown length is `Chunked`.
pub(super) fn answer(head: &http::Response<RecvStream>, head_only: bool) -> Result<Answer, BadAnswer> {
    let status = head.status().as_u16();
    if !(200..=599).contains(&status) {
        return Err(BadAnswer("the status is not within 200 and 599"));
    }
    if OF_HTTP1.iter().any(|name| head.headers().contains_key(*name)) {
        return Err(BadAnswer("the answer has a field that HTTP/2 does not have"));
    }
    let mut lengths = head.headers().get_all(http::header::CONTENT_LENGTH).iter();
    let length = match (lengths.next(), lengths.next()) {
        (None, _) => None,
        (Some(length), None) => {
            let length = parse_content_length(length.as_bytes());
            Some(length.ok_or(BadAnswer("Content-Length is malformed or there twice"))?)
        }
        (Some(_), Some(_)) => return Err(BadAnswer("Content-Length is malformed or there twice")),
    };
    if status == 204 && length.is_some_and(|length| length > 0) {
        return Err(BadAnswer("a response that has no body announces one"));
    }
    let framing = match length {
        _ if head_only || matches!(status, 204 | 304) => Framing::Nothing,
        Some(length) => Framing::Length(length),
        None if head.body().is_end_stream() => Framing::Length(0),
        None => Framing::Chunked,
    };
    let headers = fields(head.headers());
    Ok(Answer { status, reason: Box::default(), headers, framing, keep_alive: true, websocket: false })
}

/// The server's side of a stream, behind its head.
pub(super) struct Incoming {
    recv: RecvStream,
    over: bool,
    trailers: Option<Headers>,
}

impl Incoming {
    /// The next data; empty at the end. Cancel safe.
    async fn data(&mut self) -> Result<Bytes, BadAnswer> {
        const BROKEN: BadAnswer = BadAnswer("the stream broke within the response");
        loop {
            match self.recv.data().await {
                Some(Ok(bytes)) => {
                    // Fails when the stream was reset, which the next call tells.
                    let _ = self.recv.flow_control().release_capacity(bytes.len());
                    if !bytes.is_empty() {
                        return Ok(bytes);
                    }
                }
                Some(Err(_)) => return Err(BROKEN),
                None => break,
            }
        }
        let trailers = self.recv.trailers().await.map_err(|_| BROKEN)?;
        self.trailers = trailers.map(|trailers| fields(&trailers)).filter(|trailers| !trailers.is_empty());
        self.over = true;
        Ok(Bytes::new())
    }
}

/// A body on its way. Dropping it resets the stream, if it is not over.
pub(super) struct Body {
    pub(super) lease: Lease,
    incoming: Incoming,
    sending: Sending,
}

impl Body {
    pub(super) fn new(lease: Lease, recv: RecvStream, sending: Sending, framing: Framing) -> Self {
        let over = framing == Framing::Nothing || (recv.is_end_stream() && framing == Framing::Length(0));
        Self { lease, incoming: Incoming { recv, over, trailers: None }, sending }
    }

    /// Has all of it come, with nothing behind it?
    pub(super) fn is_whole(&self) -> bool {
        self.incoming.over && self.incoming.trailers.is_none()
    }

    /// Does some of the request come from the client still?
    pub(super) fn is_clients(&self) -> bool {
        self.sending.out.is_clients()
    }

    /// That it broke off is the server's fault.
    pub(super) fn blame(&mut self) {
        blame(self.lease.pick.as_mut());
    }

    /// What comes until then, up to `bytes_max`.
    pub(super) async fn first(&mut self, until: Instant, bytes_max: usize) -> Result<Bytes, BadAnswer> {
        let mut first = Bytes::new();
        while !self.incoming.over && first.len() < bytes_max {
            let Ok(piece) = timeout_at(until, self.incoming.data()).await else { break };
            let piece = piece?;
            first = if first.is_empty() { piece } else { [first, piece].concat().into() };
        }
        Ok(first)
    }
}

/// Runs until the server has said everything, or the client is gone.
pub(super) async fn pump(
    mut body: Body,
    mut writer: Writer,
    mut coming: Option<Coming>,
    bounds: Bounds,
    request_id: RequestId,
    metrics: Arc<UpstreamMetrics>,
) {
    let short = match forward(&mut body, &mut writer, &mut coming, &bounds, &request_id).await {
        Ok(()) => {
            if let Some(trailers) = body.incoming.trailers.take() {
                writer.trailers(trailers);
            }
            drop(body);
            return writer.end(Ok(()));
        }
        Err(short) => short,
    };
    if matches!(short, Short::Server(_)) {
        body.blame();
    }
    let Some(why) = short.why(&metrics) else { return };
    let server = &body.lease.server.name;
    warn!(request_id = &*request_id, server, "a response of an upstream was cut: {why}");
    writer.end(Err(Aborted));
}

async fn forward(
    body: &mut Body,
    writer: &mut Writer,
    coming: &mut Option<Coming>,
    bounds: &Bounds,
    request_id: &RequestId,
) -> Result<(), Short> {
    let Body { incoming, sending, .. } = body;
    while !incoming.over {
        sending.refill().await.map_err(Short::Disk)?;
        let (sends, clients_turn) = (sending.out.sending, sending.out.wants_client());
        // It is not the server whom we wait for.
        let waits_for_client = clients_turn && coming.is_some();
        let said = async {
            match coming {
                Some(coming) if clients_turn => coming.next(request_id).await,
                _ => std::future::pending().await,
            }
        };
        let piece = tokio::select! {
            biased;
            piece = incoming.data() => piece.map_err(Short::Server)?,
            sent = poll_fn(|context| sending.poll(context)), if sends => {
                if sent.is_err() {
                    sending.out.give_up();
                    sending.over = true;
                }
                continue;
            }
            said = said => {
                let taken = said.map_err(|()| BodyError::Gone);
                if taken.and_then(|piece| sending.out.take_piece(piece)).is_err() {
                    sending.give_up();
                }
                continue;
            }
            () = writer.reader_gone() => return Err(Short::Gone),
            () = sleep(bounds.idle), if !waits_for_client => return Err(Short::Server(SILENT)),
        };
        if !piece.is_empty() {
            push(writer, piece, bounds).await?;
        }
    }
    Ok(())
}
