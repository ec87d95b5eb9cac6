//! How many workers a pool should have: `(what is seen, limits, now) -> decision`, pure.
//!
//! Called by the supervisor for each pool at each load report of the gateway. Time is a [`Duration`] since any fixed moment; no clock and
//! no I/O here, so that ramps, spikes and day curves are simulated in milliseconds.
//!
//! The rules, each in its file:
//! - [`growth`]: **up** when requests wait (queue time is the one figure that always tells a want of capacity), unless something else
//!   than workers is short; then [`Why`] names it;
//! - [`quiet`]: **down** when few slots are busy for long, slower each time that turned out to be a mistake; to none only when nobody
//!   has asked for the pool's idle time.
//!
//! One call changes the number in one direction only, and up wins. The number is always between the limits.

mod growth;
mod quiet;
#[cfg(test)]
mod simulation;
mod why;

use std::time::Duration;

use growth::{Growth, Verdict};
use quiet::Quiet;
pub use why::Why;

/// What is seen of a pool. Counters grow; a smaller value than before means that the gateway was started anew.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Seen {
    /// Workers that serve.
    pub serving: u32,
    /// Workers that were started and do not serve yet.
    pub starting: u32,
    /// Slots of one worker.
    pub slots_per_worker: u32,
    /// Slots in use now.
    pub busy: u32,
    /// Requests waiting now.
    pub waiting: u32,
    /// How long the first in line has waited.
    pub head_wait: Duration,
    /// Slot time in use, summed over all slots since the gateway's start.
    pub busy_total: Duration,
    /// Requests that a slot has served. 0 when unknown: then it is not noticed that more workers do not help.
    pub served_total: u64,
    /// Requests refused because of overload.
    pub shed_total: u64,
    /// Median time of a request in its slot; zero before the first.
    pub service_p50: Duration,
    /// Share of the machine's (or container's) CPU in use, 0 to 1.
    pub cpu: f32,
    /// Proportional memory of all workers of all pools, bytes; of those that other pools wait for what they are expected to take.
    pub memory_bytes: u64,
    /// What one more worker of this pool is expected to take, bytes; 0 when unknown.
    pub memory_bytes_per_worker: u64,
    /// Database connections that the workers of all pools may open now, those that are starting too, and in other pools those
    /// that are to be started.
    pub db_connections: u32,
    /// What one more worker of this pool may open of them; 0 when it opens none.
    pub db_connections_per_worker: u32,
}

impl Seen {
    /// How many workers fit into the memory besides `wanted` ones; `None`: it is not known what one takes.
    pub fn memory_room(&self, wanted: u32, limits: &Limits) -> Option<u32> {
        // Workers on their way have not taken their memory yet.
        let on_the_way = u64::from(wanted.saturating_sub(self.serving));
        let taken = self.memory_bytes.saturating_add(on_the_way.saturating_mul(self.memory_bytes_per_worker));
        let free = limits.memory_bytes_max.saturating_sub(taken);
        let workers = free.checked_div(self.memory_bytes_per_worker)?;
        Some(u32::try_from(workers).unwrap_or(u32::MAX))
    }

    /// How many workers may open their database connections besides `wanted` ones.
    pub fn connections_room(&self, wanted: u32, limits: &Limits) -> u32 {
        // Those that were wanted and are not even starting have not been counted yet.
        let uncounted = wanted.saturating_sub(self.serving.saturating_add(self.starting));
        let taken =
            self.db_connections.saturating_add(uncounted.saturating_mul(self.db_connections_per_worker));
        let free = limits.db_connections_max.saturating_sub(taken);
        free.checked_div(self.db_connections_per_worker).unwrap_or(u32::MAX)
    }
}

/// Bounds, from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Fewest workers.
    pub min: u32,
    /// Most workers.
    pub max: u32,
    /// All workers of all pools.
    pub memory_bytes_max: u64,
    /// All workers of all pools.
    pub db_connections_max: u32,
    /// For a pool that may go down to none: how long it must be idle.
    pub idle_timeout: Duration,
}

/// How many, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Workers wanted, between `min` and `max`.
    pub wanted: u32,
    /// For `quintet status` and the log.
    pub why: Why,
}

/// A pool's memory of what was decided.
#[derive(Debug, Clone)]
pub struct Scaler {
    wanted: u32,
    growth: Growth,
    quiet: Quiet,
}

impl Scaler {
    /// A pool that begins with this many workers.
    pub fn new(wanted: u32) -> Self {
        Self { wanted, growth: Growth::default(), quiet: Quiet::default() }
    }

    /// Somebody waits in a pool without a worker.
    pub fn wake(&mut self, limits: &Limits, now: Duration) -> Decision {
        self.clamp(limits);
        if self.wanted > 0 || limits.max == 0 {
            return Decision { wanted: self.wanted, why: Why::Steady };
        }
        self.wanted = 1;
        self.quiet.note_active(now);
        Decision { wanted: 1, why: Why::Woken }
    }

    /// What is wanted now.
    pub fn decide(&mut self, seen: &Seen, limits: &Limits, now: Duration) -> Decision {
        self.clamp(limits);
        self.quiet.sample(seen, now);
        if seen.waiting > 0 && self.wanted == 0 {
            return self.wake(limits, now);
        }
        let why = match self.growth.decide(self.wanted, seen, limits, now) {
            Verdict::Add { workers, why } => {
                self.wanted = self.wanted.saturating_add(workers).min(limits.max);
                self.quiet.note_growth(now);
                why
            }
            Verdict::Short(why) => why,
            Verdict::Calm => match self.quiet.decide(self.wanted, limits, now) {
                Some((wanted, why)) => {
                    self.wanted = wanted;
                    why
                }
                None => Why::Steady,
            },
        };
        Decision { wanted: self.wanted, why }
    }

    /// Somebody has ordered this number. What was learned of the load stays.
    pub fn order(&mut self, wanted: u32) {
        self.wanted = wanted;
    }

    /// The configuration may have changed since the last call.
    fn clamp(&mut self, limits: &Limits) {
        self.wanted = self.wanted.max(limits.min).min(limits.max);
    }
}
