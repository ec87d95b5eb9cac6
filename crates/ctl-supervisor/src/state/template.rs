//! The template's life, and how workers come to be: forked from it, out of it, or by themselves.
//!
//! There is one for the newest generation. While a reload runs there is that of the generation that serves as well, so
//! that nothing is lost when the new code does not import. Workers do not depend on the template that they came from.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ctl_admin::words::{AppReport, FromTemplate};

use crate::backoff::Backoff;
use crate::event::{Action, Exit, Failure, Level, Who};
use crate::plan::{Outcome, Problem};

use super::worker::{Leaving, Step, died_at_start, killed_hint, not_ready};
use super::{EXIT_GRACE, KILL_WAIT, STABLE_AFTER, State, TERM_GRACE, WORKER_BACKOFF};

/// From the order to the fork. It takes milliseconds; a machine that swaps may be slow. Requests wait meanwhile, by default
/// for 10 s.
pub(super) const FORK_TIMEOUT: Duration = Duration::from_secs(5);

/// So many templates of one generation that did not stay, and its workers import by themselves.
const LOST_MAX: u32 = 2;

#[derive(Debug)]
struct Template {
    generation: u32,
    pid: Option<u32>,
    started: Instant,
    /// It may be told to fork, since then.
    ready: Option<Instant>,
    leaving: Option<Leaving>,
}

/// How the next worker comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Fork {
        template: u32,
    },
    /// It imports the app by itself.
    Alone,
    /// As soon as the template is ready.
    NotNow,
}

/// All of them, and what was learnt about their code.
#[derive(Debug)]
pub(super) struct Templates {
    all: BTreeMap<u32, Template>,
    last: u32,
    /// Generations whose workers import by themselves, and why: their app cannot be forked, or the template does not stay.
    alone: BTreeMap<u32, String>,
    /// Templates of the newest generation in a row that did not stay.
    lost: u32,
    backoff: Backoff,
    /// Why the app cannot be forked, as it was told; once is enough.
    told: String,
}

impl Templates {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            all: BTreeMap::new(),
            last: 0,
            alone: BTreeMap::new(),
            lost: 0,
            backoff: Backoff::new(WORKER_BACKOFF.0, WORKER_BACKOFF.1, seed),
            told: String::new(),
        }
    }

    pub(super) fn are_left(&self) -> bool {
        !self.all.is_empty()
    }

    pub(super) fn spawned(&mut self, number: u32, pid: u32) {
        if let Some(template) = self.all.get_mut(&number) {
            template.pid = Some(pid);
        }
    }

    pub(super) fn pid_of(&self, generation: u32) -> Option<u32> {
        self.of(generation).and_then(|(_, template)| template.pid)
    }

    fn of(&self, generation: u32) -> Option<(u32, &Template)> {
        let all = self.all.iter().map(|(number, template)| (*number, template));
        all.rev().find(|(_, template)| template.generation == generation && template.leaving.is_none())
    }
}

impl State {
    /// For status: why there is no template.
    pub(crate) fn template_notes(&self) -> Vec<String> {
        self.templates.alone.get(&self.target).cloned().into_iter().collect()
    }

    /// How a worker of the newest generation comes to be now.
    pub(super) fn way(&self) -> Way {
        if !self.settings.preload || self.templates.alone.contains_key(&self.target) {
            return Way::Alone;
        }
        match self.templates.of(self.target) {
            Some((template, Template { ready: Some(_), .. })) => Way::Fork { template },
            _ => Way::NotNow,
        }
    }

    fn wants_template(&self) -> bool {
        self.settings.preload
            && self.stop.is_none()
            && !self.reload.as_ref().is_some_and(super::reload::Reload::waits_for_config)
            && !self.templates.alone.contains_key(&self.target)
            && self.templates.of(self.target).is_none()
    }

    pub(super) fn start_template(&mut self, now: Instant) {
        if !self.wants_template() || self.templates.backoff.waits_until(now).is_some() {
            return;
        }
        self.templates.last += 1;
        let (template, generation) = (self.templates.last, self.target);
        let new = Template { generation, pid: None, started: now, ready: None, leaving: None };
        self.templates.all.insert(template, new);
        self.out.push(Action::SpawnTemplate { template, generation });
    }

    /// Those of which no worker will come any more go.
    pub(super) fn retire_templates(&mut self, now: Instant) {
        let serving = self.generation();
        let (target, preload) = (self.target, self.settings.preload);
        let useless = |template: &Template| {
            let serves_on = preload && [target, serving].contains(&template.generation);
            !serves_on && template.leaving.is_none()
        };
        self.send_off_templates_if(useless, Step::Term, TERM_GRACE, now);
        self.templates.alone.retain(|generation, _| *generation >= serving);
    }

