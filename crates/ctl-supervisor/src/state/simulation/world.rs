//! The seeded world: processes that start, hang, crash and obey or do not, and the invariants that hold meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ctl_admin::words::{AppReport, Command, FromGateway, FromWorker, Reply, ToGateway};

use crate::event::{Action, ClientId, Event, Exit, Pool, RecycleLimits, Settings, Who};
use crate::plan::{Outcome, Problem};
use crate::state::{State, Worker, phase_name};
use crate::upgrade::FromHeir;

use super::births::Births;

/// SplitMix64.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub(super) fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.next() % (to - from))
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FakeWorker {
    pub(super) pool: u16,
    pub(super) ready: bool,
    pub(super) online: bool,
    /// Told to go, in whatever way.
    pub(super) told: bool,
    /// Told with SIGKILL, which is the only way when it is deaf.
    pub(super) deaf: bool,
}

/// What may happen by itself: in percent, or not at all during quiet times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Misfortune {
    /// Of starts that fail, crash or hang.
    pub(super) bad_start: u64,
    /// Only those of this app; `None`: of all.
    pub(super) only: Option<usize>,
    /// Of processes that ignore what they are told.
    pub(super) deaf: u64,
}

pub(super) const QUIET: Misfortune = Misfortune { bad_start: 0, only: None, deaf: 0 };

/// Something that will happen.
pub(super) enum Later {
    Event(Event),
    /// The gateway of this number becomes ready.
    GatewayReady(u32),
    GatewayEnds(u32, Exit),
    TemplateReady(u32),
    TemplateEnds(u32, Exit),
    /// The template of this number has forked this worker, or could not.
    Forks(u32, u32),
    WorkerReady(u32),
    WorkerConnects(u32),
    WorkerEnds(u32, Exit),
    /// It is known by now that the whole process hangs in C.
    WorkerHangs(u32),
    HeirSays(u32, FromHeir),
    HeirEnds(u32, Exit),
}

