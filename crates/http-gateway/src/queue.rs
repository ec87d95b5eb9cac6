//! The central queue: requests wait here, never in a worker; a free slot takes the next one.
//!
//! [`state`] decides (pure, tested by simulation); this file lends the decision a lock, wake-ups and the clock.
//! A slot that is checked out gives itself back on drop, whatever happened in between: unused ones at once, used
//! ones after their exchange has been ended in order (see [`CheckedOut`]).
//!
//! # Cancel safety
//! Dropping [`Queue::checkout`] leaves the queue; a slot that was just handed over goes to the next in line.

mod account;
mod checked_out;
mod gate;
mod line;
mod pool;
pub mod priority;
mod service_time;
#[cfg(test)]
mod simulation;
mod state;

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ctl_admin::words::{PoolLoad, WorkerLoad};
use ctl_telemetry::metrics::PoolMetrics;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use crate::link::Slot;
use crate::reactor;
pub use checked_out::CheckedOut;
use line::{Review, Ticket};
pub(crate) use pool::Homed;
use pool::Returned;
use priority::Level;
use state::{InLine, State};

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
    /// A request waits in this pool and there is no worker.
    Wanted(u16),
}

/// Why there is no slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoSlot {
    /// `queue.depth_max` requests wait already.
    Full,
    /// None came free within `timeouts.queue`.
    TimedOut,
    /// More requests come than can be served, and this one has waited too long or is less important than others.
    Overloaded,
}

/// What a queue keeps to, from the configuration.
#[derive(Debug, Clone, Copy)]
pub struct QueueLimits {
    /// 0 is the default pool, N the Nth `[[worker_pool]]`.
    pub pool: u16,
    /// Requests that may wait.
    pub depth_max: u32,
    /// Longest wait for a slot …
    pub patience: Duration,
    /// … and so much longer while there is no worker, where workers are started on demand.
    pub start_patience: Duration,
    /// How long the app may take to begin its answer, and to go on with a request whose client is gone.
    pub app_timeout: Duration,
    /// How many exchanges of one worker may be at work at a time (ASGI).
    pub concurrency: u16,
    /// `queue.discipline` is adaptive.
    pub adaptive: bool,
    /// `queue.target`.
    pub target: Option<Duration>,
}

/// How a checkout begins.
enum Begun {
    Slot(CheckedOut),
    InLine(Waits),
    Refused(NoSlot),
}

/// A place in the line, and what comes of it.
struct Waits {
    ticket: Ticket,
    receiver: oneshot::Receiver<CheckedOut>,
    /// When to see whether he has waited too long.
    look: Instant,
    deadline: Instant,
}

/// Who has been called holds his slot a moment later: it is sent after the lock is free.
const CALL_PATIENCE: Duration = Duration::from_millis(10);

/// Slots of all pools.
static SLOTS: AtomicI64 = AtomicI64::new(0);

/// Slots that workers have opened, of whatever pool.
pub(crate) fn slots() -> i64 {
    SLOTS.load(Relaxed)
}

/// The runtime's clock, which tests can stop.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Who waits is handed his slot through this; dropping it refuses him.
type Waiter = oneshot::Sender<CheckedOut>;

/// A pool's queue, shared by all reactors.
pub struct Queue {
    state: Mutex<State<Slot, Waiter>>,
    news: mpsc::UnboundedSender<WorkerNews>,
    limits: QueueLimits,
    metrics: Arc<PoolMetrics>,
}

impl Queue {
    /// An empty queue; its news (a few a worker's life) go to `news`.
    pub fn new(limits: QueueLimits, news: mpsc::UnboundedSender<WorkerNews>) -> Arc<Self> {
        let state = Mutex::new(State::new(limits, now()));
        Arc::new(Self { state, news, limits, metrics: Arc::default() })
    }

    fn state(&self) -> MutexGuard<'_, State<Slot, Waiter>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it keeps to.
    pub fn limits(&self) -> &QueueLimits {
        &self.limits
    }

