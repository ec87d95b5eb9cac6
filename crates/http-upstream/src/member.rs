//! One server: what is known of it, slow start.

use std::time::Instant;

use crate::choose::Load;
use crate::ejection::{Ejection, Place};
use crate::estimate::Estimate;
use crate::group::{Drain, ServerId, Standing};
use crate::health::Health;
use crate::sticky::Token;
use crate::terms::{Policy, Terms};

/// The share with which slow start begins: enough to fill caches with.
const WARM_LEAST: f64 = 0.1;

/// A server's record.
#[derive(Debug)]
pub(crate) struct Member<S> {
    pub(crate) id: ServerId,
    pub(crate) name: String,
    pub(crate) server: S,
    pub(crate) weight: f64,
    pub(crate) token: Option<Token>,
    /// Of its name: where it stands among keys.
    pub(crate) hash: u64,
    /// Requests it works on.
    pub(crate) pending: u32,
    pub(crate) estimate: Estimate,
    pub(crate) health: Health,
    pub(crate) ejection: Ejection,
    /// It has failed; then it is looked at whether that still keeps requests from it.
    pub(crate) doubted_until: Option<Instant>,
    /// By the operator: no new requests.
    pub(crate) drain: Drain,
    /// Removed, but for the requests it still works on.
    pub(crate) leaving: bool,
    /// Since then it is given more, bit by bit.
    pub(crate) warm_since: Option<Instant>,
    /// What it has been given, divided by its weight.
    pub(crate) turn: f64,
    pub(crate) requests: u64,
    pub(crate) failures: u64,
}

impl<S> Member<S> {
    /// Is it given requests as things are?
    pub(crate) fn is_serving(&self) -> bool {
        self.drain == Drain::Off && self.serves_its_own()
    }

    /// Is it given requests of clients that belong to it?
    pub(crate) fn serves_its_own(&self) -> bool {
        !self.leaving && self.drain != Drain::All && self.health.is_up() && !self.ejection.is_out()
    }

    pub(crate) fn is_full(&self, terms: &Terms) -> bool {
        self.pending >= terms.concurrency_max
    }

    /// Has the one request by which it is judged been sent?
    pub(crate) fn is_being_probed(&self) -> bool {
        self.ejection.place() == Place::Probation { probing: true }
    }

    /// How much of its share it gets, up to 1.
    pub(crate) fn warmth(&self, terms: &Terms, now: Instant) -> f64 {
        let Some(since) = self.warm_since else { return 1.0 };
        let age = now.saturating_duration_since(since);
        if age >= terms.slow_start {
            return 1.0;
        }
        (age.as_secs_f64() / terms.slow_start.as_secs_f64()).max(WARM_LEAST)
    }

    /// What is compared; `floor` is how far behind its turn a server may be.
    pub(crate) fn load(&self, terms: &Terms, now: Instant, floor: f64) -> Load {
        let cost = self.estimate.cost(now);
        let ewma = terms.policy == Policy::PeakEwma || terms.policy == Policy::Hash;
        // Two choices give less to who is warming up by drawing it less often.
        let warmth = if ewma { 1.0 } else { self.warmth(terms, now) };
        Load {
            latency: if ewma { cost.latency } else { 1.0 },
            penalty: cost.penalty,
            pending: f64::from(self.pending),
            weight: self.weight * warmth,
            turn: self.turn.max(floor),
        }
    }

    /// It gets a request.
    pub(crate) fn take(&mut self, terms: &Terms, now: Instant, floor: f64) {
        self.turn = match terms.policy {
            // Whose turn it is, is all there is: nobody is behind for long, and slow start is a lighter weight.
            Policy::RoundRobin => self.turn + 1.0 / (self.weight * self.warmth(terms, now)),
            _ => self.turn.max(floor) + 1.0 / self.weight,
        };
        self.pending += 1;
        self.requests += 1;
    }

    pub(crate) fn standing(&self, terms: &Terms, now: Instant) -> Standing {
        match self.ejection.place() {
            _ if self.leaving => Standing::Leaving,
            _ if self.drain != Drain::Off => Standing::Draining,
            _ if !self.health.is_up() => Standing::Down,
            Place::Out { .. } => Standing::Ejected,
            Place::Probation { .. } => Standing::Probation,
            Place::In if self.warmth(terms, now) < 1.0 => Standing::Warming,
            Place::In => Standing::Serving,
        }
    }
}
