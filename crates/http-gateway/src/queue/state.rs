//! All that a queue decides, in one place: slots, line, gate and account of a pool. Pure; `now` is passed in.

use std::time::{Duration, Instant};

use ctl_admin::words::{PoolLoad, WorkerLoad};

use super::account::Account;
use super::gate::Gate;
use super::line::{Pace, Review, Ticket};
use super::pool::{Homed, Pool, Returned};
use super::priority::Level;
use super::{NoSlot, QueueLimits};

/// Shorter waits are no reason to refuse anybody, however quick the app is.
const TARGET_MIN: Duration = Duration::from_millis(5);
/// No overload is concluded from waits below this, unless `queue.target` asks for it: nobody minds them, and a closed circle of
/// clients (a proxy's pool of connections, a benchmark) keeps such a line standing without being too many.
const CHANCE_MIN: Duration = Duration::from_millis(250);
/// A line that has not been empty for so long is an overload …
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// … unless the slots could not have served so many requests in that time: a few slots with slow requests have long lines by
/// chance …
const INTERVAL_SERVICES: u32 = 128;
/// … but waiting for certainty takes no more than this part of the patience.
const INTERVAL_PATIENCE: u32 = 2;
/// Shortly after an overload a quarter of the interval has to do, where the patience is no bound.
const RELAPSE: u32 = 4;

/// See the module.
pub(crate) struct State<S, W> {
    pub(crate) pool: Pool<S, W>,
    account: Account,
    gate: Gate,
    limits: QueueLimits,
}

/// Somebody is in line.
pub(crate) struct InLine<W> {
    pub(crate) ticket: Ticket,
    /// He gives up then.
    pub(crate) deadline: Instant,
    /// There is no worker, and the supervisor must be told.
    pub(crate) wanted: bool,
    /// Who had to make room for him, to be refused.
    pub(crate) evicted: Option<W>,
}

impl<S: Homed, W> State<S, W> {
    pub(crate) fn new(limits: QueueLimits, now: Instant) -> Self {
        let pool = Pool::new(limits.depth_max as usize, now);
        Self { pool, account: Account::new(now), gate: Gate::new(now), limits }
    }

    /// How long is too long now.
    fn pace(&self) -> Pace {
        let service = &self.account.service;
        let (mean, slots) = (service.mean(), self.pool.slots());
        let target = self.limits.target.unwrap_or(service.mean().max(TARGET_MIN));
        let patience = self.limits.patience;
        let services = mean * INTERVAL_SERVICES / slots.max(1);
        let interval = services.min(patience / INTERVAL_PATIENCE).max(INTERVAL_MIN);
        let relapse = (services.max(INTERVAL_MIN) / RELAPSE).min(interval);
        // Without a slot there is nobody who could be served instead of those who are refused.
        let interval = (self.limits.adaptive && slots > 0).then_some(interval);
        let in_time = patience.as_micros() / 2 * u128::from(slots) / mean.as_micros().max(1);
        let hopeless = usize::try_from(in_time).unwrap_or(usize::MAX);
        let least = if self.limits.target.is_some() { Duration::ZERO } else { CHANCE_MIN };
        Pace { target, chance: least.max(mean).max(target * 2), hopeless, interval, relapse }
    }

    /// A request arrives on reactor `home`: an idle slot for it, if there is one.
    pub(crate) fn arrive(&mut self, home: usize, now: Instant) -> Option<S> {
        self.account.arrived();
        self.gate.arrived();
        let slot = self.pool.take(home)?;
        self.account.lend(now);
        Some(slot)
    }

    /// It found no slot and would wait.
    pub(crate) fn get_in_line(&mut self, level: Level, waiter: W, now: Instant) -> Result<InLine<W>, NoSlot> {
        if self.limits.adaptive {
            let pace = self.pace();
            self.gate.roll(pace.target, self.pool.is_overloaded(pace, now), now);
            if !self.gate.admits(level) && self.pool.has_slots() {
                self.account.shed();
                return Err(NoSlot::Overloaded);
            }
        }
        let (ticket, evicted) = self.pool.wait(level.class(), waiter, now).map_err(|_| NoSlot::Full)?;
        if evicted.is_some() {
            self.account.shed();
            self.gate.late();
        }
        let (mut patience, mut wanted) = (self.limits.patience, false);
        if !self.pool.has_slots() {
            patience += self.limits.start_patience;
            wanted = self.pool.wants();
        }
        Ok(InLine { ticket, deadline: now + patience, wanted, evicted })
    }

