//! New workers for old, one after another.

use std::time::Instant;

use ctl_admin::words::{Reply, ToGateway};

use crate::event::{Action, ClientId, Failure, Level, Notify, Settings};
use crate::report;

use super::State;

/// After so many failures in a row of code that has already served once, whoever waits is told; the rest of the
/// workers follow as soon as they can.
const FAILURES_MAX: u32 = 3;

/// A reload that runs.
#[derive(Debug)]
pub(super) struct Reload {
    clients: Vec<ClientId>,
    began: Instant,
    /// The configuration is being read again; no worker has been started.
    reading: bool,
    /// Failures in a row.
    failures: u32,
    /// New workers that serve, as last told.
    told: usize,
    /// Which gateway was asked whether it has done all that it was told (they are told apart by the restarts before).
    asked: Option<u64>,
    /// It has.
    synced: bool,
}

impl Reload {
    pub(super) fn waits_for_config(&self) -> bool {
        self.reading
    }
}

impl State {
    pub(super) fn reload_asked(&mut self, client: Option<ClientId>, now: Instant) {
        if self.stop.is_some() {
            let text = "error: there is no reload\ndetail: the instance is stopping".to_owned();
            self.reply(client.as_slice(), &Reply::Failed { text, app: false });
            return;
        }
        if self.heir.is_some() {
            let text =
                "error: there is no reload\ndetail: an upgrade is under way, which brings new code as well"
                    .to_owned();
            self.log(Level::Warn, "no reload: an upgrade is under way, which brings new code as well");
            self.reply(client.as_slice(), &Reply::Failed { text, app: false });
            return;
        }
        if self.settings.dev {
            let text = "restarting with the code as it is now".to_owned();
            self.reply(client.as_slice(), &Reply::Done { text });
            self.restart("a reload was asked for", now);
            return;
        }
        if self.reload.is_some() || self.active.is_none() {
            let first = if self.active.is_none() { "the start" } else { "the reload that runs" };
            let text = format!("waiting for {first} to end first");
            self.reply(client.as_slice(), &Reply::Progress { text });
            self.queued_reload.get_or_insert_default().extend(client);
            return;
        }
        self.begin_reload(client.into_iter().collect(), now);
    }

    fn begin_reload(&mut self, clients: Vec<ClientId>, now: Instant) {
        self.log(Level::Info, "reload: new workers are being started");
        self.reload = Some(Reload {
            clients,
            began: now,
            reading: true,
            failures: 0,
            told: 0,
            asked: None,
            synced: false,
        });
        self.out.push(Action::Notify(Notify::Reloading));
        self.out.push(Action::ReadConfig);
    }

    pub(super) fn config_read(&mut self, read: Result<Settings, String>, now: Instant) {
        let Some(reload) = self.reload.as_mut().filter(|reload| reload.reading) else { return };
        reload.reading = false;
        match read {
            Err(text) => {
                // Also for who has asked by signal, and hears nothing else.
                let why = text.trim_end().trim_start_matches("error: ");
                self.log(Level::Error, format!("reload failed, the old code keeps serving: {why}"));
                self.end_reload(&failed(&text, OLD_SERVES, false));
            }
            Ok(settings) => {
                self.settings = settings;
                self.tell_what_waits();
                self.fit_staff();
                self.last_generation += 1;
                self.target = self.last_generation;
                self.crashes.forget();
                if self.gateway.runs() {
                    self.out.push(Action::TellGateway(ToGateway::ReloadTls));
                }
                // What was still importing the old code is of no use to anybody.
                self.send_off_beginners(now);
                self.new_generation(now);
            }
        }
    }

    /// Who has changed a route and reloads would wonder why nothing happens.
    fn tell_what_waits(&mut self) {
        let waiting = &self.settings.waiting;
        if waiting.is_empty() {
            return;
        }
        let text = format!(
            "changed, but not by a reload: {} (`quintet upgrade` takes it over without losing a request)",
            waiting.join(", ")
        );
        self.log(Level::Warn, format!("reload: {text}"));
        let clients = self.reload.as_ref().map(|reload| reload.clients.clone()).unwrap_or_default();
        self.reply(&clients, &Reply::Progress { text });
    }

