//! How many workers a pool should have: `(what is seen, limits, now) -> decision`, pure.
//!
//! Called by the supervisor for each pool at each load report of the gateway. Time is a [`Duration`] since any fixed moment; no clock and
//! no I/O here, so that ramps, spikes and day curves are simulated in milliseconds.

use std::time::Duration;

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
    /// Median time of a request in its slot; zero before the first.
    pub service_p50: Duration,
    /// Share of the machine's (or container's) CPU in use, 0 to 1.
    pub cpu: f32,
    /// Proportional memory of all workers of all pools, bytes.
    pub memory_bytes: u64,
    /// What one more worker of this pool is expected to take, bytes; 0 when unknown.
    pub memory_bytes_per_worker: u64,
    /// Database connections that the workers of all pools may open now.
    pub db_connections: u32,
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

/// Why a number of workers is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nothing to change.
    Steady,
}

/// A pool's memory of what was decided.
#[derive(Debug, Clone)]
pub struct Scaler {
    wanted: u32,
}

impl Scaler {
    /// A pool that begins with this many workers.
    pub fn new(wanted: u32) -> Self {
        Self { wanted }
    }

    /// Somebody waits in a pool without a worker.
    pub fn wake(&mut self, limits: &Limits, now: Duration) -> Decision {
        let _ = now;
        self.wanted = self.wanted.max(1).min(limits.max);
        Decision { wanted: self.wanted, why: Why::Steady }
    }

    /// What is wanted now.
    pub fn decide(&mut self, seen: &Seen, limits: &Limits, now: Duration) -> Decision {
        let _ = (seen, now);
        self.wanted = self.wanted.clamp(limits.min, limits.max);
        Decision { wanted: self.wanted, why: Why::Steady }
    }
}
