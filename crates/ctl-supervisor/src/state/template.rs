//! The template's life, and how workers come to be: forked from it, out of it, or by themselves.
//!
//! Each app has one for its newest generation. While a reload runs there is that of the generation that serves as well, so
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
    module: usize,
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

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Templates {
    all: BTreeMap<u32, Template>,
    last: u32,
}

/// What was learnt about the code of an app.
#[derive(Debug)]
pub(super) struct Births {
    /// Generations whose workers import by themselves, and why: their app cannot be forked, or the template does not stay.
    alone: BTreeMap<u32, String>,
    /// Templates of the newest generation in a row that did not stay.
    lost: u32,
    backoff: Backoff,
    /// Why the app cannot be forked, as it was told; once is enough.
    told: String,
}

impl Births {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            alone: BTreeMap::new(),
            lost: 0,
            backoff: Backoff::new(WORKER_BACKOFF.0, WORKER_BACKOFF.1, seed),
            told: String::new(),
        }
    }
}

impl Templates {
    pub(super) fn are_left(&self) -> bool {
        !self.all.is_empty()
    }

    pub(super) fn spawned(&mut self, number: u32, pid: u32) {
        if let Some(template) = self.all.get_mut(&number) {
            template.pid = Some(pid);
        }
    }

    fn of(&self, module: usize, generation: u32) -> Option<(u32, &Template)> {
        let all = self.all.iter().map(|(number, template)| (*number, template));
        let is_it = |template: &Template| template.module == module && template.generation == generation;
        all.rev().find(|(_, template)| is_it(template) && template.leaving.is_none())
    }
}

impl State {
    /// For status: why there is no template.
    pub(crate) fn template_notes(&self) -> Vec<String> {
        let modules = self.modules.iter().enumerate();
        let notes = modules.filter_map(|(module, known)| {
            let text = known.births.alone.get(&known.target)?;
            Some(format!("{}{text}", self.whose(module)))
        });
        notes.collect()
    }

    /// The process that workers of this app are forked from now.
    pub(super) fn template_of(&self, module: usize) -> Option<u32> {
        self.templates.of(module, self.modules.get(module)?.target).and_then(|(_, template)| template.pid)
    }

    /// How a worker of the newest generation of an app comes to be now.
    pub(super) fn way(&self, module: usize) -> Way {
        let known = &self.modules[module];
        if !self.settings.preload || known.births.alone.contains_key(&known.target) {
            return Way::Alone;
        }
        match self.templates.of(module, known.target) {
            Some((template, Template { ready: Some(_), .. })) => Way::Fork { template },
            _ => Way::NotNow,
        }
    }

    fn wants_template(&self, module: usize) -> bool {
        let known = &self.modules[module];
        self.settings.preload
            && self.stop.is_none()
            && !self.reload.as_ref().is_some_and(super::reload::Reload::waits_for_config)
            && !known.births.alone.contains_key(&known.target)
            && self.templates.of(module, known.target).is_none()
    }

    pub(super) fn start_template(&mut self, module: usize, now: Instant) {
        if !self.wants_template(module) || self.modules[module].births.backoff.waits_until(now).is_some() {
            return;
        }
        self.templates.last += 1;
        let (template, generation) = (self.templates.last, self.modules[module].target);
        let new = Template { module, generation, pid: None, started: now, ready: None, leaving: None };
        self.templates.all.insert(template, new);
        self.out.push(Action::SpawnTemplate { template, generation, module });
    }

    /// Those of which no worker will come any more go.
    pub(super) fn retire_templates(&mut self, now: Instant) {
        let preload = self.settings.preload;
        let useful: Vec<[u32; 2]> =
            self.modules.iter().map(|module| [module.target, module.generation()]).collect();
        let useless = |template: &Template| {
            let serves_on = preload && useful[template.module].contains(&template.generation);
            !serves_on && template.leaving.is_none()
        };
        self.send_off_templates_if(useless, Step::Term, TERM_GRACE, now);
        for module in &mut self.modules {
            let serving = module.generation();
            module.births.alone.retain(|generation, _| *generation >= serving);
        }
    }

