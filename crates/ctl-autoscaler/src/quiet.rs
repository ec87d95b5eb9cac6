//! Fewer workers: uWSGI's "busyness" with its penalty against flapping, and the way down to none.
//!
//! Busyness is the share of slot time in use over a cycle, from the difference of the gateway's counter: what happened between
//! two reports counts, not what the slots looked like at the moment of one. When it was low for `multiplier` cycles the pool loses a
//! worker, and another one each further cycle that it stays low. A worker that is needed again soon after one was stopped
//! shows that the patience was too short, so `multiplier` grows; it shrinks again by and by.

use std::time::Duration;

use crate::{Limits, Seen, Why};

/// Busyness is judged over this: long enough that a cycle of a quiet pool has some requests in it.
const CYCLE: Duration = Duration::from_secs(5);
/// Below this share of busy slot time a cycle was quiet. uWSGI's default; three quarters of the rest stay as reserve.
const QUIET_PERCENT: u64 = 25;
/// Quiet cycles before the first worker goes: half a minute.
const MULTIPLIER: u32 = 6;
/// Each mistake adds a quarter of a minute of patience …
const PENALTY: u32 = 3;
/// … up to five minutes, what Kubernetes' autoscaler waits by default.
const MULTIPLIER_MAX: u32 = 60;
/// A cycle of patience is forgotten after this time without a mistake.
const FORGIVE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Duration,
    busy_total: Duration,
}

/// What was seen of quiet and busy times.
#[derive(Debug, Clone)]
pub(crate) struct Quiet {
    last: Option<Sample>,
    /// Of the running cycle.
    cycle_began: Duration,
    busy: Duration,
    capacity: Duration,
    /// The cycle that has just ended, until a decision has looked at it.
    ended: Option<u8>,
    /// Quiet cycles in a row.
    in_a_row: u32,
    /// The first worker of this quiet time has gone: the next ones go a cycle each.
    descending: bool,
    multiplier: u32,
    /// When the multiplier was last changed.
    judged: Duration,
    last_stop: Option<Duration>,
    /// When somebody last asked.
    active: Option<Duration>,
}

impl Default for Quiet {
    fn default() -> Self {
        Self {
            last: None,
            cycle_began: Duration::ZERO,
            busy: Duration::ZERO,
            capacity: Duration::ZERO,
            ended: None,
            in_a_row: 0,
            descending: false,
            multiplier: MULTIPLIER,
            judged: Duration::ZERO,
            last_stop: None,
            active: None,
        }
    }
}

impl Quiet {
    /// Takes in a report.
    pub(crate) fn sample(&mut self, seen: &Seen, now: Duration) {
        let before = self.last.replace(Sample { at: now, busy_total: seen.busy_total });
        let slots = seen.serving.saturating_mul(seen.slots_per_worker);
        // Nothing to compare with: the first report, or the first of a new gateway.
        let Some(before) = before.filter(|before| before.busy_total <= seen.busy_total && before.at <= now)
        else {
            self.begin_cycle(now);
            self.note_active(now);
            return;
        };
        let busy = seen.busy_total.saturating_sub(before.busy_total);
        // A pool whose worker is still on its way is not idle.
        if seen.busy > 0 || seen.waiting > 0 || busy > Duration::ZERO || slots == 0 {
            self.note_active(now);
        }
        self.busy += busy;
        self.capacity += now.saturating_sub(before.at).saturating_mul(slots);
        if now.saturating_sub(self.cycle_began) >= CYCLE {
            if !self.capacity.is_zero() {
                let percent = self.busy.as_micros() * 100 / self.capacity.as_micros().max(1);
                self.ended = Some(u8::try_from(percent.min(100)).unwrap_or(100));
            }
            self.begin_cycle(now);
        }
        if self.multiplier > MULTIPLIER && now.saturating_sub(self.judged) >= FORGIVE {
            self.multiplier -= 1;
            self.judged = now;
        }
    }

    fn begin_cycle(&mut self, now: Duration) {
        self.cycle_began = now;
        self.busy = Duration::ZERO;
        self.capacity = Duration::ZERO;
    }

    /// Somebody asked.
    pub(crate) fn note_active(&mut self, now: Duration) {
        self.active = Some(now);
    }

    /// A worker was added. Soon after one was stopped: that was a mistake.
    pub(crate) fn note_growth(&mut self, now: Duration) {
        if let Some(stopped) = self.last_stop.take()
            && now.saturating_sub(stopped) < CYCLE * self.multiplier
        {
            self.multiplier = (self.multiplier + PENALTY).min(MULTIPLIER_MAX);
            self.judged = now;
        }
        self.in_a_row = 0;
        self.descending = false;
    }

    /// The number of workers to go down to, if any.
    pub(crate) fn decide(&mut self, wanted: u32, limits: &Limits, now: Duration) -> Option<(u32, Why)> {
        if limits.min == 0
            && wanted > 0
            && let Some(active) = self.active
            && now.saturating_sub(active) >= limits.idle_timeout
        {
            self.in_a_row = 0;
            return Some((0, Why::Idle { over: now.saturating_sub(active) }));
        }
        let busy_percent = self.ended.take()?;
        if u64::from(busy_percent) >= QUIET_PERCENT {
            self.in_a_row = 0;
            self.descending = false;
            return None;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        if wanted <= limits.min.max(1) || (self.in_a_row < self.multiplier && !self.descending) {
            return None;
        }
        let over = CYCLE * self.in_a_row;
        self.descending = true;
        self.last_stop = Some(now);
        Some((wanted - 1, Why::Quiet { busy_percent, over }))
    }
}
