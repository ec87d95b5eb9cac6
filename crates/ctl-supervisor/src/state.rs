//! The supervisor's decisions: a pure state machine, `(event, now) -> actions`.
//!
//! No I/O, no clock and no process is touched here; `driver.rs` performs what [`State::handle`] returns and feeds
//! back what happened. That is what makes it possible to simulate years of crashes in `state/simulation.rs`.
//!
//! How it works: events change the records of the gateway and the workers; then, after each event, the same few
//! questions are asked (`settle`): is a deadline over? may the new code be activated? may an old worker go? is a
//! worker missing? is everything gone? Nothing depends on the order in which events arrive.
//!
//! Invariants:
//! - An old worker is retired only while at least as many others serve as are wanted: a reload never lowers capacity.
//! - A worker that could not start is tried again only after a back-off.
//! - Whoever was told to go is killed within a bound; after a stop, `Action::Exit` comes within a bound.

mod dev;
mod gateway;
mod module;
mod order;
mod questions;
mod recycle;
mod reload;
mod scale;
#[cfg(test)]
mod simulation;
mod staff;
mod stop;
mod template;
#[cfg(test)]
mod tests;
mod upgrade;
mod worker;

use std::collections::BTreeMap;
use std::mem;
use std::time::{Duration, Instant};

use ctl_admin::words::{Activated, Command, Drained, FromWorker, GatewayStatus, Reply, ToGateway};

use crate::event::{Action, ClientId, Event, Failure, Level, Notify, Settings, Who};
use crate::plan::Outcome;

use gateway::Gateway;
use module::Module;
use questions::Questions;
use recycle::Recycling;
use reload::{Queued, Reload};
use scale::Crew;
use stop::Stop;
use template::Templates;
use upgrade::{Elder, Heir};
use worker::Step;
pub(crate) use worker::Worker;

/// After SIGTERM, before SIGKILL: handlers and `atexit` functions run, requests are over by then.
const TERM_GRACE: Duration = Duration::from_secs(3);

/// After SIGKILL, before a process is given up as stuck in the kernel (a dead network disk, for example).
const KILL_WAIT: Duration = Duration::from_secs(5);

/// Between "ready" and all slots connected, which takes milliseconds: a worker beyond it does not work.
const ONLINE_TIMEOUT: Duration = Duration::from_secs(10);

/// For a worker that is idle and told to go.
const EXIT_GRACE: Duration = Duration::from_secs(5);

/// For the other requests of a worker in which one is stuck; the stuck one itself would never end.
const STUCK_GRACE: Duration = Duration::from_secs(10);

/// A worker that served this long did not fail at start: its replacement need not wait.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// A status without the gateway's numbers is better than one that is late.
const STATUS_TIMEOUT: Duration = Duration::from_millis(500);

/// The first pause and the longest between attempts to start workers.
const WORKER_BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// The state of an instance.
#[derive(Debug)]
pub(crate) struct State {
    settings: Settings,
    began: Instant,
    gateway: Gateway,
    workers: BTreeMap<u32, Worker>,
    /// The number of the worker that was started last; numbers are never used again.
    last_worker: u32,
    /// That of `[app]` first.
    modules: Vec<Module>,
    /// The highest generation there ever was.
    last_generation: u32,
    recycling: Recycling,
    templates: Templates,
    /// How many workers are wanted and why, by pool.
    staff: Vec<Crew>,
    /// Share of the CPU in use, as it was last seen.
    cpu: f32,
    reload: Option<Reload>,
    /// A reload asked for while another one runs (or before the start is over), and who waits for it.
    queued_reload: Option<Queued>,
    heir: Option<Heir>,
    /// Who waits for the end of an upgrade, and what they are told.
    upgraded: Option<(Vec<ClientId>, String)>,
    /// `None`: this instance has its names, and takes nobody's place any more.
    elder: Option<Elder>,
    stop: Option<Stop>,
    status: Option<(Instant, Vec<ClientId>)>,
    questions: Questions,
    /// Servers of upstreams that get no new requests, as the gateway said last.
    drained: Vec<Drained>,
    over: bool,
    out: Vec<Action>,
}

/// For status: what an instance is doing.
pub(crate) fn phase_name(state: &State) -> &'static str {
    if state.stop.is_some() {
        "draining"
    } else if !state.has_started() {
        "starting"
    } else if state.heir.is_some() {
        "upgrading"
    } else if state.reload.is_some() {
        "reloading"
    } else {
        "serving"
    }
}

