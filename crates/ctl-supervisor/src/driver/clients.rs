//! Who speaks at `control.sock`: the command, a few at a time.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use ctl_admin::words::{Command, Reply};
use rustix::net::sockopt::socket_peercred;

use crate::event::ClientId;
use crate::peer::Peer;

/// More at a time than people and scripts need; the next waits in the kernel's backlog.
const CLIENTS_MAX: usize = 32;

/// To send the command, which is one short line.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// To take the last reply.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Client {
    pub(super) peer: Peer,
    /// It has said its command: nothing more is listened to.
    asked: bool,
    /// Its last reply is on the way.
    answered: bool,
    /// It is closed then, unless an answer is being worked on.
    deadline: Option<Instant>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Clients {
    listener: UnixListener,
    open: BTreeMap<ClientId, Client>,
    last: ClientId,
}

impl Clients {
    pub(super) fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, open: BTreeMap::new(), last: 0 })
    }

    /// Takes the listener of another; those who are here stay.
    pub(super) fn listen_as(&mut self, other: Self) {
        self.listener = other.listener;
    }

    pub(super) fn listener(&self) -> Option<&UnixListener> {
        (self.open.len() < CLIENTS_MAX).then_some(&self.listener)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ClientId, &Peer)> {
        self.open.iter().map(|(id, client)| (*id, &client.peer))
    }

    pub(super) fn accept(&mut self, now: Instant) {
        while self.open.len() < CLIENTS_MAX {
            let Ok((stream, _)) = self.listener.accept() else { return };
            // The socket's mode keeps others out already; this is for a runtime directory that somebody opened up.
            let own = rustix::process::geteuid();
            let allowed = socket_peercred(&stream).is_ok_and(|peer| peer.uid.is_root() || peer.uid == own);
            let Some(peer) = allowed.then(|| Peer::new(stream).ok()).flatten() else { continue };
            self.last += 1;
            let deadline = Some(now + COMMAND_TIMEOUT);
            self.open.insert(self.last, Client { peer, asked: false, answered: false, deadline });
        }
    }

    /// Reads one; its command, when it is whole.
    pub(super) fn read(&mut self, id: ClientId) -> Option<Command> {
        let client = self.open.get_mut(&id)?;
        let mut said = client.peer.read::<Command>("a client of control.sock");
        if client.asked || said.is_empty() {
            return None;
        }
        client.asked = true;
        client.deadline = None;
        Some(said.swap_remove(0))
    }

    pub(super) fn flush(&mut self, id: ClientId) {
        if let Some(client) = self.open.get_mut(&id) {
            client.peer.flush();
        }
    }

    /// Those that have gone, or take too long, are closed.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.open.retain(|_, client| {
            let done = client.answered && !client.peer.wants_write();
            let late = client.deadline.is_some_and(|deadline| deadline <= now);
            !(done || late || client.peer.has_ended())
        });
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.values().filter_map(|client| client.deadline).min()
    }

    /// `Progress` is followed by more; anything else is the last word. Nobody is there any more: nothing happens.
    pub(super) fn reply(&mut self, id: ClientId, reply: &Reply, now: Instant) {
        let Some(client) = self.open.get_mut(&id) else { return };
        client.peer.send(reply, "a client of control.sock");
        if !matches!(reply, Reply::Progress { .. }) {
            client.answered = true;
            client.deadline = Some(now + FAREWELL_TIMEOUT);
        }
    }
}
