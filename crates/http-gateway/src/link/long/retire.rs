//! The life of a link: its task, what it looks after, and how it ends in order.
//!
//! ```text
//! serving ──Retire──► grace ──over──► dismissed: WebSockets closed, event streams ended ──► slots gone, no streams ──► Retire frame, closed
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use py_link::{Flags, Kind, frame};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::table::UNCLAIMED_PATIENCE;
use super::{End, Link, LongLinks, Shared};
use crate::websocket::close::SERVICE_RESTART;

/// The Retire frame is the last of a link: it is sent within this, or the worker will hear of it by the end of file.
const FAREWELL: Duration = Duration::from_secs(1);

/// How long apps may take to end exchanges that nobody takes part in any more, when all else of their worker is over. Some do
/// not listen for the end of their client.
const LINGER: Duration = Duration::from_secs(2);

/// Why a WebSocket is closed by us.
fn reason(code: u16) -> &'static str {
    match code {
        SERVICE_RESTART => "service restart",
        _ => "going away",
    }
}

impl Link {
    /// Runs to the link's end.
    pub(crate) async fn run(self: Arc<Self>, links: Arc<LongLinks>) {
        tokio::select! {
            () = self.serve() => {}
            () = self.watch(&links) => {}
            () = self.retirement(links.limits.grace) => {}
        }
        self.end("");
        links.left(&self);
    }

    /// Looks after unclaimed and cancelled streams; never returns.
    async fn watch(&self, links: &LongLinks) {
        let patience = links.limits.app;
        loop {
            self.to_watch.notified().await;
            loop {
                sleep(patience.min(UNCLAIMED_PATIENCE)).await;
                let (overdue, worker) =
                    (self.table().overdue(Instant::now(), patience), self.identity.worker);
                for shared in overdue.unclaimed {
                    warn!(worker, "a detached exchange that no slot has told of is cancelled");
                    shared.state().finish(End::Aborted);
                    self.control(shared.number, Kind::Cancel, &[]);
                }
                if overdue.lingering > 0 {
                    // No reason to replace a worker: its other clients would pay for it.
                    let exchanges = overdue.lingering;
                    info!(worker, exchanges, "the app has not ended exchanges whose clients are long gone");
                }
                if !overdue.more {
                    break;
                }
            }
        }
    }

    /// From Retire to the end; waits for ever before.
    async fn retirement(&self, grace: Duration) {
        while !self.is_retiring() {
            self.to_retire.notified().await;
        }
        let grace = sleep(grace);
        tokio::pin!(grace);
        let linger = sleep(Duration::MAX);
        tokio::pin!(linger);
        loop {
            let (open, attended) = {
                let table = self.table();
                (table.len(), table.attended())
            };
            // A slot that still works may detach its exchange: the link waits for the slots.
            if self.slots_gone.load(Relaxed) && (open == 0 || linger.is_elapsed()) && attended == 0 {
                break;
            }
            tokio::select! {
                () = self.to_retire.notified() => {}
                () = &mut linger, if !linger.is_elapsed() => {}
                () = &mut grace, if self.dismissed.load(Relaxed) == 0 => {
                    self.dismiss_all(SERVICE_RESTART);
                    linger.as_mut().reset(Instant::now() + LINGER);
                }
            }
        }
        self.out.put(&self.socket, None, |out| out.extend_from_slice(&frame(Kind::Retire, Flags::NONE, &[])));
        let sent = async {
            while !self.out.is_empty() {
                sleep(FAREWELL / 100).await;
            }
        };
        let _the_worker_does_not_read = tokio::time::timeout(FAREWELL, sent).await;
    }

    pub(super) fn is_retiring(&self) -> bool {
        self.retiring.load(Relaxed)
    }

    /// No more exchanges.
    pub(super) fn retire(&self) {
        self.retiring.store(true, Relaxed);
        self.to_retire.notify_one();
    }

    /// The worker has no slots any more. `false`: the link has ended already, nobody will tell.
    pub(super) fn slots_gone(&self) -> bool {
        // Under the lock that the end takes: either the end sees that the slots are gone, or we see the end.
        let table = self.table();
        self.slots_gone.store(true, Relaxed);
        self.to_retire.notify_one();
        !table.is_closed()
    }

    /// Ends all that can be ended without harm; WebSockets with this code.
    pub(super) fn dismiss_all(&self, code: u16) {
        self.dismissed.store(code, Relaxed);
        let streams: Vec<Arc<Shared>> = self.table().all().map(Arc::clone).collect();
        for shared in streams {
            self.dismiss(&shared);
        }
    }

    /// Ends a stream if that does its client no harm: a body that is no event stream goes on to its end.
    pub(super) fn dismiss(&self, shared: &Shared) {
        let code = self.dismissed.load(Relaxed);
        let in_session = {
            let mut state = shared.state();
            if state.has_ended() || !state.can_end_in_order() {
                return;
            }
            state.dismiss(code, reason(code));
            state.in_session()
        };
        shared.wake();
        if in_session {
            // Its app hears why, too.
            self.close(shared.number, code, reason(code));
        } else {
            self.cancel(shared.number);
        }
    }
}
