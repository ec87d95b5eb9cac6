//! Workers that have served enough are replaced before they grow old: by requests, age, and proportional memory.
//!
//! A worker that has reached a limit of its own is *worn*: it no longer counts as one that is wanted, so another one is
//! started, and it retires when that serves (`staff.rs`: `retire_old`). One at a time, and not while a reload replaces all of
//! them anyway. The limits of each worker are a tenth more or less than configured, so that workers which began
//! together do not go together.

use std::time::{Duration, Instant};

use ctl_admin::words::WorkerLoad;

use crate::event::{Level, RecycleLimits};

use super::{State, Worker};

/// Between two replacements because of `workers.memory_total_max`: the memory of the one before must have been given back,
/// and measured again, before it is known whether it was enough.
const TOTAL_PAUSE: Duration = Duration::from_secs(60);

/// In thousandths: a tenth less to a tenth more.
const JITTER: (u64, u64) = (900, 1_100);

/// A worker that has grown by less than this since it was young (in thousandths) would be no smaller when replaced.
const GROWN: u64 = 1_100;

/// What a worker has done and taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wear {
    /// Answers that gateways before the present one counted.
    before: u64,
    /// Answers as the present gateway counts them.
    counted: u64,
    /// WebSockets and event streams it holds.
    pub(crate) long_lived: u32,
    /// Proportional memory in bytes, at the last look and at the first.
    memory: Option<(u64, u64)>,
    /// It is being replaced.
    pub(super) worn: bool,
}

impl Wear {
    /// Requests answered.
    pub(crate) fn requests(&self) -> u64 {
        self.before + self.counted
    }

    /// Proportional memory in bytes, as it was last seen.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.memory.map(|(now, _)| now)
    }

    fn has_grown(&self) -> bool {
        self.memory.is_some_and(|(now, young)| above(now, young, GROWN))
    }
}

/// Is `value` more than so many thousandths of `limit`?
fn above(value: u64, limit: u64, thousandths: u64) -> bool {
    u128::from(value) * 1_000 > u128::from(limit) * u128::from(thousandths)
}

/// What recycling remembers besides the workers.
#[derive(Debug)]
pub(super) struct Recycling {
    seed: u64,
    /// The last replacement because of all workers' memory together.
    total_at: Option<Instant>,
}

impl Recycling {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, total_at: None }
    }

    /// A worker's own share of a limit, in thousandths: always the same for the same number.
    fn share(&self, number: u32) -> u64 {
        // SplitMix64's finish: neighbouring numbers get shares that have nothing to do with each other.
        let mut mixed = self.seed ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        JITTER.0 + (mixed ^ (mixed >> 31)) % (JITTER.1 - JITTER.0 + 1)
    }
}

impl State {
    /// The gateway's count for a worker. It begins anew with each gateway.
    pub(super) fn worker_counted(&mut self, load: &WorkerLoad) {
        let Some(worker) = self.workers.get_mut(&load.worker) else { return };
        let wear = &mut worker.wear;
        if load.requests_total < wear.counted {
            wear.before += wear.counted;
        }
        wear.counted = load.requests_total;
        wear.long_lived = load.long_lived;
    }

    /// A look at a worker's memory.
    pub(super) fn worker_weighed(&mut self, number: u32, bytes: u64) {
        let Some(worker) = self.workers.get_mut(&number).filter(|worker| worker.ready.is_some()) else {
            return;
        };
        let young = worker.wear.memory.map_or(bytes, |(_, young)| young);
        worker.wear.memory = Some((bytes, young));
    }

    /// For status: what is wrong with the memory of all workers together.
    pub(crate) fn recycle_notes(&self) -> Vec<String> {
        let Some((total, max)) = self.too_much() else { return Vec::new() };
        let then = if self.largest_grown().is_some() {
            "the largest one is replaced, at most one a minute"
        } else {
            "none of them has grown since its start, so that replacing them would not help: fewer workers, or more memory"
        };
        let (total, max) = (mebibytes(total), mebibytes(max));
        vec![format!("the workers take {total} together, workers.memory_total_max is {max}: {then}")]
    }

