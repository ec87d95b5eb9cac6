//! Scaling: what the gateway reports of each pool goes to its scaler (`ctl-autoscaler`, pure), and what that wants is wanted.
//!
//! Who is started or retired then is decided in `staff.rs`. Nothing is scaled while workers cannot be started, and at a stop. While a
//! reload runs load may bring more workers, which run the new code, and none is taken away: what has to be replaced comes
//! first, and the new code's caches are cold.

use std::time::{Duration, Instant};

use ctl_admin::words::{Interface, PoolLoad, PoolStatus};
use ctl_autoscaler::{Decision, Limits, Scaler, Seen};

use crate::event::{Level, Pool};

use super::reload::Reload;
use super::{State, Worker};

/// A want that could not be met is told in status for this long after it was last felt.
const TOLD: Duration = Duration::from_secs(10);

/// What was felt within this time is told as it is now: the scaler looks ten times a second, and passes over some looks.
const NOW: Duration = Duration::from_secs(2);

/// Why the number is what it is while neither load nor order has changed it.
const CONFIGURED: &str = "as configured";

/// A pool's workers, as they should be.
#[derive(Debug)]
pub(crate) struct Crew {
    pub(super) wanted: u32,
    /// The bounds: as configured, or as an order has moved them (`order.rs`).
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) ordered: bool,
    pub(super) scaler: Scaler,
    /// Why it is this number, for people.
    pub(super) reason: String,
    /// More were needed and could not be had: when that was last so, and why.
    short: Option<(Instant, String)>,
    load: PoolLoad,
}

impl Crew {
    pub(super) fn new(pool: &Pool) -> Self {
        Self {
            wanted: pool.min,
            min: pool.min,
            max: pool.max,
            ordered: false,
            scaler: Scaler::new(pool.min),
            reason: CONFIGURED.to_owned(),
            short: None,
            load: PoolLoad::default(),
        }
    }

    fn shortage(&self, now: Instant) -> Option<String> {
        let (at, text) = self.short.as_ref()?;
        let ago = now.saturating_duration_since(*at);
        let when = if ago < NOW { String::new() } else { format!("{} s ago: ", ago.as_secs()) };
        (ago < TOLD).then(|| format!("{when}{text}"))
    }
}

impl State {
    /// For status.
    pub(crate) fn pools_status(&self) -> Vec<PoolStatus> {
        let pools = self.settings.pools.iter().zip(&self.staff).enumerate();
        let rows = pools.map(|(index, (pool, crew))| PoolStatus {
            name: pool.name.clone(),
            wanted: crew.wanted,
            min: crew.min,
            max: self.most(index),
            reason: crew.reason.clone(),
            load: crew.load.clone(),
        });
        rows.collect()
    }

    /// For status: what is short, and what is more than one would reckon with.
    pub(crate) fn scale_notes(&self, now: Instant) -> Vec<String> {
        // One worker is what `quintet dev` is about: what waits for it waits for the import.
        if self.settings.dev {
            return Vec::new();
        }
        let several = self.staff.len() > 1;
        let pools = (0..).zip(self.settings.pools.iter().zip(&self.staff));
        let notes = pools.flat_map(|(number, (pool, crew))| {
            let whose = if several { format!("pool {}: ", pool.name) } else { String::new() };
            let texts = [crew.shortage(now), self.connections_note(number)];
            texts.into_iter().flatten().map(move |text| format!("{whose}{text}"))
        });
        notes.collect()
    }

    /// An heir begins with as many workers as its elder has for the load that there is.
    pub(super) fn begin_with(&mut self, staff: &[u32]) {
        for ((crew, pool), had) in self.staff.iter_mut().zip(&self.settings.pools).zip(staff) {
            crew.wanted = (*had).max(pool.min).min(pool.max);
            crew.scaler = Scaler::new(crew.wanted);
        }
    }

    /// A reload of these apps may have changed the bounds, and ends orders; what scaling has found stays within them.
    pub(super) fn fit_staff(&mut self, modules: &[usize]) {
        let crews = self.staff.iter_mut().zip(&self.settings.pools);
        for (crew, pool) in crews.filter(|(_, pool)| modules.contains(&usize::from(pool.module))) {
            (crew.min, crew.max) = (pool.min, pool.max);
            crew.wanted = crew.wanted.max(pool.min).min(pool.max);
            if std::mem::take(&mut crew.ordered) {
                CONFIGURED.clone_into(&mut crew.reason);
            }
        }
    }

