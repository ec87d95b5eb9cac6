//! Active health checks: a task for each server of an upstream, as long as it is one, asks and reports; `http-upstream` decides.
//!
//! The checks of a process run on its main thread, not on each reactor, and no more than [`AT_ONCE_MAX`] at one time. A task asks
//! once after the other, so a server never has two of our checks at once. What changes is said once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ctl_telemetry::metrics::UpstreamMetrics;
use http_upstream::{Change, Group, ServerId};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::check::{Checks, Unwell, check};
use super::server::Server;

/// Checks under way in the whole process: each has a socket, and most take a millisecond. Servers that let theirs run into
/// `health_timeout` make the others wait, not grow in number.
pub(super) const AT_ONCE_MAX: usize = 64;

/// How often the servers of an upstream are compared with those that are checked.
const REVIEW_INTERVAL: Duration = Duration::from_secs(1);

/// While a check says otherwise than those before it, the next one comes this soon.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);

/// The first check of a server comes within this time, so that those of many do not come at once.
const FIRST_WITHIN: Duration = Duration::from_millis(500);

/// What the tasks of an upstream share.
#[derive(Clone)]
pub(super) struct Watch {
    pub(super) upstream: Arc<str>,
    pub(super) group: Arc<Group<Arc<Server>>>,
    pub(super) checks: Arc<Checks>,
    pub(super) metrics: Arc<UpstreamMetrics>,
    /// Of the process.
    pub(super) gate: Arc<Semaphore>,
}

impl Watch {
    /// Checks the servers, those that come later too, until it is dropped.
    pub(super) async fn run(self) {
        let mut tasks = JoinSet::new();
        let mut watched: HashMap<ServerId, AbortHandle> = HashMap::new();
        loop {
            let servers = self.group.servers();
            watched.retain(|id, task| {
                let stays = servers.iter().any(|(own, _)| own == id);
                if !stays {
                    task.abort();
                }
                stays && !task.is_finished()
            });
            for (id, server) in servers {
                watched.entry(id).or_insert_with(|| tasks.spawn(self.clone().one(id, server)));
            }
            while tasks.try_join_next().is_some() {}
            sleep(REVIEW_INTERVAL).await;
        }
    }

    async fn one(self, id: ServerId, server: Arc<Server>) {
        sleep(self.checks.interval.min(FIRST_WITHIN).mul_f64(random())).await;
        loop {
            // It is closed nowhere.
            let Ok(turn) = self.gate.acquire().await else { return };
            let found = match timeout(self.checks.timeout, check(&server, &self.checks)).await {
                Ok(found) => found,
                Err(_) => Err(Unwell::TimedOut),
            };
            drop(turn);
            let doubtful = self.report(id, &server, &found);
            let interval = self.checks.interval;
            let pause = if doubtful { interval.min(DOUBT_INTERVAL) } else { interval };
            sleep(pause.mul_f64(0.9 + 0.2 * random())).await;
        }
    }

    /// `true`: it says otherwise than what is believed.
    fn report(&self, id: ServerId, server: &Server, found: &Result<(), Unwell>) -> bool {
        self.metrics.health_checks.inc();
        let (upstream, server) = (&*self.upstream, &server.name);
        if let Err(why) = found {
            if why.is_ours() {
                debug!(upstream, server, "a health check could not be made: {why}");
                return false;
            }
            self.metrics.health_failures.inc();
        }
        let now = tokio::time::Instant::now().into_std();
        match (self.group.report_health(id, found.is_ok(), now), found) {
            (Some(Change::Down), Err(why)) => warn!(
                upstream,
                server, "a server of an upstream is down and gets no requests, its health checks say: {why}"
            ),
            (Some(Change::Up), _) => {
                info!(upstream, server, "a server of an upstream is up again, its health checks say");
            }
            (_, Err(why)) => debug!(upstream, server, "a health check failed: {why}"),
            _ => {}
        }
        self.group.is_up(id).is_some_and(|up| up != found.is_ok())
    }
}

/// From 0 to 1; a half where the system gives none.
fn random() -> f64 {
    let mut bytes = [0; 2];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX),
        Err(_) => 0.5,
    }
}
