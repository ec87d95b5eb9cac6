//! Which slot takes which request: pure bookkeeping, no clock, no I/O.
//!
//! The rule: the least busy process first (threads of one process share a GIL); on ties one that has a slot on the
//! asking reactor (no wake-up across threads), then the most recently used (warm caches). In which order requests wait is
//! the [`Line`]'s business. `S` is a slot, `W` a waiting request; both are opaque here.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use ctl_admin::words::WorkerLoad;

use super::line::{Full, Line, Pace, Review, Ticket};
use super::priority::Class;
use crate::retired::Retired;

/// A slot that knows on which reactor it lives.
pub(crate) trait Homed {
    /// The reactor's number.
    fn home(&self) -> usize;
}

/// What to do with a slot that has come free.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Returned<S, W> {
    /// It waits in the pool.
    Idle,
    /// This request takes it, after so long a wait.
    Next(W, S, Duration),
    /// Its worker retires; `last` when it was the worker's last slot.
    Retire {
        /// The slot to be told.
        slot: S,
        /// No slot of the worker is left.
        last: bool,
    },
}

struct Worker<S> {
    generation: u32,
    retiring: bool,
    /// Slots that exist, idle and busy.
    slots: u16,
    idle: Vec<S>,
    /// Tick of the last give-back: the higher, the warmer.
    used: u64,
    /// Requests that its slots have served.
    requests: u64,
}

impl<S> Worker<S> {
    fn busy(&self) -> usize {
        usize::from(self.slots) - self.idle.len()
    }
}

pub(crate) struct Pool<S, W> {
    workers: HashMap<u32, Worker<S>>,
    retired: Retired,
    /// Newest generation that may serve; older ones that are not retired may, too.
    active: Option<u32>,
    line: Line<W>,
    tick: u64,
    /// Somebody waits while there is no worker, and that has been told.
    wanted: bool,
}

impl<S: Homed, W> Pool<S, W> {
    pub(crate) fn new(depth_max: usize, now: Instant) -> Self {
        let (workers, retired, line) = (HashMap::new(), Retired::default(), Line::new(depth_max, now));
        Self { workers, retired, active: None, line, tick: 0, wanted: false }
    }

    fn tick(&mut self) -> u64 {
        self.tick += 1;
        self.tick
    }

    fn serves(active: Option<u32>, worker: &Worker<S>) -> bool {
        !worker.retiring && active.is_some_and(|active| worker.generation <= active)
    }

    pub(crate) fn depth(&self) -> usize {
        self.line.len()
    }

    /// Slots in service, idle and busy.
    pub(crate) fn slots(&self) -> u32 {
        let serving = self.workers.values().filter(|worker| Self::serves(self.active, worker));
        serving.map(|worker| u32::from(worker.slots)).sum()
    }

    /// A row a worker.
    pub(crate) fn loads(&self) -> impl Iterator<Item = WorkerLoad> {
        let row = |(&worker, entry): (&u32, &Worker<S>)| WorkerLoad {
            worker,
            requests_total: entry.requests,
            long_lived: 0,
        };
        self.workers.iter().map(row)
    }

    pub(crate) fn has_slots(&self) -> bool {
        self.workers.values().any(|worker| worker.slots > 0 && Self::serves(self.active, worker))
    }

    /// An idle slot for a request that arrives on reactor `home`; `None`: it has to wait.
    pub(crate) fn take(&mut self, home: usize) -> Option<S> {
        let active = self.active;
        let best = self
            .workers
            .values_mut()
            .filter(|worker| !worker.idle.is_empty() && Self::serves(active, worker))
            .min_by_key(|worker| {
                let away = !worker.idle.iter().any(|slot| slot.home() == home);
                (worker.busy(), away, u64::MAX - worker.used)
            })?;
        let at = best.idle.iter().rposition(|slot| slot.home() == home);
        Some(best.idle.swap_remove(at.unwrap_or(best.idle.len() - 1)))
    }

    /// Gets in line. Who had to make room is refused.
    pub(crate) fn wait(
        &mut self,
        class: Class,
        waiter: W,
        now: Instant,
    ) -> Result<(Ticket, Option<W>), Full> {
        self.line.join(class, waiter, now)
    }