    /// A reload begins: what failed before was other code.
    pub(super) fn new_generation(&mut self, module: usize, now: Instant) {
        self.modules[module].births.lost = 0;
        self.modules[module].births.backoff.forget();
        // What is still importing the old code is of no use to anybody.
        let old = |template: &Template| template.module == module && template.ready.is_none();
        self.send_off_templates_if(old, Step::Term, TERM_GRACE, now);
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
        let (module, generation) = (template.module, template.generation);
        let (pid, started) = (template.pid, template.started);
        template.ready = Some(now);
        let after = now.saturating_duration_since(started).as_secs_f64();
        let (name, whose) = (&app.app, self.whose(module));
        self.log(Level::Debug, format!("{whose}the template has imported {name} after {after:.1} s"));
        if unfit.is_empty() {
            return;
        }
        let text = format!("the app {unfit}, so each worker imports it by itself");
        let births = &mut self.modules[module].births;
        births.alone.insert(generation, text.clone());
        if births.told != text {
            births.told.clone_from(&text);
            self.log(Level::Info, format!("{whose}{text}"));
        }
        let place = self.missing(module).filter(|place| place.generation == generation);
        let Some(place) = place.filter(|_| self.modules[module].crashes.waits_until(now).is_none()) else {
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
        let (module, generation) = (template.module, template.generation);
        self.send_off_template(number, how.0, how.1, now);
        if self.stop.is_some() {
            return;
        }
        if !self.modules[module].ever_ready {
            self.out.push(Action::ShowFailure(self.named(module, failure)));
            self.give_up(Outcome::AppFailed, now);
        } else if self.reload_depends_on(module, generation) {
            self.reload_failed(module, &self.named(module, failure), now);
        } else {
            let why = format!("the template could not start: {failure}");
            self.template_lost(module, generation, &why, now);
        }
    }

    pub(super) fn template_not_spawned(&mut self, number: u32, problem: Problem, now: Instant) {
        let Some(template) = self.templates.all.remove(&number) else { return };
        if self.stop.is_some() {
            return;
        }
        let Template { module, generation, .. } = template;
        if !self.modules[module].ever_ready {
            self.give_up(Outcome::Failed(self.named_problem(module, problem)), now);
            return;
        }
        let failure = Failure::new(format!("{problem}: {}", problem.detail), problem.hint);
        if self.reload_depends_on(module, generation) {
            self.reload_failed(module, &self.named(module, failure), now);
        } else {
            let why = format!("the template could not start: {failure}");
            self.template_lost(module, generation, &why, now);
        }
    }

    /// Nobody has seen the code of this generation yet, and a reload waits for it.
    fn reload_depends_on(&self, module: usize, generation: u32) -> bool {
        let known = &self.modules[module];
        self.reloads(module) && generation == known.target && known.generation() < generation
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
            self.modules[template.module].births.lost = 0;
            self.modules[template.module].births.backoff.forget();
        }
        let hint = killed_hint(exit);
        let why = format!("the template (pid {pid}) died: {exit}; its workers are not affected{hint}");
        self.template_lost(template.module, template.generation, &why, now);
    }

    /// A fork is not answered.
    pub(super) fn template_hangs(&mut self, number: u32, now: Instant) {
        self.forget_forks(number);
        let Some(template) = self.templates.all.get(&number).filter(|template| template.leaving.is_none())
        else {
            return;
        };
        let (module, generation) = (template.module, template.generation);
        self.send_off_template(number, Step::Kill, KILL_WAIT, now);
        let seconds = FORK_TIMEOUT.as_secs();
        let why = format!("the template did not fork within {seconds} s; it is killed");
        self.template_lost(module, generation, &why, now);
    }

    /// Its workers live on. Another one is started, unless that has been tried.
    fn template_lost(&mut self, module: usize, generation: u32, why: &str, now: Instant) {
        let whose = self.whose(module);
        let births = &mut self.modules[module].births;
        let (why, hint) =
            why.split_once('\n').map_or((why, String::new()), |(why, rest)| (why, format!("\n{rest}")));
        births.lost += 1;
        if births.lost > LOST_MAX {
            let text = format!("{why}; from now on, until a reload, each worker imports the app by itself");
            births.alone.insert(generation, text.clone());
            self.log(Level::Error, format!("{whose}{text}{hint}"));
            return;
        }
        let delay = births.backoff.failed(now).as_secs_f64();
        self.log(Level::Error, format!("{whose}{why}; another one is started in {delay:.1} s{hint}"));
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
        let missing = self.modules.iter().enumerate().filter_map(|(module, known)| {
            if self.wants_template(module) { known.births.backoff.waits_until(now) } else { None }
        });
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