    /// A reload begins: what failed before was other code.
    pub(super) fn new_generation(&mut self, now: Instant) {
        self.templates.lost = 0;
        self.templates.backoff.forget();
        // What is still importing the old code is of no use to anybody.
        self.send_off_templates_if(|template| template.ready.is_none(), Step::Term, TERM_GRACE, now);
    }

    pub(super) fn template_said(&mut self, number: u32, said: FromTemplate, now: Instant) {
        match said {
            FromTemplate::Ready { app, unfit } => self.template_ready(number, &app, &unfit, now),
            FromTemplate::Failed { message, traceback, hint } => {
                // It exits by itself.
                self.template_failed(
                    number,
                    Failure { message, traceback, hint },
                    (Step::Asked, EXIT_GRACE),
                    now,
                );
            }
            // The driver has made them events of the worker.
            FromTemplate::Forked { .. } | FromTemplate::ForkFailed { .. } => {}
        }
    }

    fn template_ready(&mut self, number: u32, app: &AppReport, unfit: &str, now: Instant) {
        let Some(template) = self.templates.all.get_mut(&number) else { return };
        if template.leaving.is_some() || template.ready.is_some() {
            return;
        }
        let (generation, pid, started) = (template.generation, template.pid, template.started);
        template.ready = Some(now);
        let after = now.saturating_duration_since(started).as_secs_f64();
        let name = &app.app;
        self.log(Level::Debug, format!("the template has imported {name} after {after:.1} s"));
        if unfit.is_empty() {
            return;
        }
        let text = format!("the app {unfit}, so each worker imports it by itself");
        self.templates.alone.insert(generation, text.clone());
        if self.templates.told != text {
            self.templates.told.clone_from(&text);
            self.log(Level::Info, text);
        }
        let place = self.missing().filter(|place| place.generation == generation);
        let Some(place) = place.filter(|_| self.crashes.waits_until(now).is_none()) else {
            self.send_off_template(number, Step::Term, TERM_GRACE, now);
            return;
        };
        // What it has imported shall not have been in vain.
        self.templates.all.remove(&number);
        let worker = self.engage(place, started);
        if let Some(new) = self.workers.get_mut(&worker) {
            new.pid = pid;
        }
        self.out.push(Action::Become { template: number, worker, place });
        self.worker_event("started", worker);
    }

    /// It did not become ready. `how` it is told to go, since it may not do so by itself.
    fn template_failed(&mut self, number: u32, failure: Failure, how: (Step, Duration), now: Instant) {
        let Some(template) = self.templates.all.get(&number) else { return };
        if template.leaving.is_some() {
            return;
        }
        let generation = template.generation;
        self.send_off_template(number, how.0, how.1, now);
        if self.stop.is_some() {
            return;
        }
        if !self.ever_ready {
            self.out.push(Action::ShowFailure(failure));
            self.give_up(Outcome::AppFailed, now);
        } else if self.reload.is_some() && generation == self.target && self.generation() < generation {
            self.reload_failed(&failure, now);
        } else {
            self.template_lost(generation, &format!("the template could not start: {failure}"), now);
        }
    }

    pub(super) fn template_not_spawned(&mut self, number: u32, problem: Problem, now: Instant) {
        let Some(template) = self.templates.all.remove(&number) else { return };
        if self.stop.is_some() {
            return;
        }
        if !self.ever_ready {
            self.give_up(Outcome::Failed(problem), now);
            return;
        }
        let failure = Failure::new(format!("{problem}: {}", problem.detail), problem.hint);
        if self.reload.is_some() && template.generation == self.target && self.generation() < self.target {
            self.reload_failed(&failure, now);
        } else {
            self.template_lost(template.generation, &format!("the template could not start: {failure}"), now);
        }
    }

    pub(super) fn template_exited(&mut self, number: u32, exit: Exit, now: Instant) {
        if let Some(template) = self.templates.all.get(&number)
            && template.leaving.is_none()
            && template.ready.is_none()
        {
            let failure = died_at_start(Who::Template(number), exit);
            self.template_failed(number, failure, (Step::Asked, EXIT_GRACE), now);
        }
        let Some(template) = self.templates.all.remove(&number) else { return };
        self.forget_forks(number);
        let pid = template.pid.unwrap_or_default();
        if template.leaving.is_some() || self.stop.is_some() {
            self.log(Level::Debug, format!("the template (pid {pid}) is gone: {exit}"));
            return;
        }
        if template.ready.is_some_and(|ready| now.saturating_duration_since(ready) >= STABLE_AFTER) {
            self.templates.lost = 0;
            self.templates.backoff.forget();
        }
        let hint = killed_hint(exit);
        let why = format!("the template (pid {pid}) died: {exit}; its workers are not affected{hint}");
        self.template_lost(template.generation, &why, now);
    }