    /// Leaves the line; harmless when already served. How long he was there.
    pub(crate) fn leave(&mut self, ticket: Ticket, now: Instant) -> Option<Duration> {
        let waited = self.line.leave(ticket, now);
        self.wanted &= self.line.len() > 0;
        waited
    }

    /// Looks at one who waits.
    pub(crate) fn review(&mut self, ticket: Ticket, pace: Pace, now: Instant) -> Review {
        self.line.review(ticket, pace, now)
    }

    /// Is waiting an overload, and not a bunch?
    pub(crate) fn is_overloaded(&self, pace: Pace, now: Instant) -> bool {
        self.line.is_overloaded(pace, now)
    }

    /// Would a request find a slot?
    pub(crate) fn has_idle(&self) -> bool {
        let idle = |worker: &Worker<S>| !worker.idle.is_empty() && Self::serves(self.active, worker);
        self.workers.values().any(idle)
    }

    /// How long the first in line has waited.
    pub(crate) fn head_wait(&self, now: Instant) -> Duration {
        self.line.head_wait(now)
    }

    /// Somebody waits and there is no worker: true once in each such need.
    pub(crate) fn wants(&mut self) -> bool {
        let wants = !self.has_slots();
        wants && !std::mem::replace(&mut self.wanted, true)
    }

    /// A slot was opened; it is to be given back next. True when it was the last of the `of` that were announced.
    pub(crate) fn join(&mut self, worker: u32, generation: u32, of: u16, now: Instant) -> bool {
        if !self.has_slots() {
            self.line.restart(now);
            self.wanted = false;
        }
        // Its stream broke while it retired, and it has connected again: told once more, it goes.
        let retiring = self.retired.contains(worker);
        let entry = self.workers.entry(worker).or_insert_with(|| Worker {
            generation,
            retiring,
            slots: 0,
            idle: Vec::new(),
            used: 0,
            requests: 0,
        });
        entry.slots += 1;
        entry.slots == of && !entry.retiring
    }

    /// A slot has come free, after it has `served` a request or not.
    pub(crate) fn give_back(
        &mut self,
        worker: u32,
        slot: S,
        served: bool,
        pace: Pace,
        now: Instant,
    ) -> Returned<S, W> {
        let tick = self.tick();
        let active = self.active;
        let Some(entry) = self.workers.get_mut(&worker) else {
            return Returned::Retire { slot, last: true };
        };
        entry.requests += u64::from(served);
        if entry.retiring {
            let last = self.lost(worker);
            return Returned::Retire { slot, last };
        }
        entry.used = tick;
        if Self::serves(active, entry)
            && let Some((waiter, waited)) = self.line.next(pace, now)
        {
            return Returned::Next(waiter, slot, waited);
        }
        entry.idle.push(slot);
        Returned::Idle
    }

    /// A slot that was out has broken. True when a retiring worker has none left.
    pub(crate) fn lost(&mut self, worker: u32) -> bool {
        let Some(entry) = self.workers.get_mut(&worker) else { return false };
        entry.slots = entry.slots.saturating_sub(1);
        let retired = entry.retiring && entry.slots == 0;
        if entry.slots == 0 {
            self.workers.remove(&worker);
        }
        retired
    }

    /// Serve from `generation`, too. Returns the idle slots that this puts into service, to be given back.
    pub(crate) fn activate(&mut self, generation: u32, now: Instant) -> Vec<S> {
        if !self.has_slots() {
            self.line.restart(now);
            self.wanted = false;
        }
        let before = self.active;
        self.active = Some(generation);
        let mut freed = Vec::new();
        for worker in self.workers.values_mut() {
            if !Self::serves(before, worker) && Self::serves(self.active, worker) {
                freed.append(&mut worker.idle);
            }
        }
        freed
    }

