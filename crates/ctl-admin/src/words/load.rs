//! What the gateway reports of its queues all the time.

use serde::{Deserialize, Serialize};

/// How often the gateway reports its load.
pub const LOAD_EVERY: std::time::Duration = std::time::Duration::from_millis(100);

/// See [`super::FromGateway::Load`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadReport {
    /// A row a pool, in order: 0 is the default one.
    pub pools: Vec<PoolLoad>,
    /// A row a worker that has slots.
    pub workers: Vec<WorkerLoad>,
}

/// A pool's queue and slots. Counters grow from the gateway's start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolLoad {
    /// Slots in service.
    pub slots: u32,
    /// Slots in use now.
    pub busy: u32,
    /// Requests waiting now.
    pub waiting: u32,
    /// How long the first in line has waited.
    pub head_wait_us: u64,
    /// Requests that arrived.
    pub arrived_total: u64,
    /// Requests that a slot has served.
    pub served_total: u64,
    /// Requests refused because of overload.
    pub shed_total: u64,
    /// Slot time in use, summed over all slots.
    pub busy_us_total: u64,
    /// Median time of a request in its slot, over the last thousand or so; 0 before the first.
    pub service_p50_us: u64,
    /// Longest time in the queue of those that left it since the last report.
    pub wait_max_us: u64,
}

/// A worker as the gateway sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLoad {
    /// Its number.
    pub worker: u32,
    /// Requests answered.
    pub requests_total: u64,
    /// WebSockets and event streams it holds.
    pub long_lived: u32,
}
