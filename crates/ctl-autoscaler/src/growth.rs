//! More workers: when requests wait, and nothing else than workers is short.
//!
//! One worker at first; twice as many as the time before while the wait does not fall; never more than the requests at hand could
//! keep busy. Workers that were asked for and do not serve yet count as there. After the pool has grown threefold there must
//! be something to show for it: when the workers together do not answer more than before, what is short lies behind them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{Limits, Seen, Why};

/// A wait below this is noise.
const WAIT_MIN: Duration = Duration::from_millis(5);
/// A wait above this is too long, however long the requests themselves take.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// So much above what is all right, one report is enough to believe it.
const PLAIN_FACTOR: u32 = 4;
/// Above this share of CPU in use more workers only take turns.
const CPU_MAX: f32 = 0.8;
/// Slots are counted as four fifths: requests do not come evenly.
const HEADROOM: (u32, u32) = (5, 4);
/// New workers show their effect after about one request; bounds of the wait for it.
const SETTLE: (Duration, Duration) = (Duration::from_millis(150), Duration::from_secs(1));
/// After this time without a want the next addition is one worker again.
const CALM: Duration = Duration::from_secs(3);
/// When everything is held by long requests one worker is added this often, even when the CPU is busy.
const STUCK_EVERY: Duration = Duration::from_secs(5);
/// Growth that has to prove itself.
const PROOF_FACTOR: u32 = 3;
/// How long the proof may take; at least twice the median request.
const PROOF_TIME: Duration = Duration::from_secs(3);
/// After growth that brought nothing, try again then.
const HOLD: Duration = Duration::from_secs(60);
/// Answers a second are measured over this.
const RATE_WINDOW: Duration = Duration::from_secs(1);
/// Reports that are remembered for it: ten a second, and some.
const RATE_SAMPLES: usize = 32;

/// What growth says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// More.
    Add { workers: u32, why: Why },
    /// More would be needed and cannot be had.
    Short(Why),
    /// Nobody waits too long.
    Calm,
}

/// The last addition.
#[derive(Debug, Clone, Copy)]
struct Added {
    at: Duration,
    workers: u32,
    head_wait: Duration,
}

/// What the pool could do before it grew.
#[derive(Debug, Clone, Copy)]
struct Base {
    workers: u32,
    rate: f32,
}

/// Memory of wants and additions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Growth {
    /// The report before wanted more, too.
    pressed: bool,
    last_pressed: Option<Duration>,
    shed_total: u64,
    added: Option<Added>,
    base: Option<Base>,
    held: Option<(Duration, Why)>,
    served: VecDeque<(Duration, u64)>,
}

impl Growth {
    pub(crate) fn decide(&mut self, wanted: u32, seen: &Seen, limits: &Limits, now: Duration) -> Verdict {
        self.note_served(seen, now);
        let allowed = (seen.service_p50 / 2).clamp(WAIT_MIN, WAIT_MAX);
        let shed = seen.shed_total > self.shed_total;
        self.shed_total = seen.shed_total;
        let waits = seen.waiting > 0 && seen.head_wait > allowed;
        let before = std::mem::replace(&mut self.pressed, waits || shed);
        if !self.pressed {
            if self.last_pressed.is_none_or(|last| now.saturating_sub(last) >= CALM) {
                (self.added, self.base) = (None, None);
            }
            return Verdict::Calm;
        }
        self.last_pressed = Some(now);
        if !before && !shed && seen.head_wait < allowed * PLAIN_FACTOR {
            // Requests come in bunches; whether this is one the next report tells.
            return Verdict::Calm;
        }
        if let Some(short) = short(wanted, seen, limits) {
            return Verdict::Short(short);
        }
        if seen.cpu >= CPU_MAX {
            return self.despite_cpu(wanted, seen, now);
        }
        if let Some(held) = self.without_proof(wanted, seen, now) {
            return Verdict::Short(held);
        }
        match self.how_many(wanted, seen, now, shed) {
            0 => Verdict::Calm,
            workers => {
                let workers = workers.min(fitting(wanted, seen, limits));
                self.note_added(wanted, workers, seen, now);
                Verdict::Add { workers, why: Why::Waited { head_wait: seen.head_wait, allowed } }
            }
        }
    }

    fn note_added(&mut self, wanted: u32, workers: u32, seen: &Seen, now: Duration) {
        if self.base.is_none() {
            self.base = Some(Base { workers: wanted, rate: self.rate(now) });
        }
        self.added = Some(Added { at: now, workers, head_wait: seen.head_wait });
    }

    /// One, then twice as many each time while it does not get better.
    fn how_many(&self, wanted: u32, seen: &Seen, now: Duration, shed: bool) -> u32 {
        // What is at hand, spread over slots with some to spare. More workers than that would stand idle.
        let (up, down) = HEADROOM;
        let at_hand = seen.busy.saturating_add(seen.waiting).saturating_mul(up);
        let needed = at_hand.div_ceil(seen.slots_per_worker.max(1).saturating_mul(down));
        let room = needed.saturating_sub(wanted);
        let Some(added) = self.added else { return room.min(1) };
        let settle = seen.service_p50.clamp(SETTLE.0, SETTLE.1);
        let on_the_way = seen.serving < wanted;
        let doubled = seen.head_wait >= added.head_wait * 2;
        if (on_the_way || now.saturating_sub(added.at) < settle) && !doubled {
            return 0;
        }
        // The line gets shorter: what there is suffices.
        if !shed && seen.head_wait < added.head_wait * 9 / 10 {
            return 0;
        }
        room.min(added.workers.saturating_mul(2)).min(wanted)
    }