    /// Retires a worker: returns its idle slots, and whether no slot is out any more.
    pub(crate) fn retire(&mut self, worker: u32) -> (Vec<S>, bool) {
        self.retired.insert(worker);
        let Some(entry) = self.workers.get_mut(&worker) else { return (Vec::new(), true) };
        entry.retiring = true;
        let idle = std::mem::take(&mut entry.idle);
        entry.slots = entry.slots.saturating_sub(u16::try_from(idle.len()).unwrap_or(u16::MAX));
        let gone = entry.slots == 0;
        if gone {
            self.workers.remove(&worker);
        }
        (idle, gone)
    }

    /// The process is dead: its idle slots are of no use. Busy ones are noticed by those who wait for them.
    pub(crate) fn bury(&mut self, worker: u32) -> Vec<S> {
        self.retire(worker).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOW: Class = Class::Low;

    /// Time stands still.
    fn now() -> Instant {
        static NOW: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *NOW.get_or_init(Instant::now)
    }

    impl<S: Homed, W> Pool<S, W> {
        /// A slot comes back, and the line is first in, first out.
        fn back(&mut self, worker: u32, slot: S) -> Returned<S, W> {
            self.give_back(worker, slot, true, Pace::IDLE, now())
        }
    }

    #[derive(Debug, PartialEq, Eq, Clone, Copy)]
    struct Slot(u32, usize);

    impl Homed for Slot {
        fn home(&self) -> usize {
            self.1
        }
    }

    fn pool_with(workers: &[(u32, &[usize])]) -> Pool<Slot, &'static str> {
        let mut pool = Pool::new(3, now());
        pool.activate(1, now());
        for &(worker, homes) in workers {
            for &home in homes {
                let online = pool.join(worker, 1, homes.len() as u16, now());
                assert_eq!(online, pool.workers[&worker].slots as usize == homes.len());
                assert_eq!(pool.back(worker, Slot(worker, home)), Returned::Idle);
            }
        }
        pool
    }

    #[test]
    fn the_least_busy_process_is_chosen_first() {
        let mut pool = pool_with(&[(1, &[0, 0]), (2, &[0, 0])]);
        let first = pool.take(0).expect("idle");
        let second = pool.take(0).expect("idle");
        assert_ne!(first.0, second.0, "two requests go to two processes");
        pool.take(0).expect("idle");
        pool.take(0).expect("idle");
        assert_eq!(pool.take(0), None);
    }

    #[test]
    fn ties_go_to_the_own_reactor_then_to_the_last_used() {
        let mut pool = pool_with(&[(1, &[0]), (2, &[1]), (3, &[0])]);
        assert_eq!(pool.take(1), Some(Slot(2, 1)));
        assert_eq!(pool.take(0), Some(Slot(3, 0)), "joined last");
        assert_eq!(pool.back(2, Slot(2, 1)), Returned::Idle);
        assert_eq!(pool.take(7), Some(Slot(2, 1)), "no slot at home: the warmest");
    }

    #[test]
    fn the_line_is_first_in_first_out_and_bounded() {
        let mut pool = pool_with(&[(1, &[0])]);
        let slot = pool.take(0).expect("idle");
        pool.wait(LOW, "a", now()).expect("room");
        let b = pool.wait(LOW, "b", now()).expect("room");
        pool.wait(LOW, "c", now()).expect("room");
        assert_eq!(pool.wait(LOW, "d", now()), Err(Full));
        pool.leave(b.0, now());
        assert_eq!(pool.depth(), 2);
        assert_eq!(pool.back(1, slot), Returned::Next("a", slot, Duration::ZERO));
        assert_eq!(pool.back(1, slot), Returned::Next("c", slot, Duration::ZERO));
        assert_eq!(pool.back(1, slot), Returned::Idle);
    }

    #[test]
    fn a_new_generation_waits_for_its_activation() {
        let mut pool = Pool::new(3, now());
        pool.join(1, 1, 1, now());
        pool.back(1, Slot(1, 0));
        assert_eq!(pool.take(0), None, "nothing is active yet");
        pool.wait(LOW, "early", now()).expect("room");
        let freed = pool.activate(1, now());
        assert_eq!(freed, vec![Slot(1, 0)]);
        assert_eq!(pool.back(1, freed[0]), Returned::Next("early", Slot(1, 0), Duration::ZERO));
        pool.join(2, 2, 1, now());
        assert_eq!(pool.back(2, Slot(2, 0)), Returned::Idle);
        assert_eq!(pool.take(0), None);
        assert_eq!(pool.activate(2, now()), vec![Slot(2, 0)]);
    }

