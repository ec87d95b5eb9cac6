//! The life of a client's connection.
//!
//! ```text
//!          first bytes                 response sent, more to come
//!  idle ───────────────► exchanges ◄──────────────────────────────┐
//!   ▲                      │  │  └──────────────────────────────────┘
//!   └── nothing more came ─┘  ├─► close, or linger so that the client can read our last words
//!                             └─► a WebSocket (`upgrade.rs`), then the same
//! ```
//!
//! The state of an exchange (the service's future, above all) lives in one allocation that is made when a client
//! becomes active and given back when it falls silent: ten thousand idle connections hold next to nothing. A client
//! whose requests follow each other briskly keeps it from one to the next.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use ctl_config::Config;
use tokio::time::Instant;

use super::body::{Body, BodyState};
use super::date;
use super::encode::{Asked, Framing, encode_head};
use super::parse::{HeadLimits, HeadParser, Parsed, Refusal};
use super::respond::{self, Ended, How, Uploading};
use super::stream::{Stream, StreamError};
use super::transport::Transport;
use super::upgrade;
use crate::drain::Drain;
use crate::extra_fields::wants_trailers;
use crate::message::{Connection, Exchange, Method, Response, Service, Version};
use crate::pace::Paces;
use crate::websocket::handshake::is_asked;

/// A client is brisk when its next request comes within this: then it keeps its state for as long while it is silent.
/// Also the longest time that such a connection needs to notice that the process drains.
const BRISK_WAIT: Duration = Duration::from_millis(500);

/// A connection that was accepted and has sent nothing when draining begins may have a request on its way.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// Lingering: a client that still sends gets this long to notice our response. Closing at once would make the
/// kernel reset the connection, and the response would be lost with it.
const LINGER_TIME_MAX: Duration = Duration::from_secs(10);

/// Lingering ends when nothing came for this long.
const LINGER_SILENCE_MAX: Duration = Duration::from_secs(2);

/// Closing TLS needs a write; a client that does not take it is not worth waiting for.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// What all exchanges of a connection share.
pub(super) struct Shared<S> {
    pub(super) connection: Connection,
    pub(super) service: Arc<S>,
    pub(super) config: Arc<Config>,
    pub(super) drain: Drain,
    pub(super) paces: Paces,
}

/// What becomes of a connection.
pub(super) enum Next {
    /// Silent: wait with empty hands.
    Idle,
    /// Over, and nothing of the client is unread.
    Close,
    /// Over, but the client may still be sending.
    Linger,
    /// Over without a proper end: nothing may make it look like one (the closing message of TLS, above all).
    Broken,
    /// No requests any more: what follows are frames.
    WebSocket(Box<upgrade::Open>),
}

/// Serves a connection until it is over. `already_read` are bytes that were read to find out what is spoken here.
///
/// Not an `async fn`: those hold each argument twice, and this future is what an idle connection costs.
pub fn serve<T: Transport, S: Service>(
    transport: T,
    already_read: BytesMut,
    connection: Connection,
    service: Arc<S>,
    config: Arc<Config>,
    drain: Drain,
) -> impl Future<Output = ()> + Send {
    let mut stream = Stream::new(transport, already_read.into());
    let mut shared = Shared { connection, service, config, drain, paces: Paces::default() };
    async move {
        let mut fresh = true;
        let how = loop {
            let mut brisk = false;
            if stream.buffered().is_empty() {
                match first_bytes(&mut stream, &mut shared, fresh).await {
                    Some(soon) => brisk = soon && !fresh,
                    None => break Next::Close,
                }
            }
            fresh = false;
            match Box::pin(exchanges(&mut stream, &shared, brisk)).await {
                Next::Idle => stream.release(),
                over => break over,
            }
        };
        Box::pin(end(&mut stream, &shared, how)).await;
    }
}

