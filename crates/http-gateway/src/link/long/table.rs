//! The streams of a link by their numbers. No I/O, no clock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use py_link::LinkError;
use py_link::long::DETACHED_FIRST;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Shared;
use super::stream::State;

/// Detached streams whose slot has not told of them yet: at most one for each slot of a worker (`workers.concurrency`).
const UNCLAIMED_MAX: usize = 4096;

/// A Detached frame takes its way through another socket, and another thread; seconds mean that it never comes.
pub(super) const UNCLAIMED_PATIENCE: Duration = Duration::from_secs(10);

/// Who is responsible for a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// Its consumer.
    Claimed,
    /// Nobody yet: its slot will tell.
    Unclaimed(Instant),
    /// The worker has been told that its client is gone, and owes the end.
    Cancelled(Instant),
    /// The same, for long.
    Lingering,
}

struct Entry {
    shared: Arc<Shared>,
    care: Care,
    /// It is work, and counts as such. A client that goes does not change that: its app works on until it notices.
    admitted: Option<OwnedSemaphorePermit>,
}

impl Entry {
    fn new(shared: &Arc<Shared>, care: Care, admitted: Option<OwnedSemaphorePermit>) -> Self {
        Self { shared: Arc::clone(shared), care, admitted }
    }
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Table {
    streams: HashMap<u16, Entry>,
    /// The last number that we gave.
    last: u16,
    unclaimed: usize,
    closed: bool,
}

/// What [`Table::overdue`] found.
#[derive(Default)]
pub(super) struct Overdue {
    /// Streams that no slot has told of.
    pub(super) unclaimed: Vec<Arc<Shared>>,
    /// Streams that the worker has not ended for long.
    pub(super) lingering: usize,
    /// There are more to be watched.
    pub(super) more: bool,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(super) fn get(&self, number: u16) -> Option<Arc<Shared>> {
        self.streams.get(&number).map(|entry| Arc::clone(&entry.shared))
    }

    /// A new handshake under the next number that is free: 1 to 32767, in turn. `None`: all are in use.
    pub(super) fn open(&mut self, admitted: OwnedSemaphorePermit) -> Option<Arc<Shared>> {
        let ours = DETACHED_FIRST - 1;
        let number = (0..ours)
            .map(|step| (u32::from(self.last) + u32::from(step)) % u32::from(ours) + 1)
            .map(|number| number as u16)
            .find(|number| !self.streams.contains_key(number))?;
        self.last = number;
        let shared = Shared::new(number, State::handshake());
        self.streams.insert(number, Entry::new(&shared, Care::Claimed, Some(admitted)));
        Some(shared)
    }

    /// A stream of the worker's whose slot has not told of it yet.
    pub(super) fn expect(&mut self, number: u16, now: Instant) -> Result<Arc<Shared>, LinkError> {
        if self.unclaimed == UNCLAIMED_MAX {
            return Err(LinkError::Malformed("number of detached streams"));
        }
        self.unclaimed += 1;
        let shared = Shared::new(number, State::detached());
        self.streams.insert(number, Entry::new(&shared, Care::Unclaimed(now), None));
        Ok(shared)
    }

    /// The slot has told of it.
    pub(super) fn claim(&mut self, number: u16) -> Result<Arc<Shared>, LinkError> {
        if let Some(entry) = self.streams.get_mut(&number) {
            return match entry.care {
                Care::Unclaimed(_) => {
                    entry.care = Care::Claimed;
                    self.unclaimed -= 1;
                    Ok(Arc::clone(&entry.shared))
                }
                // Too late: it has been given up, and its consumer will find that it has ended.
                Care::Cancelled(_) | Care::Lingering => Ok(Arc::clone(&entry.shared)),
                Care::Claimed => Err(LinkError::Malformed("number of a detached stream")),
            };
        }
        let shared = Shared::new(number, State::detached());
        self.streams.insert(number, Entry::new(&shared, Care::Claimed, None));
        Ok(shared)
    }

    /// From here on it is there rather than at work.
    pub(super) fn settle(&mut self, shared: &Arc<Shared>) {
        let entry = self.streams.get_mut(&shared.number).filter(|entry| Arc::ptr_eq(&entry.shared, shared));
        if let Some(entry) = entry {
            entry.admitted = None;
        }
    }

    /// The worker was told that the client is gone.
    pub(super) fn cancelled(&mut self, number: u16, now: Instant) {
        if let Some(entry) = self.streams.get_mut(&number) {
            if let Care::Unclaimed(_) = entry.care {
                self.unclaimed -= 1;
            }
            entry.care = Care::Cancelled(now);
        }
    }

    /// The worker has ended it. One that is still unclaimed stays until it is claimed.
    pub(super) fn over(&mut self, number: u16) {
        if self.streams.get(&number).is_some_and(|entry| !matches!(entry.care, Care::Unclaimed(_))) {
            self.streams.remove(&number);
        }
    }

    pub(super) fn remove(&mut self, number: u16) {
        self.streams.remove(&number);
    }

    /// Takes unclaimed streams that are too old out of their waiting, and counts those that the worker has been told to end before
    /// `patience` and has not.
    pub(super) fn overdue(&mut self, now: Instant, patience: Duration) -> Overdue {
        let mut overdue = Overdue::default();
        let mut gone = Vec::new();
        for (number, entry) in &mut self.streams {
            match entry.care {
                Care::Unclaimed(since) if now.duration_since(since) >= UNCLAIMED_PATIENCE => {
                    self.unclaimed -= 1;
                    if entry.shared.state().is_over() {
                        gone.push(*number);
                    } else {
                        entry.care = Care::Cancelled(now);
                        overdue.unclaimed.push(Arc::clone(&entry.shared));
                        overdue.more = true;
                    }
                }
                Care::Cancelled(since) if now.duration_since(since) >= patience => {
                    entry.care = Care::Lingering;
                    // Others have waited for it long enough.
                    entry.admitted = None;
                    overdue.lingering += 1;
                }
                Care::Unclaimed(_) | Care::Cancelled(_) => overdue.more = true,
                Care::Claimed | Care::Lingering => {}
            }
        }
        for number in gone {
            self.streams.remove(&number);
        }
        overdue
    }

    /// Streams that somebody still takes part in.
    pub(super) fn attended(&self) -> usize {
        let abandoned = |entry: &&Entry| matches!(entry.care, Care::Cancelled(_) | Care::Lingering);
        self.streams.len() - self.streams.values().filter(abandoned).count()
    }

    /// All streams.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Shared>> {
        self.streams.values().map(|entry| &entry.shared)
    }

    /// No more streams; returns those that there were.
    pub(super) fn close(&mut self) -> Vec<Arc<Shared>> {
        self.closed = true;
        self.unclaimed = 0;
        self.streams.drain().map(|(_, entry)| entry.shared).collect()
    }
}
