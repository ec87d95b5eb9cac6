//! One request on one connection, up to the head of its answer.
//!
//! While we send we listen: a server may answer before it has read all, and one whose buffers are full in both directions must
//! not make us wait for each other. What the client still has to send is pulled only when the last piece is out: that is the
//! back pressure.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::outgoing::Outgoing;
use super::parse::{Answer, AnswerParser, Asked, BadAnswer};
use super::socket::Socket;
use crate::h1::{Stream, StreamError};
use crate::message::{BodyError, RequestBody};

/// Heads before the last one, hints and the like. No server has reason for more, and each costs us and the client.
pub(super) const INFORMATIONAL_MAX: u32 = 16;

/// A server that was told that a body waits for its word gets this long (RFC 9110, 10.1.1: not for ever; many know nothing of
/// it).
pub(super) const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// Bounds of an exchange.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the last byte of the request to the head of the answer.
    pub(super) response: Duration,
    /// Between two pieces, either way.
    pub(super) idle: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// Before a byte of the answer.
    #[error("the server closed the connection without an answer")]
    Closed,
    /// Amidst its head.
    #[error("the connection broke within the head of the response")]
    Cut,
    #[error("the response is not understood: {0}")]
    Bad(#[from] BadAnswer),
    #[error("the server did not answer within `response_timeout`")]
    TimedOut,
    #[error("the server took no more of the request for `idle_timeout`")]
    Stalled,
    #[error("request body: {0}")]
    Client(BodyError),
    #[error("the client went away")]
    ClientGone,
    #[error("the request's body could not be read again: {0}")]
    Disk(io::Error),
}

/// What moved on a connection.
#[derive(Debug)]
pub(super) enum Moved {
    /// Bytes came.
    Read,
    /// The server has ended its side, or the connection broke.
    Ended(StreamError),
    /// All that was ready is out.
    Sent,
    /// Nothing can be sent any more.
    Refused,
    /// Nothing moved in time.
    Still,
}

/// A clock that starts when it is first looked at, and again after [`Self::restart`]. Bytes that come do not restart it by
/// themselves: a head that comes a byte at a time would be waited for for ever.
#[derive(Debug, Default)]
pub(super) struct Clock(Option<Instant>);

impl Clock {
    pub(super) fn restart(&mut self) {
        self.0 = None;
    }
}

/// Sends and reads what can be. `patience`: `None` while it is not the server whom we wait for. Cancel safe.
pub(super) fn poll_moved(
    context: &mut Context<'_>,
    stream: &mut Stream<Socket>,
    out: &mut Outgoing,
    clock: &mut Clock,
    patience: Option<Duration>,
) -> Poll<Moved> {
    if out.sending {
        let before = out.ready.len();
        let sent = stream.poll_send(context, &mut out.ready);
        out.touched |= out.ready.len() < before;
        match sent {
            Poll::Ready(Ok(())) => {
                out.sending = false;
                clock.restart();
                return Poll::Ready(Moved::Sent);
            }
            Poll::Ready(Err(_)) => {
                out.give_up();
                return Poll::Ready(Moved::Refused);
            }
            Poll::Pending if out.ready.len() < before => clock.restart(),
            Poll::Pending => {}
        }
    }
    match stream.poll_fill_much(context) {
        Poll::Ready(Ok(())) => return Poll::Ready(Moved::Read),
        Poll::Ready(Err(how)) => return Poll::Ready(Moved::Ended(how)),
        Poll::Pending => {}
    }
    match patience {
        Some(patience) => stream.poll_deadline(context, &mut clock.0, patience).map(|()| Moved::Still),
        None => Poll::Pending,
    }
}

/// What the client did.
enum Client {
    Said(Result<Option<Bytes>, BodyError>),
    Gone,
}

async fn client<B: RequestBody>(body: &mut B, is_its_turn: bool, is_streamed: bool) -> Client {
    if is_its_turn {
        Client::Said(body.chunk().await)
    } else if is_streamed {
        // What it sends meanwhile is its body: it must stay where it is.
        std::future::pending().await
    } else {
        body.closed().await;
        Client::Gone
    }
}

/// Sends a request and waits for the answer's head; hints are passed on. `pulled` says whether some of the client's body was
/// taken.
pub(super) async fn ask<B: RequestBody>(
    stream: &mut Stream<Socket>,
    out: &mut Outgoing,
    asked: Asked,
    body: &mut B,
    patience: Patience,
    pulled: &mut bool,
) -> Result<Answer, Lost> {
    let mut reading = Reading { parser: AnswerParser::new(), informational: 0, begun: false };
    let mut clock = Clock::default();
    let is_streamed = out.is_clients();
    loop {
        if let Some(answer) = reading.head(stream, out, asked, body).await? {
            return Ok(answer);
        }
        out.refill().await.map_err(Lost::Disk)?;
        let clients_turn = out.wants_client();
        let until = if out.awaits_continue && !out.sending {
            Some(CONTINUE_WAIT)
        } else if out.sending {
            Some(patience.idle)
        } else {
            (!clients_turn).then_some(patience.response)
        };
        let streams = is_streamed && out.is_clients();
        let moved = tokio::select! {
            biased;
            moved = poll_fn(|context| poll_moved(context, stream, out, &mut clock, until)) => moved,
            said = client(body, clients_turn, streams) => match said {
                Client::Gone => return Err(Lost::ClientGone),
                Client::Said(Err(error)) => return Err(Lost::Client(error)),
                Client::Said(Ok(piece)) => {
                    *pulled = true;
                    clock.restart();
                    out.take_piece(piece).map_err(Lost::Client)?;
                    continue;
                }
            },
        };
        match moved {
            Moved::Read => reading.begun = true,
            Moved::Sent => {}
            // What it has said before may be the reason.
            Moved::Refused => clock.restart(),
            Moved::Ended(_) if reading.begun => return Err(Lost::Cut),
            Moved::Ended(_) => return Err(Lost::Closed),
            Moved::Still if out.awaits_continue && !out.sending => {
                out.awaits_continue = false;
                clock.restart();
            }
            Moved::Still if out.sending => return Err(Lost::Stalled),
            Moved::Still => return Err(Lost::TimedOut),
        }
    }
}

/// The heads of an answer.
struct Reading {
    parser: AnswerParser,
    informational: u32,
    /// A byte of an answer has come.
    begun: bool,
}

impl Reading {
    /// The final head, if it is here; what comes before it is dealt with.
    async fn head<B: RequestBody>(
        &mut self,
        stream: &mut Stream<Socket>,
        out: &mut Outgoing,
        asked: Asked,
        body: &mut B,
    ) -> Result<Option<Answer>, Lost> {
        while let Some((answer, bytes)) = self.parser.advance(stream.buffered(), asked)? {
            stream.consume(bytes);
            if !answer.is_informational() || answer.status == 101 {
                return Ok(Some(answer));
            }
            self.parser = AnswerParser::new();
            self.informational += 1;
            if self.informational > INFORMATIONAL_MAX {
                return Err(Lost::Bad(BadAnswer("there are too many informational responses")));
            }
            match answer.status {
                100 => out.awaits_continue = false,
                103 => body.inform(103, &answer.headers).await,
                // RFC 9110, 15.2: one that is not understood is ignored.
                _ => {}
            }
        }
        Ok(None)
    }
}
