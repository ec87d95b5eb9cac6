//! A worker's life: starting, ready, online, leaving, gone.

use std::time::{Duration, Instant};

use ctl_admin::words::{AppReport, ToGateway};

use crate::event::{Action, Exit, Failure, Level, Place, SIGKILL, Who};
use crate::plan::{Outcome, Problem};

use super::recycle::Wear;
use super::{EXIT_GRACE, KILL_WAIT, ONLINE_TIMEOUT, STABLE_AFTER, STUCK_GRACE, State, TERM_GRACE};

/// What a process was told last, on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// To finish and go.
    Asked,
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
}

/// On its way out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leaving {
    pub(crate) step: Step,
    /// When the next step is taken.
    pub(crate) deadline: Instant,
}

/// An order to a template that is not answered yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fork {
    pub(super) template: u32,
    pub(super) deadline: Instant,
}

/// What is known of a worker.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) place: Place,
    pub(crate) pid: Option<u32>,
    /// It is being forked: by which template, and until when.
    pub(super) fork: Option<Fork>,
    pub(crate) started: Instant,
    /// The app is imported, since then.
    pub(crate) ready: Option<Instant>,
    pub(crate) report: Option<Box<AppReport>>,
    /// The gateway has all its slots.
    pub(crate) online: bool,
    /// It holds a request beyond its time limit.
    pub(crate) stuck: bool,
    /// Database connections that it has held at the same time, where these are more than its slots.
    pub(super) connections: u32,
    pub(crate) leaving: Option<Leaving>,
    pub(crate) wear: Wear,
}

impl Worker {
    pub(super) fn new(place: Place, now: Instant) -> Self {
        Self {
            place,
            pid: None,
            fork: None,
            started: now,
            ready: None,
            report: None,
            online: false,
            stuck: false,
            connections: 0,
            leaving: None,
            wear: Wear::default(),
        }
    }

    /// It takes requests.
    pub(crate) fn serves(&self) -> bool {
        self.ready.is_some() && self.online && self.leaving.is_none()
    }

    /// For status.
    pub(crate) fn phase_name(&self) -> &'static str {
        match (self.leaving, self.ready) {
            (Some(_), _) => "retiring",
            (None, Some(_)) => "ready",
            (None, None) => "starting",
        }
    }
}

impl State {
    pub(super) fn worker_ready(&mut self, number: u32, app: Box<AppReport>, now: Instant) {
        let Some(worker) = self.workers.get_mut(&number) else { return };
        if worker.leaving.is_some() || worker.ready.is_some() {
            return;
        }
        worker.ready = Some(now);
        worker.report = Some(app);
        let after = now.saturating_duration_since(worker.started);
        let pool = worker.place.pool;
        let module = self.module_of(pool);
        self.modules[module].ever_ready = true;
        self.log(Level::Debug, format!("worker {number} is ready after {:.3} s", after.as_secs_f64()));
    }

