//! The body of an answer: out of its connection into a spool, so that the connection is free as soon as the server is done.
//!
//! What is here already when the head has been read goes along with it. For the rest there is a task: it ends with the body, with
//! the client, or with the server's patience; a slow client is waited for only when the spool is full.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ctl_telemetry::metrics::UpstreamMetrics;
use http_upstream::{Change, Pick};
use tracing::warn;

use super::body::BodyDecoder;
use super::exchange::{Clock, Moved, poll_moved};
use super::group::now;
use super::outgoing::Outgoing;
use super::parse::BadAnswer;
use super::server::{Lease, Server};
use crate::h1::StreamError;
use crate::message::Headers;
use crate::request_id::RequestId;
use crate::spool::{self, Aborted, TooSlow, Writer};
use crate::upload::Coming;

/// One read of a body that need not be looked at.
const PIECE_BYTES: usize = 64 * 1024;

/// A body on its way.
pub(super) struct Body {
    pub(super) lease: Lease,
    pub(super) decoder: BodyDecoder,
    pub(super) out: Outgoing,
    /// The connection may carry another request.
    pub(super) keep_alive: bool,
    pub(super) trailers: Option<Headers>,
}

/// Bounds of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The longest silence of the server.
    pub(super) idle: Duration,
    /// The longest time that a client may take no byte while all buffers are full, and we let it.
    pub(super) held: Duration,
}

impl Body {
    /// The data that has come already.
    pub(super) fn take_buffered(&mut self) -> Result<Bytes, BadAnswer> {
        let stream = self.lease.stream();
        if self.decoder.is_done() || stream.buffered().is_empty() {
            return Ok(Bytes::new());
        }
        let buffered = stream.buffered().len();
        if self.decoder.at_once() >= buffered {
            self.decoder.took(buffered);
            return Ok(stream.take_buffered());
        }
        let (piece, used) = self.decoder.decode(stream.buffered())?;
        stream.consume(used);
        if let Some(trailers) = self.decoder.finish_chunks() {
            self.trailers = Some(trailers);
        }
        Ok(piece)
    }

    /// Reads once for as long as `patience`. `false`: nothing came.
    pub(super) async fn fill(&mut self, patience: Duration) -> Result<bool, BadAnswer> {
        let mut clock = Clock::default();
        let (stream, out) = (self.lease.stream(), &mut self.out);
        match poll_fn(|context| poll_moved(context, stream, out, &mut clock, Some(patience))).await {
            Moved::Read => Ok(true),
            Moved::Ended(how) => self.ended(how).map(|()| true),
            Moved::Sent | Moved::Refused | Moved::Still => Ok(false),
        }
    }

    /// The server ended its side, or the connection broke.
    pub(super) fn ended(&mut self, how: StreamError) -> Result<(), BadAnswer> {
        match how {
            StreamError::Ended => self.decoder.end_of_file(),
            StreamError::Gone => Err(BadAnswer("the connection broke within the response")),
            StreamError::Timeout => Err(SILENT),
        }
    }

    /// All of the body is here: the connection goes back where it came from, if it may. Returns the trailers.
    pub(super) fn finish(self) -> Option<Headers> {
        let Self { lease, out, keep_alive, trailers, .. } = self;
        if keep_alive && out.is_done() {
            lease.give_back();
        }
        trailers
    }

    /// The next data without looking at the framing, where there is much of it.
    pub(super) async fn read_on(&mut self, bounds: &Bounds) -> Result<Bytes, BadAnswer> {
        let bytes_max = self.decoder.at_once().min(PIECE_BYTES);
        match self.lease.stream().read_piece(bytes_max, bounds.idle).await {
            Ok(piece) => {
                self.decoder.took(piece.len());
                Ok(piece)
            }
            Err(how) => self.ended(how).map(|()| Bytes::new()),
        }
    }
}

pub(super) const SILENT: BadAnswer = BadAnswer("the server was silent for `idle_timeout`");

/// Why a body ended early.
pub(super) enum Short {
    Server(BadAnswer),
    /// The client was too slow.
    Slow,
    /// The client is gone.
    Gone,
    Disk(std::io::Error),
}

