//! How many workers each pool has: who is missing, who is too many, who is replaced.

use std::time::Instant;

use crate::event::{Action, Place};

use super::reload::Reload;
use super::template::Way;
use super::worker::Fork;
use super::{State, Worker};

/// Old workers that may be finishing their requests, for each one that is wanted, while a reload goes on: reloads that
/// follow each other quickly must not fill the memory. One reload alone gets there only when it takes away most of the workers.
const LEAVING_MAX_PER_WORKER: usize = 2;

impl State {
    /// For status and logs.
    pub(crate) fn pool_name(&self, pool: u16) -> &str {
        self.settings.pools.get(usize::from(pool)).map_or("", |pool| &pool.name)
    }

    /// Workers that shall serve, in all pools.
    pub(super) fn wanted(&self) -> u32 {
        self.staff.iter().map(|crew| crew.wanted).sum()
    }

    /// The same in those of one app.
    pub(super) fn wanted_of(&self, module: usize) -> u32 {
        self.pools_of(module).map(|(_, wanted)| wanted).sum()
    }

    /// By pool, for an heir to begin with.
    pub(crate) fn staff(&self) -> Vec<u32> {
        self.staff.iter().map(|crew| crew.wanted).collect()
    }

    pub(super) fn pools(&self) -> impl Iterator<Item = (u16, u32)> {
        // There are at most POOLS_MAX of them, see ctl-config.
        (0..).zip(self.staff.iter().map(|crew| crew.wanted))
    }

    fn pools_of(&self, module: usize) -> impl Iterator<Item = (u16, u32)> {
        self.pools().filter(move |(pool, _)| self.module_of(*pool) == module)
    }

    /// Every pool of the app has the workers that it shall have, and they run the newest code.
    pub(super) fn pools_are_complete(&self, module: usize) -> bool {
        self.pools_of(module).all(|(pool, wanted)| self.serving(pool, true) >= wanted as usize)
    }

    pub(super) fn of(&self, pool: u16) -> impl DoubleEndedIterator<Item = (u32, &Worker)> {
        let all = self.workers.iter().map(|(number, worker)| (*number, worker));
        all.filter(move |(_, worker)| worker.place.pool == pool)
    }

    pub(super) fn serving(&self, pool: u16, only_fresh: bool) -> usize {
        self.of(pool).filter(|(_, worker)| worker.serves() && (!only_fresh || self.is_fresh(worker))).count()
    }

    /// Old workers go as far as enough others serve.
    pub(super) fn retire_old(&mut self, now: Instant) {
        let leaving: Vec<u32> =
            self.pools().flat_map(|(pool, wanted)| self.dispensable(pool, wanted as usize)).collect();
        for number in leaving {
            self.retire(number, now);
        }
    }

    fn dispensable(&self, pool: u16, wanted: usize) -> Vec<u32> {
        let (fresh, all) = (self.serving(pool, true), self.serving(pool, false));
        // The oldest first. Those that do not serve yet (or not now, because the gateway is away) count for
        // nothing, so they stay until enough new ones serve.
        let old = self.of(pool).filter(|(_, worker)| worker.leaving.is_none() && !self.is_fresh(worker));
        let mut old: Vec<(u32, bool)> = old.map(|(number, worker)| (number, worker.serves())).collect();
        if fresh < wanted {
            old.retain(|(_, serves)| *serves);
            old.truncate(all.saturating_sub(wanted));
        }
        // More than wanted, because scaling has lowered the number: the newest go, but none that holds WebSockets or event
        // streams. Their clients would have to come back for no better reason than our thrift.
        let surplus = self
            .of(pool)
            .rev()
            .filter(|(_, worker)| worker.serves() && self.is_fresh(worker) && worker.wear.long_lived == 0);
        let surplus = surplus.map(|(number, _)| number).take(fresh.saturating_sub(wanted));
        old.into_iter().map(|(number, _)| number).chain(surplus).collect()
    }

    /// Missing workers are started: a few at a time, one at a time during a reload, none before the back-off is over. Each app by
    /// itself, so that one which does not start holds up nobody else.
    pub(super) fn start_missing(&mut self, now: Instant) {
        for module in self.all_modules() {
            self.start_template(module, now);
            self.start_missing_of(module, now);
        }
    }

    fn start_missing_of(&mut self, module: usize, now: Instant) {
        while let Some(place) = self.missing(module) {
            if self.modules[module].crashes.waits_until(now).is_some() {
                return;
            }
            let way = self.way(module);
            if way == Way::NotNow {
                return;
            }
            let worker = self.engage(place, now);
            match way {
                Way::Fork { template } => {
                    if let Some(new) = self.workers.get_mut(&worker) {
                        new.fork = Some(Fork { template, deadline: now + super::template::FORK_TIMEOUT });
                    }
                    self.out.push(Action::ForkWorker { template, worker, place });
                }
                Way::Alone | Way::NotNow => self.out.push(Action::SpawnWorker { worker, place }),
            }
        }
    }

    /// A new number, and its record.
    pub(super) fn engage(&mut self, place: Place, now: Instant) -> u32 {
        self.last_worker += 1;
        self.workers.insert(self.last_worker, Worker::new(place, now));
        self.last_worker
    }

    /// The place of a worker of this app that should be started now.
    pub(super) fn missing(&self, module: usize) -> Option<Place> {
        if self.stop.is_some()
            || self.modules[module].dev.holds()
            || self.reload.as_ref().is_some_and(Reload::waits_for_config)
        {
            return None;
        }
        let reloads = self.reloads(module);
        let own = || self.workers.values().filter(|worker| self.module_of_worker(worker) == module);
        let leaving = own().filter(|worker| worker.leaving.is_some()).count();
        if reloads && leaving >= LEAVING_MAX_PER_WORKER * self.wanted_of(module).max(1) as usize {
            return None;
        }
        let fresh = |worker: &Worker| worker.leaving.is_none() && self.is_fresh(worker);
        // While a reload runs a worker counts as starting until it serves: one after another.
        let starts = |worker: &Worker| if reloads { !worker.serves() } else { worker.ready.is_none() };
        let starting = own().filter(|worker| fresh(worker) && starts(worker)).count();
        let starting_max = if reloads { 1 } else { self.settings.starting_max.max(1) };
        if starting >= starting_max as usize {
            return None;
        }
        let count = |pool: u16| self.of(pool).filter(|(_, worker)| fresh(worker)).count();
        let (pool, _) = self.pools_of(module).find(|(pool, wanted)| count(*pool) < *wanted as usize)?;
        Some(Place { generation: self.modules[module].target, pool })
    }

    /// Of the newest code and in order.
    pub(super) fn is_fresh(&self, worker: &Worker) -> bool {
        let target = self.modules[self.module_of_worker(worker)].target;
        worker.place.generation == target && !worker.stuck && !worker.wear.worn
    }
}
