//! The end: the gateway drains, then the workers go, each step within a bound.

use std::time::{Duration, Instant};

use ctl_admin::words::{Reply, ToGateway};

use crate::event::{Action, ClientId, Level, Notify};
use crate::plan::Outcome;

use super::worker::Step;
use super::{EXIT_GRACE, KILL_WAIT, State, TERM_GRACE};

/// For the gateway to notice by itself that its drain time is over and to say so in order.
const DRAIN_SLACK: Duration = Duration::from_secs(2);

/// Between SIGTERM and SIGKILL when a second signal says that it is urgent.
const HURRY_GRACE: Duration = Duration::from_secs(1);

/// Signals closer together than this are one wish: wrappers such as `timeout` signal the process and then its group.
/// Nobody presses a key twice as fast and means two things.
const SAME_WISH: Duration = Duration::from_millis(250);

/// The instance ends.
#[derive(Debug)]
pub(super) struct Stop {
    outcome: Outcome,
    clients: Vec<ClientId>,
    /// Times somebody was in a hurry.
    hurries: u32,
    /// When the last wish was heard.
    heard: Instant,
    /// An heir serves: a first signal is meant for it, not for the requests that are still finished here.
    handed_over: bool,
    /// Until then the listeners are kept, for load balancers that have not noticed yet. `None`: given up already.
    listens_until: Option<Instant>,
}

impl Stop {
    pub(super) fn new(outcome: Outcome, clients: Vec<ClientId>, now: Instant) -> Self {
        Self { outcome, clients, hurries: 0, heard: now, handed_over: false, listens_until: None }
    }

    /// An heir serves in our place.
    pub(super) fn of_succession(now: Instant) -> Self {
        Self { handed_over: true, ..Self::new(Outcome::HandedOver, Vec::new(), now) }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.listens_until
    }
}

impl State {
    pub(super) fn stop_asked(&mut self, client: Option<ClientId>, now: Instant) {
        let Some(stop) = &mut self.stop else {
            self.begin_stop(client, now);
            return;
        };
        let Some(client) = client else {
            if now < stop.heard + SAME_WISH {
                return;
            }
            if std::mem::take(&mut stop.handed_over) {
                stop.heard = now;
                return;
            }
            // A second signal: urgent. A third: at once.
            stop.heard = now;
            stop.hurries += 1;
            let step = if stop.hurries > 1 { Step::Kill } else { Step::Term };
            self.log(Level::Warn, "stopping without waiting for the requests in flight");
            self.hurry(step, now);
            return;
        };
        stop.clients.push(client);
        self.reply(&[client], &Reply::Progress { text: "already stopping".to_owned() });
    }

    fn begin_stop(&mut self, client: Option<ClientId>, now: Instant) {
        self.log(Level::Info, "stopping: requests in flight are finished first");
        self.out.push(Action::Notify(Notify::Stopping));
        self.fail_waiting("the instance is stopping");
        self.reply(
            client.as_slice(),
            &Reply::Progress { text: "finishing the requests in flight".to_owned() },
        );
        let mut stop = Stop::new(Outcome::Stopped, client.into_iter().collect(), now);
        stop.listens_until = Some(now + self.settings.drain_delay);
        self.stop = Some(stop);
        self.dismiss_beginners(now);
        self.stop_heir(now);
        if self.gateway.runs() && self.modules.iter().any(|module| module.active.is_some()) {
            self.out.push(Action::TellGateway(ToGateway::Drain));
            let grace = self.settings.drain_delay + self.settings.drain_timeout + DRAIN_SLACK;
            self.send_off_gateway(Step::Asked, grace, now);
        } else {
            self.send_off_gateway(Step::Term, TERM_GRACE, now);
        }
    }

    /// Nobody is started any more, and who has not begun to serve never will.
    pub(super) fn dismiss_beginners(&mut self, now: Instant) {
        self.send_off_beginners(None, now);
        self.send_off_templates(Step::Term, TERM_GRACE, now);
    }

    /// Everything that still runs is signalled.
    pub(super) fn hurry(&mut self, step: Step, now: Instant) {
        let grace = if step == Step::Kill { KILL_WAIT } else { HURRY_GRACE };
        if self.gateway.leaving.is_none_or(|leaving| leaving.step < step) {
            self.send_off_gateway(step, grace, now);
        }
        self.send_off_templates(step, grace, now);
        self.send_off_heir(step, grace, now);
        let slower = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.leaving.is_none_or(|leaving| leaving.step < step));
        let slower: Vec<u32> = slower.map(|(number, _)| *number).collect();
        for number in slower {
            self.send_off(number, step, grace, now);
        }
    }

    /// Once the gateway is gone the workers have nothing to do; once they are gone too, it is over.
    pub(super) fn settle_stop(&mut self, now: Instant) {
        // The gateway accepts no longer either. A socket kept open would let clients connect and wait for nobody.
        if let Some(stop) = &mut self.stop
            && stop.listens_until.take_if(|until| *until <= now).is_some()
        {
            self.out.push(Action::StopListening);
        }
        if !self.gateway.is_absent() {
            return;
        }
        let staying = self.workers.iter().filter(|(_, worker)| worker.leaving.is_none());
        let staying: Vec<u32> = staying.map(|(number, _)| *number).collect();
        for number in staying {
            self.out.push(Action::TellWorkerExit { worker: number });
            self.send_off(number, Step::Asked, EXIT_GRACE, now);
        }
        if !self.workers.is_empty() || self.templates.are_left() || self.heir.is_some() {
            return;
        }
        self.answer_status(None);
        self.forget_questions();
        let Some(stop) = &self.stop else { return };
        let (outcome, clients) = (stop.outcome.clone(), stop.clients.clone());
        self.reply(&clients, &Reply::Done { text: "stopped".to_owned() });
        if outcome == Outcome::Stopped {
            self.log(Level::Info, "stopped");
        }
        self.over = true;
        self.out.push(Action::Exit(outcome));
    }
}