pub(super) struct World {
    pub(super) state: State,
    pub(super) dice: Dice,
    pub(super) settings: Settings,
    pub(super) now: Instant,
    later: BTreeMap<(Instant, u64), Later>,
    order: u64,
    pub(super) gateway: Option<(u32, bool)>,
    gateways: u32,
    heir: Option<u32>,
    heirs: u32,
    pub(super) births: Births,
    pub(super) workers: BTreeMap<u32, FakeWorker>,
    pub(super) used: BTreeSet<u32>,
    pub(super) misfortune: Misfortune,
    /// Clients without a last reply.
    pub(super) waiting: BTreeMap<ClientId, Command>,
    clients: ClientId,
    pub(super) stopping: bool,
    /// The gateway's counter of busy time.
    pub(super) busy_us: u64,
    pub(super) spawns: Vec<Instant>,
    pub(super) end: Option<Outcome>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let modules = 1 + dice.next() % 3;
        let settings = Settings {
            waiting: Vec::new(),
            dev: false,
            modules: (0..modules).map(|module| format!("module{module}")).collect(),
            pools: pools(&mut dice, modules as u16),
            preload: dice.chance(75),
            starting_max: 1 + (dice.next() % 4) as u32,
            start_timeout: dice.ms(5_000, 60_000),
            drain_delay: dice.ms(0, 5_000),
            drain_timeout: dice.ms(0, 30_000),
            db_connections_max: 4 + (dice.next() % 60) as u32,
            recycle: RecycleLimits::default(),
        };
        let now = Instant::now();
        Self {
            state: State::new(settings.clone(), seed, now),
            settings,
            now,
            later: BTreeMap::new(),
            order: 0,
            gateway: None,
            gateways: 0,
            heir: None,
            heirs: 0,
            births: Births::new(&mut dice),
            workers: BTreeMap::new(),
            used: BTreeSet::new(),
            misfortune: QUIET,
            waiting: BTreeMap::new(),
            clients: 0,
            stopping: false,
            busy_us: 0,
            spawns: Vec::new(),
            end: None,
            dice,
        }
    }

    pub(super) fn after(&mut self, delay: Duration, later: Later) {
        self.order += 1;
        self.later.insert((self.now + delay, self.order), later);
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let until = self.now + time;
        let mut steps = 0;
        while self.end.is_none() {
            steps += 1;
            assert!(steps < 200_000, "time stands still");
            let happens = self.later.keys().next().map(|(at, _)| *at);
            let due = self.state.next_deadline(self.now).map(|due| due.max(self.now));
            let Some(at) = [happens, due].into_iter().flatten().min().filter(|at| *at <= until) else {
                break;
            };
            self.now = at;
            if happens == Some(at) {
                let Some((_, later)) = self.later.pop_first() else { continue };
                self.happen(later);
            } else {
                self.feed(Event::Tick);
                let next = self.state.next_deadline(self.now);
                assert!(
                    next.is_none_or(|next| next > self.now),
                    "a deadline that stays due would be a busy loop"
                );
            }
        }
        self.now = self.now.max(until);
    }

    pub(super) fn happen(&mut self, later: Later) {
        match later {
            Later::TemplateReady(number) => self.template_ready(number),
            Later::TemplateEnds(number, exit) => self.template_ends(number, exit),
            Later::Forks(template, worker) => self.forks(template, worker),
            Later::Event(event) => self.feed(event),
            Later::GatewayReady(number) => {
                let Some((_, ready)) = self.gateway.as_mut().filter(|(known, _)| *known == number) else {
                    return;
                };
                *ready = true;
                self.feed(Event::Gateway(FromGateway::Ready));
                let waiting: Vec<u32> = self
                    .workers
                    .iter()
                    .filter(|(_, worker)| worker.ready)
                    .map(|(number, _)| *number)
                    .collect();
                for worker in waiting {
                    let delay = self.dice.ms(1, 200);
                    self.after(delay, Later::WorkerConnects(worker));
                }
            }
            Later::GatewayEnds(number, exit) => {
                if self.gateway.take_if(|(known, _)| *known == number).is_some() {
                    self.workers.values_mut().for_each(|worker| worker.online = false);
                    self.feed(Event::Exited { who: Who::Gateway, exit });
                }
            }
            Later::WorkerReady(number) => {
                let Some(worker) = self.workers.get_mut(&number) else { return };
                worker.ready = true;
                // Either socket may be read first.
                if self.dice.chance(50) {
                    self.happen(Later::WorkerConnects(number));
                } else {
                    let delay = self.dice.ms(0, 100);
                    self.after(delay, Later::WorkerConnects(number));
                }
                let said = FromWorker::Ready { app: Box::new(AppReport::default()) };
                self.feed(Event::Worker { worker: number, said });
            }
            Later::HeirSays(number, said) => {
                if self.heir == Some(number) {
                    self.feed(Event::Heir(said));
                }
            }
            Later::HeirEnds(number, exit) => {
                if self.heir.take_if(|known| *known == number).is_some() {
                    self.feed(Event::Exited { who: Who::Heir, exit });
                }
            }
            Later::WorkerHangs(worker) => {
                let Some(known) = self.workers.get_mut(&worker) else { return };
                // It serves nobody, told to go or not.
                known.told = true;
                self.feed(Event::Worker { worker, said: FromWorker::Hung });
            }
            Later::WorkerConnects(worker) => {
                let up = self.gateway.is_some_and(|(_, ready)| ready);
                let Some(known) = self.workers.get_mut(&worker).filter(|known| up && !known.online) else {
                    return;
                };
                known.online = true;
                self.feed(Event::Gateway(FromGateway::WorkerOnline { worker }));
            }
            Later::WorkerEnds(number, exit) => {
                if self.workers.remove(&number).is_some() {
                    self.feed(Event::Exited { who: Who::Worker(number), exit });
                }
            }
        }
    }

    pub(super) fn feed(&mut self, event: Event) {
        assert!(self.end.is_none(), "{event:?} after the end");
        for action in self.state.handle(event, self.now) {
            assert!(self.end.is_none(), "{action:?} after the end");
            self.perform(action);
        }
    }

    pub(super) fn serving(&self, pool: u16) -> usize {
        let serves = |worker: &&FakeWorker| worker.ready && worker.online && !worker.told;
        self.workers.values().filter(serves).filter(|worker| worker.pool == pool).count()
    }

    /// A worker is told to go: fine if it did not serve anyway, or if enough others do.
    fn tell_to_go(&mut self, number: u32) {
        let Some(worker) = self.workers.get_mut(&number) else { return };
        let (pool, served) = (worker.pool, worker.ready && worker.online && !worker.told);
        worker.told = true;
        let serving = self.serving(pool);
        let wanted = self.state.staff[usize::from(pool)].wanted as usize;
        assert!(
            !served || self.stopping || serving >= wanted,
            "worker {number} goes and {serving} of {wanted} are left"
        );
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::SpawnGateway { .. } => self.spawn_gateway(),
            Action::SpawnTemplate { template, module, .. } => self.spawn_template(template, module),
            Action::SpawnWorker { worker, place } => self.spawn_worker(worker, place.pool),
            Action::ForkWorker { template, worker, place } => self.fork_worker(template, worker, place.pool),
            Action::Become { template, worker, place } => self.template_becomes(template, worker, place.pool),
            Action::Forget { worker } => self.forget(worker),
            Action::TellGateway(message) => self.tell_gateway(message),
            Action::TellWorkerExit { worker } => {
                self.tell_to_go(worker);
                if !self.dice.chance(self.misfortune.deaf) {
                    let delay = self.dice.ms(1, 4_000);
                    self.after(delay, Later::WorkerEnds(worker, Exit::Code(0)));
                }
            }
            Action::TellWorkerDump { worker, .. } => {
                if self.dice.chance(30) {
                    let delay = self.dice.ms(1_000, 1_500);
                    self.after(delay, Later::WorkerHangs(worker));
                }
            }
            Action::Terminate(who) => {
                if !self.dice.chance(self.misfortune.deaf) {
                    self.ends(who, Exit::Signal(15), 2_000);
                }
            }
            Action::Kill(who) => self.kill(who),
            Action::Reply { client, reply } => {
                assert!(self.waiting.contains_key(&client), "{reply:?} for nobody");
                if !matches!(reply, Reply::Progress { .. }) {
                    self.waiting.remove(&client);
                }
            }
            Action::AnswerStatus { clients, .. } => {
                for client in clients {
                    assert_eq!(self.waiting.remove(&client), Some(Command::Status));
                }
            }
            Action::ReadConfig { modules } => self.read_config(&modules),
            Action::Exit(outcome) => self.end = Some(outcome),
            Action::SpawnHeir { .. } => self.spawn_heir(),
            Action::TellHeir(_) => {
                // It has said that it serves, and ends before it has the names.
                let delay = self.dice.ms(1, 12_000);
                self.after(delay, Later::HeirEnds(self.heirs, Exit::Signal(11)));
            }
            Action::HandOver { .. } | Action::TakeOver | Action::TellElder(_) => {
                panic!("no heir comes so far here")
            }
            Action::Reclaim
            | Action::StopListening
            | Action::Serving { .. }
            | Action::ShowFailure(_)
            | Action::Log(..)
            | Action::Notify(_) => {}
        }
    }

    /// Somebody has changed some numbers, or has made a mistake.
    fn read_config(&mut self, modules: &[usize]) {
        let read = if self.dice.chance(self.misfortune.bad_start / 4) {
            Err("quintet.toml: line 1".to_owned())
        } else {
            let workers = 1 + (self.dice.next() % 6) as u32;
            self.settings.preload ^= self.dice.chance(20);
            let max = workers + (self.dice.next() % 4) as u32;
            for module in modules {
                // The pool that must have workers: the site's is the first, a module's own its last.
                let mut pools = self.settings.pools.iter_mut();
                let own = match module {
                    0 => pools.next(),
                    _ => pools.rfind(|pool| usize::from(pool.module) == *module),
                };
                if let Some(pool) = own {
                    (pool.min, pool.max) = (workers, max);
                }
            }
            Ok(self.settings.clone())
        };
        self.after(Duration::ZERO, Later::Event(Event::ConfigRead(read)));
    }

    /// Now and then even SIGKILL has no effect; such a process counts for nothing any more.
    fn kill(&mut self, who: Who) {
        if !self.dice.chance(self.misfortune.deaf / 8) {
            self.ends(who, Exit::Signal(9), 100);
            return;
        }
        match who {
            Who::Gateway => {}
            Who::Template(template) => self.births.remove(template),
            Who::Heir => self.heir = None,
            Who::Worker(worker) => drop(self.workers.remove(&worker)),
        }
    }

    /// One that never takes over, for one reason or another.
    fn spawn_heir(&mut self) {
        self.heirs += 1;
        assert!(self.heir.is_none(), "one at a time");
        if self.dice.chance(20) {
            let problem = Problem::new("no such program");
            self.after(Duration::ZERO, Later::Event(Event::SpawnFailed { who: Who::Heir, problem }));
            return;
        }
        self.heir = Some(self.heirs);
        self.after(Duration::ZERO, Later::Event(Event::Spawned { who: Who::Heir, pid: self.heirs }));
        let delay = self.dice.ms(1, 90_000);
        match self.dice.next() % 4 {
            0 => self.after(delay, Later::HeirEnds(self.heirs, Exit::Code(1))),
            1 => {
                let said = FromHeir::Failed { text: "error: no".to_owned(), app: false };
                self.after(delay, Later::HeirSays(self.heirs, said));
            }
            2 => self.after(delay, Later::HeirSays(self.heirs, FromHeir::Serves)),
            _ => {}
        }
    }

    fn ends(&mut self, who: Who, exit: Exit, within_ms: u64) {
        let delay = self.dice.ms(1, within_ms);
        match who {
            Who::Gateway => {
                if let Some((number, _)) = self.gateway {
                    self.after(delay, Later::GatewayEnds(number, exit));
                }
            }
            Who::Template(template) => self.after(delay, Later::TemplateEnds(template, exit)),
            Who::Heir => self.after(delay, Later::HeirEnds(self.heirs, exit)),
            Who::Worker(worker) => {
                if let Some(known) = self.workers.get_mut(&worker) {
                    known.told = true;
                }
                self.after(delay, Later::WorkerEnds(worker, exit));
            }
        }
    }

    fn spawn_gateway(&mut self) {
        self.gateways += 1;
        let number = self.gateways;
        if self.dice.chance(self.misfortune.bad_start / 8) {
            let problem = Problem::new("fork: no memory");
            self.after(Duration::ZERO, Later::Event(Event::SpawnFailed { who: Who::Gateway, problem }));
            return;
        }
        // The one before may be left over if it hung in the kernel.
        self.gateway = Some((number, false));
        self.after(Duration::ZERO, Later::Event(Event::Spawned { who: Who::Gateway, pid: number }));
        let delay = self.dice.ms(1, 300);
        if self.dice.chance(self.misfortune.bad_start / 2) {
            if self.dice.chance(80) {
                self.after(delay, Later::GatewayEnds(number, Exit::Signal(11)));
            }
        } else {
            self.after(delay, Later::GatewayReady(number));
        }
    }

    fn tell_gateway(&mut self, message: ToGateway) {
        match message {
            ToGateway::Retire { workers } => {
                for worker in workers {
                    self.tell_to_go(worker);
                    let deaf = self.dice.chance(self.misfortune.deaf)
                        || self.workers.get(&worker).is_some_and(|worker| worker.deaf);
                    if !deaf {
                        let delay = self.dice.ms(1, 40_000);
                        self.after(
                            delay,
                            Later::Event(Event::Gateway(FromGateway::WorkerRetired { worker })),
                        );
                        self.after(delay, Later::WorkerEnds(worker, Exit::Code(0)));
                    }
                }
            }
            ToGateway::Bans { .. } | ToGateway::Upstream { .. } => panic!("nobody asks here"),
            ToGateway::HandOver => panic!("no heir comes so far here"),
            ToGateway::Drain => {
                assert!(self.stopping);
                if let Some((number, _)) = self.gateway.filter(|_| !self.dice.chance(self.misfortune.deaf)) {
                    let delay = self.dice.ms(1, 35_000);
                    self.after(delay, Later::GatewayEnds(number, Exit::Code(0)));
                }
            }
            ToGateway::Status => {
                if self.dice.chance(70) {
                    let delay = self.dice.ms(1, 900);
                    let said = FromGateway::Status(ctl_admin::words::GatewayStatus::default());
                    self.after(delay, Later::Event(Event::Gateway(said)));
                }
            }
            ToGateway::Sync { number } => {
                let delay = self.dice.ms(1, 20);
                self.after(delay, Later::Event(Event::Gateway(FromGateway::Synced { number })));
            }
            ToGateway::Start(_)
            | ToGateway::Activate(_)
            | ToGateway::ReloadTls
            | ToGateway::Hold { .. }
            | ToGateway::Broken { .. }
            | ToGateway::WorkerEvent { .. } => {}
        }
    }

    pub(super) fn ask(&mut self, command: Command) {
        self.clients += 1;
        self.waiting.insert(self.clients, command.clone());
        self.stopping |= command == Command::Stop;
        self.feed(Event::Asked { client: self.clients, command });
    }

    /// How often a start of this app goes wrong.
    pub(super) fn bad_start(&self, module: usize) -> u64 {
        match self.misfortune.only {
            Some(only) if only != module => 0,
            _ => self.misfortune.bad_start,
        }
    }

    pub(super) fn assert_healthy(&self) {
        for (pool, crew) in (0..).zip(&self.state.staff) {
            assert_eq!(self.serving(pool), crew.wanted as usize, "pool {pool}: {:#?}", self.state);
        }
        assert_eq!(self.workers.len(), self.state.wanted() as usize, "{:#?}", self.state);
        assert!(self.waiting.is_empty(), "{:?} have no answer: {:#?}", self.waiting, self.state);
        assert_eq!(phase_name(&self.state), "serving");
        // A start or a reload has just ended: no order is left.
        assert_eq!(self.state.order_notes(), [""; 0]);
        let generation =
            |worker: &Worker| self.state.modules[self.state.module_of_worker(worker)].generation();
        let up_to_date = |worker: &Worker| worker.place.generation == generation(worker) && worker.serves();
        assert!(self.state.workers().all(|(_, worker)| up_to_date(worker)));
        self.assert_templates_are_healthy();
    }
}

/// The default one, up to two others, which may have no worker, of any app, and one of each other app.
fn pools(dice: &mut Dice, modules: u16) -> Vec<Pool> {
    let mut pools = Vec::new();
    for pool in 0..=dice.next() % 3 {
        let min = if pool == 0 { 1 + dice.next() % 6 } else { dice.next() % 3 } as u32;
        let max = min.max(1) + (dice.next() % 4) as u32;
        let module = if pool == 0 { 0 } else { dice.next() % u64::from(modules) } as u16;
        pools.push(Pool { module, ..Pool::of(&format!("pool{pool}"), min, max) });
    }
    for module in 1..modules {
        let min = 1 + (dice.next() % 3) as u32;
        let max = min + (dice.next() % 3) as u32;
        pools.push(Pool { module, ..Pool::of(&format!("module{module}"), min, max) });
    }
    pools
}