    /// When CPU is short more workers do not help, with one exception: every slot is held by a request that lasts and nothing is
    /// answered any more. Then quick requests would take their turns in a new worker.
    fn despite_cpu(&mut self, wanted: u32, seen: &Seen, now: Duration) -> Verdict {
        let slots = seen.serving.saturating_mul(seen.slots_per_worker);
        let stuck = seen.head_wait >= WAIT_MAX
            && slots > 0
            && seen.busy >= slots
            && seen.serving >= wanted
            && self.covers(RATE_WINDOW, now)
            && self.rate(now) == 0.0;
        let lately = self.added.is_some_and(|added| now.saturating_sub(added.at) < STUCK_EVERY);
        if !stuck || lately {
            let cpu_percent = percent(seen.cpu);
            return Verdict::Short(Why::CpuShort { head_wait: seen.head_wait, cpu_percent });
        }
        self.note_added(wanted, 1, seen, now);
        Verdict::Add { workers: 1, why: Why::Stuck { head_wait: seen.head_wait, slots } }
    }

    /// Growth that has not brought more answers waits for its proof, and is given up without one.
    fn without_proof(&mut self, wanted: u32, seen: &Seen, now: Duration) -> Option<Why> {
        if let Some((until, why)) = self.held {
            if now < until {
                return Some(why);
            }
            self.held = None;
            self.base = None;
        }
        let base = self.base?;
        let grown = wanted.saturating_mul(4) / base.workers.max(1);
        if grown < PROOF_FACTOR * 4 || base.rate == 0.0 {
            return None;
        }
        // A quarter of what was to be hoped for is proof: the load itself may not have grown as much.
        let hoped = base.rate * (1.0 + (wanted as f32 / base.workers.max(1) as f32 - 1.0) / 4.0);
        let rate = self.rate(now);
        if rate >= hoped {
            self.base = Some(Base { workers: wanted, rate });
            return None;
        }
        let why = Why::NotHelping {
            before: base.workers,
            before_rate: base.rate.round() as u32,
            now: wanted,
            now_rate: rate.round() as u32,
        };
        let patience = PROOF_TIME.max(seen.service_p50 * 2);
        let since = self.added.map_or(Duration::ZERO, |added| now.saturating_sub(added.at));
        if seen.serving >= wanted && since >= patience {
            self.held = Some((now + HOLD, why));
            return Some(why);
        }
        // Not judged yet: as long as it is open, no more.
        Some(Why::Waited {
            head_wait: seen.head_wait,
            allowed: (seen.service_p50 / 2).clamp(WAIT_MIN, WAIT_MAX),
        })
    }

    fn note_served(&mut self, seen: &Seen, now: Duration) {
        if self.served.back().is_some_and(|&(_, total)| total > seen.served_total) {
            self.served.clear();
        }
        self.served.push_back((now, seen.served_total));
        // One sample older than the window stays, so that the window is always covered.
        while self.served.len() > RATE_SAMPLES
            || self.served.get(1).is_some_and(|&(at, _)| now.saturating_sub(at) >= RATE_WINDOW)
        {
            self.served.pop_front();
        }
    }

    /// Do the samples reach back so far?
    fn covers(&self, window: Duration, now: Duration) -> bool {
        self.served.front().is_some_and(|&(at, _)| now.saturating_sub(at) >= window)
    }

    /// Answers a second, lately.
    fn rate(&self, now: Duration) -> f32 {
        let (Some(&(from, first)), Some(&(_, last))) = (self.served.front(), self.served.back()) else {
            return 0.0;
        };
        let seconds = now.saturating_sub(from).as_secs_f32();
        if seconds > 0.0 { (last - first) as f32 / seconds } else { 0.0 }
    }
}

/// What keeps the pool from one more worker.
fn short(wanted: u32, seen: &Seen, limits: &Limits) -> Option<Why> {
    let head_wait = seen.head_wait;
    if wanted >= limits.max {
        return Some(Why::AtMax { head_wait, max: limits.max });
    }
    if fitting_memory(wanted, seen, limits) == 0 {
        return Some(Why::MemoryShort {
            head_wait,
            used_bytes: seen.memory_bytes,
            one_more_bytes: seen.memory_bytes_per_worker,
            max_bytes: limits.memory_bytes_max,
        });
    }
    if seen.connections_room(wanted, limits) == 0 {
        return Some(Why::ConnectionsShort {
            head_wait,
            open: seen.db_connections,
            one_more: seen.db_connections_per_worker,
            max: limits.db_connections_max,
        });
    }
    None
}

/// How many more fit into all limits.
fn fitting(wanted: u32, seen: &Seen, limits: &Limits) -> u32 {
    limits
        .max
        .saturating_sub(wanted)
        .min(fitting_memory(wanted, seen, limits))
        .min(seen.connections_room(wanted, limits))
}

/// Where it is not known what one takes: one at a time, as long as there is any memory.
fn fitting_memory(wanted: u32, seen: &Seen, limits: &Limits) -> u32 {
    let unknown = u32::from(seen.memory_bytes < limits.memory_bytes_max);
    seen.memory_room(wanted, limits).unwrap_or(unknown)
}

fn percent(share: f32) -> u8 {
    (share * 100.0).round().clamp(0.0, 100.0) as u8
}