/// Waits for a request to begin, and tells whether it did within [`BRISK_WAIT`]. `None`: the connection is over.
async fn first_bytes<T: Transport, S>(
    stream: &mut Stream<T>,
    shared: &mut Shared<S>,
    fresh: bool,
) -> Option<bool> {
    let timeouts = &shared.config.timeouts;
    let mut timeout = if fresh { timeouts.header } else { timeouts.keep_alive };
    let mut deadline = None;
    let mut draining = false;
    let mut begun = pin!(shared.drain.begun());
    let read = poll_fn(|context| {
        if let Poll::Ready(read) = stream.poll_fill_until(context, &mut deadline, timeout) {
            return Poll::Ready(read.is_ok());
        }
        if !draining && begun.as_mut().poll(context).is_ready() {
            if !fresh {
                return Poll::Ready(false);
            }
            draining = true;
            (deadline, timeout) = (None, DRAIN_GRACE);
            return stream.poll_fill_until(context, &mut deadline, timeout).map(|read| read.is_ok());
        }
        Poll::Pending
    });
    // The deadline tells when the wait began; without one there was none.
    read.await.then(|| deadline.is_none_or(|deadline| Instant::now() + timeout < deadline + BRISK_WAIT))
}

/// Serves requests as long as they come.
async fn exchanges<T: Transport, S: Service>(
    stream: &mut Stream<T>,
    shared: &Shared<S>,
    brisk: bool,
) -> Next {
    loop {
        let parsed = match read_head(stream, shared).await {
            Ok(parsed) => parsed,
            Err(NoHead::Over(next)) => return next,
            Err(NoHead::Refused(refusal)) => {
                let response = shared.service.refuse(&shared.connection, refusal.status, refusal.why);
                respond(stream, shared, None, response).await;
                return Next::Linger;
            }
        };
        let next = exchange(stream, shared, parsed).await;
        if let Some(next) = next {
            return next;
        }
        if !brisk && stream.buffered().is_empty() {
            return Next::Idle;
        }
    }
}

/// Why there is no head.
enum NoHead {
    Refused(Refusal),
    Over(Next),
}

async fn read_head<T: Transport, S>(stream: &mut Stream<T>, shared: &Shared<S>) -> Result<Parsed, NoHead> {
    let limits = HeadLimits::new(&shared.config.limits);
    let mut parser = HeadParser::new();
    let mut silence = None;
    let mut deadline = None;
    loop {
        match parser.advance(stream.buffered(), &limits) {
            Ok(Some((parsed, bytes))) => {
                stream.consume(bytes);
                return Ok(parsed);
            }
            Ok(None) => {}
            Err(refusal) => return Err(NoHead::Refused(refusal)),
        }
        let silent = stream.buffered().is_empty();
        let read = if silent {
            stream.fill(&mut silence, BRISK_WAIT.min(shared.config.timeouts.keep_alive)).await
        } else {
            stream.fill(&mut deadline, shared.config.timeouts.header).await
        };
        match read {
            Ok(()) => {}
            Err(StreamError::Ended | StreamError::Gone) => return Err(NoHead::Over(Next::Close)),
            Err(StreamError::Timeout) if silent => return Err(NoHead::Over(Next::Idle)),
            Err(StreamError::Timeout) => {
                let why = "the request was not complete in time";
                return Err(NoHead::Refused(Refusal { status: 408, why }));
            }
        }
    }
}

/// One request and its response. `None`: the connection is ready for the next.
async fn exchange<T: Transport, S: Service>(
    stream: &mut Stream<T>,
    shared: &Shared<S>,
    parsed: Parsed,
) -> Option<Next> {
    if is_asked(&parsed.head, parsed.upgrade) {
        return upgrade::answer(stream, shared, parsed).await;
    }
    let timeouts = &shared.config.timeouts;
    let mut state = BodyState::new(parsed.body, parsed.expects_continue);
    let mut body = Body {
        stream,
        state: &mut state,
        timeout: timeouts.body,
        write_timeout: timeouts.write,
        // RFC 9110, 15.2: a 1.0 client knows no informational responses.
        informs: parsed.head.version != Version::Http10,
    };
    let mut response = shared.service.call(&shared.connection, &parsed.head, &mut body).await;
    let keep_alive = parsed.keep_alive && state.allows_keep_alive();
    let upload = match &mut response.body {
        crate::message::Body::Stream(stream) if state.was_asked_for() => stream.take_upload(),
        _ => None,
    };
    let upload = upload.map(|upload| Uploading { upload, state: &mut state, timeout: timeouts.body });
    let kept = respond_while(stream, shared, Some((&parsed, keep_alive)), response, upload).await;
    match kept {
        Kept::Yes if state.drop_rest(stream).await => None,
        Kept::Broken => Some(Next::Broken),
        // Nothing unread: the client will find the response and then the end.
        Kept::No if state.is_done() && stream.buffered().is_empty() => Some(Next::Close),
        Kept::Yes | Kept::No => Some(Next::Linger),
    }
}

