//! The world that is scaled: arrivals, a queue, workers with slots, a CPU and perhaps a database that is shared.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use crate::{Limits, Scaler, Seen, Why};

const STEP_MS: u64 = 5;
const REPORT_MS: u64 = 100;

/// What is played. A request takes `sleep_ms` of waiting (for the database, say) and `cpu_ms` of computing.
pub(super) struct World {
    /// Slots that would just be busy all the time, by seconds since the start.
    pub(super) load: Box<dyn Fn(f64) -> f64>,
    pub(super) sleep_ms: f64,
    pub(super) cpu_ms: f64,
    pub(super) cores: f64,
    pub(super) slots_per_worker: u32,
    /// From the decision until a worker serves.
    pub(super) start_ms: u64,
    /// Requests that the database works on at full speed; more share it.
    pub(super) database: Option<f64>,
    /// Requests that have waited longer leave.
    pub(super) patience: Duration,
}

impl Default for World {
    fn default() -> Self {
        Self {
            load: Box::new(|_| 1.0),
            sleep_ms: 95.0,
            cpu_ms: 5.0,
            cores: 16.0,
            slots_per_worker: 4,
            start_ms: 150,
            database: None,
            patience: Duration::from_secs(60),
        }
    }
}

/// What came of it.
pub(super) struct Outcome {
    waits: Vec<u64>,
    pub(super) changes: u32,
    pub(super) workers: u32,
    pub(super) workers_max: u32,
    worker_seconds: f64,
    ideal_seconds: f64,
    pub(super) why: Why,
    pub(super) whys: Vec<Why>,
    pub(super) history: Vec<(Duration, u32, Why)>,
}

impl Outcome {
    pub(super) fn wait(&self, quantile: f64) -> Duration {
        let at = (self.waits.len() as f64 * quantile) as usize;
        Duration::from_millis(self.waits.get(at).copied().unwrap_or_default())
    }

    /// Worker time over what would just have sufficed, had all been known.
    pub(super) fn cost(&self) -> f64 {
        self.worker_seconds / self.ideal_seconds
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99, p999) = (self.wait(0.5), self.wait(0.99), self.wait(0.999));
        writeln!(f, "served {}, wait p50 {p50:?} p99 {p99:?} p99.9 {p999:?}", self.waits.len())?;
        writeln!(
            f,
            "workers {} (at most {}), {} changes, worker seconds {:.0} of ideal {:.0} = {:.2}",
            self.workers,
            self.workers_max,
            self.changes,
            self.worker_seconds,
            self.ideal_seconds,
            self.cost()
        )?;
        for (at, workers, why) in self.history.iter().take(60) {
            writeln!(f, "{:>8.1} s {workers:>4}  {why}", at.as_secs_f32())?;
        }
        write!(f, "last: {}", self.why)
    }
}

struct Running {
    sleep_ms: f64,
    cpu_ms: f64,
    began: u64,
}

struct State {
    random: u64,
    next_arrival_ms: f64,
    queue: VecDeque<u64>,
    running: Vec<Running>,
    /// When each worker serves.
    workers: Vec<u64>,
    busy: u64,
    served: u64,
    lost: u64,
    lately: VecDeque<u64>,
    cpu: f32,
}

impl State {
    /// Uniform, above 0 and at most 1.
    fn uniform(&mut self) -> f64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.random >> 33) as f64 + 1.0) / f64::from(1_u32 << 31)
    }
}

impl World {
    /// Plays so many seconds, beginning with the fewest workers.
    pub(super) fn run(&self, limits: &Limits, seconds: u64) -> Outcome {
        let mut scaler = Scaler::new(limits.min);
        let mut state = State {
            random: 42,
            next_arrival_ms: 0.0,
            queue: VecDeque::new(),
            running: Vec::new(),
            workers: vec![0; limits.min as usize],
            busy: 0,
            served: 0,
            lost: 0,
            lately: VecDeque::new(),
            cpu: 0.0,
        };
        let mut outcome = Outcome {
            waits: Vec::new(),
            changes: 0,
            workers: limits.min,
            workers_max: limits.min,
            worker_seconds: 0.0,
            ideal_seconds: 0.0,
            why: Why::Steady,
            whys: Vec::new(),
            history: Vec::new(),
        };
        for now in (0..seconds * 1000).step_by(STEP_MS as usize) {
            self.step(&mut state, &mut outcome, now);
            if now % REPORT_MS == 0 {
                self.report(&mut state, &mut outcome, &mut scaler, limits, now);
            }
            let step = STEP_MS as f64 / 1000.0;
            let load = (self.load)(now as f64 / 1000.0);
            outcome.worker_seconds += state.workers.len() as f64 * step;
            outcome.ideal_seconds +=
                (load / f64::from(self.slots_per_worker)).max(f64::from(limits.min)) * step;
        }
        outcome.waits.sort_unstable();
        outcome
    }

