//! The upgrade's two sides as they act: the elder starts the heir and gives the names away; the heir takes them.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::process::{Pid, Signal};

use crate::event::{Action, Event, Exit, Who};
use crate::inherit;
use crate::peer::Peer;
use crate::plan::{Outcome, Problem};
use crate::report;
use crate::upgrade::{self, FromHeir, Heritage, ToHeir, stay};

use super::Driver;
use super::children::{Child, kill_the_rest, number, pid_of};
use super::clients::Clients;

/// Of the service manager, for the process that it started: the heir has its sockets from us, and sends its signs of life
/// under its own id.
const NOT_FOR_HEIRS: [&str; 4] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"];

/// The heir that has taken over.
#[derive(Debug)]
pub(super) struct Successor {
    pid: Pid,
    /// It has ended already.
    exit: Option<Exit>,
}

impl Driver {
    pub(super) fn start_heir(&mut self, program: Option<&Path>) -> Event {
        let started = self.house.origin().program(program).and_then(|program| self.spawn_heir(&program));
        match started {
            Ok(child) => {
                let pid = child.number();
                self.heir = Some(child);
                Event::Spawned { who: Who::Heir, pid }
            }
            Err(problem) => Event::SpawnFailed { who: Who::Heir, problem },
        }
    }

    /// As we were started: arguments, environment, directory, standard streams and process group, so that Ctrl-C
    /// reaches it when we are gone.
    fn spawn_heir(&self, program: &Path) -> Result<Child, Problem> {
        let problem = |error: std::io::Error| {
            Problem::new(format!("{} cannot be started", program.display())).detail(error.to_string())
        };
        let (ours, theirs) = UnixStream::pair().map_err(problem)?;
        let theirs = Arc::new(OwnedFd::from(theirs));
        let (mut heritage, mut fds) = self.house.heritage(self.stays() && self.house.adopts());
        heritage.elder = inherit::number(&theirs);
        heritage.staff = self.state.staff();
        heritage.drained = self.state.drained().to_vec();
        fds.push(theirs);
        let heritage = serde_json::to_string(&heritage).map_err(|error| problem(error.into()))?;
        let mut command = Command::new(program);
        command.args(self.house.origin().args()).env(upgrade::ENV, heritage);
        for name in NOT_FOR_HEIRS {
            command.env_remove(name);
        }
        if let Some(dir) = self.house.origin().dir() {
            command.current_dir(dir);
        }
        inherit::pass_on(&mut command, fds, None);
        let peer = Peer::new(ours).map_err(problem)?;
        let child = command.spawn().map_err(problem)?;
        Ok(Child { pid: pid_of(child.id()), peer })
    }

    /// Will this process stay when its heir has taken over?
    fn stays(&self) -> bool {
        self.house.parent_stays() || stay::is_needed(self.notifier.is_heard(), false)
    }

