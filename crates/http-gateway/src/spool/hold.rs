//! Slots that are held up by slow clients: counted, capped, timed (`buffers.streaming_max`, `buffers.streaming_timeout`).

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use ctl_telemetry::metrics::SLOTS_STREAMING;

use crate::queue;

/// Bounds of what slow clients may hold.
#[derive(Debug, Clone, Copy)]
pub struct HoldLimits {
    /// The longest time a slot may be held by a client that takes slower than the app makes, or sends slower than the
    /// app takes.
    pub held: Duration,
    /// How many slots may be held so at a time; `None`: half of all, at least one.
    pub held_max: Option<u32>,
}

impl HoldLimits {
    fn held_max(&self) -> i64 {
        self.held_max.map_or_else(|| (queue::slots() / 2).max(1), i64::from)
    }
}

/// Counts a slot as held from [`Self::begin`] on while it lives.
#[derive(Debug, Default)]
pub(crate) struct Hold(AtomicBool);

impl Hold {
    pub(crate) fn begin(&self) {
        if !self.0.swap(true, Relaxed) {
            SLOTS_STREAMING.add(1);
        }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.0.load(Relaxed)
    }

    /// It counts, and there are more than may be.
    pub(crate) fn is_one_too_many(&self, limits: &HoldLimits) -> bool {
        self.has_begun() && SLOTS_STREAMING.get() > limits.held_max()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.has_begun() {
            SLOTS_STREAMING.add(-1);
        }
    }
}
