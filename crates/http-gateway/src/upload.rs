//! The rest of a request body that the app goes on reading while it answers (full duplex).
//!
//! The protocol's driver pulls it from its client while it waits for the answer's next piece ([`Upload::forward`]); the pump hands it
//! to the worker ([`Coming::next`]). A driver that drops its [`Upload`] breaks the body off.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::message::{BodyError, RequestBody};
use crate::spool::{Hold, HoldLimits};

/// Waiting for the client in all, after which an upload counts as slow. A network's own pauses and a phone in a tunnel stay below.
const SLOW_AFTER: Duration = Duration::from_secs(5);

/// Longer than any pause between two pieces may be.
const FAR: Duration = Duration::from_secs(24 * 3600);

/// What a body says: a piece, its end, or why it broke off.
type Said = Result<Option<Bytes>, BodyError>;

/// The driver's end.
#[derive(Debug)]
pub struct Upload {
    to_pump: mpsc::Sender<Said>,
    /// Pulled, and not handed over yet.
    pulled: Option<Said>,
}

impl Upload {
    /// Hands `body` over until it has ended, or nobody wants more of it. Cancel safe.
    pub async fn forward<B: RequestBody>(&mut self, body: &mut B) {
        loop {
            if self.pulled.is_none() {
                self.pulled = Some(body.chunk().await);
            }
            let Ok(room) = self.to_pump.reserve().await else { return };
            let Some(said) = self.pulled.take() else { return };
            let ended = !matches!(said, Ok(Some(_)));
            room.send(said);
            if ended {
                return;
            }
        }
    }
}

/// How long an upload has held its slot without need. A client that sends little at a time could hold it as long as it liked:
/// each pause is short, and `timeouts.body` is for each.
#[derive(Debug)]
pub(crate) struct Waits {
    /// `None`: it holds no slot.
    limits: Option<HoldLimits>,
    /// Without the current pause.
    waited: Duration,
    hold: Hold,
}

impl Waits {
    pub(crate) fn new(limits: HoldLimits) -> Self {
        Self { limits: Some(limits), waited: Duration::ZERO, hold: Hold::default() }
    }

    /// For an upload that holds no worker's slot: `timeouts.body` and the number of connections are bounds enough.
    pub(crate) fn unbounded() -> Self {
        Self { limits: None, waited: Duration::ZERO, hold: Hold::default() }
    }

    /// How long the current pause may last before something happens.
    pub(crate) fn left(&self) -> Duration {
        let Some(limits) = &self.limits else { return FAR };
        let until = if self.hold.has_begun() { limits.held } else { SLOW_AFTER.min(limits.held) };
        until.saturating_sub(self.waited)
    }

    /// A pause is over.
    pub(crate) fn add(&mut self, pause: Duration) {
        self.waited += pause;
    }

    /// The current pause has lasted for what was left: the upload has become slow. `false`: too slow.
    pub(crate) fn grow(&self, request_id: &str) -> bool {
        let Some(limits) = &self.limits else { return true };
        let why = if self.hold.has_begun() {
            "a slow upload held a slot for `buffers.streaming_timeout`"
        } else {
            self.hold.begin();
            if !self.hold.is_one_too_many(limits) {
                return true;
            }
            "too many slots are held by slow clients (`buffers.streaming_max`)"
        };
        warn!(request_id, "{why}: it is cut");
        false
    }
}

/// The rest of a body when the answer begins.
#[derive(Debug)]
pub(crate) struct Rest {
    /// Bytes that may still come.
    pub(crate) left: u64,
    pub(crate) waits: Waits,
}

/// The pump's end.
#[derive(Debug)]
pub(crate) struct Coming {
    from_driver: mpsc::Receiver<Said>,
    rest: Rest,
    /// The last piece came then.
    since: Instant,
}

/// Both ends.
pub(crate) fn upload(rest: Rest) -> (Upload, Coming) {
    // One: what waits longer waits at the client.
    let (to_pump, from_driver) = mpsc::channel(1);
    (Upload { to_pump, pulled: None }, Coming { from_driver, rest, since: Instant::now() })
}

impl Coming {
    /// The next piece; `Ok(None)` at the end of the body. The error says nothing: it is broken off. Cancel safe.
    pub(crate) async fn next(&mut self, request_id: &str) -> Result<Option<Bytes>, ()> {
        let Rest { left, waits } = &mut self.rest;
        loop {
            tokio::select! {
                biased;
                said = self.from_driver.recv() => {
                    waits.add(self.since.elapsed());
                    self.since = Instant::now();
                    let Some(Ok(piece)) = said else { return Err(()) };
                    let bytes = piece.as_ref().map_or(0, |piece| piece.len() as u64);
                    *left = left.checked_sub(bytes).ok_or(())?;
                    return Ok(piece);
                }
                () = sleep_until(self.since + waits.left()) => {
                    if !waits.grow(request_id) {
                        return Err(());
                    }
                }
            }
        }
    }
}
