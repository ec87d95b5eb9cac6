//! The central queue: requests wait here, never in a worker; a free slot takes the next one.
//!
//! [`pool`] decides (pure, tested by simulation); this file lends the decision a lock, wake-ups and the clock.
//! A slot that is checked out gives itself back on drop, whatever happened in between: unused ones at once, used
//! ones after their exchange has been ended in order (see [`CheckedOut`]).
//!
//! # Cancel safety
//! Dropping [`Queue::checkout`] leaves the queue; a slot that was just handed over goes to the next in line.

mod pool;

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ctl_telemetry::metrics::{
    QUEUE_DEPTH, QUEUE_FULL_TOTAL, QUEUE_GONE_TOTAL, QUEUE_TIMEOUT_TOTAL, QUEUE_WAIT_SECONDS, SLOTS,
    SLOTS_BUSY,
};
use tokio::sync::{mpsc, oneshot};

use crate::link::Slot;
use crate::reactor;
use crate::request_id::RequestId;
pub(crate) use pool::Homed;
use pool::{Pool, Returned, Ticket};

/// What happens to workers, for the supervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerNews {
    /// All of its slots are in service.
    Online(u32),
    /// All of its slots have been sent Retire.
    Retired(u32),
    /// It holds a request beyond the time limit.
    Stuck {
        /// The worker.
        worker: u32,
        /// The request.
        request_id: String,
    },
}

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSlot {
    /// `queue.depth_max` requests wait already.
    Full,
    /// None came free within `timeouts.queue`.
    TimedOut,
}

/// The queue, shared by all reactors.
pub struct Queue {
    pool: Mutex<Pool<Slot, oneshot::Sender<CheckedOut>>>,
    news: mpsc::UnboundedSender<WorkerNews>,
    /// After this an app that does not end an exchange nobody waits for is stuck.
    ending_patience: Duration,
}

impl Queue {
    /// An empty queue of at most `depth_max` waiting requests, and the receiver of its news (a few a worker's life).
    /// `app_timeout` is how long an app may go on with a request whose client is gone.
    pub fn new(depth_max: u32, app_timeout: Duration) -> (Arc<Self>, mpsc::UnboundedReceiver<WorkerNews>) {
        let (news, receiver) = mpsc::unbounded_channel();
        let pool = Mutex::new(Pool::new(depth_max as usize));
        (Arc::new(Self { pool, news, ending_patience: app_timeout }), receiver)
    }

    fn pool(&self) -> MutexGuard<'_, Pool<Slot, oneshot::Sender<CheckedOut>>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot for one request, now or within `patience`. Returns it with the time waited.
    pub async fn checkout(self: &Arc<Self>, patience: Duration) -> Result<(CheckedOut, Duration), NoSlot> {
        let (ticket, receiver) = {
            let mut pool = self.pool();
            if let Some(slot) = pool.take(reactor::current()) {
                drop(pool);
                QUEUE_WAIT_SECONDS.observe(Duration::ZERO);
                return Ok((CheckedOut::new(slot, self), Duration::ZERO));
            }
            let (sender, receiver) = oneshot::channel();
            let Ok(ticket) = pool.wait(sender) else {
                QUEUE_FULL_TOTAL.inc();
                return Err(NoSlot::Full);
            };
            QUEUE_DEPTH.set(pool.depth() as i64);
            (ticket, receiver)
        };
        let since = Instant::now();
        let mut place = Place { queue: self, ticket: Some(ticket) };
        let slot = tokio::time::timeout(patience, receiver).await;
        if let Ok(Ok(slot)) = slot {
            place.ticket = None;
            let waited = since.elapsed();
            QUEUE_WAIT_SECONDS.observe(waited);
            return Ok((slot, waited));
        }
        place.leave();
        QUEUE_TIMEOUT_TOTAL.inc();
        Err(NoSlot::TimedOut)
    }

    /// A worker has opened a slot; `of` is how many it will open.
    pub fn join(self: &Arc<Self>, slot: Slot, of: u16) {
        SLOTS.add(1);
        let worker = slot.worker();
        let mut pool = self.pool();
        let online = pool.join(worker, slot.generation(), of);
        if online {
            self.tell(WorkerNews::Online(worker));
        }
        self.settle(pool, slot);
    }

    /// Serve from this generation on (and what is left of earlier ones that are not retired).
    pub fn activate(self: &Arc<Self>, generation: u32) {
        let freed = self.pool().activate(generation);
        // Slots that waited for the activation meet the requests that waited for them.
        for slot in freed {
            let pool = self.pool();
            self.settle(pool, slot);
        }
    }