impl State {
    pub(crate) fn new(settings: Settings, seed: u64, now: Instant) -> Self {
        Self {
            templates: Templates::default(),
            modules: (0..settings.modules.len().max(1)).map(|module| Module::new(module, seed)).collect(),
            staff: settings.pools.iter().map(Crew::new).collect(),
            cpu: 0.0,
            settings,
            began: now,
            gateway: Gateway::new(seed.rotate_left(32)),
            workers: BTreeMap::new(),
            last_worker: 0,
            last_generation: 1,
            recycling: Recycling::new(seed),
            reload: None,
            queued_reload: None,
            heir: None,
            upgraded: None,
            elder: None,
            stop: None,
            status: None,
            questions: Questions::default(),
            drained: Vec::new(),
            over: false,
            out: Vec::new(),
        }
    }

    /// The newest generation that serves; 0 before the first.
    pub(crate) fn generation(&self) -> u32 {
        self.modules.iter().map(Module::generation).max().unwrap_or(0)
    }

    pub(crate) fn workers(&self) -> impl Iterator<Item = (u32, &Worker)> {
        self.workers.iter().map(|(number, worker)| (*number, worker))
    }

    /// The template that workers are forked from now.
    pub(crate) fn template_pid(&self) -> Option<u32> {
        self.template_of(0)
    }

    pub(crate) fn gateway_pid(&self) -> Option<u32> {
        self.gateway.pid()
    }

    pub(crate) fn gateway_restarts(&self) -> u64 {
        self.gateway.restarts()
    }

