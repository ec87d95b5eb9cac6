//! Bandwidth: how fast the bodies of answers go out over one connection (`limits.bandwidth`, the `bandwidth` of routes).
//!
//! A connection has a [`Bucket`] for what it sends under `limits.bandwidth`, and one for each route that says otherwise; over HTTP/2 the
//! streams of a connection take turns at them. [`Paces`] makes them when they are needed: without the settings, and for idle
//! connections, there is nothing.
//!
//! A client that we slow down is not a slow client. While it waits here no clock of `timeouts.write` runs, and what it is waited for
//! elsewhere does not count either ([`crate::spool::Slowing`]). It holds no worker: when an app's answer is about to fill its spool, it
//! goes as fast as the client takes it until there is room again.
//!
//! # Cancel safety
//! Dropping a wait gives the turn to the next stream; nothing was taken.

mod bucket;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ctl_config::settings::Limits;
use ctl_telemetry::metrics::RESPONSES_SLOWED_TOTAL;
use tokio::time::{Instant, sleep};

use crate::message::{Body, Response, Taken};
use crate::spool::Slowing;
use bucket::{Answer, Bucket};

/// In a hurry so much goes before we look again whether it is one.
const HURRIED_BYTES: u64 = 1 << 20;

/// Bytes a second, and how many may go at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    /// Bytes a second; 0: as fast as the client takes them.
    pub rate: u64,
    /// So many go at full speed first.
    pub after: u64,
}

/// Where the streams of a connection take turns.
struct Gate {
    /// First come, first served.
    bucket: tokio::sync::Mutex<Bucket>,
    /// The bucket's clock.
    since: Instant,
}

impl Gate {
    fn new(bandwidth: Bandwidth) -> Self {
        Self { bucket: tokio::sync::Mutex::new(Bucket::new(bandwidth)), since: Instant::now() }
    }

    /// Takes up to `wanted` bytes if there are some at once, and nobody else waits for them.
    fn try_pass(&self, wanted: u64) -> Option<u64> {
        match self.bucket.try_lock().ok()?.take(wanted, self.since.elapsed()) {
            Answer::Now(bytes) => Some(bytes),
            Answer::In(_) => None,
        }
    }

    /// Waits for the turn, and for the bytes. Cancel safe.
    async fn pass(&self, wanted: u64) -> u64 {
        let mut bucket = self.bucket.lock().await;
        loop {
            match bucket.take(wanted, self.since.elapsed()) {
                Answer::Now(bytes) => return bytes,
                Answer::In(time) => sleep(time).await,
            }
        }
    }
}

/// The gates of one connection; a route's where it has its own.
type Gates = Vec<(Option<Arc<Taken>>, Arc<Gate>)>;

/// What the answers of one connection share.
#[derive(Default)]
pub(crate) struct Paces(OnceLock<Box<Mutex<Gates>>>);

impl Paces {
    /// How fast this answer goes; `None`: as fast as the client takes it.
    pub(crate) fn of(&self, limits: &Limits, response: &mut Response) -> Option<Box<Pace>> {
        let route = response.trail.route.as_ref().filter(|route| route.bandwidth.is_some());
        let everywhere = limits.bandwidth.map(|rate| Bandwidth { rate, after: limits.bandwidth_after });
        let bandwidth = route.and_then(|route| route.bandwidth).or(everywhere)?;
        if bandwidth.rate == 0 {
            return None;
        }
        let mut gates = self.0.get_or_init(Box::default).lock().unwrap_or_else(PoisonError::into_inner);
        let same = |other: &Option<Arc<Taken>>| match (other, route) {
            (Some(other), Some(route)) => Arc::ptr_eq(other, route),
            (None, None) => true,
            _ => false,
        };
        let there = gates.iter().find(|(other, _)| same(other)).map(|(_, gate)| Arc::clone(gate));
        let gate = there.unwrap_or_else(|| {
            let gate = Arc::new(Gate::new(bandwidth));
            gates.push((route.cloned(), Arc::clone(&gate)));
            gate
        });
        drop(gates);
        let behind = match &mut response.body {
            Body::Stream(stream) => stream.slowing(),
            _ => None,
        };
        Some(Box::new(Pace { gate, behind, left: 0, slowed: false }))
    }
}

/// One answer on its way.
pub(crate) struct Pace {
    gate: Arc<Gate>,
    /// Where its bytes come from, if somebody waits there until they are taken.
    behind: Option<Slowing>,
    /// Taken of the bucket, and not sent yet.
    left: u64,
    /// It is counted.
    slowed: bool,
}

impl Pace {
    /// Up to `wanted` bytes that may go now, if there are some; see [`Self::spent`].
    pub(crate) fn try_allow(&mut self, wanted: u64) -> Option<u64> {
        if self.left == 0 {
            if self.behind.as_ref().is_some_and(Slowing::hurries) {
                return Some(wanted.min(HURRIED_BYTES));
            }
            self.left = self.gate.try_pass(wanted)?;
        }
        Some(self.left.min(wanted))
    }

    /// Waits until bytes may go: how many of `wanted`. Tell by [`Self::spent`] how many were sent. Cancel safe.
    pub(crate) async fn allow(&mut self, wanted: u64) -> u64 {
        if let Some(bytes) = self.try_allow(wanted) {
            return bytes;
        }
        if !self.slowed {
            self.slowed = true;
            RESPONSES_SLOWED_TOTAL.inc();
        }
        let passing = self.gate.pass(wanted);
        let Some(behind) = &self.behind else {
            self.left = passing.await;
            return self.left;
        };
        let _not_its_fault = behind.begin();
        tokio::select! {
            biased;
            bytes = passing => {
                self.left = bytes;
                bytes
            }
            () = behind.hurried() => wanted.min(HURRIED_BYTES),
        }
    }

    /// So many of the allowed bytes were sent.
    pub(crate) fn spent(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests;