impl Short {
    /// For the log; `None`: nobody is left who would ask.
    pub(super) fn why(self, metrics: &UpstreamMetrics) -> Option<String> {
        match self {
            Self::Server(why) => {
                metrics.failures.inc();
                Some(why.0.to_owned())
            }
            Self::Slow => Some("its client took nothing of it for `buffers.streaming_timeout`".to_owned()),
            Self::Disk(error) => Some(format!("it could not be spooled: {error}")),
            Self::Gone => None,
        }
    }
}

/// An answer that had begun well broke off: that counts against its server.
pub(super) fn blame(pick: Option<&mut Pick<Arc<Server>>>) {
    let Some(pick) = pick else { return };
    if let Some(Change::Ejected(time)) = pick.broke_off(now()) {
        let (server, rests_s) = (&pick.server().name, time.as_secs_f64());
        warn!(server, rests_s, "a server of an upstream has failed too often and rests");
    }
}

/// Adds a piece to the spool, and waits for the client where there is no room.
pub(super) async fn push(writer: &mut Writer, piece: Bytes, bounds: &Bounds) -> Result<(), Short> {
    match spool::push(writer, piece, bounds.held).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(Short::Gone),
        Ok(Err(error)) => Err(Short::Disk(error)),
        Err(TooSlow) => Err(Short::Slow),
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
    let server = Arc::clone(body.lease.server());
    match forward(&mut body, &mut writer, &mut coming, &bounds, &request_id).await {
        Ok(()) => {
            // First the connection, then the client's end: whoever saw the whole answer finds the connection free.
            if let Some(trailers) = body.finish() {
                writer.trailers(trailers);
            }
            writer.end(Ok(()));
        }
        Err(short) => {
            if matches!(short, Short::Server(_)) {
                blame(body.lease.pick.as_mut());
            }
            let Some(why) = short.why(&metrics) else { return };
            warn!(
                request_id = &*request_id,
                server = server.name,
                "a response of an upstream was cut: {why}"
            );
            writer.end(Err(Aborted));
        }
    }
}

async fn forward(
    body: &mut Body,
    writer: &mut Writer,
    coming: &mut Option<Coming>,
    bounds: &Bounds,
    request_id: &RequestId,
) -> Result<(), Short> {
    let mut clock = Clock::default();
    loop {
        let mut piece = body.take_buffered().map_err(Short::Server)?;
        if piece.is_empty() {
            if body.decoder.is_done() {
                return Ok(());
            }
            if body.lease.stream().buffered().is_empty() {
                piece = wait(body, writer, coming, bounds, request_id, &mut clock).await?;
            }
        }
        if !piece.is_empty() {
            clock.restart();
            push(writer, piece, bounds).await?;
        }
    }
}

/// Waits for the server to say more; meanwhile it gets what the client still sends. The data may be empty.
async fn wait(
    body: &mut Body,
    writer: &Writer,
    coming: &mut Option<Coming>,
    bounds: &Bounds,
    request_id: &RequestId,
    clock: &mut Clock,
) -> Result<Bytes, Short> {
    if body.decoder.at_once() > 0 && (body.out.is_done() || body.out.is_broken()) {
        return tokio::select! {
            biased;
            piece = body.read_on(bounds) => piece.map_err(Short::Server),
            () = writer.reader_gone() => Err(Short::Gone),
        };
    }
    body.out.refill().await.map_err(Short::Disk)?;
    let clients_turn = body.out.wants_client();
    let patience = (!clients_turn || coming.is_none()).then_some(bounds.idle);
    let (stream, out) = (body.lease.stream(), &mut body.out);
    let moved = {
        let moving = poll_fn(|context| poll_moved(context, stream, &mut *out, clock, patience));
        let sending = async {
            match coming {
                Some(coming) if clients_turn => coming.next(request_id).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            moved = moving => Ok(moved),
            said = sending => Err(said),
            () = writer.reader_gone() => return Err(Short::Gone),
        }
    };
    match moved {
        Ok(Moved::Ended(how)) => body.ended(how).map_err(Short::Server)?,
        Ok(Moved::Still) => return Err(Short::Server(SILENT)),
        Ok(Moved::Read | Moved::Sent | Moved::Refused) => {}
        // The client broke its body off, or said another length than it announced: so do we, and hear what the server says.
        Err(Err(())) => body.out.give_up(),
        Err(Ok(piece)) => {
            if body.out.take_piece(piece).is_err() {
                body.out.give_up();
            }
        }
    }
    Ok(Bytes::new())
}