    /// Takes in what happened and says what is to be done, in order.
    pub(crate) fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        match event {
            Event::Begin => self.spawn_gateway(now),
            Event::Tick => {}
            Event::Spawned { who: Who::Gateway, pid } => self.gateway.spawned(pid),
            Event::Spawned { who: Who::Template(template), pid } => self.templates.spawned(template, pid),
            Event::Spawned { who: Who::Worker(worker), pid } => {
                if let Some(spawned) = self.workers.get_mut(&worker) {
                    spawned.pid = Some(pid);
                    spawned.fork = None;
                }
                self.worker_event("started", worker);
            }
            Event::Spawned { who: Who::Heir, pid } => self.heir_spawned(pid),
            Event::SpawnFailed { who: Who::Heir, problem } => self.heir_not_spawned(&problem),
            Event::SpawnFailed { who: Who::Gateway, problem } => self.gateway_not_spawned(problem, now),
            Event::SpawnFailed { who: Who::Template(template), problem } => {
                self.template_not_spawned(template, problem, now);
            }
            Event::SpawnFailed { who: Who::Worker(worker), problem } => {
                self.worker_not_spawned(worker, problem, now);
            }
            Event::Exited { who: Who::Gateway, exit } => self.gateway_exited(exit, now),
            Event::Exited { who: Who::Template(template), exit } => self.template_exited(template, exit, now),
            Event::Exited { who: Who::Worker(worker), exit } => self.worker_exited(worker, exit, now),
            Event::Exited { who: Who::Heir, exit } => self.heir_exited(exit),
            Event::Heir(said) => self.heir_said(said, now),
            Event::Elder(said) => self.elder_said(said),
            Event::ElderGone => self.elder_gone(now),
            Event::TookOver(taken) => self.took_over(taken, now),
            Event::Gateway(said) => self.gateway_said(said, now),
            Event::Template { template, said } => self.template_said(template, said, now),
            Event::Worker { worker, said: FromWorker::Ready { app } } => self.worker_ready(worker, app, now),
            Event::Worker { worker, said: FromWorker::Hung } => self.worker_hung(worker, now),
            Event::Worker { worker, said: FromWorker::Connections { most } } => {
                self.worker_connections(worker, most);
            }
            Event::Worker { worker, said: FromWorker::Failed { message, traceback, hint } } => {
                self.worker_failed(worker, Failure { message, traceback, hint }, now);
            }
            Event::Cpu(share) => self.cpu = share,
            Event::Weighed { worker, bytes } => self.worker_weighed(worker, bytes),
            Event::Asked { client, command } => self.asked(Some(client), &command, now),
            Event::StopSignal => self.asked(None, &Command::Stop, now),
            Event::ReloadSignal => self.asked(None, &Command::Reload { module: None }, now),
            Event::ScaleSignal(change) => self.asked(None, &Command::Scale { pool: None, change }, now),
            Event::CodeChanged { what, modules } => {
                self.restart(&modules, &format!("{what} has changed"), now);
            }
            Event::ConfigRead(read) => {
                if !self.dev_config_read(&read) {
                    self.config_read(read, now);
                }
            }
        }
        self.settle(now);
        mem::take(&mut self.out)
    }

    /// When [`Event::Tick`] is due at the latest.
    pub(crate) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let workers = self.workers.values().filter_map(|worker| self.worker_deadline(worker));
        let status = self.status.as_ref().map(|(deadline, _)| *deadline);
        let modules = self.modules.iter().enumerate();
        let waits = modules.filter_map(|(module, known)| Some((module, known.crashes.waits_until(now)?)));
        let missing =
            waits.filter(|(module, _)| self.missing(*module).is_some()).map(|(_, until)| until).min();
        let listening = self.stop.as_ref().and_then(Stop::deadline);
        let gateway = self.gateway.deadline(now);
        let due = [
            self.heir_deadline(),
            status,
            self.questions.deadline(),
            missing,
            listening,
            self.recycle_deadline(now),
            self.template_deadline(now),
            gateway,
        ];
        workers.chain(due.into_iter().flatten()).min()
    }

    /// The questions that are asked after every event.
    fn settle(&mut self, now: Instant) {
        if self.over {
            return;
        }
        self.overdue_gateway(now);
        self.overdue_templates(now);
        self.overdue_workers(now);
        self.overdue_heir(now);
        self.overdue_status(now);
        self.overdue_questions(now);
        if self.stop.is_some() {
            self.settle_stop(now);
        } else {
            self.restart_gateway(now);
            self.activate(now);
            self.recycle(now);
            self.retire_old(now);
            self.settle_reload(now);
            self.retire_templates(now);
            self.start_missing(now);
            self.settle_elder();
        }
    }

    fn asked(&mut self, client: Option<ClientId>, command: &Command, now: Instant) {
        match command {
            Command::Status => self.status_asked(client, now),
            Command::Reload { module } => self.reload_asked(client, module.as_deref(), now),
            Command::Stop => self.stop_asked(client, now),
            Command::Upgrade { program } => self.upgrade_asked(client, program.clone(), now),
            Command::Scale { pool, change } => self.scale_asked(client, pool.as_deref(), *change),
            Command::Bans(request) => self.bans_asked(client, request, now),
            Command::Upstream(request) => self.upstream_asked(client, request, now),
        }
    }

    /// Of each app that generation serves which is the newest of which a worker serves; its first worker's report counts.
    fn activate(&mut self, now: Instant) {
        for module in self.all_modules() {
            self.activate_one(module, now);
        }
    }

    fn activate_one(&mut self, module: usize, now: Instant) {
        let serving = self.modules[module].generation();
        let newer = self
            .workers
            .values()
            .filter(|worker| self.module_of_worker(worker) == module)
            .filter(|worker| worker.serves() && worker.place.generation > serving)
            .max_by_key(|worker| worker.place.generation);
        let Some((generation, app)) =
            newer.and_then(|worker| Some((worker.place.generation, worker.report.clone()?)))
        else {
            return;
        };
        self.modules[module].active = Some((generation, app.clone()));
        // There are at most MODULES_MAX of them, see ctl-config.
        let number = u16::try_from(module).unwrap_or(u16::MAX);
        self.out.push(Action::TellGateway(ToGateway::Activate(Activated {
            module: number,
            generation,
            app,
        })));
        if serving == 0 && self.has_started() {
            let after = now.saturating_duration_since(self.began);
            let apps = self.modules.iter().filter_map(|known| Some((*known.active.as_ref()?.1).clone()));
            self.out.push(Action::Serving { apps: apps.collect(), after });
            if self.elder.is_none() {
                self.out.push(Action::Notify(Notify::Ready));
            }
        }
        self.code_serves(module, now);
    }

    fn status_asked(&mut self, client: Option<ClientId>, now: Instant) {
        let Some(client) = client else { return };
        match &mut self.status {
            Some((_, clients)) => clients.push(client),
            None => self.status = Some((now + STATUS_TIMEOUT, vec![client])),
        }
        if self.gateway.runs() {
            self.out.push(Action::TellGateway(ToGateway::Status));
        } else {
            self.answer_status(None);
        }
    }

    fn answer_status(&mut self, gateway: Option<GatewayStatus>) {
        if let Some((_, clients)) = self.status.take() {
            self.out.push(Action::AnswerStatus { clients, gateway });
        }
    }

    fn overdue_status(&mut self, now: Instant) {
        if self.status.as_ref().is_some_and(|(deadline, _)| *deadline <= now) {
            self.answer_status(None);
        }
    }

    /// Nothing can run, and it is not worth trying again.
    fn give_up(&mut self, outcome: Outcome, now: Instant) {
        if self.stop.is_none() {
            self.stop = Some(Stop::new(outcome, Vec::new(), now));
            self.fail_waiting("the instance could not start");
            self.hurry(Step::Term, now);
        }
    }

    fn worker_event(&mut self, event: &str, worker: u32) {
        if self.gateway.runs() {
            self.out.push(Action::TellGateway(ToGateway::WorkerEvent { event: event.to_owned(), worker }));
        }
    }

    fn log(&mut self, level: Level, text: impl Into<String>) {
        self.out.push(Action::Log(level, text.into()));
    }

    fn reply(&mut self, clients: &[ClientId], reply: &Reply) {
        self.out.extend(clients.iter().map(|client| Action::Reply { client: *client, reply: reply.clone() }));
    }
}
