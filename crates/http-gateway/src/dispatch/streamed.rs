//! Request bodies that are streamed to the app as they arrive (`buffers.request_stream`).
//!
//! While we send we listen, so that two sides with full buffers never wait for each other. An app that answers
//! before it has read all does not get the rest: that is how a refused upload ends at once.

use std::time::Duration;

use py_link::{Exchange, Flags};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::warn;

use super::{Dispatcher, Failure, Hints, Lost, Ready};
use crate::link::{Received, RequestBodySource, Slot};
use crate::message::{BodyError, RequestBody};
use crate::queue::CheckedOut;
use crate::spool::{Hold, HoldLimits};

/// Waiting for the client in all, after which an upload counts as slow. A network's own pauses and a phone in a tunnel stay below.
const SLOW_AFTER: Duration = Duration::from_secs(5);

/// What one step of the upload brought.
enum Step {
    Sent,
    BodyEnded,
    Answered(Received),
    /// The app has neither taken the piece nor answered for too long.
    Stalled,
}

impl Dispatcher {
    /// Streams the body; returns the first frame of the answer. When that comes before the end of the body the
    /// rest is broken off (`ABORT`): an app that answers early, mostly to refuse, does not want it.
    pub(super) async fn streamed<B: RequestBody>(
        &self,
        checkout: &mut CheckedOut,
        request: &Ready<'_>,
        len: Option<u64>,
        body: &mut B,
    ) -> Result<Received, Lost> {
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
        let mut left = self.body_bytes_max;
        let mut hints = Hints::default();
        let mut waits = Waits { limits: self.pump.hold, waited: Duration::ZERO, hold: Hold::default() };
        loop {
            match step(slot, request, body, &mut left, &mut waits, app_timeout).await? {
                Step::Sent => {}
                Step::BodyEnded => break,
                Step::Stalled => return Err(Self::timed_out(checkout, request)),
                Step::Answered(Received::Hints(fields)) => hints.pass(&fields, body).await,
                Step::Answered(received) => {
                    slot.queue_body(&[], Flags::ABORT);
                    slot.try_flush();
                    return Ok(received);
                }
            }
        }
        // All is sent: from here on it is like any other request.
        Self::first(checkout, request, body, Instant::now() + app_timeout).await
    }
}

/// How long an upload has held its slot without need. A client that sends little at a time could hold it as long as it liked:
/// each pause is short, and `timeouts.body` is for each.
struct Waits {
    limits: HoldLimits,
    /// Without the current pause.
    waited: Duration,
    hold: Hold,
}

impl Waits {
    /// How long the current pause may last before something happens.
    fn left(&self) -> Duration {
        let until = if self.hold.has_begun() { self.limits.held } else { SLOW_AFTER.min(self.limits.held) };
        until.saturating_sub(self.waited)
    }

    /// The upload has become slow, or too slow.
    fn grow(&self, request_id: &str) -> Result<(), Lost> {
        let why = if self.hold.has_begun() {
            "a slow upload held a slot for `buffers.streaming_timeout`"
        } else {
            self.hold.begin();
            if !self.hold.is_one_too_many(&self.limits) {
                return Ok(());
            }
            "too many slots are held by slow clients (`buffers.streaming_max`)"
        };
        warn!(request_id, "{why}: answered 408");
        Err(Lost::Final(Failure::Body(BodyError::Timeout)))
    }
}

/// Moves one piece from the client to the worker.
async fn step<B: RequestBody>(
    slot: &mut Slot,
    request: &Ready<'_>,
    body: &mut B,
    left: &mut u64,
    waits: &mut Waits,
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
            () = sleep_until(since + waits.left()) => waits.grow(request.origin.request_id)?,
        }
    };
    waits.waited += since.elapsed();
    let ended = match piece {
        Ok(Some(piece)) => {
            *left = left
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
