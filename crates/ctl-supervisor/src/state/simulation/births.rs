//! How workers and templates come to be in the seeded world, or do not.

use std::collections::BTreeMap;
use std::time::Duration;

use ctl_admin::words::{AppReport, FromTemplate, FromWorker};

use crate::event::{Event, Exit, Who};
use crate::plan::Problem;
use crate::state::template::Way;

use super::world::{Dice, FakeWorker, Later, World};

/// The templates that run.
pub(super) struct Births {
    /// Whose each is, and whether it may be told to fork.
    templates: BTreeMap<u32, (usize, bool)>,
    /// Workers that are being forked: by which template, for which pool.
    unborn: BTreeMap<u32, (u32, u16)>,
    /// In percent: how often the app turns out to have threads.
    threads: u64,
    count: usize,
}

impl Births {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let threads = [0, 0, 0, 30, 100][(dice.next() % 5) as usize];
        Self { templates: BTreeMap::new(), unborn: BTreeMap::new(), threads, count: 0 }
    }

    pub(super) fn remove(&mut self, template: u32) {
        self.templates.remove(&template);
        self.unborn.retain(|_, (of, _)| *of != template);
    }
}

impl World {
    pub(super) fn template_count(&self) -> usize {
        self.births.count
    }

    pub(super) fn assert_templates_are_healthy(&self) {
        for module in 0..self.settings.modules.len() {
            let own = self.births.templates.values().filter(|(of, _)| *of == module);
            let running: Vec<bool> = own.map(|(_, ready)| *ready).collect();
            match self.state.way(module) {
                Way::Fork { .. } => assert_eq!(running, [true], "{:#?}", self.state),
                Way::Alone => assert!(running.is_empty(), "{:#?}", self.state),
                Way::NotNow => panic!("there is no template: {:#?}", self.state),
            }
        }
        assert!(self.births.unborn.is_empty());
    }

    pub(super) fn strike_templates(&mut self) {
        let templates: Vec<u32> = self.births.templates.keys().copied().collect();
        for template in templates {
            self.happen(Later::TemplateEnds(template, Exit::Signal(9)));
        }
    }

    pub(super) fn spawn_template(&mut self, number: u32, module: usize) {
        assert!(self.state.settings.preload, "nobody wants a template");
        self.births.count += 1;
        let who = Who::Template(number);
        let bad_start = self.bad_start(module);
        if self.dice.chance(bad_start / 4) {
            let problem = Problem::new("fork: no memory");
            self.after(Duration::ZERO, Later::Event(Event::SpawnFailed { who, problem }));
            return;
        }
        self.births.templates.insert(number, (module, false));
        self.after(Duration::ZERO, Later::Event(Event::Spawned { who, pid: number }));
        let delay = self.dice.ms(50, 4_000);
        if !self.dice.chance(bad_start) {
            self.after(delay, Later::TemplateReady(number));
            return;
        }
        match self.dice.next() % 4 {
            0 => {
                let said = FromTemplate::Failed {
                    message: "no".to_owned(),
                    traceback: String::new(),
                    hint: String::new(),
                };
                self.after(delay, Later::Event(Event::Template { template: number, said }));
                let ends = delay + self.dice.ms(0, 50);
                self.after(ends, Later::TemplateEnds(number, Exit::Code(78)));
            }
            1 => self.after(delay, Later::TemplateEnds(number, Exit::Signal(11))),
            // It comes up and goes down at once.
            2 => {
                self.after(delay, Later::TemplateReady(number));
                let ends = delay + self.dice.ms(0, 500);
                self.after(ends, Later::TemplateEnds(number, Exit::Signal(9)));
            }
            // It hangs.
            _ => {}
        }
    }

    pub(super) fn template_ready(&mut self, number: u32) {
        let Some((_, ready)) = self.births.templates.get_mut(&number) else { return };
        *ready = true;
        let unfit = if self.dice.chance(self.births.threads) { "starts threads" } else { "" };
        let app = Box::new(AppReport::default());
        let said = FromTemplate::Ready { app, unfit: unfit.to_owned() };
        self.feed(Event::Template { template: number, said });
    }

    pub(super) fn template_ends(&mut self, number: u32, exit: Exit) {
        if self.births.templates.remove(&number).is_none() {
            return;
        }
        self.feed(Event::Exited { who: Who::Template(number), exit });
        let waits = self.births.unborn.values().any(|(template, _)| *template == number);
        assert!(!waits, "a worker waits for a template that is gone: {:#?}", self.state);
    }

