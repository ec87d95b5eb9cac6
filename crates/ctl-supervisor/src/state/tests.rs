//! Single stories, step by step: what is to be done after each thing that happens.

use std::time::{Duration, Instant};

use ctl_admin::words::{Activated, AppReport, Command, FromGateway, FromWorker, Reply, ToGateway};

use crate::event::{Action, Event, Exit, Level, Notify, Place, Pool, RecycleLimits, Settings, Who};
use crate::plan::{Outcome, Problem};
use crate::upgrade::FromHeir;

use super::State;

mod births;
mod dev;
mod modules;
mod order;
mod questions;
mod scaling;
mod upgrade;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// A state machine with a clock that is moved by hand, and its actions as short words.
struct Table {
    state: State,
    now: Instant,
    settings: Settings,
    actions: Vec<Action>,
}

impl Table {
    fn new(workers: u32) -> Self {
        let settings = Settings {
            waiting: Vec::new(),
            modules: vec!["default".to_owned()],
            pools: vec![Pool::of("default", workers, workers)],
            dev: false,
            preload: false,
            starting_max: 2,
            start_timeout: START_TIMEOUT,
            drain_delay: Duration::ZERO,
            drain_timeout: DRAIN_TIMEOUT,
            db_connections_max: 80,
            recycle: RecycleLimits::default(),
        };
        let now = Instant::now();
        Self { state: State::new(settings.clone(), 1, now), now, settings, actions: Vec::new() }
    }

    /// A start with the settings as they are now, as far as the gateway.
    fn begin(&mut self) {
        self.state = State::new(self.settings.clone(), 1, self.now);
        self.does(Event::Begin);
        self.does(Event::Gateway(FromGateway::Ready));
    }

    /// Serving, with workers 1 to `workers`.
    fn serving(workers: u32) -> Self {
        let mut table = Self::new(workers);
        table.begin();
        for worker in 1..=workers {
            table.up(worker);
        }
        assert_eq!(super::phase_name(&table.state), "serving");
        table
    }

    fn does(&mut self, event: Event) -> String {
        self.actions = self.state.handle(event, self.now);
        self.gateway_obeys();
        words(&self.actions)
    }

    /// A gateway that does at once what it is told.
    fn gateway_obeys(&mut self) {
        let sync = |action: &Action| match action {
            Action::TellGateway(ToGateway::Sync { number }) => Some(*number),
            _ => None,
        };
        while let Some(at) = self.actions.iter().position(|action| sync(action).is_some()) {
            let number = sync(&self.actions.remove(at)).unwrap();
            let synced = Event::Gateway(FromGateway::Synced { number });
            self.actions.extend(self.state.handle(synced, self.now));
        }
    }

    fn after(&mut self, time: Duration) -> String {
        self.now += time;
        self.does(Event::Tick)
    }

    fn ready(&mut self, worker: u32) -> String {
        self.does(Event::Worker { worker, said: FromWorker::Ready { app: Box::new(AppReport::default()) } })
    }

    fn online(&mut self, worker: u32) -> String {
        self.does(Event::Gateway(FromGateway::WorkerOnline { worker }))
    }

    fn up(&mut self, worker: u32) -> String {
        let ready = self.ready(worker);
        let online = self.online(worker);
        [ready, online].into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>().join(" ")
    }

    fn fails(&mut self, worker: u32) -> String {
        let (message, traceback, hint) = ("no".to_owned(), "Traceback".to_owned(), String::new());
        self.does(Event::Worker { worker, said: FromWorker::Failed { message, traceback, hint } })
    }

    fn exits(&mut self, who: Who, exit: Exit) -> String {
        self.does(Event::Exited { who, exit })
    }

    fn reload(&mut self, client: u64) -> String {
        let asked = self.does(Event::Asked { client, command: Command::Reload { module: None } });
        assert_eq!(asked, "read-config");
        self.does(Event::ConfigRead(Ok(self.settings.clone())))
    }

    fn logged(&self, level: Level) -> String {
        let texts = self.actions.iter().filter_map(|action| match action {
            Action::Log(of, text) if *of == level => Some(text.as_str()),
            _ => None,
        });
        texts.collect::<Vec<_>>().join("\n")
    }
}

