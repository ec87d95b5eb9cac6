//! `quintet dev`: the code has changed, so whoever runs the old one goes at once, and requests wait for the new.
//!
//! Unlike a reload this lowers capacity to nothing on purpose: what is seen shall be what was saved. Code that does not
//! import is shown in the browser until the next change.

use std::time::{Duration, Instant};

use ctl_admin::words::ToGateway;

use crate::event::{Action, Failure, Level, Settings};

use super::State;

/// For the requests in flight of the old code. They do not hold up the new one.
const GRACE: Duration = Duration::from_secs(1);

/// What there is to know besides.
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
    pub(super) fn restart(&mut self, why: &str, now: Instant) {
        if self.stop.is_some() || !self.settings.dev {
            return;
        }
        self.log(Level::Info, format!("{why}: restarting"));
        self.dev = Dev { broken: None, reading: true, changed: Some(now) };
        self.fail_waiting("the code has changed meanwhile");
        if self.gateway.runs() {
            self.out.push(Action::TellGateway(ToGateway::Hold));
        }
        let old = self.workers.iter().filter(|(_, worker)| worker.leaving.is_none());
        let old: Vec<u32> = old.map(|(number, _)| *number).collect();
        for number in old {
            self.retire(number, now);
            if let Some(leaving) = self.workers.get_mut(&number).and_then(|worker| worker.leaving.as_mut()) {
                leaving.deadline = leaving.deadline.min(now + GRACE);
            }
        }
        self.last_generation += 1;
        self.target = self.last_generation;
        self.crashes.forget();
        self.out.push(Action::ReadConfig);
    }

    /// True when it was for us.
    pub(super) fn dev_config_read(&mut self, read: &Result<Settings, String>) -> bool {
        if !std::mem::take(&mut self.dev.reading) {
            return false;
        }
        match read {
            Ok(settings) => {
                self.settings = settings.clone();
                self.fit_staff();
            }
            Err(text) => {
                let text = text.trim_end().trim_start_matches("error: ").to_owned();
                self.code_broken(Failure {
                    traceback: text,
                    ..Failure::new("the configuration is wrong", "")
                });
            }
        }
        true
    }

    /// The new code does not start.
    pub(super) fn code_broken(&mut self, failure: Failure) {
        self.out.push(Action::ShowFailure(failure.clone()));
        self.dev.broken = Some(failure);
        self.tell_broken();
    }

    /// A gateway that begins later must hear of it, too.
    pub(super) fn tell_broken(&mut self) {
        if let Some(Failure { message, traceback, hint }) = self.dev.broken.clone()
            && self.gateway.runs()
        {
            self.out.push(Action::TellGateway(ToGateway::Broken { message, traceback, hint }));
        }
    }

    /// For status.
    pub(crate) fn dev_notes(&self) -> Vec<String> {
        let broken = self.dev.broken.iter();
        broken
            .map(|failure| format!("the code does not start, so nothing is served: {}", failure.message))
            .collect()
    }

    /// A worker of new code serves.
    pub(super) fn code_serves(&mut self, now: Instant) {
        if let Some(changed) = self.dev.changed.take() {
            let after = now.saturating_duration_since(changed).as_secs_f64();
            self.log(Level::Info, format!("ready again after {after:.2} s"));
        }
    }
}