    /// What is counted of its pool.
    pub(crate) fn metrics(&self) -> &Arc<PoolMetrics> {
        &self.metrics
    }

    /// The same, with the gauges that follow from its state as they are now.
    pub(crate) fn measure(&self) -> &PoolMetrics {
        let state = self.state();
        self.metrics.queue_depth.set(i64::try_from(state.pool.depth()).unwrap_or(i64::MAX));
        self.metrics.slots_busy.set(i64::from(state.busy()));
        &self.metrics
    }

    /// A slot for one request, now or when its turn comes. Returns it with the time waited. `level` is asked only if
    /// the request has to wait.
    pub async fn checkout(
        self: &Arc<Self>,
        level: impl FnOnce() -> Level,
    ) -> Result<(CheckedOut, Duration), NoSlot> {
        self.checkout_within(level, None).await
    }

    /// The same with a patience of its own.
    pub async fn checkout_within(
        self: &Arc<Self>,
        level: impl FnOnce() -> Level,
        patience: Option<Duration>,
    ) -> Result<(CheckedOut, Duration), NoSlot> {
        let asked = now();
        let outcome = match self.begin(level, patience, asked) {
            Begun::Slot(slot) => {
                self.metrics.queue_wait.observe(Duration::ZERO);
                return Ok((slot, Duration::ZERO));
            }
            Begun::InLine(waits) => self.wait(waits, asked).await,
            Begun::Refused(why) => Err(why),
        };
        let waited = now().saturating_duration_since(asked);
        match outcome {
            Ok(_) => self.metrics.queue_wait.observe(waited),
            Err(NoSlot::TimedOut) => self.metrics.queue_timeout.inc(),
            Err(NoSlot::Full) => self.metrics.queue_full.inc(),
            Err(NoSlot::Overloaded) => self.metrics.queue_shed.inc(),
        }
        outcome.map(|slot| (slot, waited))
    }

    /// Would a request be refused at the gate now? Cheaper than waiting for its body first. If so, it has been counted.
    pub fn refuses(&self, level: impl FnOnce() -> Level) -> bool {
        let mut state = self.state();
        let refused = state.is_shedding() && state.refuses(level(), now());
        if refused {
            self.metrics.queue_shed.inc();
        }
        refused
    }

    fn begin(
        self: &Arc<Self>,
        level: impl FnOnce() -> Level,
        patience: Option<Duration>,
        asked: Instant,
    ) -> Begun {
        let mut state = self.state();
        if let Some(slot) = state.arrive(reactor::current(), asked) {
            drop(state);
            return Begun::Slot(CheckedOut::new(slot, self, asked));
        }
        let (sender, receiver) = oneshot::channel();
        let in_line = match state.get_in_line(level(), sender, patience, asked) {
            Ok(in_line) => in_line,
            Err(why) => return Begun::Refused(why),
        };
        let look = state.first_look(asked, in_line.deadline);
        drop(state);
        let InLine { ticket, deadline, wanted, evicted } = in_line;
        // This tells who had to make room.
        drop(evicted);
        if wanted {
            self.tell(WorkerNews::Wanted(self.limits.pool));
        }
        Begun::InLine(Waits { ticket, receiver, look, deadline })
    }

    /// Until the slot comes, the patience ends, or the line is too long for all who wait.
    async fn wait(self: &Arc<Self>, waits: Waits, asked: Instant) -> Result<CheckedOut, NoSlot> {
        let Waits { ticket, mut receiver, mut look, deadline } = waits;
        let mut place = Place { queue: self, ticket: Some(ticket) };
        loop {
            if let Ok(called) = timeout_at(look.into(), &mut receiver).await {
                place.ticket = None;
                // The sender was dropped: somebody more important got the place.
                return called.map_err(|_| NoSlot::Overloaded);
            }
            let now = now();
            let review = self.state().review(ticket, asked, now);
            look = match review {
                Review::Refused => {
                    place.ticket = None;
                    return Err(NoSlot::Overloaded);
                }
                // The slot is on its way.
                Review::Called => now + CALL_PATIENCE,
                Review::Stay(_) if now >= deadline => {
                    place.leave();
                    return Err(NoSlot::TimedOut);
                }
                Review::Stay(until) => until.min(deadline),
            };
        }
    }