    /// No more requests for this worker; its idle slots are told now, the others when they come back.
    pub fn retire(&self, worker: u32) {
        let (idle, gone) = self.pool().retire(worker);
        for slot in idle {
            SLOTS.add(-1);
            slot.retire();
        }
        if gone {
            self.tell(WorkerNews::Retired(worker));
        }
    }

    /// The supervisor saw the worker's process end: its idle slots are dead.
    pub fn buried(&self, worker: u32) {
        let dead = self.pool().bury(worker);
        SLOTS.add(-(dead.len() as i64));
    }

    /// The worker holds a request beyond its limit; the supervisor logs its stacks and replaces it.
    pub fn stuck(&self, worker: u32, request_id: &str) {
        self.tell(WorkerNews::Stuck { worker, request_id: request_id.to_owned() });
    }

    /// Requests waiting now.
    pub fn depth(&self) -> usize {
        self.pool().depth()
    }

    /// Is there any slot in service, busy or not?
    pub fn has_slots(&self) -> bool {
        self.pool().has_slots()
    }

    fn tell(&self, news: WorkerNews) {
        // The receiver ends with the process only.
        let _ = self.news.send(news);
    }

    fn give_back(self: &Arc<Self>, slot: Slot) {
        let pool = self.pool();
        self.settle(pool, slot);
    }

    /// Finds a free slot its place: the next request in line, the idle stack, or retirement.
    fn settle(
        self: &Arc<Self>,
        mut pool: MutexGuard<'_, Pool<Slot, oneshot::Sender<CheckedOut>>>,
        slot: Slot,
    ) {
        let worker = slot.worker();
        match pool.give_back(worker, slot) {
            Returned::Idle => {}
            Returned::Next(waiter, slot) => {
                QUEUE_DEPTH.set(pool.depth() as i64);
                drop(pool);
                // When the receiver has just gone, the guard comes back in the error and settles anew on drop.
                drop(waiter.send(CheckedOut::new(slot, self)));
            }
            Returned::Retire { slot, last } => {
                drop(pool);
                SLOTS.add(-1);
                slot.retire();
                if last {
                    self.tell(WorkerNews::Retired(worker));
                }
            }
        }
    }

    fn lost(&self, worker: u32) {
        SLOTS.add(-1);
        let last = self.pool().lost(worker);
        if last {
            self.tell(WorkerNews::Retired(worker));
        }
    }
}

/// A place in the line, left on drop.
struct Place<'a> {
    queue: &'a Arc<Queue>,
    ticket: Option<Ticket>,
}

impl Place<'_> {
    fn leave(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let mut pool = self.queue.pool();
            pool.leave(ticket);
            QUEUE_DEPTH.set(pool.depth() as i64);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            QUEUE_GONE_TOTAL.inc();
            self.leave();
        }
    }
}

/// A slot in use. Dropped unused it goes back at once; dropped in the middle of an exchange, the exchange is
/// cancelled and ended by a task of its own first; after [`CheckedOut::lose`] it is gone.
pub struct CheckedOut {
    slot: Option<Slot>,
    queue: Arc<Queue>,
    /// Whose it is, for the log of a worker that gets stuck.
    request_id: RequestId,
    /// In the task that ends its exchange.
    ending: bool,
}

impl CheckedOut {
    fn new(slot: Slot, queue: &Arc<Queue>) -> Self {
        SLOTS_BUSY.add(1);
        Self { slot: Some(slot), queue: Arc::clone(queue), request_id: RequestId::default(), ending: false }
    }

    /// Says whose it is from now on.
    pub fn is_for(&mut self, request_id: &RequestId) {
        self.request_id = request_id.clone();
    }

    /// The slot.
    pub fn slot(&mut self) -> &mut Slot {
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
        let ended = {
            let mut ending = pin!(self.slot().end_exchange());
            if let Ok(ended) = tokio::time::timeout(queue.ending_patience, &mut ending).await {
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
            SLOTS_BUSY.add(-1);
            self.queue.lost(slot.worker());
        }
    }
}

impl Drop for CheckedOut {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        if slot.is_between_exchanges() {
            SLOTS_BUSY.add(-1);
            self.queue.give_back(slot);
            return;
        }
        let request_id = std::mem::take(&mut self.request_id);
        let guard = Self { slot: Some(slot), queue: Arc::clone(&self.queue), request_id, ending: true };
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
