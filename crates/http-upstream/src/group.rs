//! The servers of an upstream behind one lock, and a request's place with one of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use siphasher::sip::SipHasher13;

use crate::state::{Chosen, State};
use crate::sticky::{Secret, Token};
use crate::terms::Terms;

/// A server, for as long as it is in the group: one that is removed and comes back later is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ServerId(pub(crate) u64);

/// A server as it is configured or resolved.
#[derive(Debug, Clone)]
pub struct Server<S> {
    /// In logs, tokens and among keys. Names are different from each other.
    pub name: String,
    /// Its share; 0 is 1.
    pub weight: u32,
    /// What the caller needs to reach it.
    pub server: S,
}

/// A request looks for a server.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Now.
    pub now: Instant,
    /// A new one for each request.
    pub random: u64,
    /// What the request is hashed by, see [`key`].
    pub key: Option<u64>,
    /// What the client brought.
    pub sticky: Option<Token>,
    /// Servers that have failed with this request. Empty: it is sent for the first time.
    pub tried: &'a [ServerId],
}

/// Why there is no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoServer {
    /// There is none at all.
    #[error("there is no server")]
    None,
    /// All are being drained.
    #[error("all servers are being drained")]
    Drained,
    /// All have as many requests as they may; one that waits may be lucky.
    #[error("all servers have as many requests as they may")]
    Full,
    /// All have been tried.
    #[error("all servers have been tried")]
    Tried,
}

/// What became of a request. Latency is the time to the head of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The server did what it should.
    Answered,
    /// It failed: said so (see [`Outcome::of_status`]), answered something that is not understood, not in time, or broke off.
    Failed,
    /// There was no connection to it; it never saw the request.
    NotReached,
}

impl Outcome {
    /// 5xx, but for those that speak of the request: 501 (not implemented), 505 (version), 508 (it goes in a circle).
    pub fn of_status(status: u16) -> Self {
        match status {
            501 | 505 | 508 => Self::Answered,
            500..=599 => Self::Failed,
            _ => Self::Answered,
        }
    }
}

/// Something has changed that an operator wants to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It has failed too often and is out for so long.
    Ejected(Duration),
    /// It was out and has answered well.
    Returned,
    /// Checks say that it is up again.
    Up,
    /// Checks say that it is down.
    Down,
}

/// Which requests a server is to have no more, by the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Drain {
    /// It has its share.
    #[default]
    Off,
    /// Only those of clients that bring its token.
    New,
    /// None at all.
    All,
}

/// Where a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It gets its share.
    Serving,
    /// Slow start: it gets less.
    Warming,
    /// It was out; one request decides.
    Probation,
    /// Out after failures.
    Ejected,
    /// Out by active checks.
    Down,
    /// Out by the operator.
    Draining,
    /// Removed, and still busy with its last requests.
    Leaving,
}

/// A server, for `quintet status`.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerStatus {
    /// As configured.
    pub name: String,
    /// As configured.
    pub weight: u32,
    /// Where it stands.
    pub standing: Standing,
    /// While it is ejected: for how long yet.
    pub back_in: Option<Duration>,
    /// Requests it works on.
    pub pending: u32,
    /// Of a request, by estimate.
    pub latency: Duration,
    /// Requests it was given.
    pub requests: u64,
    /// Those it failed with.
    pub failures: u64,
    /// How often it was ejected.
    pub ejections: u64,
}

/// See the head of this crate. `S` is what the caller needs to reach a server: something that is cheap to clone.
#[derive(Debug)]
pub struct Group<S> {
    state: Mutex<State<S>>,
}

