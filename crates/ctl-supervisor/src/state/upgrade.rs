//! An heir takes over: the elder's side, which starts and watches it, and the heir's own.
//!
//! Until the heir has said that it has the names, nothing has happened to the elder: whatever becomes of the heir before,
//! the elder serves on. After it there is no way back, and the elder's end is a stop like any other (`stop.rs`), but that
//! its gateway hands over instead of draining.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ctl_admin::words::{Drained, Reply, ToGateway};

use crate::event::{Action, ClientId, Exit, Level, Notify, Who};
use crate::plan::{Outcome, Problem};
use crate::upgrade::{FromHeir, ToHeir};

use super::stop::Stop;
use super::worker::{Leaving, Step};
use super::{EXIT_GRACE, KILL_WAIT, State, TERM_GRACE};

/// Beyond what its app's import may take: its own start, its gateway.
const START_SLACK: Duration = Duration::from_secs(15);

/// For the heir to take the names, which is a few system calls.
const NAMES_TIMEOUT: Duration = Duration::from_secs(10);

/// What the gateway takes besides `server.drain_timeout` when it hands over: idle connections are kept for some seconds.
const HAND_OVER_SLACK: Duration = Duration::from_secs(7);

/// What is known of an heir.
#[derive(Debug)]
pub(super) struct Heir {
    clients: Vec<ClientId>,
    pid: Option<u32>,
    began: Instant,
    /// When it must have said something.
    deadline: Instant,
    /// It was told to take the names.
    told: bool,
    /// Its last words, or ours about it; and whether it is the app that does not start.
    failed: Option<(String, bool)>,
    leaving: Option<Leaving>,
}

/// How far an heir is with its elder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elder {
    /// The elder serves until we do; so many of our workers serve, as last told.
    Waits { told: usize },
    /// It knows that we serve.
    Knows,
    /// We have its names.
    Goes,
}

impl State {
    /// This instance is an heir: for now it has no names.
    pub(crate) fn inherits(&mut self, staff: &[u32], drained: Vec<Drained>) {
        self.begin_with(staff);
        self.drained = drained;
        self.elder = Some(Elder::Waits { told: 0 });
    }

    // -- the elder

    pub(super) fn upgrade_asked(&mut self, client: Option<ClientId>, program: Option<PathBuf>, now: Instant) {
        let refused = if self.stop.is_some() {
            "the instance is stopping"
        } else if self.heir.is_some() {
            "an upgrade is under way already"
        } else if self.elder.is_some() {
            "this instance is itself about to take over: try again in a moment"
        } else if !self.has_started() {
            "the instance is still starting: try again when it serves"
        } else if self.reload.is_some() || self.queued_reload.is_some() {
            "a reload is under way: try again when it has ended"
        } else {
            self.log(Level::Info, "upgrade: the new program is being started");
            self.heir = Some(Heir {
                clients: client.into_iter().collect(),
                pid: None,
                began: now,
                deadline: now + self.settings.start_timeout + START_SLACK,
                told: false,
                failed: None,
                leaving: None,
            });
            self.out.push(Action::SpawnHeir { program });
            return;
        };
        let text = format!("error: there is no upgrade\ndetail: {refused}");
        self.reply(client.as_slice(), &Reply::Failed { text, app: false });
    }

    pub(super) fn heir_spawned(&mut self, pid: u32) {
        let Some(heir) = &mut self.heir else { return };
        heir.pid = Some(pid);
        let clients = heir.clients.clone();
        let text = format!("the new program runs (pid {pid}) and starts its workers");
        self.reply(&clients, &Reply::Progress { text });
    }

    pub(super) fn heir_not_spawned(&mut self, problem: &Problem) {
        let mut text = format!("error: {}", problem.message);
        for (name, part) in [("detail", &problem.detail), ("hint", &problem.hint)] {
            if !part.is_empty() {
                let _ = write!(text, "\n{name}: {part}");
            }
        }
        self.end_upgrade(text, false);
    }

