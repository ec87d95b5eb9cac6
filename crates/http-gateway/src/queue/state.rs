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
    fn pace(&self, now: Instant) -> Pace {
        // Requests that have been at work for longer than those before took say more of the present than those.
        let (mean, slots) = (self.account.service.mean().max(self.account.age(now)), self.pool.slots());
        let target = self.limits.target.unwrap_or(mean.max(TARGET_MIN));
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

    /// It found no slot and would wait, as long as all do or as long as `patience` says.
    pub(crate) fn get_in_line(
        &mut self,
        level: Level,
        waiter: W,
        patience: Option<Duration>,
        now: Instant,
    ) -> Result<InLine<W>, NoSlot> {
        if self.limits.adaptive {
            let pace = self.pace(now);
            self.gate.roll(pace.target, self.pool.is_overloaded(pace, now), now);
            if !self.gate.admits(level) && self.pool.has_slots() {
                self.account.shed();
                return Err(NoSlot::Overloaded);
            }
        }
        let Ok((ticket, evicted)) = self.pool.wait(level.class(), waiter, now) else {
            self.gate.late();
            return Err(NoSlot::Full);
        };
        if evicted.is_some() {
            self.account.shed();
            self.gate.late();
        }
        let (mut patience, mut wanted) = (patience.unwrap_or(self.limits.patience), false);
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
        let pace = self.pace(now);
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
        let pace = self.pace(now);
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

    /// Somebody gives up his place; harmless when it is not his any more.
    pub(crate) fn leave(&mut self, ticket: Ticket, now: Instant) {
        if let Some(waited) = self.pool.leave(ticket, now) {
            self.note_left(waited);
        }
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
        let pace = if self.pool.depth() > 0 { self.pace(now) } else { Pace::IDLE };
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

    /// Slots that are out.
    pub(crate) fn busy(&self) -> u32 {
        self.account.lent()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::priority::Class;

    #[derive(Debug)]
    struct Slot;

    impl Homed for Slot {
        fn home(&self) -> usize {
            0
        }
    }

    const LIMITS: QueueLimits = QueueLimits {
        pool: 0,
        depth_max: 50,
        patience: Duration::from_secs(10),
        start_patience: Duration::ZERO,
        app_timeout: Duration::from_secs(60),
        concurrency: 1,
        adaptive: true,
        target: None,
    };

    /// One slot that takes 100 ms, and twenty requests each second until the gate shuts.
    fn overloaded(start: Instant) -> (State<Slot, u32>, Instant) {
        let mut state = State::new(LIMITS, start);
        state.pool.activate(1, start);
        state.pool.join(1, 1, 1, start);
        state.settle(1, Slot, false, start);
        assert!(state.arrive(0, start).is_some());
        let mut now = start;
        for number in 0..600 {
            now += Duration::from_millis(50);
            assert!(state.arrive(0, now).is_none(), "somebody always waits");
            let _ = state.get_in_line(Level::new(Class::Low, number), 0, None, now);
            if number % 2 == 0 {
                let since = now.checked_sub(Duration::from_millis(100)).expect("later than the start");
                state.give_back(1, Slot, since, true, now);
            }
            if state.is_shedding() {
                return (state, now);
            }
        }
        panic!("thirty seconds of overload, and the gate is open");
    }

    #[test]
    fn bodies_of_those_who_would_be_refused_need_not_be_read() {
        let (mut state, now) = overloaded(Instant::now());
        let (last, first) = (Level::new(Class::Lowest, 127), Level::new(Class::Critical, 0));
        let before = state.load(&mut Vec::new(), now);
        assert!(state.refuses(last, now) && !state.refuses(first, now));
        let after = state.load(&mut Vec::new(), now);
        assert_eq!(
            (after.shed_total - before.shed_total, after.arrived_total - before.arrived_total),
            (1, 1)
        );
        // A slot comes free, and nobody is in line: nobody is refused.
        while let Returned::Next(..) = state.give_back(1, Slot, now, true, now) {}
        assert!(!state.refuses(last, now));
        assert!(state.arrive(0, now).is_some());
    }

    #[test]
    fn a_row_of_the_report_says_what_there_is() {
        let (mut state, now) = overloaded(Instant::now());
        let mut workers = Vec::new();
        let load = state.load(&mut workers, now + Duration::from_millis(20));
        assert_eq!((load.slots, load.busy), (1, 1));
        assert!(load.arrived_total > load.served_total * 3 / 2);
        assert_eq!(load.waiting as usize, state.pool.depth());
        assert_eq!(workers.len(), 1);
        assert_eq!(workers[0].requests_total, load.served_total);
        assert!((90_000..115_000).contains(&load.service_p50_us), "{}", load.service_p50_us);
        assert!(load.head_wait_us >= 20_000 && load.wait_max_us > 250_000, "{load:?}");
        assert_eq!(state.load(&mut workers, now).wait_max_us, 0, "since the last report");
    }
}