impl<S: Clone> Group<S> {
    /// With its servers, all of them at once: nobody starts slowly. `sticky`: tokens are made with it for an upstream of this
    /// name.
    pub fn new(
        name: &str,
        terms: Terms,
        sticky: Option<Secret>,
        servers: Vec<Server<S>>,
        now: Instant,
    ) -> Arc<Self> {
        let mut state = State::new(name, terms, sticky, now);
        state.set_servers(servers, now, false);
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place with a server.
    pub fn pick(self: &Arc<Self>, ask: &Ask<'_>) -> Result<Pick<S>, NoServer> {
        let chosen = self.lock().pick(ask)?;
        Ok(Pick { group: Arc::clone(self), chosen, recorded: false, good: false })
    }

    /// May a request be sent once more? Then it is counted. Not to be asked for one that never reached a server: to send it to
    /// another makes no more of it.
    pub fn may_retry(&self, now: Instant) -> bool {
        self.lock().budget.take(now)
    }

    /// A result of an active check. One of a server that is gone changes nothing.
    pub fn report_health(&self, id: ServerId, well: bool, now: Instant) -> Option<Change> {
        self.lock().report_health(id, well, now)
    }

    /// What active checks say of a server; `None`: it is gone.
    pub fn is_up(&self, id: ServerId) -> Option<bool> {
        self.lock().is_up(id)
    }

    /// The servers as they are now to be, by name. Those that stay keep what they are (`S` too) and what is known of them; those
    /// that come start slowly; those that go get no new requests, and are forgotten when their last one is over.
    pub fn set_servers(&self, servers: Vec<Server<S>>, now: Instant) {
        let gone = self.lock().set_servers(servers, now, true);
        // What the caller put there is dropped without the lock.
        drop(gone);
    }

    /// No new requests for the server of this name, or requests again. It is remembered while there is none: one that comes back
    /// later is drained still.
    pub fn drain(&self, name: &str, drain: Drain, now: Instant) {
        self.lock().drain(name, drain, now);
    }

    /// Who is drained, by name, those that are away included.
    pub fn drained(&self) -> Vec<(String, Drain)> {
        self.lock().drained()
    }

    /// All servers, those that are leaving last.
    pub fn status(&self, now: Instant) -> Vec<ServerStatus> {
        self.lock().status(now)
    }

    /// Those that are to be checked.
    pub fn servers(&self) -> Vec<(ServerId, S)> {
        self.lock().servers()
    }
}

/// A request's place with a server, given back when it is dropped.
#[derive(Debug)]
#[must_use = "it gives its place back at once"]
pub struct Pick<S> {
    group: Arc<Group<S>>,
    chosen: Chosen<S>,
    recorded: bool,
    /// Its answer has begun well, and not broken off.
    good: bool,
}

impl<S> Pick<S> {
    /// Whom to ask.
    pub fn server(&self) -> &S {
        &self.chosen.server
    }

    /// For [`Ask::tried`].
    pub fn id(&self) -> ServerId {
        self.chosen.id
    }

    /// What the client should bring next time, when it is not what it brought.
    pub fn new_token(&self) -> Option<Token> {
        self.chosen.new_token
    }

    /// What became of the request, when that is known: at the head of the answer. The place is kept until this is dropped, for
    /// the body. Only the first word counts.
    pub fn record(&mut self, outcome: Outcome, latency: Duration, now: Instant) -> Option<Change> {
        if std::mem::replace(&mut self.recorded, true) {
            return None;
        }
        self.good = outcome == Outcome::Answered;
        let mut state = self.group.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.record(self.chosen.at, self.chosen.id, self.chosen.probe, outcome, latency, now)
    }

    /// The same, and the request is over.
    pub fn finished(mut self, outcome: Outcome, latency: Duration, now: Instant) -> Option<Change> {
        self.record(outcome, latency, now)
    }

    /// The answer had begun well, and then broke off: that is the server's fault.
    pub fn broke_off(&mut self, now: Instant) -> Option<Change> {
        if !std::mem::replace(&mut self.good, false) {
            return None;
        }
        let mut state = self.group.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.broke_off(self.chosen.at, self.chosen.id, now)
    }
}

impl<S> Drop for Pick<S> {
    fn drop(&mut self) {
        let mut state = self.group.state.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = state.release(self.chosen.at, self.chosen.id, self.chosen.probe, self.good);
        drop(state);
        // What the caller put there is dropped without the lock.
        drop(gone);
    }
}

/// The key of what a request is hashed by: the same in every gateway, over restarts too. Clients can make keys that meet at one
/// server; the bound of its load is what keeps that harmless.
pub fn key(bytes: &[u8]) -> u64 {
    SipHasher13::new().hash(bytes)
}
