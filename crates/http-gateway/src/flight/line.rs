//! Who flies, who joins, who waits. `http-limits` decides; here those whom it concerns are told.
//!
//! # Cancel safety
//! Dropping a [`Waiting`] leaves the line. Dropping the last copy of a [`Place`] ends its flight: the next one goes, and those who
//! joined get the outcome.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use ctl_telemetry::metrics as m;
use http_limits::{Arrival, Policy, Seed, Ticket};
use tokio::sync::{Notify, oneshot};

use super::Answer;
use crate::spool::Cutter;

/// Requests that wait or have joined, all together: each holds a connection or a stream, and perhaps a body.
pub(super) const WAITING_MAX: usize = 10_000;

/// Locks. Each is held for a few dozen instructions; more than there are cores make it rare to meet.
const SHARDS: usize = 16;

/// All that is under way.
#[derive(Debug)]
pub(crate) struct Flights {
    shards: Box<[Mutex<Shard>]>,
    tickets: AtomicU64,
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Shard {
    flights: http_limits::Flights,
    waits: HashMap<Ticket, oneshot::Sender<Told>>,
    leads: HashMap<Ticket, Weak<Place>>,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Arrived {
    /// It goes.
    Leads(Arc<Place>),
    /// It is told later.
    Waits(Waiting),
    /// It joined a flight of which this is known already.
    Shares(Outcome),
    /// It is one too many.
    Refused,
}

/// What a request that waited is told.
#[derive(Debug)]
pub(crate) enum Told {
    /// It is its turn.
    Turn(Arc<Place>),
    /// The other's answer.
    Shares(Outcome),
}

/// What those who joined get.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// This answer, where it may be given to them.
    Same(Arc<Answer>),
    /// None that could be shared: they go by themselves.
    Alone,
}

impl Flights {
    /// Nothing is under way.
    pub(crate) fn new(seed: Seed) -> Arc<Self> {
        let shard = || {
            let flights = http_limits::Flights::new(seed);
            Mutex::new(Shard { flights, waits: HashMap::new(), leads: HashMap::new() })
        };
        let shards = std::iter::repeat_with(shard).take(SHARDS).collect();
        Arc::new(Self { shards, tickets: AtomicU64::new(1), waiting: AtomicUsize::new(0) })
    }

    /// A request arrives.
    pub(crate) fn arrive(self: &Arc<Self>, key: u64, policy: Policy) -> Arrived {
        let ticket = self.tickets.fetch_add(1, Relaxed);
        let crowded = self.waiting.load(Relaxed) >= WAITING_MAX;
        let policy = match policy {
            Policy::Join(_) | Policy::Queue(_) if crowded => Policy::Reject,
            policy => policy,
        };
        let mut shard = self.shard(key);
        match shard.flights.arrive(key, ticket, policy) {
            Arrival::Leads => Arrived::Leads(self.place(&mut shard, key, ticket)),
            Arrival::Supersedes(before) => {
                let before = shard.leads.get(&before).and_then(Weak::upgrade);
                let place = self.place(&mut shard, key, ticket);
                drop(shard);
                if let Some(before) = before {
                    before.supersede();
                }
                Arrived::Leads(place)
            }
            Arrival::Joins(leader) => {
                // One that is gone already tells its outcome as soon as it gets the lock.
                let leader = shard.leads.get(&leader).and_then(Weak::upgrade);
                let known = leader.as_ref().and_then(|leader| leader.outcome.get().cloned());
                let cares = leader.as_ref().map(|leader| leader.cares());
                let arrived = if let Some(outcome) = known {
                    shard.flights.gone(key, ticket);
                    Arrived::Shares(outcome)
                } else {
                    Arrived::Waits(self.wait(&mut shard, key, ticket, cares))
                };
                // In this order: the last copy of a place takes the lock.
                drop(shard);
                drop(leader);
                arrived
            }
            Arrival::Waits(_) => Arrived::Waits(self.wait(&mut shard, key, ticket, None)),
            Arrival::Refused => Arrived::Refused,
        }
    }

    fn place(self: &Arc<Self>, shard: &mut Shard, key: u64, ticket: Ticket) -> Arc<Place> {
        let place = Arc::new(Place {
            flights: Arc::clone(self),
            key,
            ticket,
            outcome: OnceLock::new(),
            superseded: AtomicBool::new(false),
            news: Notify::new(),
            cutter: Mutex::new(None),
            interest: Arc::default(),
        });
        shard.leads.insert(ticket, Arc::downgrade(&place));
        place
    }