    /// Is anybody refused at the gate?
    pub(crate) fn is_shedding(&self) -> bool {
        self.gate.is_shut()
    }

    /// Is somebody of this level refused at the gate now? If so he is counted; if not, that is done when he comes again.
    pub(crate) fn refuses(&mut self, level: Level, now: Instant) -> bool {
        if !self.gate.refuses(level) || self.pool.has_idle() || !self.pool.has_slots() {
            return false;
        }
        let pace = self.pace();
        self.gate.roll(pace.target, self.pool.is_overloaded(pace, now), now);
        if !self.gate.refuses(level) {
            return false;
        }
        self.account.arrived();
        self.gate.arrived();
        self.gate.admits(level);
        self.account.shed();
        true
    }

    /// When one who has just got in line should be looked at first.
    pub(crate) fn first_look(&self, since: Instant, deadline: Instant) -> Instant {
        if self.limits.adaptive { deadline.min(since + INTERVAL_MIN) } else { deadline }
    }

    /// Looks at one who waits since then.
    pub(crate) fn review(&mut self, ticket: Ticket, since: Instant, now: Instant) -> Review {
        let pace = self.pace();
        let review = self.pool.review(ticket, pace, now);
        if review == Review::Refused {
            self.note_left(now.saturating_duration_since(since));
            self.account.shed();
            self.gate.late();
        }
        if self.limits.adaptive {
            self.gate.roll(pace.target, self.pool.is_overloaded(pace, now), now);
        }
        review
    }

    /// Somebody gives up his place. False when it is not his any more.
    pub(crate) fn leave(&mut self, ticket: Ticket, now: Instant) -> bool {
        let waited = self.pool.leave(ticket, now);
        waited.map(|waited| self.note_left(waited)).is_some()
    }

    fn note_left(&mut self, waited: Duration) {
        self.account.waited(waited);
        self.gate.left(waited);
    }

    /// A slot that went out at `since` is back, and has served a request or not.
    pub(crate) fn give_back(
        &mut self,
        worker: u32,
        slot: S,
        since: Instant,
        served: bool,
        now: Instant,
    ) -> Returned<S, W> {
        self.account.back(since, now);
        if served {
            self.account.served(now.saturating_duration_since(since));
        }
        self.settle(worker, slot, served, now)
    }

    /// Finds a free slot its place.
    pub(crate) fn settle(&mut self, worker: u32, slot: S, served: bool, now: Instant) -> Returned<S, W> {
        let pace = if self.pool.depth() > 0 { self.pace() } else { Pace::IDLE };
        let returned = self.pool.give_back(worker, slot, served, pace, now);
        if let Returned::Next(_, _, waited) = &returned {
            self.note_left(*waited);
            self.account.lend(now);
        }
        returned
    }

    /// A slot that went out at `since` is no more. True when its worker retires and has no other.
    pub(crate) fn lost(&mut self, worker: u32, since: Instant, now: Instant) -> bool {
        self.account.back(since, now);
        self.pool.lost(worker)
    }

    /// The pool's row of the load report; those of its workers go to `workers`.
    pub(crate) fn load(&mut self, workers: &mut Vec<WorkerLoad>, now: Instant) -> PoolLoad {
        workers.extend(self.pool.loads());
        PoolLoad {
            slots: self.pool.slots(),
            waiting: u32::try_from(self.pool.depth()).unwrap_or(u32::MAX),
            head_wait_us: u64::try_from(self.pool.head_wait(now).as_micros()).unwrap_or(u64::MAX),
            ..self.account.report(now)
        }
    }
}