    /// A worker of the new generation did not become ready.
    pub(super) fn reload_worker_failed(&mut self, number: u32, failure: &Failure, now: Instant) {
        if self.generation() < self.target {
            self.reload_failed(failure, now);
            return;
        }
        let delay = self.crashes.failed(now).as_secs_f64();
        self.log(
            Level::Error,
            format!("worker {number} could not start; another one is started in {delay:.1} s: {failure}"),
        );
        let Some(reload) = &mut self.reload else { return };
        reload.failures += 1;
        if reload.failures >= FAILURES_MAX {
            self.end_reload(&failed(&report::failure(failure), SOME_SERVE, true));
        }
    }

    /// The new code does not start, and nobody has seen it yet: it never was.
    pub(super) fn reload_failed(&mut self, failure: &Failure, now: Instant) {
        let target = self.target;
        let new: Vec<u32> = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.place.generation == target && worker.leaving.is_none())
            .map(|(number, _)| *number)
            .collect();
        for number in new {
            self.retire(number, now);
        }
        self.target = self.generation();
        self.log(Level::Error, format!("reload failed, the old code keeps serving: {failure}"));
        self.end_reload(&failed(&report::failure(failure), OLD_SERVES, true));
    }

    /// Ends a reload that is done, and begins the one that was asked for meanwhile.
    pub(super) fn settle_reload(&mut self, now: Instant) {
        self.advance_reload(now);
        if self.reload.is_none()
            && self.active.is_some()
            && let Some(clients) = self.queued_reload.take()
        {
            self.begin_reload(clients, now);
        }
    }

    /// Tells how far it is, and whether it is done.
    fn advance_reload(&mut self, now: Instant) {
        let wanted = self.wanted();
        let new = self.workers.values().filter(|worker| worker.serves() && self.is_fresh(worker)).count();
        let complete = self.pools_are_complete();
        let old =
            self.workers.values().filter(|worker| worker.leaving.is_none() && !self.is_fresh(worker)).count();
        let draining = self.workers.values().filter(|worker| worker.leaving.is_some()).count();
        let Some(reload) = self.reload.as_mut().filter(|reload| !reload.reading) else { return };
        if new > reload.told {
            reload.told = new;
            reload.failures = 0;
            let clients = reload.clients.clone();
            let text = format!("{new} of {wanted} workers run the new code");
            self.log(Level::Info, format!("reload: {text}"));
            self.reply(&clients, &Reply::Progress { text });
        }
        if complete && old == 0 && self.gateway_has_obeyed() {
            let began = self.reload.as_ref().map_or(now, |reload| reload.began);
            let after = now.saturating_duration_since(began).as_secs_f64();
            let finishing = match draining {
                0 => String::new(),
                1 => "; one old worker finishes its requests".to_owned(),
                count => format!("; {count} old workers finish their requests"),
            };
            let text = format!("generation {} serves, after {after:.1} s{finishing}", self.target);
            self.log(Level::Info, format!("reload: {text}"));
            self.end_reload(&Reply::Done { text });
        }
    }

    /// Who hears that the new code serves may ask for a page at once, and must not get an old one: the gateway has taken the
    /// old workers out of service, and says so.
    fn gateway_has_obeyed(&mut self) -> bool {
        let number = self.gateway.restarts();
        let Some(reload) = &mut self.reload else { return false };
        if reload.asked != Some(number) {
            (reload.asked, reload.synced) = (Some(number), false);
            self.out.push(Action::TellGateway(ToGateway::Sync { number }));
        }
        reload.synced
    }

    pub(super) fn reload_synced(&mut self, number: u64) {
        if let Some(reload) = &mut self.reload {
            reload.synced |= reload.asked == Some(number);
        }
    }

    fn end_reload(&mut self, reply: &Reply) {
        let Some(reload) = self.reload.take() else { return };
        self.reply(&reload.clients, reply);
        self.out.push(Action::Notify(Notify::Ready));
    }

    /// The instance ends: nobody waits for a reload any more.
    pub(super) fn fail_waiting(&mut self, why: &str) {
        let mut clients = self.queued_reload.take().unwrap_or_default();
        clients.extend(self.reload.take().map(|reload| reload.clients).unwrap_or_default());
        let text = format!("error: there is no reload\ndetail: {why}");
        self.reply(&clients, &Reply::Failed { text, app: false });
    }
}

const OLD_SERVES: &str = "the old code keeps serving; try again when this is mended";

const SOME_SERVE: &str = "some workers run the new code; the others could not be started yet and keep running the old one, and the \
                          attempts go on";

/// What went wrong as a terminal shows it, and what goes on serving.
fn failed(shown: &str, note: &str, app: bool) -> Reply {
    Reply::Failed { text: format!("{}\nnote: {note}", shown.trim_end()), app }
}
