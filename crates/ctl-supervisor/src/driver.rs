//! The thin part: waits for something to happen, hands it to [`State`], does what it says. Decides nothing.
//!
//! One thread, one `poll`, nothing blocks. A child's last words are read before its end is reported.

mod children;
mod clients;
mod cpu;
mod heir;
mod memory;
mod signals;
mod start;
mod status;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use ctl_admin::words::{Change, Drained, FromGateway, FromTemplate, FromWorker, Reply, ToWorker};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal};

use crate::event::{Action, ClientId, Event, Exit, Level, Who};
use crate::house::House;
use crate::inotify::Watcher;
use crate::peer::Peer;
use crate::plan::{Outcome, Problem};
use crate::state::State;
use crate::systemd::Notifier;
use crate::{proc, report};

pub(crate) use children::{Program, kill_the_rest, pid_of, reap};
pub(crate) use signals::{Asks, SignalPipe, wait_for_signals};

use children::Child;
use clients::Clients;
use cpu::Cpu;
use heir::Successor;
use memory::Scales;

/// Longest sleep: a lost wake-up would cost this much, not the instance.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// What a readable descriptor belongs to.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signal(usize),
    Listener,
    Client(ClientId),
    Gateway,
    Template(u32),
    Worker(u32),
    Heir,
    Elder,
    Code,
}

pub(crate) struct Driver {
    state: State,
    house: House,
    signals: Vec<SignalPipe>,
    clients: Clients,
    gateway: Option<Child>,
    templates: BTreeMap<u32, Child>,
    workers: BTreeMap<u32, Child>,
    heir: Option<Child>,
    /// The instance whose heir we are, until it has gone.
    elder: Option<Peer>,
    /// The heir that has taken over.
    successor: Option<Successor>,
    /// Who has ended while a fork was under way and is nobody we know: a worker may die before its template has said that it
    /// is there.
    strangers: BTreeMap<u32, Exit>,
    /// Children that this process had before it became a supervisor (a script that started something, then
    /// `exec quintet run`): none of our business.
    inherited: BTreeSet<u32>,
    /// `quintet dev`.
    watcher: Option<Watcher>,
    notifier: Notifier,
    scales: Scales,
    cpu: Cpu,
    began: Instant,
    next_alive: Option<Instant>,
    /// Standard error was a terminal at start: a SIGHUP may mean that it was closed.
    on_terminal: bool,
    outcome: Option<Outcome>,
}

impl Driver {
    pub(crate) fn new(
        house: House,
        control: UnixListener,
        elder: Option<(Peer, Vec<u32>, Vec<Drained>)>,
        seed: u64,
    ) -> Result<Self, Problem> {
        let problem = |error: io::Error| {
            Problem::new("the supervisor cannot listen to signals and commands").detail(error.to_string())
        };
        let now = Instant::now();
        let notifier = Notifier::from_env();
        let mut state = State::new(house.settings(), seed, now);
        let elder = elder.map(|(peer, staff, drained)| {
            state.inherits(&staff, drained);
            peer
        });
        Ok(Self {
            state,
            signals: signals::register().map_err(problem)?,
            clients: Clients::new(control).map_err(problem)?,
            gateway: None,
            templates: BTreeMap::new(),
            workers: BTreeMap::new(),
            heir: None,
            elder,
            successor: None,
            strangers: BTreeMap::new(),
            inherited: proc::children_of(std::process::id()).into_iter().collect(),
            next_alive: notifier.watchdog().map(|every| now + every),
            watcher: watch(&house),
            notifier,
            scales: Scales::new(now),
            cpu: Cpu::default(),
            began: now,
            on_terminal: is_terminal(),
            outcome: None,
            house,
        })
    }