    pub(super) fn heir_said(&mut self, said: FromHeir, now: Instant) {
        let start_timeout = self.settings.start_timeout;
        let Some(heir) = self.heir.as_mut().filter(|heir| heir.leaving.is_none()) else { return };
        match said {
            FromHeir::Progress { text } => {
                heir.deadline = now + start_timeout + START_SLACK;
                let clients = heir.clients.clone();
                self.reply(&clients, &Reply::Progress { text });
            }
            FromHeir::Serves if !heir.told => {
                heir.told = true;
                heir.deadline = now + NAMES_TIMEOUT;
                self.out.push(Action::TellHeir(ToHeir::Yours));
            }
            FromHeir::Mine { kept } if heir.told => self.hand_over(kept, now),
            FromHeir::Failed { text, app } => {
                heir.failed = Some((text, app));
                // It exits by itself; should it not, it is helped.
                heir.leaving = Some(Leaving { step: Step::Asked, deadline: now + EXIT_GRACE });
            }
            FromHeir::Serves | FromHeir::Mine { .. } => {}
        }
    }

    /// The point of no return.
    fn hand_over(&mut self, kept: Vec<String>, now: Instant) {
        let Some(heir) = self.heir.take() else { return };
        let pid = heir.pid.unwrap_or_default();
        self.out.push(Action::HandOver { kept });
        self.out.push(Action::Notify(Notify::Successor(pid)));
        self.out.push(Action::TellHeir(ToHeir::Main));
        let after = now.saturating_duration_since(heir.began).as_secs_f64();
        let text = format!(
            "the new program serves (pid {pid}), after {after:.1} s; the old one finishes its requests"
        );
        self.log(Level::Info, format!("upgrade: {text}"));
        self.upgraded = Some((heir.clients, text));
        self.stop = Some(Stop::of_succession(now));
        self.out.push(Action::StopListening);
        self.dismiss_beginners(now);
        if self.gateway.runs() {
            self.out.push(Action::TellGateway(ToGateway::HandOver));
            let grace = self.settings.drain_timeout + HAND_OVER_SLACK;
            self.send_off_gateway(Step::Asked, grace, now);
        } else {
            self.upgraded();
            self.send_off_gateway(Step::Term, TERM_GRACE, now);
        }
    }

    /// No new connection comes here any more: whoever has asked for the upgrade now meets the new program alone.
    pub(super) fn upgraded(&mut self) {
        if let Some((clients, text)) = self.upgraded.take() {
            self.reply(&clients, &Reply::Done { text });
        }
    }

    pub(super) fn heir_exited(&mut self, exit: Exit) {
        let Some(heir) = &self.heir else { return };
        let (text, app) = heir.failed.clone().unwrap_or_else(|| {
            let text = format!(
                "error: the new program does not take over\ndetail: it ended before it served: {exit}\n\
                 hint: what it printed stands in the log of the instance"
            );
            (text, false)
        });
        if heir.told {
            // It may have come so far as to take the names.
            self.out.push(Action::Reclaim);
        }
        self.end_upgrade(text, app);
    }

    /// The upgrade has failed, or the instance stops.
    fn end_upgrade(&mut self, mut text: String, app: bool) {
        let Some(heir) = self.heir.take() else { return };
        if self.stop.is_none() {
            let why = cause_first(&text);
            self.log(Level::Error, format!("upgrade failed, the old program keeps serving: {why}"));
            text.push_str("\nnote: the old program keeps serving; try again when this is mended");
        }
        self.reply(&heir.clients, &Reply::Failed { text, app });
    }

    pub(super) fn heir_deadline(&self) -> Option<Instant> {
        self.heir.as_ref().map(|heir| heir.leaving.map_or(heir.deadline, |leaving| leaving.deadline))
    }

    pub(super) fn overdue_heir(&mut self, now: Instant) {
        if self.heir_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        let Some(heir) = &mut self.heir else { return };
        match heir.leaving.map(|leaving| leaving.step) {
            None => {
                let after = now.saturating_duration_since(heir.began).as_secs();
                let text = format!(
                    "error: the new program does not take over\ndetail: it did not serve after {after} s\n\
                     hint: workers.start_timeout sets how long the app's import may take"
                );
                heir.failed = Some((text, false));
                self.send_off_heir(Step::Term, TERM_GRACE, now);
            }
            Some(Step::Asked) => self.send_off_heir(Step::Term, TERM_GRACE, now),
            Some(Step::Term) => self.send_off_heir(Step::Kill, KILL_WAIT, now),
            Some(Step::Kill) => self.heir_exited(Exit::Signal(crate::event::SIGKILL)),
        }
    }