/// What a response left of the connection.
pub(super) enum Kept {
    Yes,
    No,
    Broken,
}

/// Writes a response and tells the service. `asked` is `None` when there was no proper request.
pub(super) async fn respond<T: Transport, S: Service>(
    stream: &mut Stream<T>,
    shared: &Shared<S>,
    asked: Option<(&Parsed, bool)>,
    response: Response,
) -> Kept {
    respond_while(stream, shared, asked, response, None).await
}

/// The same while the rest of the request's body comes in.
async fn respond_while<T: Transport, S: Service>(
    stream: &mut Stream<T>,
    shared: &Shared<S>,
    asked: Option<(&Parsed, bool)>,
    mut response: Response,
    upload: Option<Uploading<'_>>,
) -> Kept {
    let (head, keep_alive) = match asked {
        Some((parsed, keep_alive)) => (Some(&parsed.head), keep_alive),
        None => (None, false),
    };
    if response.is_silence() {
        shared.service.finished(&Exchange {
            connection: &shared.connection,
            head,
            status: response.status,
            body_bytes_sent: 0,
            complete: false,
            trail: &response.trail,
        });
        return Kept::Broken;
    }
    let how = Asked {
        head_only: head.is_some_and(|head| head.method == Method::Head),
        version: head.map_or(Version::Http11, |head| head.version),
        keep_alive: keep_alive && !response.close && !shared.drain.is_ending(),
    };
    let date = date::now();
    let (framing, keep_alive) = match encode_head(&mut stream.output, &response, how, &date) {
        Ok(encoded) => encoded,
        Err(bad) => {
            let trail = response.trail;
            response = shared.service.refuse(&shared.connection, 502, bad.0);
            response.trail = trail;
            // The gateway's own answer is well formed; were it not, an empty one that closes is.
            encode_head(&mut stream.output, &response, Asked { keep_alive: false, ..how }, &date)
                .unwrap_or((Framing::Nothing, false))
        }
    };
    let mut body_bytes_sent = 0;
    let pace = shared.paces.of(&shared.config.limits, &mut response);
    let body = std::mem::replace(&mut response.body, crate::message::Body::Empty);
    let trailers = framing == Framing::Chunked && head.is_some_and(|head| wants_trailers(&head.headers));
    let how = How { trailers, timeout: shared.config.timeouts.write, upload, pace };
    let ended = respond::send(stream, body, framing, how, &mut body_bytes_sent).await;
    shared.service.finished(&Exchange {
        connection: &shared.connection,
        head,
        status: response.status,
        body_bytes_sent,
        complete: ended != Ended::Broken,
        trail: &response.trail,
    });
    match ended {
        Ended::Whole if keep_alive => Kept::Yes,
        Ended::Whole | Ended::Excess => Kept::No,
        Ended::Broken => Kept::Broken,
    }
}

/// What comes after the last request: a WebSocket's conversation; then the connection ends.
async fn end<T: Transport, S: Service>(stream: &mut Stream<T>, shared: &Shared<S>, how: Next) {
    let how = match how {
        Next::WebSocket(open) => Box::pin(open.converse(stream, shared)).await,
        over => over,
    };
    let until = Instant::now() + LINGER_TIME_MAX;
    if !matches!(how, Next::Broken)
        && stream.shutdown(SHUTDOWN_TIMEOUT).await.is_ok()
        && matches!(how, Next::Linger)
    {
        stream.discard(LINGER_SILENCE_MAX, until).await;
    }
}
