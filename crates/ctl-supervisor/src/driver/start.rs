//! Starting the children: as programs of their own, or as forks of the template.

use ctl_admin::words::{Activated, Drained, FromTemplate, ToTemplate};
use rustix::process::Pid;

use crate::event::{Event, Exit, Place, Who};
use crate::plan::Problem;

use super::Driver;
use super::children::{self, Child};

/// Orphans that end while a fork is under way; an app that leaves more of them behind at that moment has lost its worker's end.
const STRANGERS_MAX: usize = 1024;

impl Driver {
    pub(super) fn start_gateway(&mut self, active: Vec<Activated>, drained: Vec<Drained>) -> Event {
        let start = self.house.gateway_start(active, drained);
        match Child::start(self.house.gateway_program()) {
            Ok(mut child) => {
                child.peer.send(&start, "the gateway");
                let pid = child.number();
                self.gateway = Some(child);
                Event::Spawned { who: Who::Gateway, pid }
            }
            Err(error) => {
                Event::SpawnFailed { who: Who::Gateway, problem: self.house.gateway_problem(&error) }
            }
        }
    }

    pub(super) fn start_template(&mut self, template: u32, generation: u32, module: usize) -> Event {
        let who = Who::Template(template);
        match Child::start(self.house.template_program(generation, module)) {
            Ok(child) => {
                let pid = child.number();
                self.templates.insert(template, child);
                Event::Spawned { who, pid }
            }
            Err(error) => Event::SpawnFailed { who, problem: self.house.worker_problem(module, &error) },
        }
    }

    pub(super) fn start_worker(&mut self, worker: u32, place: Place) -> Event {
        let who = Who::Worker(worker);
        match Child::start(self.house.worker_program(worker, place)) {
            Ok(child) => {
                let pid = child.number();
                self.workers.insert(worker, child);
                Event::Spawned { who, pid }
            }
            Err(error) => {
                Event::SpawnFailed { who, problem: self.house.worker_problem_in(place.pool, &error) }
            }
        }
    }

    /// The answer comes from the template.
    pub(super) fn fork_worker(&mut self, template: u32, worker: u32, place: Place) -> Option<Event> {
        // A template that is gone has ended since this was decided: its end, which is on the way, says the rest.
        let parent = self.templates.get_mut(&template)?;
        match Child::unborn() {
            Ok((child, theirs)) => {
                let order = ToTemplate::Fork(Box::new(self.house.worker_start(worker, place)));
                parent.peer.send_with(&order, theirs, "the template");
                self.workers.insert(worker, child);
                None
            }
            Err(error) => Some(self.not_forked(worker, &error.to_string())),
        }
    }

    /// The template's process becomes a worker, with a control socket of its own.
    pub(super) fn make_worker_of(&mut self, template: u32, worker: u32, place: Place) -> Option<Event> {
        let Some(mut former) = self.templates.remove(&template) else {
            // It said that it was ready and died: these were its last words.
            return Some(Event::Exited { who: Who::Worker(worker), exit: Exit::Code(1) });
        };
        match Child::unborn() {
            Ok((mut child, theirs)) => {
                let order = ToTemplate::Become(Box::new(self.house.worker_start(worker, place)));
                former.peer.send_with(&order, theirs, "the template");
                child.pid = former.pid;
                self.workers.insert(worker, child);
                None
            }
            // It sees the end of its socket, and is reaped as one whom nobody knows.
            Err(error) => Some(self.not_forked(worker, &error.to_string())),
        }
    }

    fn not_forked(&mut self, worker: u32, why: &str) -> Event {
        self.workers.remove(&worker);
        let problem = Problem::new("a worker cannot be forked").detail(why.to_owned()).hint(
            "memory and the number of processes may be limited: see `ulimit -u` and the container's limits",
        );
        Event::SpawnFailed { who: Who::Worker(worker), problem }
    }

    pub(super) fn template_said(&mut self, template: u32, said: Vec<FromTemplate>) {
        for said in said {
            match said {
                FromTemplate::Forked { worker, pid } => self.forked(worker, pid),
                FromTemplate::ForkFailed { worker, message } => {
                    // Unless it is forgotten already.
                    if self.workers.contains_key(&worker) {
                        let event = self.not_forked(worker, &message);
                        self.feed(event);
                    }
                }
                said => self.feed(Event::Template { template, said }),
            }
        }
    }

    fn forked(&mut self, worker: u32, number: u32) {
        let pid = children::pid_of(number);
        let unborn = self.workers.get_mut(&worker).filter(|child| child.pid.is_none());
        let (Some(child), Some(pid)) = (unborn, pid) else {
            // Forgotten meanwhile: it finds that nobody listens, and goes.
            return;
        };
        child.pid = Some(pid);
        self.feed(Event::Spawned { who: Who::Worker(worker), pid: number });
        if let Some(exit) = self.strangers.remove(&number) {
            self.ended(pid, exit);
        }
    }

    /// An orphan of the app, or a worker that died before its template has told of it.
    pub(super) fn stranger_ended(&mut self, pid: Pid, exit: Exit) {
        let number = children::number(pid);
        self.inherited.remove(&number);
        if self.workers.values().all(|child| child.pid.is_some()) {
            self.strangers.clear();
        } else if self.strangers.len() < STRANGERS_MAX {
            self.strangers.insert(number, exit);
        }
        tracing::debug!(pid = number, %exit, "an orphan was reaped");
    }
}