    /// One worker that has reached a limit becomes worn.
    pub(super) fn recycle(&mut self, now: Instant) {
        let may: Vec<bool> = (0..self.modules.len()).map(|module| self.may_recycle(module, now)).collect();
        if !may.contains(&true) {
            return;
        }
        let may = |worker: &Worker| may[self.module_of_worker(worker)];
        let fresh = self.workers.iter().filter(|(_, worker)| worker.serves() && self.is_fresh(worker));
        let mut fresh = fresh.filter(|(_, worker)| may(worker));
        let own = fresh.find_map(|(number, worker)| Some((*number, self.reached(*number, worker, now)?)));
        let (number, why) = match own {
            Some(found) => found,
            None if self.recycling.total_at.is_some_and(|at| now < at + TOTAL_PAUSE) => return,
            None => {
                let largest = self.largest_grown().filter(|number| self.workers.get(number).is_some_and(may));
                let (Some((total, max)), Some(number)) = (self.too_much(), largest) else {
                    return;
                };
                self.recycling.total_at = Some(now);
                let (total, max) = (mebibytes(total), mebibytes(max));
                let why = format!(
                    "it is the largest, and all together take {total} (workers.memory_total_max is {max})"
                );
                (number, why)
            }
        };
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.wear.worn = true;
        }
        self.worker_event("recycled", number);
        self.log(Level::Info, format!("worker {number} is being replaced: {why}"));
    }

    /// The next limit that is reached by time alone.
    pub(super) fn recycle_deadline(&self, now: Instant) -> Option<Instant> {
        if self.settings.recycle == RecycleLimits::default() {
            return None;
        }
        let modules = || (0..self.modules.len()).map(|module| (module, self.may_recycle(module, now)));
        // What else keeps one from being replaced now ends with an event of its own.
        let later = modules().filter(|(_, may)| !may);
        let later = later.filter_map(|(module, _)| self.modules[module].crashes.waits_until(now)).min();
        let may: Vec<bool> = modules().map(|(_, may)| may).collect();
        if !may.contains(&true) {
            return later;
        }
        let serving = self.workers.iter().filter(|(_, worker)| worker.serves() && self.is_fresh(worker));
        let serving = serving.filter(|(_, worker)| may[self.module_of_worker(worker)]);
        let ends = serving.filter_map(|(number, worker)| self.end_of_life(*number, worker));
        let total = self.recycling.total_at.map(|at| at + TOTAL_PAUSE).filter(|at| *at > now);
        ends.chain(total.filter(|_| self.too_much().is_some())).chain(later).min()
    }

    /// One at a time of each app; and not more than half as many old ones at once as serve, which may take their time to finish.
    fn may_recycle(&self, module: usize, now: Instant) -> bool {
        if self.settings.recycle == RecycleLimits::default()
            || self.reload.is_some()
            || !self.has_started()
            || self.stop.is_some()
            || self.modules[module].crashes.waits_until(now).is_some()
        {
            return false;
        }
        let (mut waits, mut leaving, mut serving) = (false, 0, 0);
        for worker in self.workers.values().filter(|worker| self.module_of_worker(worker) == module) {
            waits |= worker.leaving.is_none() && (worker.wear.worn || worker.stuck);
            leaving += usize::from(worker.leaving.is_some());
            serving += usize::from(worker.serves());
        }
        !waits && leaving <= serving / 2
    }

    /// Which of its own limits a worker has reached, for people.
    fn reached(&self, number: u32, worker: &Worker, now: Instant) -> Option<String> {
        let limits = &self.settings.recycle;
        let share = self.recycling.share(number);
        let requests = worker.wear.requests();
        if let Some(max) = limits.requests_max
            // At least one, or a worker would be replaced that has served nobody.
            && requests >= (max.saturating_mul(share) / 1_000).max(1)
        {
            return Some(format!("it has answered {requests} requests (workers.requests_max is {max})"));
        }
        if self.end_of_life(number, worker).is_some_and(|end| end <= now) {
            return Some("it has served long enough (workers.lifetime)".to_owned());
        }
        let (memory, max) = (worker.wear.memory()?, limits.memory_max?);
        above(memory, max, share)
            .then(|| format!("it takes {} (workers.memory_max is {})", mebibytes(memory), mebibytes(max)))
    }

    fn end_of_life(&self, number: u32, worker: &Worker) -> Option<Instant> {
        let share = self.recycling.share(number) as f64 / 1_000.0;
        worker.ready?.checked_add(self.settings.recycle.lifetime?.mul_f64(share))
    }

    /// Memory of all workers and its ceiling, when it is above it.
    fn too_much(&self) -> Option<(u64, u64)> {
        let max = self.settings.recycle.memory_total_max?;
        let total = self.workers.values().filter_map(|worker| worker.wear.memory()).sum();
        (total > max).then_some((total, max))
    }

    fn largest_grown(&self) -> Option<u32> {
        let serving = self.workers.iter().filter(|(_, worker)| worker.serves() && self.is_fresh(worker));
        serving
            .filter(|(_, worker)| worker.wear.has_grown())
            .max_by_key(|(_, worker)| worker.wear.memory())
            .map(|(number, _)| *number)
    }
}

pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

#[cfg(test)]
mod tests;