    /// Until everything has ended.
    pub(crate) fn run(mut self) -> Outcome {
        self.feed(Event::Begin);
        loop {
            if let Some(outcome) = self.outcome.take() {
                self.farewell();
                return self.retire(outcome);
            }
            match self.wait() {
                Ok(ready) => ready.into_iter().for_each(|(source, flags)| self.attend(source, flags)),
                Err(error) => {
                    // Only a lack of kernel memory is left as a reason; a busy loop would make it worse.
                    tracing::error!(%error, "poll failed");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
            self.weigh();
            self.look_at_code();
            self.feed(Event::Tick);
            self.clients.tidy(Instant::now());
        }
    }

    /// Hands an event in and does what comes out, and what comes out of that.
    fn feed(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for action in self.state.handle(event, Instant::now()) {
                events.extend(self.perform(action));
            }
        }
    }

    fn feed_all(&mut self, events: impl Iterator<Item = Event>) {
        for event in events {
            self.feed(event);
        }
    }

    fn weigh(&mut self) {
        let workers: Vec<(u32, u32)> =
            self.state.workers().filter_map(|(number, worker)| Some((number, worker.pid?))).collect();
        if let Some((worker, bytes)) = self.scales.weigh(&workers, Instant::now()) {
            self.feed(Event::Weighed { worker, bytes });
        }
    }

    fn look_at_code(&mut self) {
        let Some(path) = self.watcher.as_mut().and_then(|watcher| watcher.take(Instant::now())) else {
            return;
        };
        let name = path.strip_prefix(self.house.dir()).unwrap_or(&path).display().to_string();
        let modules = self.house.modules_of_file(&path);
        self.feed(Event::CodeChanged { what: name, modules });
    }

    fn wait(&mut self) -> io::Result<Vec<(Source, PollFlags)>> {
        let now = Instant::now();
        if let (Some(at), Some(every)) = (self.next_alive, self.notifier.watchdog())
            && at <= now
        {
            self.notifier.alive();
            self.next_alive = Some(now + every);
        }
        let weighs = Some(self.scales.deadline());
        let code = self.watcher.as_ref().and_then(Watcher::deadline);
        let due = [self.state.next_deadline(now), self.clients.deadline(), self.next_alive, weighs, code];
        let sleep = due.into_iter().flatten().min().map_or(SLEEP_MAX, |at| at.saturating_duration_since(now));
        // A timer that fires a hair too early would make us turn round for nothing.
        let sleep = sleep.min(SLEEP_MAX) + Duration::from_millis(1);

        let mut sources = Vec::new();
        let mut fds = Vec::new();
        for (index, signal) in self.signals.iter().enumerate() {
            sources.push(Source::Signal(index));
            fds.push(PollFd::new(signal, PollFlags::IN));
        }
        if let Some(listener) = self.clients.listener() {
            sources.push(Source::Listener);
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        let clients = self.clients.iter().map(|(id, peer)| (Source::Client(id), peer));
        let gateway = self.gateway.iter().map(|child| (Source::Gateway, &child.peer));
        // Before workers: a fork is known before the worker speaks.
        let templates = self.templates.iter().map(|(number, child)| (Source::Template(*number), &child.peer));
        let workers = self.workers.iter().map(|(number, child)| (Source::Worker(*number), &child.peer));
        let heir = self.heir.iter().map(|child| (Source::Heir, &child.peer));
        let elder = self.elder.iter().map(|peer| (Source::Elder, peer));
        for (source, peer) in clients.chain(gateway).chain(templates).chain(workers).chain(heir).chain(elder)
        {
            if peer.has_ended() {
                continue;
            }
            let write = if peer.wants_write() { PollFlags::OUT } else { PollFlags::empty() };
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(peer.as_fd(), PollFlags::IN | write));
        }
        if let Some(watcher) = &self.watcher {
            sources.push(Source::Code);
            fds.push(PollFd::new(watcher, PollFlags::IN));
        }
        let timeout = Timespec { tv_sec: sleep.as_secs() as i64, tv_nsec: i64::from(sleep.subsec_nanos()) };
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ready = sources.into_iter().zip(&fds).map(|(source, fd)| (source, fd.revents()));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn attend(&mut self, source: Source, flags: PollFlags) {
        let writable = flags.contains(PollFlags::OUT);
        match source {
            Source::Signal(index) => {
                if let Some(asks) = self.signals[index].take() {
                    self.obey(asks);
                }
            }
            Source::Heir => self.heir_speaks(writable),
            Source::Elder => self.elder_speaks(writable),
            Source::Code => {
                if let Some(watcher) = &mut self.watcher {
                    watcher.read(Instant::now());
                }
            }
            Source::Listener => self.clients.accept(Instant::now()),
            Source::Client(id) => {
                if writable {
                    self.clients.flush(id);
                }
                if let Some(command) = self.clients.read(id) {
                    self.feed(Event::Asked { client: id, command });
                }
            }
            Source::Gateway => {
                let Some(child) = &mut self.gateway else { return };
                if writable {
                    child.peer.flush();
                }
                let said: Vec<FromGateway> = child.peer.read("the gateway");
                if said.iter().any(|said| matches!(said, FromGateway::Load(_)))
                    && let Some(share) = self.cpu.look(Instant::now())
                {
                    self.feed(Event::Cpu(share));
                }
                self.feed_all(said.into_iter().map(Event::Gateway));
            }
            Source::Template(template) => {
                let Some(child) = self.templates.get_mut(&template) else { return };
                if writable {
                    child.peer.flush();
                }
                let said: Vec<FromTemplate> = child.peer.read("the template");
                self.template_said(template, said);
            }
            Source::Worker(worker) => {
                let Some(child) = self.workers.get_mut(&worker) else { return };
                if writable {
                    child.peer.flush();
                }
                let said: Vec<FromWorker> = child.peer.read("a worker");
                if let Some(watcher) = &mut self.watcher {
                    for said in &said {
                        watcher.heed(said);
                    }
                }
                self.feed_all(said.into_iter().map(|said| Event::Worker { worker, said }));
            }
        }
    }

    /// A signal came.
    fn obey(&mut self, asks: Asks) {
        let (signal, event) = match asks {
            Asks::Reap => return self.reap(),
            Asks::Stop => (Signal::TERM, Event::StopSignal),
            // The terminal was closed: nobody is left who could stop us with Ctrl-C.
            Asks::Reload if self.on_terminal && !is_terminal() => return self.feed(Event::StopSignal),
            Asks::Reload => (Signal::HUP, Event::ReloadSignal),
            Asks::More => (Signal::TTIN, Event::ScaleSignal(Change::By(1))),
            Asks::Fewer => (Signal::TTOU, Event::ScaleSignal(Change::By(-1))),
        };
        self.hand_on(signal);
        self.feed(event);
    }

    fn reap(&mut self) {
        while let Some((pid, exit)) = children::reap() {
            self.ended(pid, exit);
        }
    }

    fn ended(&mut self, pid: Pid, exit: Exit) {
        if let Some(mut child) = self.gateway.take_if(|child| child.pid == Some(pid)) {
            let said: Vec<FromGateway> = child.peer.read_rest("the gateway");
            self.feed_all(said.into_iter().map(Event::Gateway));
            self.feed(Event::Exited { who: Who::Gateway, exit });
            return;
        }
        if self.heir_ended(pid, exit) {
            return;
        }
        let of = |all: &BTreeMap<u32, Child>| {
            all.iter().find(|(_, child)| child.pid == Some(pid)).map(|(number, _)| *number)
        };
        if let Some(template) = of(&self.templates) {
            if let Some(mut child) = self.templates.remove(&template) {
                let said = child.peer.read_rest("the template");
                self.template_said(template, said);
            }
            self.feed(Event::Exited { who: Who::Template(template), exit });
        } else if let Some(worker) = of(&self.workers) {
            if let Some(mut child) = self.workers.remove(&worker) {
                let said: Vec<FromWorker> = child.peer.read_rest("a worker");
                self.feed_all(said.into_iter().map(|said| Event::Worker { worker, said }));
            }
            self.feed(Event::Exited { who: Who::Worker(worker), exit });
        } else {
            self.stranger_ended(pid, exit);
        }
    }

    fn signal(&self, who: Who, signal: Signal) {
        let child = match who {
            Who::Gateway => self.gateway.as_ref(),
            Who::Template(template) => self.templates.get(&template),
            Who::Worker(worker) => self.workers.get(&worker),
            Who::Heir => self.heir.as_ref(),
        };
        if let Some(child) = child {
            child.signal(signal);
        }
    }

    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::SpawnGateway { active, drained } => {
                return Some(self.start_gateway(active, drained));
            }
            Action::SpawnTemplate { template, generation, module } => {
                return Some(self.start_template(template, generation, module));
            }
            Action::SpawnWorker { worker, place } => return Some(self.start_worker(worker, place)),
            Action::ForkWorker { template, worker, place } => {
                return self.fork_worker(template, worker, place);
            }
            Action::Become { template, worker, place } => {
                return self.make_worker_of(template, worker, place);
            }
            Action::Forget { worker } => drop(self.workers.remove(&worker)),
            Action::TellGateway(message) => {
                if let Some(child) = &mut self.gateway {
                    child.peer.send(&message, "the gateway");
                }
            }
            Action::TellWorkerExit { worker } => {
                if let Some(child) = self.workers.get_mut(&worker) {
                    child.peer.send(&ToWorker::Exit, "a worker");
                }
            }
            Action::TellWorkerDump { worker, request_id } => {
                if let Some(child) = self.workers.get_mut(&worker) {
                    child.peer.send(&ToWorker::DumpStacks { request_id }, "a worker");
                }
            }
            Action::Terminate(who) => self.signal(who, Signal::TERM),
            Action::Kill(who) => self.signal(who, Signal::KILL),
            Action::ReadConfig { modules } => {
                return Some(Event::ConfigRead(self.house.read_config(&modules)));
            }
            Action::StopListening => self.house.stop_listening(),
            Action::Exit(outcome) => self.outcome = Some(outcome),
            Action::SpawnHeir { .. }
            | Action::TellHeir(_)
            | Action::TellElder(_)
            | Action::HandOver { .. }
            | Action::Reclaim
            | Action::TakeOver => return self.act_on_succession(action),
            told => self.tell(told),
        }
        None
    }