    /// A report of the gateway.
    pub(super) fn scale(&mut self, loads: &[PoolLoad], now: Instant) {
        for (crew, load) in self.staff.iter_mut().zip(loads) {
            crew.load.clone_from(load);
        }
        if !self.has_started()
            || self.reload.as_ref().is_some_and(Reload::waits_for_config)
            || self.stop.is_some()
        {
            return;
        }
        for pool in 0..self.staff.len() {
            let module = self.module_of(number(pool));
            if self.modules[module].crashes.waits_until(now).is_some() {
                continue;
            }
            let Some(mut limits) = self.scale_limits(pool) else { continue };
            if self.reloads(module) {
                limits.min = self.staff[pool].wanted;
            }
            let seen = self.seen(pool);
            let since = now.saturating_duration_since(self.began);
            let decision = self.staff[pool].scaler.decide(&seen, &limits, since);
            self.decided(pool, &decision, now);
        }
    }

    /// A request waits in a pool that has no worker.
    pub(super) fn wake(&mut self, pool: u16, now: Instant) {
        let pool = usize::from(pool);
        let Some(mut limits) = self.scale_limits(pool).filter(|_| self.stop.is_none()) else { return };
        // Who calls wants more. What a scaler remembers may be less than what is wanted since a reload has raised the bounds.
        limits.min = limits.min.max(self.staff[pool].wanted);
        let since = now.saturating_duration_since(self.began);
        let decision = self.staff[pool].scaler.wake(&limits, since);
        self.decided(pool, &decision, now);
    }

    fn decided(&mut self, pool: usize, decision: &Decision, now: Instant) {
        let (Some(crew), Some(settings)) = (self.staff.get_mut(pool), self.settings.pools.get(pool)) else {
            return;
        };
        if decision.why.is_short() {
            crew.short = Some((now, decision.why.to_string()));
        }
        if decision.wanted == crew.wanted {
            return;
        }
        let was = std::mem::replace(&mut crew.wanted, decision.wanted);
        crew.reason = decision.why.to_string();
        let (name, wanted, why) = (&settings.name, decision.wanted, &decision.why);
        let text = format!("pool {name}: {} instead of {was}: {why}", workers_text(wanted));
        self.log(Level::Info, text);
    }

    pub(super) fn scale_limits(&self, pool: usize) -> Option<Limits> {
        let (settings, crew) = (self.settings.pools.get(pool)?, self.staff.get(pool)?);
        Some(Limits {
            min: crew.min,
            max: crew.max,
            memory_bytes_max: self.settings.recycle.memory_total_max.unwrap_or(u64::MAX),
            db_connections_max: self.settings.db_connections_max,
            idle_timeout: settings.idle_timeout,
        })
    }

    pub(super) fn seen(&self, pool: usize) -> Seen {
        let number = number(pool);
        let load = &self.staff[pool].load;
        let serving = self.serving(number, false);
        let all = || self.workers.values();
        let memory_bytes_per_worker = self.memory_of_one_more(number);
        let mut memory_bytes = all().filter_map(|worker| worker.wear.memory()).sum::<u64>();
        // What workers tell may be anything.
        let connections = all().map(|worker| self.db_connections(worker));
        let mut db_connections = connections.fold(0, u32::saturating_add);
        // What other pools wait for will take its part, too. What this one waits for its scaler knows.
        for (other, wanted) in self.pools().filter(|(other, _)| *other != number) {
            let to_serve = u64::from(wanted.saturating_sub(count(self.serving(other, false))));
            memory_bytes =
                memory_bytes.saturating_add(to_serve.saturating_mul(self.memory_of_one_more(other)));
            let to_start = wanted.saturating_sub(count(self.staying(other)));
            let each = self.db_connections_of_one_more(other);
            db_connections = db_connections.saturating_add(to_start.saturating_mul(each));
        }
        Seen {
            serving: count(serving),
            starting: count(self.staying(number).saturating_sub(serving)),
            slots_per_worker: self.slots(number),
            busy: load.busy,
            waiting: load.waiting,
            head_wait: Duration::from_micros(load.head_wait_us),
            busy_total: Duration::from_micros(load.busy_us_total),
            served_total: load.served_total,
            shed_total: load.shed_total,
            service_p50: Duration::from_micros(load.service_p50_us),
            cpu: self.cpu,
            memory_bytes,
            memory_bytes_per_worker,
            db_connections,
            db_connections_per_worker: self.db_connections_of_one_more(number),
        }
    }

