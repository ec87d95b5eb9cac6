//! `quintet dev`: the code has changed, so whoever runs the old one goes at once, and requests wait for the new.
//!
//! Unlike a reload this lowers capacity to nothing on purpose: what is seen shall be what was saved. Code that does not
//! import is shown in the browser until the next change. Of several apps only those are started anew whose files have changed.

use std::time::{Duration, Instant};

use ctl_admin::words::ToGateway;

use crate::event::{Action, Failure, Level, Settings};

use super::State;

/// For the requests in flight of the old code. They do not hold up the new one.
const GRACE: Duration = Duration::from_secs(1);

/// What there is to know of an app besides.
#[derive(Debug, Default)]
pub(super) struct Dev {
    /// The code as it is now does not import.
    broken: Option<Failure>,
    /// The configuration is being read again.
    reading: bool,
    /// Since when somebody waits for the new code.
    changed: Option<Instant>,
}

impl Dev {
    /// Nothing is started before the next change, or before the configuration is read.
    pub(super) fn holds(&self) -> bool {
        self.broken.is_some() || self.reading
    }
}

impl State {
    /// `why`: "shop/views.py has changed".
    pub(super) fn restart(&mut self, modules: &[usize], why: &str, now: Instant) {
        if self.stop.is_some() || !self.settings.dev {
            return;
        }
        self.log(Level::Info, format!("{why}: restarting"));
        self.fail_waiting("the code has changed meanwhile");
        self.last_generation += 1;
        for module in modules {
            self.restart_one(*module, now);
        }
        self.out.push(Action::ReadConfig { modules: modules.to_vec() });
    }

    fn restart_one(&mut self, module: usize, now: Instant) {
        self.modules[module].dev = Dev { broken: None, reading: true, changed: Some(now) };
        if self.gateway.runs() {
            self.out.push(Action::TellGateway(ToGateway::Hold { module: number(module) }));
        }
        let old = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.leaving.is_none() && self.module_of_worker(worker) == module);
        let old: Vec<u32> = old.map(|(number, _)| *number).collect();
        for number in old {
            self.retire(number, now);
            if let Some(leaving) = self.workers.get_mut(&number).and_then(|worker| worker.leaving.as_mut()) {
                leaving.deadline = leaving.deadline.min(now + GRACE);
            }
        }
        self.modules[module].target = self.last_generation;
        self.modules[module].crashes.forget();
    }

    /// True when it was for us.
    pub(super) fn dev_config_read(&mut self, read: &Result<Settings, String>) -> bool {
        let modules = self.modules.iter_mut().enumerate();
        let waiting =
            modules.filter_map(|(module, known)| std::mem::take(&mut known.dev.reading).then_some(module));
        let waiting: Vec<usize> = waiting.collect();
        if waiting.is_empty() {
            return false;
        }
        match read {
            Ok(settings) => {
                self.settings = settings.clone();
                self.fit_staff(&waiting);
            }
            Err(text) => {
                let text = text.trim_end().trim_start_matches("error: ").to_owned();
                let failure = Failure { traceback: text, ..Failure::new("the configuration is wrong", "") };
                self.out.push(Action::ShowFailure(failure.clone()));
                for module in waiting {
                    self.modules[module].dev.broken = Some(failure.clone());
                }
                self.tell_broken();
            }
        }
        true
    }

    /// The new code does not start.
    pub(super) fn code_broken(&mut self, module: usize, failure: Failure) {
        self.out.push(Action::ShowFailure(failure.clone()));
        self.modules[module].dev.broken = Some(failure);
        self.tell_broken();
    }

    /// A gateway that begins later must hear of it, too.
    pub(super) fn tell_broken(&mut self) {
        if !self.gateway.runs() {
            return;
        }
        for (module, known) in self.modules.iter().enumerate() {
            if let Some(Failure { message, traceback, hint }) = known.dev.broken.clone() {
                let told = ToGateway::Broken { module: number(module), message, traceback, hint };
                self.out.push(Action::TellGateway(told));
            }
        }
    }

    /// For status.
    pub(crate) fn dev_notes(&self) -> Vec<String> {
        let nothing = if self.modules.len() < 2 { "nothing" } else { "nothing of it" };
        let broken = self.modules.iter().filter_map(|module| module.dev.broken.as_ref());
        broken
            .map(|failure| format!("the code does not start, so {nothing} is served: {}", failure.message))
            .collect()
    }

    /// A worker of new code serves.
    pub(super) fn code_serves(&mut self, module: usize, now: Instant) {
        if let Some(changed) = self.modules[module].dev.changed.take() {
            let after = now.saturating_duration_since(changed).as_secs_f64();
            let whose = self.whose(module);
            self.log(Level::Info, format!("{whose}ready again after {after:.2} s"));
        }
    }
}

/// There are at most MODULES_MAX of them, see ctl-config.
fn number(module: usize) -> u16 {
    u16::try_from(module).unwrap_or(u16::MAX)
}
