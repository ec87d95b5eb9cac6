//! How every connection learns that the process is about to end.
//!
//! The gateway's main holds the sender; reactors and protocol drivers hold a [`Drain`] each. A connection that hears
//! of it finishes what is in flight, tells its client not to send more (`Connection: close`, GOAWAY), and closes.
//! What does not end is cut by the main after `server.drain_timeout`: nothing here keeps a clock.

use tokio::sync::watch;

/// Serving, leaving or moved, draining; never back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// As usual.
    Serving,
    /// Still listening. Clients hear of it with their next answer; no connection is closed under a request that may be
    /// on its way.
    Leaving,
    /// Another process listens on the same sockets: as `Leaving`, but nothing is accepted any more.
    Moved,
    /// Finish what is in flight and close.
    Draining,
}

/// A connection's or reactor's ear for [`Phase`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Drain(watch::Receiver<Phase>);

impl Drain {
    /// A sender and the first ear; clone the ear for each connection.
    pub fn channel() -> (watch::Sender<Phase>, Self) {
        let (sender, receiver) = watch::channel(Phase::Serving);
        (sender, Self(receiver))
    }

    /// Is it time to tell the client? From [`Phase::Leaving`] on.
    pub fn is_ending(&self) -> bool {
        *self.0.borrow() != Phase::Serving
    }

    /// Does another process listen instead?
    pub fn has_moved(&self) -> bool {
        *self.0.borrow() == Phase::Moved
    }

    /// Resolves when nothing is to be accepted any more. Otherwise as [`Self::begun`].
    pub async fn listened(&mut self) {
        let _gone = self.0.wait_for(|&phase| phase >= Phase::Moved).await;
    }

    /// Resolves when another process listens instead; never, when this one simply ends. Cancel safe.
    pub async fn moved(&mut self) {
        if self.0.wait_for(|&phase| phase == Phase::Moved).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Resolves when draining has begun, at once when it had already. A sender that is gone counts as begun: its
    /// process is ending. Cancel safe.
    pub async fn begun(&mut self) {
        let _gone = self.0.wait_for(|&phase| phase == Phase::Draining).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_ear_hears_it_once_begun() {
        let (sender, mut drain) = Drain::channel();
        let mut late = drain.clone();
        assert!(!drain.is_ending());
        sender.send_replace(Phase::Draining);
        drain.begun().await;
        late.begun().await;
        assert!(late.is_ending());
    }

    #[tokio::test]
    async fn who_moves_out_stops_listening_before_it_drains() {
        let (sender, mut drain) = Drain::channel();
        let mut admin = drain.clone();
        sender.send_replace(Phase::Moved);
        drain.listened().await;
        admin.moved().await;
        assert!(drain.is_ending());
        let begun = tokio::time::timeout(std::time::Duration::from_millis(5), drain.begun()).await;
        assert!(begun.is_err(), "connections go on");
        sender.send_replace(Phase::Draining);
        drain.begun().await;
        drain.listened().await;
    }

    #[tokio::test]
    async fn a_lost_sender_counts_as_begun() {
        let (sender, mut drain) = Drain::channel();
        drop(sender);
        drain.begun().await;
    }
}