    fn step(&self, state: &mut State, outcome: &mut Outcome, now: u64) {
        let service_ms = self.sleep_ms + self.cpu_ms;
        while state.next_arrival_ms <= now as f64 {
            state.queue.push_back(now);
            let load = (self.load)(now as f64 / 1000.0).max(0.001);
            state.next_arrival_ms += -state.uniform().ln() * service_ms / load;
        }
        let patience = self.patience.as_millis() as u64;
        while state.queue.front().is_some_and(|&since| now - since > patience) {
            state.queue.pop_front();
            state.lost += 1;
        }
        let serving = state.workers.iter().filter(|&&from| from <= now).count();
        let slots = serving * self.slots_per_worker as usize;
        while state.running.len() < slots
            && let Some(since) = state.queue.pop_front()
        {
            outcome.waits.push(now - since);
            // Between half and one and a half of the mean.
            let factor = 0.5 + state.uniform();
            let (sleep_ms, cpu_ms) = (self.sleep_ms * factor, self.cpu_ms * factor);
            state.running.push(Running { sleep_ms, cpu_ms, began: now });
        }
        let computing = state.running.iter().filter(|request| request.sleep_ms <= 0.0).count() as f64;
        let asking = state.running.len() as f64 - computing;
        let cpu_speed = (self.cores / computing).min(1.0);
        let database_speed = self.database.map_or(1.0, |at_once| (at_once / asking).min(1.0));
        let step = STEP_MS as f64;
        for request in &mut state.running {
            if request.sleep_ms > 0.0 {
                request.sleep_ms -= step * database_speed;
            } else {
                request.cpu_ms -= step * cpu_speed;
            }
        }
        state.cpu = state.cpu * 0.95 + 0.05 * (computing / self.cores).min(1.0) as f32;
        state.busy += STEP_MS * state.running.len() as u64;
        let done = |request: &Running| request.sleep_ms <= 0.0 && request.cpu_ms <= 0.0;
        for request in state.running.iter().filter(|request| done(request)) {
            state.served += 1;
            state.lately.push_back(now + STEP_MS - request.began);
        }
        state.running.retain(|request| !done(request));
        while state.lately.len() > 200 {
            state.lately.pop_front();
        }
    }

    fn report(
        &self,
        state: &mut State,
        outcome: &mut Outcome,
        scaler: &mut Scaler,
        limits: &Limits,
        now: u64,
    ) {
        let serving = state.workers.iter().filter(|&&from| from <= now).count() as u32;
        let there = state.workers.len() as u32;
        let mut lately: Vec<u64> = state.lately.iter().copied().collect();
        lately.sort_unstable();
        let seen = Seen {
            serving,
            starting: there - serving,
            slots_per_worker: self.slots_per_worker,
            busy: state.running.len() as u32,
            waiting: state.queue.len() as u32,
            head_wait: Duration::from_millis(state.queue.front().map_or(0, |&since| now - since)),
            busy_total: Duration::from_millis(state.busy),
            served_total: state.served,
            shed_total: state.lost,
            service_p50: Duration::from_millis(lately.get(lately.len() / 2).copied().unwrap_or_default()),
            cpu: state.cpu,
            memory_bytes: u64::from(serving) * (100 << 20),
            memory_bytes_per_worker: 100 << 20,
            db_connections: there * self.slots_per_worker,
            db_connections_per_worker: self.slots_per_worker,
        };
        let at = Duration::from_millis(now);
        let decision = scaler.decide(&seen, limits, at);
        if decision.wanted != there {
            outcome.changes += 1;
            outcome.history.push((at, decision.wanted, decision.why));
        }
        while (state.workers.len() as u32) < decision.wanted {
            state.workers.push(now + self.start_ms);
        }
        state.workers.truncate(decision.wanted as usize);
        outcome.workers = decision.wanted;
        outcome.workers_max = outcome.workers_max.max(decision.wanted);
        outcome.why = decision.why;
        if !outcome.whys.contains(&decision.why) {
            outcome.whys.push(decision.why);
        }
    }
}
