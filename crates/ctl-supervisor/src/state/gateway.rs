//! The gateway's life. There is one at a time; its listening sockets are the supervisor's and outlive it.

use std::time::{Duration, Instant};

use ctl_admin::words::FromGateway;

use crate::backoff::Backoff;
use crate::event::{Action, Exit, Level, Who};
use crate::plan::{Outcome, Problem};

use super::worker::{Leaving, Step};
use super::{EXIT_GRACE, KILL_WAIT, State, TERM_GRACE};

/// From spawn to ready: it only reads certificates. A loaded machine may be slow.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A gateway that ran this long did not fail at start: the next one need not wait.
const STABLE_AFTER: Duration = Duration::from_secs(1);

/// So many attempts that never became ready, and it is not worth another.
const STARTS_MAX: u32 = 5;

/// The first pause and the longest between attempts. Short: nothing is served in between.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

#[derive(Debug)]
enum Life {
    Absent,
    Starting { deadline: Instant },
    Running { since: Instant },
}

/// What is known of the gateway.
#[derive(Debug)]
pub(super) struct Gateway {
    life: Life,
    pid: Option<u32>,
    pub(super) leaving: Option<Leaving>,
    /// Its last words, when it cannot run.
    failed: Option<String>,
    ever_ready: bool,
    /// Attempts in a row that did not become ready.
    failed_starts: u32,
    restarts: u64,
    backoff: Backoff,
}

impl Gateway {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            life: Life::Absent,
            pid: None,
            leaving: None,
            failed: None,
            ever_ready: false,
            failed_starts: 0,
            restarts: 0,
            backoff: Backoff::new(BACKOFF.0, BACKOFF.1, seed),
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.pid
    }

    pub(super) fn restarts(&self) -> u64 {
        self.restarts
    }

    pub(super) fn spawned(&mut self, pid: u32) {
        self.pid = Some(pid);
    }

    /// Ready, and may be told things.
    pub(super) fn runs(&self) -> bool {
        matches!(self.life, Life::Running { .. })
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self.life, Life::Absent)
    }

    pub(super) fn running_since(&self) -> Option<Instant> {
        match self.life {
            Life::Running { since } => Some(since),
            _ => None,
        }
    }

    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        match (&self.life, self.leaving) {
            (Life::Absent, _) => self.backoff.waits_until(now),
            (_, Some(leaving)) => Some(leaving.deadline),
            (Life::Starting { deadline }, None) => Some(*deadline),
            (Life::Running { .. }, None) => None,
        }
    }
}

impl State {
    pub(super) fn spawn_gateway(&mut self, now: Instant) {
        self.gateway.life = Life::Starting { deadline: now + READY_TIMEOUT };
        self.gateway.leaving = None;
        self.gateway.failed = None;
        let active = self.activated();
        self.out.push(Action::SpawnGateway { active, drained: self.drained.clone() });
    }

    pub(super) fn restart_gateway(&mut self, now: Instant) {
        if self.gateway.is_absent() && self.gateway.backoff.waits_until(now).is_none() {
            self.gateway.restarts += 1;
            self.spawn_gateway(now);
        }
    }

    pub(super) fn gateway_said(&mut self, said: FromGateway, now: Instant) {
        match said {
            FromGateway::Ready => {
                if matches!(self.gateway.life, Life::Starting { .. }) {
                    self.gateway.life = Life::Running { since: now };
                    self.gateway.ever_ready = true;
                    self.gateway.failed_starts = 0;
                    self.tell_broken();
                }
            }
            FromGateway::Failed { text } => self.gateway.failed = Some(text),
            FromGateway::WorkerOnline { worker } => self.worker_online(worker),
            FromGateway::WorkerRetired { worker } => self.worker_retired(worker, now),
            FromGateway::WorkerStuck { worker, request_id } => self.worker_stuck(worker, request_id),
            FromGateway::Load(load) => {
                load.workers.iter().for_each(|load| self.worker_counted(load));
                self.scale(&load.pools, now);
            }
            FromGateway::PoolWanted { pool } => self.wake(pool, now),
            FromGateway::Status(status) => self.answer_status(Some(status)),
            FromGateway::Bans { number, answer } => self.bans_answered(number, answer),
            FromGateway::Upstream { number, answer } => self.upstream_answered(number, answer),
            FromGateway::Synced { number } => self.reload_synced(number),
            FromGateway::Moved => self.upgraded(),
            FromGateway::Drained => {
                if let Some(leaving) = &mut self.gateway.leaving {
                    leaving.deadline = leaving.deadline.min(now + EXIT_GRACE);
                }
            }
            FromGateway::Asked(command) => self.asked(None, &command, now),
        }
    }

    pub(super) fn gateway_not_spawned(&mut self, problem: Problem, now: Instant) {
        self.gateway.life = Life::Absent;
        self.gateway.pid = None;
        if self.stop.is_some() {
            return;
        }
        self.gateway.failed_starts += 1;
        if !self.gateway.ever_ready || self.gateway.failed_starts >= STARTS_MAX {
            self.give_up(Outcome::Failed(problem), now);
            return;
        }
        let delay = self.gateway.backoff.failed(now).as_secs_f64();
        self.log(Level::Error, format!("{problem}: {}; tried again in {delay:.1} s", problem.detail));
    }