    /// A fork is not answered.
    pub(super) fn template_hangs(&mut self, number: u32, now: Instant) {
        self.forget_forks(number);
        let Some(template) = self.templates.all.get(&number).filter(|template| template.leaving.is_none())
        else {
            return;
        };
        let generation = template.generation;
        self.send_off_template(number, Step::Kill, KILL_WAIT, now);
        let seconds = FORK_TIMEOUT.as_secs();
        self.template_lost(
            generation,
            &format!("the template did not fork within {seconds} s; it is killed"),
            now,
        );
    }

    /// Its workers live on. Another one is started, unless that has been tried.
    fn template_lost(&mut self, generation: u32, why: &str, now: Instant) {
        let (why, hint) =
            why.split_once('\n').map_or((why, String::new()), |(why, rest)| (why, format!("\n{rest}")));
        self.templates.lost += 1;
        if self.templates.lost > LOST_MAX {
            let text = format!("{why}; from now on, until a reload, each worker imports the app by itself");
            self.log(Level::Error, format!("{text}{hint}"));
            self.templates.alone.insert(generation, text);
            return;
        }
        let delay = self.templates.backoff.failed(now).as_secs_f64();
        self.log(Level::Error, format!("{why}; another one is started in {delay:.1} s{hint}"));
    }

    /// What it was told to fork will not come.
    fn forget_forks(&mut self, number: u32) {
        let out = &mut self.out;
        self.workers.retain(|worker, known| {
            let lost = known.fork.is_some_and(|fork| fork.template == number);
            if lost {
                out.push(Action::Forget { worker: *worker });
            }
            !lost
        });
    }

    pub(super) fn send_off_templates(&mut self, step: Step, grace: Duration, now: Instant) {
        self.send_off_templates_if(|_| true, step, grace, now);
    }

    fn send_off_templates_if(
        &mut self,
        which: impl Fn(&Template) -> bool,
        step: Step,
        grace: Duration,
        now: Instant,
    ) {
        let slower = |template: &Template| template.leaving.is_none_or(|leaving| leaving.step < step);
        let all = self.templates.all.iter().filter(|(_, template)| which(template) && slower(template));
        let all: Vec<u32> = all.map(|(number, _)| *number).collect();
        for number in all {
            self.send_off_template(number, step, grace, now);
        }
    }

    /// Marks it as leaving, `step` being what it is told now.
    fn send_off_template(&mut self, number: u32, step: Step, grace: Duration, now: Instant) {
        let Some(template) = self.templates.all.get_mut(&number) else { return };
        template.leaving = Some(Leaving { step, deadline: now + grace });
        match step {
            Step::Asked => {}
            Step::Term => self.out.push(Action::Terminate(Who::Template(number))),
            Step::Kill => self.out.push(Action::Kill(Who::Template(number))),
        }
        self.forget_forks(number);
    }

    fn deadline_of(&self, template: &Template) -> Option<Instant> {
        match (template.leaving, template.ready) {
            (Some(leaving), _) => Some(leaving.deadline),
            (None, None) => Some(template.started + self.settings.start_timeout),
            (None, Some(_)) => None,
        }
    }

    /// When something must happen with a template that does nothing by itself, or one must be started.
    pub(super) fn template_deadline(&self, now: Instant) -> Option<Instant> {
        let missing = if self.wants_template() { self.templates.backoff.waits_until(now) } else { None };
        self.templates.all.values().filter_map(|template| self.deadline_of(template)).chain(missing).min()
    }

    pub(super) fn overdue_templates(&mut self, now: Instant) {
        let overdue =
            |template: &Template| self.deadline_of(template).is_some_and(|deadline| deadline <= now);
        let all = self.templates.all.iter().filter(|(_, template)| overdue(template));
        let numbers: Vec<u32> = all.map(|(number, _)| *number).collect();
        for number in numbers {
            let Some(template) = self.templates.all.get(&number) else { continue };
            match template.leaving.map(|leaving| leaving.step) {
                Some(Step::Asked) => self.send_off_template(number, Step::Term, TERM_GRACE, now),
                Some(Step::Term) => self.send_off_template(number, Step::Kill, KILL_WAIT, now),
                Some(Step::Kill) => self.unkillable(Who::Template(number), now),
                None => {
                    let failure = not_ready(Who::Template(number), self.settings.start_timeout);
                    // It is given no time: it had it.
                    self.template_failed(number, failure, (Step::Term, TERM_GRACE), now);
                }
            }
        }
    }
}