fn of(place: Place) -> String {
    let pool = if place.pool == 0 { String::new() } else { format!(":pool{}", place.pool) };
    format!("generation{}{pool}", place.generation)
}

/// Whose it is, where it is not the site's.
fn by(module: usize) -> String {
    if module == 0 { String::new() } else { format!(":module{module}") }
}

/// Words to people are left out.
fn words(actions: &[Action]) -> String {
    let word = |action: &Action| {
        Some(match action {
            Action::SpawnGateway { active, drained } => {
                let active = active.iter().map(|active| format!(":active{}", active.generation));
                let drained = if drained.is_empty() { "" } else { ":drained" };
                format!("gateway{}{drained}", active.collect::<String>())
            }
            Action::SpawnTemplate { template, generation, module } => {
                format!("template{template}:generation{generation}{}", by(*module))
            }
            Action::SpawnWorker { worker, place } => format!("worker{worker}:{}", of(*place)),
            Action::ForkWorker { template, worker, place } => {
                format!("fork{worker}:{}:from{template}", of(*place))
            }
            Action::Become { template, worker, place } => {
                format!("become{worker}:{}:from{template}", of(*place))
            }
            Action::Forget { worker } => format!("forget{worker}"),
            Action::TellGateway(ToGateway::Activate(Activated { module, generation, .. })) => {
                format!("activate{generation}{}", by(usize::from(*module)))
            }
            Action::TellGateway(ToGateway::Retire { workers }) => format!("retire{workers:?}"),
            Action::TellGateway(ToGateway::Drain) => "drain".to_owned(),
            Action::TellGateway(ToGateway::ReloadTls) => "tls".to_owned(),
            Action::TellGateway(ToGateway::Hold { module }) => format!("hold{}", by(usize::from(*module))),
            Action::TellGateway(ToGateway::Broken { module, message, .. }) => {
                format!("broken{}:{message}", by(usize::from(*module)))
            }
            Action::TellWorkerExit { worker } => format!("exit{worker}"),
            Action::TellWorkerDump { worker, request_id } => format!("dump{worker}:{request_id}"),
            Action::Terminate(Who::Gateway) => "term-gateway".to_owned(),
            Action::Terminate(Who::Template(template)) => format!("term-template{template}"),
            Action::Kill(Who::Template(template)) => format!("kill-template{template}"),
            Action::Terminate(Who::Worker(worker)) => format!("term{worker}"),
            Action::Kill(Who::Gateway) => "kill-gateway".to_owned(),
            Action::Kill(Who::Worker(worker)) => format!("kill{worker}"),
            Action::Terminate(Who::Heir) => "term-heir".to_owned(),
            Action::Kill(Who::Heir) => "kill-heir".to_owned(),
            Action::SpawnHeir { .. } => "heir".to_owned(),
            Action::TellHeir(message) => format!("heir:{message:?}"),
            Action::TellElder(FromHeir::Progress { .. }) => return None,
            Action::TellElder(message) => format!("elder:{message:?}"),
            Action::HandOver { kept } => format!("give-names{kept:?}"),
            Action::Reclaim => "reclaim".to_owned(),
            Action::TakeOver => "take-names".to_owned(),
            Action::Notify(Notify::Successor(pid)) => format!("mainpid{pid}"),
            Action::TellGateway(ToGateway::HandOver) => "hand-over".to_owned(),
            Action::TellGateway(ToGateway::Bans { number, .. }) => format!("bans{number}"),
            Action::TellGateway(ToGateway::Upstream { number, .. }) => format!("upstream{number}"),
            Action::TellGateway(_)
            | Action::Log(..)
            | Action::Notify(_)
            | Action::Reply { reply: Reply::Progress { .. }, .. } => return None,
            Action::Reply { client, reply: Reply::Done { .. } } => format!("done→{client}"),
            Action::Reply { client, reply: Reply::Bans { .. } } => format!("bans→{client}"),
            Action::Reply { client, .. } => format!("failed→{client}"),
            Action::AnswerStatus { clients, .. } => format!("status→{clients:?}"),
            Action::StopListening => "unlisten".to_owned(),
            Action::ReadConfig { modules } if modules == &[0] => "read-config".to_owned(),
            Action::ReadConfig { modules } => format!("read-config{modules:?}"),
            Action::Serving { .. } => "serving".to_owned(),
            Action::ShowFailure(_) => "show".to_owned(),
            Action::Exit(outcome) => format!("end:{outcome:?}"),
        })
    };
    actions.iter().filter_map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn workers_start_a_few_at_a_time_and_the_first_one_serves() {
    let mut table = Table::new(3);
    assert_eq!(table.does(Event::Begin), "gateway worker1:generation1 worker2:generation1");
    assert_eq!(table.does(Event::Gateway(FromGateway::Ready)), "");
    assert_eq!(table.ready(2), "worker3:generation1");
    assert_eq!(table.online(2), "activate1 serving");
    assert_eq!(table.up(1), "");
    assert_eq!(table.up(3), "");
}

#[test]
fn it_does_not_matter_which_socket_is_read_first() {
    let mut table = Table::new(1);
    table.does(Event::Begin);
    table.does(Event::Gateway(FromGateway::Ready));
    assert_eq!(table.online(1), "");
    assert_eq!(table.ready(1), "activate1 serving");
}

#[test]
fn the_first_failure_ends_a_start() {
    let mut table = Table::new(2);
    table.does(Event::Begin);
    table.does(Event::Gateway(FromGateway::Ready));
    assert_eq!(table.fails(1), "show term-gateway term1 term2");
    assert_eq!(table.fails(2), "", "one traceback is enough");
    assert_eq!(table.exits(Who::Worker(1), Exit::Code(1)), "");
    assert_eq!(table.exits(Who::Gateway, Exit::Signal(15)), "");
    assert_eq!(table.exits(Who::Worker(2), Exit::Signal(15)), "end:AppFailed");
}

#[test]
fn a_python_that_is_not_there_ends_a_start() {
    let mut table = Table::new(2);
    table.does(Event::Begin);
    let failed = |worker| Event::SpawnFailed { who: Who::Worker(worker), problem: Problem::new("no python") };
    assert_eq!(table.does(failed(1)), "term-gateway term2");
    assert_eq!(table.does(failed(2)), "");
    let end = table.exits(Who::Gateway, Exit::Signal(15));
    assert!(end.starts_with("end:Failed") && end.contains("no python"), "{end}");
}

#[test]
fn a_worker_that_served_for_a_while_is_replaced_at_once_and_a_young_one_after_a_pause() {
    let mut table = Table::serving(2);
    table.after(Duration::from_secs(60));
    assert_eq!(table.exits(Who::Worker(1), Exit::Signal(9)), "worker3:generation1");
    assert!(table.logged(Level::Error).contains("memory ran out"), "{}", table.logged(Level::Error));
    table.up(3);
    table.after(Duration::from_secs(1));
    assert_eq!(table.exits(Who::Worker(3), Exit::Signal(11)), "");
    assert!(table.logged(Level::Error).contains("signal SIGSEGV; another one is started in 0.2 s"));
    assert_eq!(table.after(Duration::from_millis(150)), "");
    assert_eq!(table.after(Duration::from_millis(100)), "worker4:generation1");
}

#[test]
fn a_reload_replaces_one_after_another() {
    let mut table = Table::serving(2);
    assert_eq!(table.reload(7), "tls worker3:generation2");
    assert_eq!(table.ready(3), "");
    assert_eq!(table.online(3), "activate2 retire[1] worker4:generation2");
    assert_eq!(table.up(4), "retire[2] done→7");
    assert_eq!(table.exits(Who::Worker(1), Exit::Code(0)), "");
    assert_eq!(table.exits(Who::Worker(2), Exit::Code(0)), "");
}

#[test]
fn a_reload_of_broken_code_leaves_the_old_alone() {
    let mut table = Table::serving(2);
    table.reload(7);
    assert_eq!(table.fails(3), "failed→7");
    assert!(table.logged(Level::Error).contains("Traceback"));
    assert_eq!(table.exits(Who::Worker(3), Exit::Code(1)), "");
    // A worker that comes up and dies is not good code either.
    table.reload(8);
    table.ready(4);
    assert_eq!(table.exits(Who::Worker(4), Exit::Signal(11)), "failed→8");
    // The old ones are looked after as before.
    table.after(Duration::from_secs(60));
    assert_eq!(table.exits(Who::Worker(1), Exit::Signal(11)), "worker5:generation1");
}

#[test]
fn reloads_in_a_row_do_not_fill_the_memory() {
    let mut table = Table::serving(1);
    for (client, worker) in [(7, 2), (8, 3)] {
        assert_eq!(table.reload(client), format!("tls worker{worker}:generation{worker}"));
        table.up(worker);
    }
    assert_eq!(table.reload(9), "tls", "two old ones are still busy");
    assert_eq!(table.exits(Who::Worker(1), Exit::Code(0)), "worker4:generation4");
}

#[test]
fn a_configuration_that_cannot_be_read_changes_nothing() {
    let mut table = Table::serving(1);
    table.does(Event::Asked { client: 7, command: Command::Reload { module: None } });
    assert_eq!(table.does(Event::ConfigRead(Err("quintet.toml: line 3".to_owned()))), "failed→7");
    assert!(
        table.logged(Level::Error).ends_with("quintet.toml: line 3"),
        "who has sent a signal sees it there"
    );
    assert_eq!(table.after(Duration::from_secs(60)), "");
}

#[test]
fn reloads_during_a_reload_are_one_more() {
    let mut table = Table::serving(1);
    table.reload(7);
    assert_eq!(table.does(Event::Asked { client: 8, command: Command::Reload { module: None } }), "");
    assert_eq!(table.does(Event::Asked { client: 9, command: Command::Reload { module: None } }), "");
    assert_eq!(table.does(Event::ReloadSignal), "");
    assert_eq!(table.up(2), "activate2 retire[1] done→7 read-config");
    table.does(Event::ConfigRead(Ok(table.settings.clone())));
    assert_eq!(table.up(3), "activate3 retire[2] done→8 done→9");
}

#[test]
fn a_reload_may_change_the_number_of_workers() {
    let mut table = Table::serving(3);
    (table.settings.pools[0].min, table.settings.pools[0].max) = (2, 2);
    assert_eq!(table.reload(7), "tls retire[1] worker4:generation2");
    assert_eq!(table.up(4), "activate2 retire[2] worker5:generation2");
    assert_eq!(table.up(5), "retire[3] done→7");
}

#[test]
fn new_code_that_fails_later_is_tried_again_while_old_workers_serve() {
    let mut table = Table::serving(2);
    table.reload(7);
    table.up(3);
    assert_eq!(table.fails(4), "");
    table.exits(Who::Worker(4), Exit::Code(1));
    for (worker, pause) in [(5, 1), (6, 1)] {
        assert_eq!(table.after(Duration::from_secs(pause)), format!("worker{worker}:generation2"));
        let told = table.fails(worker);
        assert_eq!(told, if worker == 6 { "failed→7" } else { "" });
        table.exits(Who::Worker(worker), Exit::Code(1));
    }
    assert_eq!(table.after(Duration::from_secs(1)), "worker7:generation2");
    assert_eq!(table.up(7), "retire[2]", "the last old one stays until then");
}

#[test]
fn a_stuck_worker_goes_when_its_replacement_serves() {
    let mut table = Table::serving(2);
    let stuck = |id: &str| Event::Gateway(FromGateway::WorkerStuck { worker: 1, request_id: id.to_owned() });
    assert_eq!(table.does(stuck("r7")), "dump1:r7 worker3:generation1");
    assert!(table.logged(Level::Warn).contains("request r7"));
    assert_eq!(table.does(stuck("r8")), "", "its stacks have been told");
    assert_eq!(table.up(3), "retire[1]");
    assert_eq!(table.after(Duration::from_secs(10)), "term1");
    assert_eq!(table.after(Duration::from_secs(3)), "kill1");
    assert_eq!(table.exits(Who::Worker(1), Exit::Signal(9)), "");
}

#[test]
fn a_worker_that_hangs_in_c_is_killed_without_waiting_for_its_replacement() {
    let mut table = Table::serving(1);
    table.does(Event::Gateway(FromGateway::WorkerStuck { worker: 1, request_id: "r7".to_owned() }));
    let hung = || Event::Worker { worker: 1, said: FromWorker::Hung };
    assert_eq!(table.does(hung()), "retire[1] kill1");
    assert!(table.logged(Level::Error).contains("GIL"));
    assert_eq!(table.does(hung()), "");
    assert_eq!(table.exits(Who::Worker(1), Exit::Signal(9)), "");
    table.up(2);
    assert_eq!(super::phase_name(&table.state), "serving");
}

#[test]
fn a_stuck_worker_that_is_leaving_anyway_tells_its_stacks_too() {
    let mut table = Table::serving(1);
    table.reload(7);
    table.up(2);
    let stuck = FromGateway::WorkerStuck { worker: 1, request_id: "r7".to_owned() };
    assert_eq!(table.does(Event::Gateway(stuck)), "dump1:r7");
}

#[test]
fn a_retired_worker_has_its_time_and_no_more() {
    let mut table = Table::serving(1);
    table.reload(7);
    table.up(2);
    assert_eq!(table.after(Duration::from_secs(29)), "");
    assert_eq!(table.after(Duration::from_secs(1)), "term1");
    assert_eq!(table.after(Duration::from_secs(3)), "kill1");
}

#[test]
fn a_worker_that_has_answered_everything_goes_soon() {
    let mut table = Table::serving(1);
    table.reload(7);
    table.up(2);
    table.does(Event::Gateway(FromGateway::WorkerRetired { worker: 1 }));
    assert_eq!(table.after(Duration::from_secs(5)), "term1");
}

#[test]
fn a_worker_that_hangs_at_start_is_replaced() {
    let mut table = Table::serving(1);
    table.after(Duration::from_secs(60));
    table.exits(Who::Worker(1), Exit::Code(0));
    assert_eq!(table.after(START_TIMEOUT), "term2");
    assert!(table.logged(Level::Error).contains("was not ready after 60 s"));
    assert_eq!(table.after(Duration::from_secs(1)), "worker3:generation1");
}

#[test]
fn a_worker_that_does_not_connect_is_replaced() {
    let mut table = Table::serving(1);
    table.after(Duration::from_secs(60));
    table.exits(Who::Worker(1), Exit::Code(0));
    table.ready(2);
    assert_eq!(table.after(Duration::from_secs(10)), "term2");
}

#[test]
fn a_gateway_that_dies_comes_back_and_knows_what_serves() {
    let mut table = Table::serving(2);
    table.after(Duration::from_secs(60));
    assert_eq!(table.exits(Who::Gateway, Exit::Signal(11)), "gateway:active1");
    assert_eq!(table.does(Event::Gateway(FromGateway::Ready)), "");
    assert_eq!(table.online(1), "");
    assert_eq!(table.online(2), "");
    assert_eq!(table.after(Duration::from_secs(60)), "", "the workers are still good");
}

#[test]
fn workers_that_were_retiring_when_the_gateway_died_are_told_directly() {
    let mut table = Table::serving(1);
    table.reload(7);
    table.up(2);
    table.after(Duration::from_secs(2));
    assert_eq!(table.exits(Who::Gateway, Exit::Signal(11)), "exit1 gateway:active2");
}

#[test]
fn a_gateway_that_cannot_start_is_not_tried_for_ever() {
    let mut table = Table::new(1);
    table.does(Event::Begin);
    let text = "the certificate is bad\n  detail: expired\n  hint: renew it".to_owned();
    table.does(Event::Gateway(FromGateway::Failed { text }));
    assert_eq!(table.exits(Who::Gateway, Exit::Code(1)), "term1");
    table.exits(Who::Worker(1), Exit::Signal(15));
    let Some(Action::Exit(Outcome::Failed(problem))) = table.actions.last() else {
        panic!("{:?}", table.actions)
    };
    let expected = Problem::new("the certificate is bad").detail("expired").hint("renew it");
    assert_eq!(*problem, expected);

    let mut table = Table::new(1);
    table.does(Event::Begin);
    for _ in 0..4 {
        assert_eq!(table.exits(Who::Gateway, Exit::Signal(11)), "", "there is a pause");
        assert_eq!(table.after(Duration::from_secs(2)), "gateway");
    }
    assert_eq!(table.exits(Who::Gateway, Exit::Signal(11)), "term1");
}

#[test]
fn a_stop_drains_the_gateway_then_ends_the_workers() {
    let mut table = Table::serving(2);
    assert_eq!(table.does(Event::Asked { client: 7, command: Command::Stop }), "drain unlisten");
    assert_eq!(table.exits(Who::Worker(2), Exit::Signal(11)), "", "nobody is started any more");
    assert_eq!(table.does(Event::Gateway(FromGateway::Drained)), "");
    assert_eq!(table.exits(Who::Gateway, Exit::Code(0)), "exit1");
    assert_eq!(table.exits(Who::Worker(1), Exit::Code(0)), "done→7 end:Stopped");
}

#[test]
fn a_stop_keeps_listening_for_as_long_as_a_load_balancer_needs() {
    let mut table = Table::serving(1);
    table.state.settings.drain_delay = Duration::from_secs(5);
    assert_eq!(table.does(Event::StopSignal), "drain");
    let due = table.state.next_deadline(table.now).unwrap();
    assert_eq!(due - table.now, Duration::from_secs(5), "it wakes up for this");
    assert_eq!(table.after(Duration::from_secs(4)), "");
    assert_eq!(table.after(Duration::from_secs(1)), "unlisten");
    assert_eq!(table.after(Duration::from_secs(1)), "", "once");
}

#[test]
fn a_stop_ends_although_nobody_listens() {
    let mut table = Table::serving(1);
    table.does(Event::StopSignal);
    assert_eq!(table.after(DRAIN_TIMEOUT + Duration::from_secs(2)), "term-gateway");
    assert_eq!(table.after(Duration::from_secs(3)), "kill-gateway");
    assert_eq!(table.after(Duration::from_secs(5)), "exit1", "it hangs in the kernel and is left to it");
    assert_eq!(table.after(Duration::from_secs(5)), "term1");
    assert_eq!(table.after(Duration::from_secs(3)), "kill1");
    assert_eq!(table.after(Duration::from_secs(5)), "end:Stopped");
}

#[test]
fn a_second_signal_hurries_and_a_third_kills() {
    let mut table = Table::serving(2);
    assert_eq!(table.does(Event::StopSignal), "drain unlisten");
    assert_eq!(
        table.does(Event::StopSignal),
        "",
        "a wrapper that signals the process and its group means one thing"
    );
    table.after(Duration::from_millis(300));
    assert_eq!(table.does(Event::StopSignal), "term-gateway term1 term2");
    table.after(Duration::from_millis(300));
    assert_eq!(table.does(Event::StopSignal), "kill-gateway kill1 kill2");
}

#[test]
fn who_waits_for_a_reload_is_told_about_a_stop() {
    let mut table = Table::serving(1);
    table.reload(7);
    table.does(Event::Asked { client: 8, command: Command::Reload { module: None } });
    assert_eq!(table.does(Event::StopSignal), "failed→8 failed→7 term2 drain unlisten");
    assert_eq!(table.does(Event::Asked { client: 9, command: Command::Reload { module: None } }), "failed→9");
}

#[test]
fn status_does_not_wait_for_a_gateway_that_is_silent() {
    let mut table = Table::serving(1);
    assert_eq!(table.does(Event::Asked { client: 7, command: Command::Status }), "");
    assert_eq!(table.does(Event::Asked { client: 8, command: Command::Status }), "");
    assert_eq!(table.after(Duration::from_millis(500)), "status→[7, 8]");
    table.after(Duration::from_secs(60));
    table.exits(Who::Gateway, Exit::Signal(9));
    assert_eq!(table.does(Event::Asked { client: 9, command: Command::Status }), "status→[9]");
}
