//! New workers for old, one after another: of all apps, or of one.
//!
//! Each app is a part of its own. Where its new code does not start its old workers stay, and the other parts go on; the
//! reload ends when all parts have.

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
    pub(super) began: Instant,
    /// The configuration is being read again; no worker has been started.
    reading: bool,
    parts: Vec<Part>,
    /// New workers that serve, as last told.
    told: usize,
    /// Which gateway was asked whether it has done all that it was told (they are told apart by the restarts before).
    asked: Option<u64>,
    /// It has.
    synced: bool,
}

/// A reload of one app.
#[derive(Debug)]
struct Part {
    module: usize,
    /// Failures in a row.
    failures: u32,
    /// It has ended, and not well: what whoever has asked is told.
    failed: Option<String>,
}

/// A reload that was asked for while another one runs.
#[derive(Debug, Default)]
pub(super) struct Queued {
    clients: Vec<ClientId>,
    modules: Vec<usize>,
}

impl Reload {
    pub(super) fn waits_for_config(&self) -> bool {
        self.reading
    }
}

impl State {
    /// The new code of this app is being started.
    pub(super) fn reloads(&self, module: usize) -> bool {
        let runs = |part: &Part| part.module == module && part.failed.is_none();
        self.reload.as_ref().is_some_and(|reload| reload.parts.iter().any(runs))
    }

    pub(super) fn reload_asked(&mut self, client: Option<ClientId>, name: Option<&str>, now: Instant) {
        let refused = if self.stop.is_some() {
            Some("the instance is stopping".to_owned())
        } else if self.heir.is_some() {
            let why = "an upgrade is under way, which brings new code as well";
            self.log(Level::Warn, format!("no reload: {why}"));
            Some(why.to_owned())
        } else {
            None
        };
        let modules = match refused.map_or_else(|| self.modules_called(name), Err) {
            Ok(modules) => modules,
            Err(why) => {
                let text = format!("error: there is no reload\ndetail: {why}");
                self.reply(client.as_slice(), &Reply::Failed { text, app: false });
                return;
            }
        };
        if self.settings.dev {
            let text = "restarting with the code as it is now".to_owned();
            self.reply(client.as_slice(), &Reply::Done { text });
            self.restart(&modules, "a reload was asked for", now);
            return;
        }
        if self.reload.is_some() || !self.has_started() {
            let first = if self.has_started() { "the reload that runs" } else { "the start" };
            let text = format!("waiting for {first} to end first");
            self.reply(client.as_slice(), &Reply::Progress { text });
            let queued = self.queued_reload.get_or_insert_default();
            queued.clients.extend(client);
            queued.modules.extend(modules);
            return;
        }
        self.begin_reload(client.into_iter().collect(), modules, now);
    }

    fn modules_called(&self, name: Option<&str>) -> Result<Vec<usize>, String> {
        let Some(name) = name else { return Ok(self.all_modules()) };
        let names = || self.settings.modules.iter().map(String::as_str);
        match names().position(|known| known == name) {
            Some(module) if module < self.modules.len() => Ok(vec![module]),
            _ => Err(format!(
                "there is no module \"{name}\"\nhint: the modules are {}",
                names().collect::<Vec<_>>().join(", ")
            )),
        }
    }

    fn begin_reload(&mut self, clients: Vec<ClientId>, mut modules: Vec<usize>, now: Instant) {
        modules.sort_unstable();
        modules.dedup();
        let whose = self.only(&modules).map(|module| self.whose(module)).unwrap_or_default();
        self.log(Level::Info, format!("{whose}reload: new workers are being started"));
        let read = Action::ReadConfig { modules: modules.clone() };
        let part = |module| Part { module, failures: 0, failed: None };
        self.reload = Some(Reload {
            clients,
            began: now,
            reading: true,
            parts: modules.into_iter().map(part).collect(),
            told: 0,
            asked: None,
            synced: false,
        });
        self.out.push(Action::Notify(Notify::Reloading));
        self.out.push(read);
    }