    pub(super) fn worker_online(&mut self, number: u32) {
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.online = true;
        }
    }

    /// The first time its stacks are asked for, and another one takes its place before it goes.
    pub(super) fn worker_stuck(&mut self, number: u32, request_id: String) {
        let Some(worker) = self.workers.get_mut(&number).filter(|worker| !worker.stuck) else { return };
        worker.stuck = true;
        let (leaves, pool) = (worker.leaving.is_some(), worker.place.pool);
        let whose = self.whose(self.module_of(pool));
        let then = if leaves { "" } else { "; it is being replaced" };
        let text = format!(
            "{whose}worker {number} holds request {request_id} beyond its time limit (timeouts.app, or its pool's){then}"
        );
        self.log(Level::Warn, text);
        self.out.push(Action::TellWorkerDump { worker: number, request_id });
    }

    /// Its other requests would never end either: they are tried elsewhere or answered 502 as soon as it is gone, and
    /// nothing is lost by not waiting for the replacement.
    pub(super) fn worker_hung(&mut self, number: u32, now: Instant) {
        let Some(worker) = self.workers.get(&number) else { return };
        if worker.leaving.is_some_and(|leaving| leaving.step >= Step::Kill) {
            return;
        }
        let online = worker.online;
        let text =
            format!("worker {number} runs no Python any more: a call into C keeps the GIL; it is killed");
        self.log(Level::Error, text);
        if online && self.gateway.runs() {
            self.out.push(Action::TellGateway(ToGateway::Retire { workers: vec![number] }));
        }
        self.send_off(number, Step::Kill, KILL_WAIT, now);
    }

    /// It did not become ready. What that means depends on whether anything runs besides it.
    pub(super) fn worker_failed(&mut self, number: u32, failure: Failure, now: Instant) {
        let Some(worker) = self.workers.get(&number) else { return };
        if worker.leaving.is_some() {
            return;
        }
        let (generation, module) = (worker.place.generation, self.module_of_worker(worker));
        let failure = self.named(module, failure);
        // It says so and exits by itself; should it not, it is helped.
        self.send_off(number, Step::Asked, EXIT_GRACE, now);
        self.worker_event("died", number);
        if self.stop.is_some() {
            return;
        }
        if self.settings.dev {
            self.code_broken(module, failure);
        } else if !self.modules[module].ever_ready {
            self.out.push(Action::ShowFailure(failure));
            self.give_up(Outcome::AppFailed, now);
        } else if self.reloads(module) && generation == self.modules[module].target {
            self.reload_worker_failed(number, module, &failure, now);
        } else {
            let delay = self.modules[module].crashes.failed(now);
            let again = again_in(delay);
            self.log(Level::Error, format!("worker {number} could not start; {again}: {failure}"));
        }
    }

    pub(super) fn worker_not_spawned(&mut self, number: u32, problem: Problem, now: Instant) {
        let Some(module) = self.workers.get(&number).map(|worker| self.module_of_worker(worker)) else {
            return;
        };
        if !self.modules[module].ever_ready && self.stop.is_none() {
            self.workers.remove(&number);
            self.give_up(Outcome::Failed(self.named_problem(module, problem)), now);
            return;
        }
        let message = if problem.detail.is_empty() {
            problem.message
        } else {
            format!("{}: {}", problem.message, problem.detail)
        };
        self.worker_failed(number, Failure::new(message, problem.hint), now);
        self.workers.remove(&number);
    }

    pub(super) fn worker_exited(&mut self, number: u32, exit: Exit, now: Instant) {
        let Some(worker) = self.workers.get(&number) else { return };
        let pid = worker.pid.unwrap_or_default();
        if worker.leaving.is_some() {
            self.workers.remove(&number);
            self.log(Level::Debug, format!("worker {number} (pid {pid}) is gone: {exit}"));
            return;
        }
        if worker.ready.is_none() {
            self.worker_failed(number, died_at_start(Who::Worker(number), exit), now);
            self.workers.remove(&number);
            return;
        }
        let module = self.module_of_worker(worker);
        let unseen =
            !worker.online && self.reloads(module) && worker.place.generation == self.modules[module].target;
        let served = now.saturating_duration_since(worker.started);
        let steady = worker.ready.is_some_and(|ready| now.saturating_duration_since(ready) >= STABLE_AFTER);
        self.workers.remove(&number);
        self.worker_event("died", number);
        if self.stop.is_some() {
            self.log(Level::Warn, format!("worker {number} (pid {pid}) died while draining: {exit}"));
            return;
        }
        if unseen {
            let failure = self.named(module, died_at_start(Who::Worker(number), exit));
            self.reload_worker_failed(number, module, &failure, now);
            return;
        }
        let crashes = &mut self.modules[module].crashes;
        let again = if steady {
            crashes.forget();
            "another one is started".to_owned()
        } else {
            again_in(crashes.failed(now))
        };
        let whose = self.whose(module);
        let hint = killed_hint(exit);
        let served = served.as_secs_f64();
        self.log(
            Level::Error,
            format!("{whose}worker {number} (pid {pid}) died after {served:.0} s: {exit}; {again}{hint}"),
        );
    }

    /// No more requests, then go. Through the gateway when it knows the worker.
    pub(super) fn retire(&mut self, number: u32, now: Instant) {
        let Some(worker) = self.workers.get(&number) else { return };
        if worker.ready.is_none() {
            self.send_off(number, Step::Term, TERM_GRACE, now);
        } else if worker.online && self.gateway.runs() {
            let mut grace = self.settings.drain_timeout;
            if worker.stuck {
                grace = grace.min(STUCK_GRACE);
            }
            self.out.push(Action::TellGateway(ToGateway::Retire { workers: vec![number] }));
            self.send_off(number, Step::Asked, grace, now);
        } else {
            self.out.push(Action::TellWorkerExit { worker: number });
            self.send_off(number, Step::Asked, EXIT_GRACE, now);
        }
    }

    /// Nothing is left to do for it: it may take a moment to exit, but no longer its whole drain time.
    pub(super) fn worker_retired(&mut self, number: u32, now: Instant) {
        if let Some(Leaving { step: Step::Asked, deadline }) =
            self.workers.get_mut(&number).and_then(|worker| worker.leaving.as_mut())
        {
            *deadline = (*deadline).min(now + EXIT_GRACE);
        }
    }

    /// Marks a worker as leaving, `step` being what it is told now.
    pub(super) fn send_off(&mut self, number: u32, step: Step, grace: Duration, now: Instant) {
        let Some(worker) = self.workers.get_mut(&number) else { return };
        if worker.fork.is_some() && step != Step::Asked {
            // There is no process yet that could be signalled.
            self.workers.remove(&number);
            self.out.push(Action::Forget { worker: number });
            return;
        }
        worker.leaving = Some(Leaving { step, deadline: now + grace });
        match step {
            Step::Asked => {}
            Step::Term => self.out.push(Action::Terminate(Who::Worker(number))),
            Step::Kill => self.out.push(Action::Kill(Who::Worker(number))),
        }
    }

    /// Those that are not ready yet, of this app or of all.
    pub(super) fn send_off_beginners(&mut self, module: Option<usize>, now: Instant) {
        let meant = |worker: &Worker| module.is_none_or(|module| self.module_of_worker(worker) == module);
        let starting = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.ready.is_none() && worker.leaving.is_none() && meant(worker));
        let starting: Vec<u32> = starting.map(|(number, _)| *number).collect();
        for number in starting {
            self.send_off(number, Step::Term, TERM_GRACE, now);
        }
    }

    /// When something must happen with a worker that does nothing by itself.
    pub(super) fn worker_deadline(&self, worker: &Worker) -> Option<Instant> {
        match (worker.leaving, worker.ready) {
            (Some(leaving), _) => Some(leaving.deadline),
            (None, None) if worker.fork.is_some() => worker.fork.map(|fork| fork.deadline),
            (None, None) => Some(worker.started + self.settings.start_timeout),
            (None, Some(ready)) if !worker.online => {
                // A worker cannot connect to a gateway that does not run.
                self.gateway.running_since().map(|since| ready.max(since) + ONLINE_TIMEOUT)
            }
            (None, Some(_)) => None,
        }
    }

    pub(super) fn overdue_workers(&mut self, now: Instant) {
        let overdue = |worker: &Worker| self.worker_deadline(worker).is_some_and(|deadline| deadline <= now);
        let numbers: Vec<u32> =
            self.workers.iter().filter(|(_, worker)| overdue(worker)).map(|(number, _)| *number).collect();
        for number in numbers {
            let Some(worker) = self.workers.get(&number) else { continue };
            match worker.leaving.map(|leaving| leaving.step) {
                Some(Step::Asked) => {
                    let text = format!(
                        "worker {number} is not done in time: the requests that it still has are cut"
                    );
                    self.log(Level::Warn, text);
                    self.send_off(number, Step::Term, TERM_GRACE, now);
                }
                Some(Step::Term) => {
                    self.log(Level::Warn, format!("worker {number} does not go: it is killed"));
                    self.send_off(number, Step::Kill, KILL_WAIT, now);
                }
                Some(Step::Kill) => self.unkillable(Who::Worker(number), now),
                None => self.late(number, now),
            }
        }
    }

    /// Not ready, or not online, in time.
    fn late(&mut self, number: u32, now: Instant) {
        let Some(worker) = self.workers.get(&number) else { return };
        if let Some(fork) = worker.fork {
            self.template_hangs(fork.template, now);
            return;
        }
        let failure = if worker.ready.is_none() {
            not_ready(Who::Worker(number), self.settings.start_timeout)
        } else {
            Failure::new(format!("worker {number} did not connect to the gateway"), "")
        };
        self.worker_failed(number, failure, now);
        // It is given no time: it had it.
        self.send_off(number, Step::Term, TERM_GRACE, now);
    }
}

