//! Request bodies that are streamed to the app as they arrive (`buffers.request_stream`).
//!
//! While we send we listen, so that two sides with full buffers never wait for each other. An app may begin its answer before
//! it has read all, and read on; when the answer has ended the rest is broken off: that is how a refused upload ends at once.

use std::time::Duration;

use py_link::{Exchange, Flags};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Dispatcher, Failure, Hints, Lost, Ready};
use crate::link::{Received, RequestBodySource, Slot};
use crate::message::{BodyError, RequestBody};
use crate::queue::CheckedOut;
use crate::upload::{Rest, Waits};

/// What one step of the upload brought.
enum Step {
    Sent,
    BodyEnded,
    Answered(Received),
    /// The app has neither taken the piece nor answered for too long.
    Stalled,
}

impl Dispatcher {
    /// Streams the body; returns the first frame of the answer, and what is left of the body if the app may still want it.
    pub(super) async fn streamed<B: RequestBody>(
        &self,
        checkout: &mut CheckedOut,
        request: &Ready<'_>,
        len: Option<u64>,
        body: &mut B,
    ) -> Result<(Received, Option<Rest>), Lost> {
        let app_timeout = checkout.app_timeout();
        let slot = checkout.slot();
        let start = py_link::Body::Stream { len };
        let sending = slot.send_request(RequestBodySource::Stream, |out| {
            self.write(out, request, Exchange::Http, start);
        });
        match timeout(app_timeout, sending).await {
            Ok(sent) => sent.map_err(|error| Self::lost(&error, request))?,
            Err(_) => return Err(Self::timed_out(checkout, request)),
        }
        let left = request.terms.body_bytes_max.unwrap_or(self.body_bytes_max);
        let mut rest = Rest { left, waits: Waits::new(self.pump.hold) };
        let mut hints = Hints::default();
        loop {
            match step(slot, request, body, &mut rest, app_timeout).await? {
                Step::Sent => {}
                Step::BodyEnded => break,
                Step::Stalled => return Err(Self::timed_out(checkout, request)),
                Step::Answered(Received::Hints(fields)) => hints.pass(&fields, body).await,
                // Flushing may have been left in the middle: the pump goes on with it.
                Step::Answered(Received::Head(head)) if head.flags == Flags::NONE && slot.owes_body() => {
                    return Ok((Received::Head(head), Some(rest)));
                }
                Step::Answered(received) => {
                    slot.break_off_body();
                    return Ok((received, None));
                }
            }
        }
        // All is sent: from here on it is like any other request.
        let deadline = Instant::now() + app_timeout;
        Self::first(checkout, request, body, deadline).await.map(|received| (received, None))
    }
}

/// Moves one piece from the client to the worker.
async fn step<B: RequestBody>(
    slot: &mut Slot,
    request: &Ready<'_>,
    body: &mut B,
    rest: &mut Rest,
    patience: Duration,
) -> Result<Step, Lost> {
    let since = Instant::now();
    let piece = loop {
        tokio::select! {
            biased;
            piece = body.chunk() => break piece,
            received = slot.receive() => {
                return received.map(Step::Answered).map_err(|error| Dispatcher::lost(&error, request));
            }
            () = sleep_until(since + rest.waits.left()) => {
                if !rest.waits.grow(request.origin.request_id) {
                    return Err(Lost::Final(Failure::Body(BodyError::Timeout)));
                }
            }
        }
    };
    rest.waits.add(since.elapsed());
    let ended = match piece {
        Ok(Some(piece)) => {
            rest.left = rest
                .left
                .checked_sub(piece.len() as u64)
                .ok_or(Lost::Final(Failure::Body(BodyError::TooLarge)))?;
            slot.queue_body(&piece, Flags::NONE);
            false
        }
        Ok(None) => {
            slot.queue_body(&[], Flags::END);
            true
        }
        // The guard cancels the exchange and aborts the body.
        Err(error) => return Err(Lost::Final(Failure::Body(error))),
    };
    match timeout(patience, slot.progress()).await {
        Ok(Ok(None)) if ended => Ok(Step::BodyEnded),
        Ok(Ok(None)) => Ok(Step::Sent),
        Ok(Ok(Some(received))) => Ok(Step::Answered(received)),
        Ok(Err(error)) => Err(Dispatcher::lost(&error, request)),
        Err(_) => Ok(Step::Stalled),
    }
}
