//! How many connections are open, on which reactor, and when the last one is gone.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use ctl_telemetry::metrics::{CONNECTIONS, CONNECTIONS_TOTAL};
use tokio::sync::Notify;

use super::neighbours::Neighbours;

/// A reactor keeps the connection it accepted unless another has fewer by more than this: moving one costs a wake-up of
/// the other thread.
const SLACK: usize = 1;

/// The counts of all reactors.
#[derive(Debug)]
pub(super) struct Census {
    max: usize,
    open: AtomicUsize,
    by_reactor: Box<[AtomicUsize]>,
    /// `None`: a client may have as many as there may be at all.
    neighbours: Option<Neighbours>,
    emptied: Notify,
}

/// Why a connection is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// Of all.
    All,
    /// Of this client.
    Client(IpAddr),
}

/// A connection that is counted, on one reactor. Dropping it counts it out.
#[derive(Debug)]
pub(super) struct Counted {
    census: Arc<Census>,
    reactor: usize,
    /// Where clients are counted.
    client: Option<IpAddr>,
}

impl Census {
    pub(super) fn new(reactors: usize, max: usize, per_client: Option<u32>) -> Self {
        Self {
            max,
            open: AtomicUsize::new(0),
            by_reactor: (0..reactors).map(|_| AtomicUsize::new(0)).collect(),
            neighbours: per_client.map(Neighbours::new),
            emptied: Notify::new(),
        }
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    /// Counts a connection in and says on which reactor it shall live, unless there are too many. `client`: whose it is, if he
    /// is one who is counted.
    pub(super) fn admit(
        self: &Arc<Self>,
        accepted_on: usize,
        client: Option<IpAddr>,
    ) -> Result<Counted, Full> {
        if self.open.fetch_add(1, SeqCst) >= self.max {
            self.leave();
            return Err(Full::All);
        }
        let client = client.filter(|_| self.neighbours.is_some());
        if let (Some(neighbours), Some(client)) = (&self.neighbours, client)
            && !neighbours.enter(client)
        {
            self.leave();
            return Err(Full::Client(client));
        }
        let reactor = self.least_busy(accepted_on);
        if let Some(count) = self.by_reactor.get(reactor) {
            count.fetch_add(1, Relaxed);
        }
        CONNECTIONS_TOTAL.inc();
        CONNECTIONS.add(1);
        Ok(Counted { census: Arc::clone(self), reactor, client })
    }

    fn least_busy(&self, accepted_on: usize) -> usize {
        let count = |reactor: usize| self.by_reactor.get(reactor).map_or(usize::MAX, |n| n.load(Relaxed));
        let least = (0..self.by_reactor.len()).min_by_key(|&reactor| count(reactor)).unwrap_or(accepted_on);
        if count(accepted_on) > count(least) + SLACK { least } else { accepted_on }
    }

    fn leave(&self) {
        if self.open.fetch_sub(1, SeqCst) == 1 {
            self.emptied.notify_waiters();
        }
    }

    /// Resolves when no connection is open. Cancel safe.
    pub(super) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.open() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Counted {
    pub(super) fn reactor(&self) -> usize {
        self.reactor
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(count) = self.census.by_reactor.get(self.reactor) {
            count.fetch_sub(1, Relaxed);
        }
        CONNECTIONS.add(-1);
        if let (Some(neighbours), Some(client)) = (&self.census.neighbours, self.client) {
            neighbours.leave(client);
        }
        self.census.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_reactor_does_not_take_all() {
        let census = Arc::new(Census::new(3, 100, None));
        let all: Vec<Counted> = (0..30).map(|_| census.admit(0, None).unwrap()).collect();
        for reactor in 0..3 {
            let here = all.iter().filter(|counted| counted.reactor() == reactor).count();
            assert!((9..=11).contains(&here), "{here} on {reactor}");
        }
    }

    #[test]
    fn the_bound_holds_and_frees() {
        let census = Arc::new(Census::new(1, 2, None));
        let (first, _second) = (census.admit(0, None).unwrap(), census.admit(0, None).unwrap());
        assert!(census.admit(0, None).is_err());
        drop(first);
        assert!(census.admit(0, None).is_ok());
    }

    #[test]
    fn one_client_does_not_take_all() {
        let census = Arc::new(Census::new(1, 5, Some(2)));
        let ann = Some(IpAddr::from([192, 0, 2, 1]));
        let (first, _second) = (census.admit(0, ann).unwrap(), census.admit(0, ann).unwrap());
        assert_eq!(census.admit(0, ann).err(), ann.map(Full::Client));
        let _others: Vec<Counted> = (0..3).map(|_| census.admit(0, None).unwrap()).collect();
        assert_eq!(census.admit(0, None).err(), Some(Full::All));
        drop(first);
        assert!(census.admit(0, ann).is_ok());
    }

    #[tokio::test]
    async fn the_last_one_out_is_noticed() {
        let census = Arc::new(Census::new(1, 10, None));
        census.empty().await;
        let (first, second) = (census.admit(0, None).unwrap(), census.admit(0, None).unwrap());
        let watching = tokio::spawn({
            let census = Arc::clone(&census);
            async move { census.empty().await }
        });
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(!watching.is_finished());
        drop(second);
        tokio::time::timeout(Duration::from_secs(5), watching).await.unwrap().unwrap();
    }
}