fn again_in(delay: Duration) -> String {
    format!("another one is started in {:.1} s", delay.as_secs_f64())
}

/// For the end of what had begun well.
pub(super) fn killed_hint(exit: Exit) -> &'static str {
    if exit == Exit::Signal(SIGKILL) {
        "\nhint: somebody else sent it, most likely the kernel because memory ran out: see `dmesg`, or the \
         container's memory limit"
    } else {
        ""
    }
}

pub(super) fn not_ready(who: Who, start_timeout: Duration) -> Failure {
    let seconds = start_timeout.as_secs_f64();
    let message = match who {
        // Nobody who starts an app for the first time knows what a template is.
        Who::Template(_) => format!("the app was not imported after {seconds} s"),
        _ => format!("{who} was not ready after {seconds} s"),
    };
    Failure::new(
        message,
        "something in the app's import takes long (a connection that does not answer?); \
         workers.start_timeout sets how long that may be",
    )
}

pub(super) fn died_at_start(who: Who, exit: Exit) -> Failure {
    let hint = match exit {
        Exit::Code(_) => "what it printed stands above",
        Exit::Signal(SIGKILL) => "most likely memory ran out: see `dmesg`, or the container's memory limit",
        Exit::Signal(_) => "a native extension may have crashed; try to import the app in a plain Python",
    };
    let message = match who {
        Who::Template(_) => format!("Python ended while it imported the app: {exit}"),
        _ => format!("{who} ended while it started: {exit}"),
    };
    Failure::new(message, hint)
}