    /// `grace`: what it may take before the next step.
    pub(super) fn send_off_heir(&mut self, step: Step, grace: Duration, now: Instant) {
        let Some(heir) = &mut self.heir else { return };
        if heir.leaving.is_some_and(|leaving| leaving.step >= step) {
            return;
        }
        heir.leaving = Some(Leaving { step, deadline: now + grace });
        match step {
            Step::Asked => {}
            Step::Term => self.out.push(Action::Terminate(Who::Heir)),
            Step::Kill => self.out.push(Action::Kill(Who::Heir)),
        }
    }

    /// The instance stops, and with it the heir, which may have requests of its own by now.
    pub(super) fn stop_heir(&mut self, now: Instant) {
        let Some(heir) = &mut self.heir else { return };
        heir.failed =
            Some(("error: there is no upgrade\ndetail: the instance is stopping".to_owned(), false));
        let grace = self.settings.drain_delay + self.settings.drain_timeout + START_SLACK;
        self.send_off_heir(Step::Term, grace, now);
    }

    // -- the heir

    /// All that is wanted serves: time to tell. Before that, how far it is.
    pub(super) fn settle_elder(&mut self) {
        let Some(Elder::Waits { told }) = self.elder else { return };
        let serve = self.workers.values().filter(|worker| worker.serves() && self.is_fresh(worker)).count();
        let complete = (0..self.modules.len()).all(|module| self.pools_are_complete(module));
        if self.has_started() && complete {
            self.elder = Some(Elder::Knows);
            self.out.push(Action::TellElder(FromHeir::Serves));
        } else if serve > told {
            self.elder = Some(Elder::Waits { told: serve });
            let wanted = self.wanted();
            let text = format!("{serve} of {wanted} workers of the new program serve");
            self.out.push(Action::TellElder(FromHeir::Progress { text }));
        }
    }

    pub(super) fn elder_said(&mut self, said: ToHeir) {
        match (said, self.elder) {
            (ToHeir::Yours, Some(Elder::Knows)) => self.out.push(Action::TakeOver),
            (ToHeir::Main, Some(Elder::Goes)) => self.be_the_main_one(),
            _ => {}
        }
    }

    /// The answer to [`Action::TakeOver`].
    pub(super) fn took_over(&mut self, taken: Result<Vec<String>, Problem>, now: Instant) {
        match taken {
            Ok(kept) => {
                self.elder = Some(Elder::Goes);
                self.out.push(Action::TellElder(FromHeir::Mine { kept }));
            }
            Err(problem) => self.give_up(Outcome::Failed(problem), now),
        }
    }

    /// The elder has ended, or does not want us.
    pub(super) fn elder_gone(&mut self, now: Instant) {
        match self.elder {
            Some(Elder::Goes) => self.be_the_main_one(),
            Some(Elder::Waits { .. } | Elder::Knows) => {
                self.log(
                    Level::Warn,
                    "the instance that this one was to take over from has ended: this one ends, too",
                );
                self.stop_asked(None, now);
            }
            None => {}
        }
    }

    fn be_the_main_one(&mut self) {
        self.elder = None;
        self.out.push(Action::Notify(Notify::Ready));
    }
}

/// What a terminal shows below its traceback stands above it in a log; the hint remains the last line.
fn cause_first(shown: &str) -> String {
    let (traceback, error) = match shown.strip_prefix("error: ") {
        Some(error) => ("", error),
        None => shown.split_once("\nerror: ").unwrap_or(("", shown)),
    };
    let (cause, hint) = error.split_once("\nhint: ").unwrap_or((error, ""));
    let hint = if hint.is_empty() { String::new() } else { format!("hint: {hint}") };
    let parts = [cause, traceback, &hint];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}
