//! Exchanges that last: WebSockets go to a long link from the start; an event stream is a request like any other until its
//! answer shows what it is, and is then detached from its slot ([`super::exchange`]).
//!
//! No slot, no place in the queue, no spool: what bounds them is `workers.long_lived_max`, the window of each, and
//! `timeouts.app` until the head. That a client asks for events (`Accept`) is not enough for it: any request could say so, and
//! would be spared the queue and whatever it decides under overload.

use std::time::Duration;

use bytes::Bytes;
use py_link::Exchange;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use ctl_telemetry::metrics::{APP_TIMEOUT_TOTAL, RETRIES_TOTAL, WEBSOCKETS_TOTAL, WORKER_LOST_TOTAL};

use super::{Dispatcher, Failure, Ready};
use crate::link::Head;
use crate::link::long::{End, Item, LongStream, NoLink, bridge};
use crate::message::{AnsweredBy, Body, Response, Trail};
use crate::queue::NoSlot;
use crate::spool::BodyStream;
use crate::websocket::{AppSession, session};

/// What an app says to a WebSocket's handshake.
pub enum Handshake {
    /// It takes part; the response is 101 with its fields.
    Accepted(Response, AppSession),
    /// It answers as to a request.
    Answered(Response),
    /// It closes before it has accepted: 403.
    Refused,
}

/// How waiting for a head ended without one.
enum NoHead {
    Final(Failure),
    Ended(End),
}

impl Dispatcher {
    /// Asks an app for a WebSocket. `None`: it knows none. Whose client goes drops it, which cancels the exchange.
    pub async fn websocket(
        &self,
        request: &Ready<'_>,
        trail: &mut Trail,
    ) -> Option<Result<Handshake, Failure>> {
        let opened = self.open(request, trail).await?;
        Some(match opened {
            Ok((head, stream)) if head.status == 101 => {
                WEBSOCKETS_TOTAL.inc();
                let (ours, from_client, to_client) = session();
                let mut response = answer(*head, Body::Empty, stream.worker(), trail);
                response.reason = Box::default();
                tokio::spawn(bridge(stream, from_client, to_client, self.app_timeout(request)));
                Ok(Handshake::Accepted(response, ours))
            }
            Ok((head, stream)) => Ok(Handshake::Answered(lasting(*head, stream, trail))),
            Err(NoHead::Ended(End::Close(..))) => Ok(Handshake::Refused),
            Err(NoHead::Ended(_)) => Err(Failure::WorkerLost),
            Err(NoHead::Final(failure)) => Err(failure),
        })
    }

    /// Opens an exchange and waits for its head; a worker that dies before is replaced by another once.
    async fn open(
        &self,
        request: &Ready<'_>,
        trail: &mut Trail,
    ) -> Option<Result<(Box<Head>, LongStream), NoHead>> {
        let request_id = request.origin.request_id;
        let queue = self.queue(request.head, &request.terms);
        let limits = queue.limits();
        let patience = request.terms.patience.unwrap_or(limits.patience) + limits.start_patience;
        let mut retried = false;
        loop {
            let asked = Instant::now();
            let write =
                |out: &mut Vec<u8>| self.write(out, request, Exchange::WebSocket, py_link::Body::None);
            let stream = match self.links.begin(limits.pool, patience, write).await {
                Ok(stream) => stream,
                Err(NoLink::Never) => return None,
                Err(NoLink::Full) => {
                    queue.metrics().long_lived_refused.inc();
                    return Some(Err(NoHead::Final(Failure::NoSlot(NoSlot::Full))));
                }
            };
            trail.queue_wait += asked.elapsed();
            let worker = stream.worker();
            match head(&stream, self.app_timeout(request)).await {
                Ok(head) => {
                    stream.settle();
                    return Some(Ok((head, stream)));
                }
                Err(NoHead::Ended(End::Lost)) if !retried => {
                    warn!(request_id, worker, "worker went before it answered: trying another worker");
                    RETRIES_TOTAL.inc();
                    retried = true;
                }
                Err(no_head) => {
                    match &no_head {
                        NoHead::Ended(End::Close(..)) => {}
                        NoHead::Final(_) => {
                            warn!(
                                request_id,
                                worker, "app did not answer within `timeouts.app`: answered 504"
                            );
                        }
                        NoHead::Ended(_) => {
                            WORKER_LOST_TOTAL.inc();
                            warn!(
                                request_id,
                                worker, "worker ended an exchange without an answer: answered 502"
                            );
                        }
                    }
                    return Some(Err(no_head));
                }
            }
        }
    }
}

/// Waits for the head.
async fn head(stream: &LongStream, app_timeout: Duration) -> Result<Box<Head>, NoHead> {
    let deadline = Instant::now() + app_timeout;
    loop {
        match timeout_at(deadline, stream.next()).await {
            Ok(Ok(Item::Head(head))) => return Ok(head),
            // Nothing else comes before a head.
            Ok(Ok(Item::Piece(_) | Item::Message(..))) => {}
            Ok(Err(end)) => return Err(NoHead::Ended(end)),
            Err(_) => {
                APP_TIMEOUT_TOTAL.inc();
                return Err(NoHead::Final(Failure::TimedOut));
            }
        }
    }
}

/// An answer on the long link: its head, and a body that comes from the stream unless the head had all of it.
pub(super) fn lasting(mut head: Head, stream: LongStream, trail: &mut Trail) -> Response {
    let worker = stream.worker();
    let first = std::mem::take(&mut head.body);
    let body = if head.flags.is_end() { whole(first) } else { Body::Stream(BodyStream::long(stream)) };
    answer(head, body, worker, trail)
}

/// All of a body.
pub(super) fn whole(bytes: Bytes) -> Body {
    if bytes.is_empty() { Body::Empty } else { Body::Bytes(bytes) }
}

/// A worker's answer.
pub(super) fn answer(head: Head, body: Body, worker: u32, trail: &mut Trail) -> Response {
    trail.by = AnsweredBy::Worker(worker);
    trail.queries = head.queries;
    trail.lasts = head.status == 101 || head.is_event_stream();
    let Head { status, reason, headers, .. } = head;
    Response { status, reason, headers, body, close: false, trail: trail.clone() }
}