    /// All of an app run the same code: what one takes on average is the best guess for one more.
    fn memory_of_one_more(&self, pool: u16) -> u64 {
        let module = self.module_of(pool);
        let weigh = |which: &dyn Fn(&Worker) -> bool| {
            let weighed = self.workers.values().filter(|worker| which(worker));
            let weights: Vec<u64> = weighed.filter_map(|worker| worker.wear.memory()).collect();
            weights.iter().sum::<u64>().checked_div(weights.len() as u64)
        };
        // Of an app that has not been weighed yet, the others say at least how large apps are here.
        let own = weigh(&|worker| self.module_of_worker(worker) == module);
        own.or_else(|| weigh(&|_| true)).unwrap_or(0)
    }

    fn staying(&self, pool: u16) -> usize {
        self.of(pool).filter(|(_, worker)| worker.leaving.is_none()).count()
    }

    /// As many workers as a pool can come to have, were it the only one: database connections may allow fewer than its bound.
    pub(super) fn most(&self, pool: usize) -> u32 {
        let crew = &self.staff[pool];
        let each = self.db_connections_of_one_more(number(pool));
        let fitting = self.settings.db_connections_max.checked_div(each).unwrap_or(u32::MAX);
        crew.max.min(fitting).max(crew.min)
    }

    fn slots(&self, pool: u16) -> u32 {
        let Some(settings) = self.settings.pools.get(usize::from(pool)) else { return 1 };
        let active = &self.modules[self.module_of(pool)].active;
        let interface = active.as_ref().map_or(Interface::Wsgi, |(_, app)| app.interface);
        match interface {
            Interface::Wsgi => settings.threads,
            Interface::Asgi => settings.concurrency,
        }
    }

    /// An app without Django opens none that we would know of; one with it opens one a slot. What else its threads open it
    /// tells when it has happened.
    fn db_connections(&self, worker: &Worker) -> u32 {
        self.db_connections_by_slots(worker.place.pool).max(worker.connections)
    }

    /// All of a pool run the same app: what one has come to hold the next may.
    fn db_connections_of_one_more(&self, pool: u16) -> u32 {
        self.db_connections_by_slots(pool).max(self.most_connections(pool))
    }

    fn db_connections_by_slots(&self, pool: u16) -> u32 {
        let active = &self.modules[self.module_of(pool)].active;
        let django = active.as_ref().is_some_and(|(_, app)| app.django.is_some());
        if django { self.slots(pool) } else { 0 }
    }

    fn most_connections(&self, pool: u16) -> u32 {
        self.of(pool).map(|(_, worker)| worker.connections).max().unwrap_or_default()
    }

    /// A worker has told that it holds more of them than it has slots.
    pub(super) fn worker_connections(&mut self, number: u32, most: u32) {
        let Some(pool) = self.workers.get(&number).map(|worker| worker.place.pool) else { return };
        let is_news = self.most_connections(pool) == 0;
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.connections = worker.connections.max(most);
        }
        // Once; how many they have become is told by status.
        let name = self.settings.pools.get(usize::from(pool)).map(|pool| pool.name.clone());
        if let (true, Some(name), Some(text)) = (is_news, name, self.connections_note(pool)) {
            self.log(Level::Info, format!("pool {name}: {text}"));
        }
    }

    fn connections_note(&self, pool: u16) -> Option<String> {
        let (most, slots) = (self.most_connections(pool), self.slots(pool));
        (most > slots).then(|| {
            format!(
                "a worker holds up to {most} database connections at a time, more than its {slots} slots (other threads of \
                 the app, requests that just end, or several databases on one server); scaling counts it with {most}"
            )
        })
    }
}

pub(super) fn workers_text(workers: u32) -> String {
    match workers {
        0 => "no worker".to_owned(),
        1 => "1 worker".to_owned(),
        several => format!("{several} workers"),
    }
}

/// There are at most POOLS_MAX of them, see ctl-config.
fn number(pool: usize) -> u16 {
    u16::try_from(pool).unwrap_or(u16::MAX)
}

fn count(workers: usize) -> u32 {
    u32::try_from(workers).unwrap_or(u32::MAX)
}