    /// The actions that are words to somebody outside.
    fn tell(&mut self, action: Action) {
        match action {
            Action::Reply { client, reply } => self.clients.reply(client, &reply, Instant::now()),
            Action::AnswerStatus { clients, gateway } => {
                let status = self.status(gateway);
                let reply = Reply::Status(Box::new(status));
                for client in clients {
                    self.clients.reply(client, &reply, Instant::now());
                }
            }
            Action::Serving { apps, after } => self.house.show_banner(&apps, after),
            Action::ShowFailure(failure) => {
                self.show_failure(&report::failure(&failure));
                if self.house.develops() {
                    let urls: Vec<&str> = self.house.urls().collect();
                    report::show(&format!("{} shows it until the next change\n", urls.join(" ")));
                }
            }
            Action::Log(level, text) => log(level, &text),
            Action::Notify(news) => self.notifier.tell(news),
            _ => {}
        }
    }

    /// Last replies out, last children gone. The sockets and the lock go when `house` is dropped.
    fn farewell(&mut self) {
        let ids: Vec<ClientId> = self.clients.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.clients.flush(id);
        }
        self.leave_children();
    }
}

/// What `quintet dev` watches. Without it there is a server still.
fn watch(house: &House) -> Option<Watcher> {
    let watch = || {
        let mut watcher = Watcher::new(house.dir())?;
        house.dirs().skip(1).try_for_each(|dir| watcher.add(dir))?;
        Ok(watcher)
    };
    house.develops().then(watch)?.inspect_err(|error: &io::Error| {
        tracing::warn!(%error, hint = "`quintet reload` restarts by hand", "changes of files will not be noticed");
    }).ok()
}

/// A last line "hint: …" becomes a field of its own.
fn log(level: Level, text: &str) {
    let last = text
        .rsplit_once('\n')
        .and_then(|(rest, last)| Some((rest, last.trim_start().strip_prefix("hint: ")?)));
    let (text, hint) = last.map_or((text, None), |(text, hint)| (text, Some(hint)));
    match level {
        Level::Debug => tracing::debug!(hint, "{text}"),
        Level::Info => tracing::info!(hint, "{text}"),
        Level::Warn => tracing::warn!(hint, "{text}"),
        Level::Error => tracing::error!(hint, "{text}"),
    }
}

fn is_terminal() -> bool {
    use std::io::IsTerminal as _;
    io::stderr().is_terminal()
}
