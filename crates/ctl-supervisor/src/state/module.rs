//! What is known of one app of the instance: which code serves, which is wanted, and how well its starts go.
//!
//! The app of `[app]` is module 0, each `[[module]]` another one. All of them share one counter of generations, but each has its own
//! target, its own back-off and its own template: whatever happens to one does not touch the others.

use ctl_admin::words::{Activated, AppReport, ModuleStatus};

use crate::backoff::Backoff;
use crate::event::Failure;
use crate::plan::Problem;

use super::dev::Dev;
use super::template::Births;
use super::{State, WORKER_BACKOFF, Worker};

#[derive(Debug)]
pub(super) struct Module {
    /// The generation that new workers belong to.
    pub(super) target: u32,
    /// The generation that serves, and what its app reported.
    pub(super) active: Option<(u32, Box<AppReport>)>,
    /// A worker has been ready at least once, so the app does import in principle.
    pub(super) ever_ready: bool,
    pub(super) crashes: Backoff,
    pub(super) births: Births,
    pub(super) dev: Dev,
}

impl Module {
    pub(super) fn new(number: usize, seed: u64) -> Self {
        let seed = seed.wrapping_add(number as u64);
        Self {
            target: 1,
            active: None,
            ever_ready: false,
            crashes: Backoff::new(WORKER_BACKOFF.0, WORKER_BACKOFF.1, seed),
            births: Births::new(seed.rotate_left(16)),
            dev: Dev::default(),
        }
    }

    /// The generation that serves; 0 before the first.
    pub(super) fn generation(&self) -> u32 {
        self.active.as_ref().map_or(0, |(generation, _)| *generation)
    }
}

impl State {
    /// The app of a pool's workers.
    pub(super) fn module_of(&self, pool: u16) -> usize {
        let module = self.settings.pools.get(usize::from(pool)).map_or(0, |pool| usize::from(pool.module));
        // A pool names a module that there is, see ctl-config.
        module.min(self.modules.len() - 1)
    }

    pub(super) fn module_of_worker(&self, worker: &Worker) -> usize {
        self.module_of(worker.place.pool)
    }

    pub(super) fn all_modules(&self) -> Vec<usize> {
        (0..self.modules.len()).collect()
    }

    /// The one of several that is meant; `None`: all.
    pub(super) fn only(&self, modules: &[usize]) -> Option<usize> {
        match modules {
            [one] if self.modules.len() > 1 => Some(*one),
            _ => None,
        }
    }

    /// Every app serves, or has served: the start is over.
    pub(super) fn has_started(&self) -> bool {
        self.modules.iter().all(|module| module.active.is_some())
    }

    pub(super) fn module_name(&self, module: usize) -> &str {
        self.settings.modules.get(module).map_or("", String::as_str)
    }

    /// The beginning of a message about an app, where there are several.
    pub(super) fn whose(&self, module: usize) -> String {
        if self.modules.len() < 2 { String::new() } else { format!("module {}: ", self.module_name(module)) }
    }

    pub(super) fn named(&self, module: usize, failure: Failure) -> Failure {
        Failure { message: format!("{}{}", self.whose(module), failure.message), ..failure }
    }

    pub(super) fn named_problem(&self, module: usize, problem: Problem) -> Problem {
        Problem { message: format!("{}{}", self.whose(module), problem.message), ..problem }
    }

    /// For a gateway that begins: what serves already.
    pub(super) fn activated(&self) -> Vec<Activated> {
        let modules = (0..).zip(&self.modules);
        let active = modules.filter_map(|(module, known)| {
            let (generation, app) = known.active.clone()?;
            Some(Activated { module, generation, app })
        });
        active.collect()
    }

    /// For status; empty where there is one app.
    pub(crate) fn modules_status(&self) -> Vec<ModuleStatus> {
        if self.modules.len() < 2 {
            return Vec::new();
        }
        let row = |(module, known): (usize, &Module)| ModuleStatus {
            name: self.module_name(module).to_owned(),
            generation: known.generation(),
            app: known.active.as_ref().map(|(_, app)| app.app.clone()).unwrap_or_default(),
            template_pid: self.template_of(module),
        };
        self.modules.iter().enumerate().map(row).collect()
    }
}
