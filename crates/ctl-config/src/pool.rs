//! `[[worker_pool]]`: workers of their own for some paths.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A row of `[[worker_pool]]`: slow endpoints wait in a line of their own and for workers of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerPool {
    /// Its name, in status, metrics and logs.
    pub name: String,
    /// Path patterns: `/reports/*` matches all below, `/export` only that path; `*` in the middle any text.
    pub matches: Vec<String>,
    /// Fewest workers; 0: none until a request comes, and none again when it was idle for `idle_timeout`.
    pub min: u32,
    /// Most workers.
    pub max: u32,
    /// Threads of each (WSGI); `None`: as `workers.threads`.
    pub threads: Option<u32>,
    /// Concurrent requests of each (ASGI); `None`: as `workers.concurrency`.
    pub concurrency: Option<u32>,
    /// Time limit of a request; `None`: `timeouts.app`.
    pub app_timeout: Option<Duration>,
    /// Longest wait in its queue; `None`: `timeouts.queue`.
    pub queue_timeout: Option<Duration>,
    /// Length of its queue; `None`: `queue.depth_max`.
    pub depth_max: Option<u32>,
    /// How long a worker above `min` may be idle.
    pub idle_timeout: Option<Duration>,
}