    pub(super) fn config_read(&mut self, read: Result<Settings, String>, now: Instant) {
        let Some(reload) = self.reload.as_mut().filter(|reload| reload.reading) else { return };
        reload.reading = false;
        let modules: Vec<usize> = reload.parts.iter().map(|part| part.module).collect();
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
                self.fit_staff(&modules);
                self.last_generation += 1;
                if modules.contains(&0) && self.gateway.runs() {
                    self.out.push(Action::TellGateway(ToGateway::ReloadTls));
                }
                for module in modules {
                    self.modules[module].target = self.last_generation;
                    self.modules[module].crashes.forget();
                    // What was still importing the old code is of no use to anybody.
                    self.send_off_beginners(Some(module), now);
                    self.new_generation(module, now);
                }
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
    pub(super) fn reload_worker_failed(
        &mut self,
        number: u32,
        module: usize,
        failure: &Failure,
        now: Instant,
    ) {
        if self.modules[module].generation() < self.modules[module].target {
            self.reload_failed(module, failure, now);
            return;
        }
        let delay = self.modules[module].crashes.failed(now).as_secs_f64();
        self.log(
            Level::Error,
            format!("worker {number} could not start; another one is started in {delay:.1} s: {failure}"),
        );
        let several = self.modules.len() > 1;
        let parts = self.reload.iter_mut().flat_map(|reload| &mut reload.parts);
        for part in parts.filter(|part| part.module == module) {
            part.failures += 1;
            if part.failures >= FAILURES_MAX {
                part.failed = Some(with_note(&report::failure(failure), several, SOME_SERVE));
            }
        }
        self.conclude();
    }

    /// The new code does not start, and nobody has seen it yet: it never was.
    pub(super) fn reload_failed(&mut self, module: usize, failure: &Failure, now: Instant) {
        let target = self.modules[module].target;
        let new = self.workers.iter().filter(|(_, worker)| {
            worker.place.generation == target
                && worker.leaving.is_none()
                && self.module_of_worker(worker) == module
        });
        let new: Vec<u32> = new.map(|(number, _)| *number).collect();
        for number in new {
            self.retire(number, now);
        }
        self.modules[module].target = self.modules[module].generation();
        self.log(Level::Error, format!("reload failed, the old code keeps serving: {failure}"));
        let several = self.modules.len() > 1;
        let parts = self.reload.iter_mut().flat_map(|reload| &mut reload.parts);
        for part in parts.filter(|part| part.module == module) {
            part.failed = Some(with_note(&report::failure(failure), several, OLD_SERVES));
        }
        self.conclude();
    }

    /// Ends a reload of which nothing goes on.
    fn conclude(&mut self) {
        let goes_on = |reload: &Reload| reload.parts.iter().any(|part| part.failed.is_none());
        if self.reload.as_ref().is_some_and(|reload| !goes_on(reload)) {
            self.end_with_failures("");
        }
    }

    /// Ends a reload of which at least one part has failed; `rest` is what became of the others.
    fn end_with_failures(&mut self, rest: &str) {
        let parts = self.reload.iter().flat_map(|reload| &reload.parts);
        let mut texts: Vec<String> = parts.filter_map(|part| part.failed.clone()).collect();
        if !rest.is_empty() {
            texts.push(format!("note: {rest}"));
        }
        self.end_reload(&Reply::Failed { text: texts.join("\n"), app: true });
    }

    /// Ends a reload that is done, and begins the one that was asked for meanwhile.
    pub(super) fn settle_reload(&mut self, now: Instant) {
        self.advance_reload(now);
        if self.reload.is_none()
            && self.has_started()
            && let Some(Queued { clients, modules }) = self.queued_reload.take()
        {
            self.begin_reload(clients, modules, now);
        }
    }

    /// Tells how far it is, and whether it is done.
    fn advance_reload(&mut self, now: Instant) {
        let Some(reload) = self.reload.as_ref().filter(|reload| !reload.reading) else { return };
        let parts = reload.parts.iter().filter(|part| part.failed.is_none());
        let modules: Vec<usize> = parts.map(|part| part.module).collect();
        let has_failed = modules.len() < reload.parts.len();
        let of_these =
            || self.workers.values().filter(|worker| modules.contains(&self.module_of_worker(worker)));
        let wanted: u32 = modules.iter().map(|module| self.wanted_of(*module)).sum();
        let new = of_these().filter(|worker| worker.serves() && self.is_fresh(worker)).count();
        let complete = modules.iter().all(|module| self.pools_are_complete(*module));
        let old = of_these().filter(|worker| worker.leaving.is_none() && !self.is_fresh(worker)).count();
        let draining = of_these().filter(|worker| worker.leaving.is_some()).count();
        let whose = self.only(&modules).map(|module| self.whose(module)).unwrap_or_default();
        let Some(reload) = self.reload.as_mut() else { return };
        if new > reload.told {
            reload.told = new;
            reload.parts.iter_mut().for_each(|part| part.failures = 0);
            let clients = reload.clients.clone();
            let text = format!("{new} of {wanted} workers run the new code");
            self.log(Level::Info, format!("{whose}reload: {text}"));
            self.reply(&clients, &Reply::Progress { text });
        }
        if complete && old == 0 && self.gateway_has_obeyed() {
            let (began, generation) =
                (self.reload.as_ref().map_or(now, |reload| reload.began), self.last_generation);
            let after = now.saturating_duration_since(began).as_secs_f64();
            let finishing = match draining {
                0 => String::new(),
                1 => "; one old worker finishes its requests".to_owned(),
                count => format!("; {count} old workers finish their requests"),
            };
            let text = format!("generation {generation} serves, after {after:.1} s{finishing}");
            self.log(Level::Info, format!("{whose}reload: {text}"));
            if has_failed {
                let names: Vec<_> = modules.iter().map(|module| self.module_name(*module)).collect();
                let rest = format!("the new code of {} serves", names.join(", "));
                self.end_with_failures(&rest);
            } else {
                self.end_reload(&Reply::Done { text });
            }
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
        let mut clients = self.queued_reload.take().unwrap_or_default().clients;
        clients.extend(self.reload.take().map(|reload| reload.clients).unwrap_or_default());
        let text = format!("error: there is no reload\ndetail: {why}");
        self.reply(&clients, &Reply::Failed { text, app: false });
    }
}

/// What of an app keeps serving.
type Note = (&'static str, &'static str);

const OLD_SERVES: Note = (
    "the old code keeps serving; try again when this is mended",
    "the old code of this module keeps serving; try again when this is mended",
);

const SOME_SERVE: Note = (
    "some workers run the new code; the others could not be started yet and keep running the old one, and the attempts go on",
    "some workers of this module run the new code; the others could not be started yet and keep running the old one, and the \
     attempts go on",
);

/// What went wrong as a terminal shows it, and what goes on serving.
fn with_note(shown: &str, several: bool, (one, of_several): Note) -> String {
    format!("{}\nnote: {}", shown.trim_end(), if several { of_several } else { one })
}

fn failed(shown: &str, note: Note, app: bool) -> Reply {
    Reply::Failed { text: with_note(shown, false, note), app }
}