    pub(super) fn act_on_succession(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::SpawnHeir { program } => return Some(self.start_heir(program.as_deref())),
            Action::TellHeir(message) => {
                if let Some(heir) = &mut self.heir {
                    heir.peer.send(&message, "the new program");
                }
            }
            Action::TellElder(message) => {
                if let Some(elder) = &mut self.elder {
                    elder.send(&message, "the old program");
                }
            }
            Action::HandOver { kept } => {
                self.house.release(&kept);
                self.successor =
                    self.heir.as_ref().and_then(|heir| heir.pid).map(|pid| Successor { pid, exit: None });
            }
            Action::Reclaim => self.reclaim(),
            Action::TakeOver => {
                let taken = self.house.take_over().map_err(|error| {
                    Problem::new("the names of the running instance cannot be taken over")
                        .detail(error.to_string())
                });
                if taken.is_ok() {
                    upgrade::shut_elders_ear();
                }
                return Some(Event::TookOver(taken));
            }
            _ => {}
        }
        None
    }

    fn reclaim(&mut self) {
        match self.house.reclaim().map(|control| control.map(Clients::new)) {
            Ok(None) => {}
            Ok(Some(Ok(clients))) => self.clients.listen_as(clients),
            Ok(Some(Err(error))) => {
                tracing::error!(%error, "nobody can reach this instance by its control socket");
            }
            Err(problem) => {
                let detail = problem.detail;
                tracing::error!(
                    detail,
                    "nobody can reach this instance by its control socket: {}",
                    problem.message
                );
            }
        }
    }

    pub(super) fn heir_speaks(&mut self, writable: bool) {
        let Some(heir) = &mut self.heir else { return };
        if writable {
            heir.peer.flush();
        }
        let said: Vec<FromHeir> = heir.peer.read("the new program");
        self.feed_all(said.into_iter().map(Event::Heir));
    }

    pub(super) fn elder_speaks(&mut self, writable: bool) {
        let Some(elder) = &mut self.elder else { return };
        if writable {
            elder.flush();
        }
        let said: Vec<ToHeir> = elder.read("the old program");
        let gone = elder.has_ended();
        self.feed_all(said.into_iter().map(Event::Elder));
        if gone {
            self.elder = None;
            self.feed(Event::ElderGone);
        }
    }

    /// Says whether this process was the heir.
    pub(super) fn heir_ended(&mut self, pid: Pid, exit: Exit) -> bool {
        if let Some(successor) = self.successor.as_mut().filter(|successor| successor.pid == pid) {
            successor.exit = Some(exit);
            return true;
        }
        let Some(mut heir) = self.heir.take_if(|heir| heir.pid == Some(pid)) else { return false };
        let said: Vec<FromHeir> = heir.peer.read_rest("the new program");
        self.feed_all(said.into_iter().map(Event::Heir));
        self.feed(Event::Exited { who: Who::Heir, exit });
        true
    }

    /// What is meant for the instance goes to the heir, once it is the instance.
    pub(super) fn hand_on(&self, signal: Signal) {
        if let Some(successor) = self.successor.as_ref().filter(|_| self.stays()) {
            let unreaped = successor.exit.is_none().then_some(successor.pid);
            stay::hand_on(self.house.runtime_dir(), unreaped, signal);
        }
    }

    /// The app does not import: the elder's log tells it, or ours when there is no elder.
    pub(super) fn show_failure(&mut self, text: &str) {
        match &mut self.elder {
            Some(elder) => {
                elder.send(
                    &FromHeir::Failed { text: text.trim_end().to_owned(), app: true },
                    "the old program",
                );
            }
            None => report::show_failure(text),
        }
    }

    /// Our part is over. When somebody waits for this process, it stays until the heir ends.
    pub(super) fn retire(self, outcome: Outcome) -> Outcome {
        let stays = self.stays() && !self.house.parent_stays();
        let Some(successor) = self.successor.filter(|_| outcome == Outcome::HandedOver && stays) else {
            return outcome;
        };
        let dir: PathBuf = self.house.runtime_dir().to_path_buf();
        // Sockets and all else of an instance go now.
        drop((self.house, self.clients));
        Outcome::Ended { code: stay::stay(successor.pid, successor.exit, &dir, self.signals) }
    }

    /// The last children are killed, but for those that are not ours to kill: an heir, its heirs, and what was there
    /// before us.
    pub(super) fn leave_children(&mut self) {
        let (inherited, dir) = (&self.inherited, self.house.runtime_dir());
        let succeeded = self.successor.as_ref().map(|successor| number(successor.pid));
        let ended = kill_the_rest(|pid| {
            let is_heir = || succeeded == Some(pid) || stay::line_of_the_owner(dir).contains(&pid);
            inherited.contains(&pid) || (succeeded.is_some() && is_heir())
        });
        if let Some(successor) = &mut self.successor
            && let Some((_, exit)) = ended.into_iter().find(|(pid, _)| *pid == successor.pid)
        {
            successor.exit = Some(exit);
        }
    }
}

impl Heritage {
    /// The socket to the elder as the driver uses it.
    pub(crate) fn elder_peer(&self) -> Result<Peer, Problem> {
        Peer::new(self.take_elder()?).map_err(|error| {
            Problem::new("the socket to the old program cannot be used").detail(error.to_string())
        })
    }
}