    /// A worker has opened a slot; `of` is how many it will open.
    pub fn join(self: &Arc<Self>, slot: Slot, of: u16) {
        self.count_slots(1);
        let worker = slot.worker();
        let now = now();
        let mut state = self.state();
        let online = state.pool.join(worker, slot.generation(), of, now);
        if online {
            self.tell(WorkerNews::Online(worker));
        }
        let settled = state.settle(worker, slot, false, now);
        self.seat(state, worker, settled, now);
    }

    /// Serve from this generation on (and what is left of earlier ones that are not retired).
    pub fn activate(self: &Arc<Self>, generation: u32) {
        let now = now();
        let freed = self.state().pool.activate(generation, now);
        // Slots that waited for the activation meet the requests that waited for them.
        for slot in freed {
            let worker = slot.worker();
            let mut state = self.state();
            let settled = state.settle(worker, slot, false, now);
            self.seat(state, worker, settled, now);
        }
    }

    /// No more requests for this worker; its idle slots are told now, the others when they come back. True when none is out.
    pub fn retire(&self, worker: u32) -> bool {
        let (idle, gone) = self.state().pool.retire(worker);
        for slot in idle {
            self.count_slots(-1);
            slot.retire();
        }
        gone
    }

    /// The supervisor saw the worker's process end: its idle slots are dead.
    pub fn buried(&self, worker: u32) {
        let dead = self.state().pool.bury(worker);
        self.count_slots(-(dead.len() as i64));
    }

    /// The worker holds a request beyond its limit; the supervisor logs its stacks and replaces it.
    pub fn stuck(&self, worker: u32, request_id: &str) {
        self.tell(WorkerNews::Stuck { worker, request_id: request_id.to_owned() });
    }

    /// Is there any slot in service, busy or not?
    pub fn has_slots(&self) -> bool {
        self.state().pool.has_slots()
    }

    /// The pool's row of the load report; those of its workers go to `workers`.
    pub fn load(&self, workers: &mut Vec<WorkerLoad>) -> PoolLoad {
        self.state().load(workers, now())
    }

    fn count_slots(&self, more: i64) {
        self.metrics.slots.add(more);
        SLOTS.fetch_add(more, Relaxed);
    }

    fn tell(&self, news: WorkerNews) {
        // The receiver ends with the process only.
        let _ = self.news.send(news);
    }

    /// A slot has its place: the next request in line, the idle stack, or retirement.
    fn seat(
        self: &Arc<Self>,
        state: MutexGuard<'_, State<Slot, Waiter>>,
        worker: u32,
        settled: Returned<Slot, Waiter>,
        now: Instant,
    ) {
        drop(state);
        match settled {
            Returned::Idle => {}
            Returned::Next(waiter, slot, _) => {
                // When the receiver has just gone, the guard comes back in the error and settles anew on drop.
                drop(waiter.send(CheckedOut::new(slot, self, now)));
            }
            Returned::Retire { slot, last } => {
                self.count_slots(-1);
                slot.retire();
                if last {
                    self.tell(WorkerNews::Retired(worker));
                }
            }
        }
    }

    /// A slot that was out is back; `used`: it has served a request.
    fn give_back(self: &Arc<Self>, slot: Slot, since: Instant, used: bool) {
        let (worker, now) = (slot.worker(), now());
        let mut state = self.state();
        let settled = state.give_back(worker, slot, since, used, now);
        self.seat(state, worker, settled, now);
    }

    fn lost(&self, worker: u32, since: Instant) {
        self.count_slots(-1);
        let last = self.state().lost(worker, since, now());
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
            self.queue.state().leave(ticket, now());
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.queue.metrics.queue_gone.inc();
            self.leave();
        }
    }
}
