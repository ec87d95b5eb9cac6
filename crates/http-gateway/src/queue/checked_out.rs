//! A slot that is out: it gives itself back, whatever happens to who has it.

use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ctl_telemetry::metrics::PoolMetrics;

use super::Queue;
use crate::flight::Place;
use crate::link::Slot;
use crate::request_id::RequestId;

/// A slot in use. Dropped unused it goes back at once; dropped in the middle of an exchange, the exchange is
/// cancelled and ended by a task of its own first; after [`CheckedOut::lose`] it is gone.
pub struct CheckedOut {
    slot: Option<Slot>,
    queue: Arc<Queue>,
    /// Whose it is, for the log of a worker that gets stuck.
    request_id: RequestId,
    /// How long the app may take to begin its answer, where that is not what all may: in milliseconds, at most a day of them.
    app_timeout_ms: Option<NonZeroU32>,
    /// When it was checked out.
    since: Instant,
    /// A request was sent, or may have been.
    used: bool,
    /// Its flight lasts as long as its worker is busy with it.
    flight: Option<Arc<Place>>,
    /// In the task that ends its exchange.
    ending: bool,
}

impl CheckedOut {
    pub(super) fn new(slot: Slot, queue: &Arc<Queue>, since: Instant) -> Self {
        Self {
            slot: Some(slot),
            queue: Arc::clone(queue),
            request_id: RequestId::default(),
            app_timeout_ms: None,
            since,
            used: false,
            flight: None,
            ending: false,
        }
    }

    /// How long the app may take to begin its answer.
    pub fn app_timeout(&self) -> Duration {
        let own = self.app_timeout_ms.map(|ms| Duration::from_millis(u64::from(ms.get())));
        own.unwrap_or(self.queue.limits.app_timeout)
    }

    /// What is counted of its pool.
    pub(crate) fn metrics(&self) -> &Arc<PoolMetrics> {
        self.queue.metrics()
    }

    /// Says whose it is from now on, and how long the app may take for him, where that is not what all may.
    pub fn is_for(&mut self, request_id: &RequestId, app_timeout: Option<Duration>) {
        self.request_id = request_id.clone();
        let ms = app_timeout.map(|own| u32::try_from(own.as_millis()).unwrap_or(u32::MAX));
        self.app_timeout_ms = ms.and_then(NonZeroU32::new);
    }

    /// Keeps a flight going until the slot is free.
    pub fn hold(&mut self, flight: &Arc<Place>) {
        self.flight = Some(Arc::clone(flight));
    }

    /// The slot.
    pub fn slot(&mut self) -> &mut Slot {
        self.used = true;
        #[allow(clippy::expect_used)]
        self.slot.as_mut().expect("taken only by `lose` and `drop`, which consume the guard")
    }

    /// The worker behind the slot.
    pub fn worker(&self) -> u32 {
        self.slot.as_ref().map_or(0, Slot::worker)
    }

    /// The worker does not answer within its limit: ask for its replacement.
    pub fn report_stuck(&self) {
        self.queue.stuck(self.worker(), &self.request_id);
    }

    /// Ends the exchange of a client that is gone. An app that does not come to its end would keep the slot for good and
    /// nobody would hear of it: its worker is reported, and replacing it breaks the stream.
    async fn end(mut self) {
        let (queue, worker, request_id) = (Arc::clone(&self.queue), self.worker(), self.request_id.clone());
        let patience = self.app_timeout();
        let ended = {
            let mut ending = pin!(self.slot().end_exchange());
            if let Ok(ended) = tokio::time::timeout(patience, &mut ending).await {
                ended
            } else {
                queue.stuck(worker, &request_id);
                ending.await
            }
        };
        if ended.is_err() {
            self.lose();
        }
    }

    /// The stream broke: the slot is no more.
    pub fn lose(mut self) {
        if let Some(slot) = self.slot.take() {
            self.queue.lost(slot.worker(), self.since);
        }
    }
}

impl Drop for CheckedOut {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        if slot.is_between_exchanges() {
            self.queue.give_back(slot, self.since, self.used);
            return;
        }
        let request_id = std::mem::take(&mut self.request_id);
        let guard = Self {
            slot: Some(slot),
            queue: Arc::clone(&self.queue),
            request_id,
            app_timeout_ms: self.app_timeout_ms,
            since: self.since,
            used: self.used,
            flight: self.flight.take(),
            ending: true,
        };
        if self.ending {
            // The runtime goes and has dropped the task; it would drop the next one just so, without an end.
            guard.lose();
            return;
        }
        match tokio::runtime::Handle::try_current() {
            Ok(handle) => drop(handle.spawn(guard.end())),
            // The process is ending.
            Err(_) => guard.lose(),
        }
    }
}