    fn wait(self: &Arc<Self>, shard: &mut Shard, key: u64, ticket: Ticket, cares: Option<Cares>) -> Waiting {
        let (tell, told) = oneshot::channel();
        shard.waits.insert(ticket, tell);
        self.waiting.fetch_add(1, Relaxed);
        m::FLIGHT_WAITING.add(1);
        Waiting { told, flights: Arc::clone(self), key, ticket, _cares: cares }
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Shard> {
        #[allow(clippy::indexing_slicing)] // the remainder is below the length
        self.shards[(key % SHARDS as u64) as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests that are counted as waiting.
    #[cfg(test)]
    pub(crate) fn crowd(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Flights, with those that were superseded or abandoned and are not over yet; and requests that wait for one.
    #[cfg(test)]
    pub(crate) fn len(&self) -> (usize, usize) {
        let shards = self.shards.iter().map(|shard| shard.lock().unwrap());
        shards
            .fold((0, 0), |(flights, waits), shard| (flights + shard.leads.len(), waits + shard.waits.len()))
    }
}

/// A request that has to be told something.
#[derive(Debug)]
pub(crate) struct Waiting {
    told: oneshot::Receiver<Told>,
    flights: Arc<Flights>,
    key: u64,
    ticket: Ticket,
    /// Behind `told` and our own `drop`: whose interest ends has left the flight already.
    _cares: Option<Cares>,
}

impl Waiting {
    /// What it is told. Cancel safe.
    pub(crate) async fn told(&mut self) -> Told {
        // Whoever leads tells all.
        (&mut self.told).await.unwrap_or(Told::Shares(Outcome::Alone))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.flights.waiting.fetch_sub(1, Relaxed);
        m::FLIGHT_WAITING.add(-1);
        let mut shard = self.flights.shard(self.key);
        shard.flights.gone(self.key, self.ticket);
        let _sender = shard.waits.remove(&self.ticket);
    }
}

/// A flight. It lasts as long as somebody holds it.
pub struct Place {
    flights: Arc<Flights>,
    key: u64,
    ticket: Ticket,
    outcome: OnceLock<Outcome>,
    superseded: AtomicBool,
    news: Notify,
    cutter: Mutex<Option<Cutter>>,
    interest: Arc<Interest>,
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

impl Place {
    /// Those who joined get this; those who join from now on, too. The first word counts.
    pub(crate) fn settle(&self, outcome: &Outcome) {
        if self.outcome.set(outcome.clone()).is_err() {
            return;
        }
        let mut shard = self.flights.shard(self.key);
        let joined = shard.flights.shared(self.key, self.ticket);
        let joined: Vec<_> = joined.iter().filter_map(|ticket| shard.waits.remove(ticket)).collect();
        drop(shard);
        for tell in joined {
            let _gone = tell.send(Told::Shares(outcome.clone()));
        }
    }

    /// Resolves when a later request has taken the place. Cancel safe.
    pub(crate) async fn superseded(&self) {
        while !self.superseded.load(Relaxed) {
            self.news.notified().await;
        }
    }

    /// The answer is on its way already; who comes later cuts it off.
    pub(crate) fn cuts(&self, cutter: Cutter) {
        let mut place = self.cutter.lock().unwrap_or_else(PoisonError::into_inner);
        if self.superseded.load(Relaxed) {
            cutter.cut();
        } else {
            *place = Some(cutter);
        }
    }

    fn supersede(&self) {
        m::FLIGHT_CANCELLED_TOTAL.inc();
        let mut cutter = self.cutter.lock().unwrap_or_else(PoisonError::into_inner);
        self.superseded.store(true, Relaxed);
        let cutter = cutter.take();
        self.news.notify_one();
        if let Some(cutter) = cutter {
            cutter.cut();
        }
    }

    /// Somebody wants the answer.
    pub(crate) fn cares(&self) -> Cares {
        self.interest.count.fetch_add(1, Relaxed);
        Cares(Arc::clone(&self.interest))
    }

    /// Does anybody?
    pub(crate) fn is_wanted(&self) -> bool {
        self.interest.count.load(Relaxed) > 0
    }

    /// Resolves when nobody wants the answer any more: then nobody can join either. Cancel safe.
    pub(crate) async fn abandoned(&self) {
        loop {
            self.interest.nobody.notified().await;
            let mut shard = self.flights.shard(self.key);
            // Who joins is counted under this lock.
            if self.interest.count.load(Relaxed) == 0 {
                shard.flights.ended(self.key, self.ticket);
                return;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = self.flights.shard(self.key);
        shard.leads.remove(&self.ticket);
        let ended = shard.flights.ended(self.key, self.ticket);
        let joined: Vec<_> = ended.joined.iter().filter_map(|ticket| shard.waits.remove(ticket)).collect();
        let next = ended.next.and_then(|ticket| {
            let tell = shard.waits.remove(&ticket)?;
            Some((tell, self.flights.place(&mut shard, self.key, ticket)))
        });
        drop(shard);
        let outcome = self.outcome.take().unwrap_or(Outcome::Alone);
        for tell in joined {
            let _gone = tell.send(Told::Shares(outcome.clone()));
        }
        if let Some((tell, place)) = next {
            // One that has left meanwhile gives it on: the place comes back, and is dropped.
            let _gone = tell.send(Told::Turn(place));
        }
    }
}

/// How many want an answer.
#[derive(Debug, Default)]
struct Interest {
    count: AtomicUsize,
    nobody: Notify,
}

/// Somebody who wants it.
#[derive(Debug)]
pub(crate) struct Cares(Arc<Interest>);

impl Drop for Cares {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Relaxed) == 1 {
            self.0.nobody.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