    #[test]
    fn a_retiring_worker_gives_up_its_slots_as_they_come_back() {
        let mut pool = pool_with(&[(1, &[0, 0])]);
        let out = pool.take(0).expect("idle");
        assert_eq!(pool.retire(1), (vec![Slot(1, 0)], false));
        assert_eq!(pool.take(0), None);
        assert_eq!(pool.back(1, out), Returned::Retire { slot: out, last: true });
        assert!(!pool.has_slots());
        assert_eq!(pool.retire(1), (vec![], true), "again: nothing left to do");
    }

    #[test]
    fn a_retired_worker_that_connects_again_gets_nothing() {
        let mut pool = pool_with(&[(1, &[0])]);
        let out = pool.take(0).expect("idle");
        assert_eq!(pool.retire(1), (vec![], false));
        assert!(pool.lost(1), "its stream broke");
        assert!(!pool.join(1, 1, 1, now()));
        pool.wait(LOW, "next", now()).expect("room");
        assert_eq!(pool.back(1, out), Returned::Retire { slot: out, last: true });
        assert!(!pool.has_slots());
    }

    #[test]
    fn lost_slots_are_forgotten() {
        let mut pool = pool_with(&[(1, &[0, 0])]);
        pool.take(0).expect("idle");
        pool.take(0).expect("idle");
        assert!(!pool.lost(1));
        pool.retire(1);
        assert!(pool.lost(1), "the last one of a retiring worker");
    }

    /// Seeded storm: whatever the order of events, no slot is lent twice, none is forgotten, and nobody waits while
    /// a serving slot is idle.
    #[test]
    fn storm() {
        for seed in 0..200_u64 {
            let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
            let mut next = |n: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % n
            };
            // Half of the storms are overloads: the newest first.
            let interval = (seed % 2 == 0).then_some(Duration::ZERO);
            let (pace, later) = (Pace { interval, ..Pace::IDLE }, now() + Duration::from_secs(1));
            let mut pool: Pool<Slot, u64> = Pool::new(5, now());
            pool.activate(1, now());
            let mut out: Vec<Slot> = Vec::new();
            let mut exist = 0_usize;
            let mut worker = 0;
            for step in 0..300 {
                match next(6) {
                    0 => {
                        worker += 1;
                        for _ in 0..3 {
                            pool.join(worker, 1, 3, now());
                            exist += 1;
                            let slot = Slot(worker, next(2) as usize);
                            if let Returned::Next(_, slot, _) =
                                pool.give_back(worker, slot, true, pace, later)
                            {
                                out.push(slot);
                            }
                        }
                    }
                    1 if worker > 0 => {
                        let (idle, _) = pool.retire(next(u64::from(worker)) as u32 + 1);
                        exist -= idle.len();
                    }
                    2 | 3 => match pool.take(next(2) as usize) {
                        Some(slot) => out.push(slot),
                        None => drop(pool.wait(LOW, step, now())),
                    },
                    4 if !out.is_empty() => {
                        let slot = out.swap_remove(next(out.len() as u64) as usize);
                        match pool.give_back(slot.0, slot, true, pace, later) {
                            Returned::Idle => {}
                            Returned::Next(_, slot, _) => out.push(slot),
                            Returned::Retire { .. } => exist -= 1,
                        }
                    }
                    5 if !out.is_empty() => {
                        let slot = out.swap_remove(next(out.len() as u64) as usize);
                        pool.lost(slot.0);
                        exist -= 1;
                    }
                    _ => {}
                }
                let idle: usize = pool.workers.values().map(|worker| worker.idle.len()).sum();
                assert_eq!(idle + out.len(), exist, "seed {seed} step {step}");
                assert!(
                    pool.line.len() == 0 || idle == 0,
                    "seed {seed} step {step}: waits beside an idle slot"
                );
            }
        }
    }
}