    pub(super) fn fork_worker(&mut self, template: u32, worker: u32, pool: u16) {
        let module = usize::from(self.settings.pools[usize::from(pool)].module);
        let is_fit = self.births.templates.get(&template) == Some(&(module, true));
        assert!(is_fit, "template {template} cannot fork");
        self.new_number(worker);
        self.births.unborn.insert(worker, (template, pool));
        // Sometimes it takes too long, or for ever.
        let slow = self.dice.chance(self.misfortune.deaf / 2);
        let delay = if slow { self.dice.ms(100, 30_000) } else { self.dice.ms(1, 30) };
        let bad_start = self.bad_start(module);
        if !self.dice.chance(bad_start / 8) {
            self.after(delay, Later::Forks(template, worker));
        }
    }

    pub(super) fn forks(&mut self, template: u32, worker: u32) {
        if !self.births.templates.contains_key(&template) {
            return;
        }
        let who = Who::Worker(worker);
        let Some((_, pool)) = self.births.unborn.remove(&worker) else {
            // Forgotten: the driver says nothing of it.
            return;
        };
        let bad_start = self.bad_start_in(pool);
        if self.dice.chance(bad_start / 4) {
            self.feed(Event::SpawnFailed { who, problem: Problem::new("fork: no memory") });
            return;
        }
        self.feed(Event::Spawned { who, pid: worker });
        if self.dice.chance(bad_start / 4) {
            // It was dead before anybody knew of it.
            if self.end.is_none() {
                self.feed(Event::Exited { who, exit: Exit::Signal(9) });
            }
            return;
        }
        self.live(worker, pool, 5, 60);
    }

    pub(super) fn template_becomes(&mut self, template: u32, worker: u32, pool: u16) {
        let was = self.births.templates.remove(&template);
        assert!(was.is_some_and(|(_, ready)| ready), "template {template} is not there");
        self.new_number(worker);
        self.live(worker, pool, 1, 50);
    }

    pub(super) fn forget(&mut self, worker: u32) {
        assert!(self.used.contains(&worker));
        self.births.unborn.remove(&worker);
    }

    fn bad_start_in(&self, pool: u16) -> u64 {
        self.bad_start(usize::from(self.settings.pools[usize::from(pool)].module))
    }

    fn new_number(&mut self, worker: u32) {
        assert!(self.used.insert(worker), "number {worker} is used again");
        self.spawns.push(self.now);
    }

    pub(super) fn spawn_worker(&mut self, worker: u32, pool: u16) {
        self.new_number(worker);
        let who = Who::Worker(worker);
        let bad_start = self.bad_start_in(pool);
        if self.dice.chance(bad_start / 4) {
            let problem = Problem::new("fork: no memory");
            self.after(Duration::ZERO, Later::Event(Event::SpawnFailed { who, problem }));
            return;
        }
        self.after(Duration::ZERO, Later::Event(Event::Spawned { who, pid: worker }));
        self.live(worker, pool, 50, 4_000);
    }

    /// A process that is, or should become, a worker.
    fn live(&mut self, worker: u32, pool: u16, from_ms: u64, to_ms: u64) {
        let deaf = self.dice.chance(self.misfortune.deaf);
        self.workers.insert(worker, FakeWorker { pool, deaf, ..FakeWorker::default() });
        let delay = self.dice.ms(from_ms, to_ms);
        let bad_start = self.bad_start_in(pool);
        if !self.dice.chance(bad_start) {
            self.after(delay, Later::WorkerReady(worker));
            return;
        }
        match self.dice.next() % 4 {
            0 => {
                let said = FromWorker::Failed {
                    message: "no".to_owned(),
                    traceback: String::new(),
                    hint: String::new(),
                };
                self.after(delay, Later::Event(Event::Worker { worker, said }));
                let ends = delay + self.dice.ms(0, 50);
                self.after(ends, Later::WorkerEnds(worker, Exit::Code(1)));
            }
            1 => self.after(delay, Later::WorkerEnds(worker, Exit::Signal(11))),
            // It comes up and goes down at once.
            2 => {
                self.after(delay, Later::WorkerReady(worker));
                let ends = delay + self.dice.ms(0, 500);
                self.after(ends, Later::WorkerEnds(worker, Exit::Signal(9)));
            }
            // It hangs.
            _ => {}
        }
    }
}
