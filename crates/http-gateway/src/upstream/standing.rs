//! How the servers of an upstream fare: who has failed so often in a row that he gets a rest, and whose turn it is.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// How a server fares.
#[derive(Debug)]
pub(super) struct Standing {
    /// Milliseconds are counted from here.
    since: Instant,
    /// In a row.
    failures: AtomicU32,
    /// Until then it gets no requests while others do; 0: it gets them.
    rests_until_ms: AtomicU64,
}

impl Standing {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), failures: AtomicU32::new(0), rests_until_ms: AtomicU64::new(0) }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn rests(&self) -> bool {
        match self.rests_until_ms.load(Relaxed) {
            0 => false,
            until => self.now_ms() < until,
        }
    }

    pub(super) fn succeeded(&self) {
        // Read first: a line that nobody writes is shared by all cores.
        if self.failures.load(Relaxed) > 0 {
            self.failures.store(0, Relaxed);
            self.rests_until_ms.store(0, Relaxed);
        }
    }

    /// One more failure; `true`: with this one a rest begins. The first request after it decides: one more failure, and it
    /// rests again.
    pub(super) fn failed(&self, eject_after: u32, eject_time: Duration) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        if failures < eject_after || self.rests() {
            return false;
        }
        let until = self.now_ms() + u64::try_from(eject_time.as_millis()).unwrap_or(u64::MAX / 2);
        self.rests_until_ms.store(until.max(1), Relaxed);
        true
    }
}

/// What the choice of a server depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Requests it works on.
    pub(super) busy: usize,
    /// It has failed too often.
    pub(super) rests: bool,
    /// It has failed with this very request.
    pub(super) tried: bool,
}

/// Which server gets a request: the one with the fewest, from `turn` on among equals. One that rests only when all others do
/// or have been tried; `None`: all have been tried.
pub(super) fn choose(servers: impl ExactSizeIterator<Item = Seen>, turn: usize) -> Option<usize> {
    let count = servers.len().max(1);
    servers
        .enumerate()
        .filter(|(_, seen)| !seen.tried)
        .min_by_key(|(at, seen)| (seen.rests, seen.busy, (at + count - turn % count) % count))
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A digit is a server with so many requests; `r` before it: it rests; `t`: it was tried.
    fn chosen(servers: &str, turn: usize) -> Option<usize> {
        let servers: Vec<Seen> = servers
            .split(' ')
            .map(|text| Seen {
                busy: text.trim_start_matches(['r', 't']).parse().unwrap(),
                rests: text.contains('r'),
                tried: text.contains('t'),
            })
            .collect();
        choose(servers.into_iter(), turn)
    }

    #[test]
    fn the_least_busy_gets_it_and_equals_take_turns() {
        assert_eq!(chosen("2 1 3", 0), Some(1));
        assert_eq!([0, 1, 2, 3].map(|turn| chosen("0 0 0", turn)), [Some(0), Some(1), Some(2), Some(0)]);
        assert_eq!([0, 1, 2].map(|turn| chosen("1 0 0", turn)), [Some(1), Some(1), Some(2)]);
        assert_eq!(chosen("r0 5", 0), Some(1), "one that rests is for when there is no other");
        assert_eq!(chosen("r0 t5", 0), Some(0));
        assert_eq!(chosen("r4 r3", 0), Some(1));
        assert_eq!(chosen("t0 t0", 1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_earn_a_rest() {
        let standing = Standing::new();
        let fail = || standing.failed(3, Duration::from_secs(10));
        assert!(!fail() && !fail());
        standing.succeeded();
        assert!(!fail() && !fail() && fail(), "three in a row");
        assert!(standing.rests());
        assert!(!fail(), "of a request that was on its way");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!standing.rests());
        assert!(fail() && standing.rests(), "it has not recovered");
        tokio::time::advance(Duration::from_secs(10)).await;
        standing.succeeded();
        assert!(!fail() && !standing.rests());
    }
}