    pub(super) fn gateway_exited(&mut self, exit: Exit, now: Instant) {
        let was = std::mem::replace(&mut self.gateway.life, Life::Absent);
        let pid = self.gateway.pid.take().unwrap_or_default();
        let leaving = self.gateway.leaving.take();
        self.answer_status(None);
        self.forget_questions();
        self.forget_online(now);
        if self.stop.is_some() {
            self.upgraded();
            if exit != Exit::Code(0) && leaving.is_some_and(|leaving| leaving.step == Step::Asked) {
                self.log(Level::Error, format!("the gateway (pid {pid}) died while draining: {exit}"));
            }
            return;
        }
        let failed = self.gateway.failed.take();
        let steady = match was {
            Life::Running { since } => now.saturating_duration_since(since) >= STABLE_AFTER,
            Life::Starting { .. } | Life::Absent => {
                self.gateway.failed_starts += 1;
                false
            }
        };
        if (failed.is_some() && !self.gateway.ever_ready) || self.gateway.failed_starts >= STARTS_MAX {
            self.give_up(Outcome::Failed(why_it_failed(failed, self.gateway.failed_starts, exit)), now);
            return;
        }
        let again = if steady {
            self.gateway.backoff.forget();
            "another one is started".to_owned()
        } else {
            format!("another one is started in {:.1} s", self.gateway.backoff.failed(now).as_secs_f64())
        };
        let why = failed.map(|text| format!(": {text}")).unwrap_or_default();
        self.log(Level::Error, format!("the gateway (pid {pid}) died: {exit}; {again}{why}"));
    }

    /// What the gateway knew of the workers went with it: they will connect to the next one.
    fn forget_online(&mut self, now: Instant) {
        let mut left_alone = Vec::new();
        for (number, worker) in &mut self.workers {
            worker.online = false;
            if let Some(Leaving { step: Step::Asked, deadline }) = &mut worker.leaving {
                *deadline = (*deadline).min(now + EXIT_GRACE);
                left_alone.push(*number);
            }
        }
        self.out.extend(left_alone.into_iter().map(|worker| Action::TellWorkerExit { worker }));
    }

    pub(super) fn overdue_gateway(&mut self, now: Instant) {
        if self.gateway.is_absent() || self.gateway.deadline(now).is_none_or(|deadline| deadline > now) {
            return;
        }
        match self.gateway.leaving.map(|leaving| leaving.step) {
            None => {
                self.log(
                    Level::Error,
                    format!("the gateway was not ready after {} s", READY_TIMEOUT.as_secs()),
                );
                self.send_off_gateway(Step::Term, TERM_GRACE, now);
            }
            Some(Step::Asked) => {
                self.log(Level::Warn, "server.drain_timeout is over: the requests still in flight are cut");
                self.send_off_gateway(Step::Term, TERM_GRACE, now);
            }
            Some(Step::Term) => self.send_off_gateway(Step::Kill, KILL_WAIT, now),
            Some(Step::Kill) => self.unkillable(Who::Gateway, now),
        }
    }

    pub(super) fn send_off_gateway(&mut self, step: Step, grace: Duration, now: Instant) {
        if self.gateway.is_absent() {
            return;
        }
        self.gateway.leaving = Some(Leaving { step, deadline: now + grace });
        match step {
            Step::Asked => {}
            Step::Term => self.out.push(Action::Terminate(Who::Gateway)),
            Step::Kill => self.out.push(Action::Kill(Who::Gateway)),
        }
    }

    /// Killed and still there: it hangs in the kernel. It is taken as gone.
    pub(super) fn unkillable(&mut self, who: Who, now: Instant) {
        self.log(Level::Error, format!("{who} was killed and does not end; it is left to the kernel"));
        match who {
            Who::Gateway => self.gateway_exited(Exit::Signal(crate::event::SIGKILL), now),
            Who::Template(template) => {
                self.template_exited(template, Exit::Signal(crate::event::SIGKILL), now);
            }
            Who::Worker(worker) => {
                self.workers.remove(&worker);
            }
            Who::Heir => self.heir_exited(Exit::Signal(crate::event::SIGKILL)),
        }
    }
}

fn why_it_failed(failed: Option<String>, starts: u32, exit: Exit) -> Problem {
    let Some(text) = failed else {
        return Problem::new("the gateway does not start")
            .detail(format!("{starts} attempts, the last: {exit}"));
    };
    // "message", then lines that begin with "detail: " and "hint: ".
    let mut problem = Problem::default();
    let mut part = &mut problem.message;
    for mut line in text.lines().map(str::trim_start) {
        if let Some(rest) = line.strip_prefix("detail: ") {
            (part, line) = (&mut problem.detail, rest);
        } else if let Some(rest) = line.strip_prefix("hint: ") {
            (part, line) = (&mut problem.hint, rest);
        }
        if !part.is_empty() {
            part.push('\n');
        }
        part.push_str(line);
    }
    if let Some(rest) = problem.message.strip_prefix("error: ") {
        problem.message = rest.to_owned();
    }
    problem
}
