//! All long links: which workers have one, who takes the next exchange, and what the supervisor is to know.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};

use super::choose::{Choice, Seen, choose};
use super::{Link, LongStream};
use crate::retired::Retired;

/// A link that was chosen may be full or gone a moment later; then the next is tried, so often.
const TRIES_MAX: u32 = 8;

/// What happens to long links, for the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongNews {
    /// The worker retires, and neither slots nor long-lived exchanges are left.
    Over(u32),
    /// An exchange waits in a pool that has no worker.
    Wanted(u16),
}

/// Why there is no link for an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoLink {
    /// The app has no long links (WSGI): it is an ordinary request.
    Never,
    /// Every worker holds as many as it may, or none came in time.
    Full,
}

/// Bounds, from the configuration.
#[derive(Debug, Clone, Copy)]
pub struct LongLimits {
    /// How long exchanges may go on when their worker retires.
    pub grace: Duration,
    /// How long an app may take to end what it was told to end, before the log says so.
    pub app: Duration,
}

/// See the head of this file.
pub struct LongLinks {
    known: Mutex<Known>,
    /// A link has come, or serves now.
    changed: Notify,
    news: mpsc::UnboundedSender<LongNews>,
    pub(super) limits: LongLimits,
}

#[derive(Default)]
struct Known {
    links: BTreeMap<u32, Arc<Link>>,
    retired: Retired,
    /// By pool: the newest generation that may serve, and whether its app is called so that its workers have long links.
    active: BTreeMap<u16, (u32, bool)>,
    /// How many exchanges wait for a first worker, by pool; pools without any are left out.
    waiting: BTreeMap<u16, usize>,
    /// The process ends: links that come are dismissed, for the same reason as the others.
    draining: Option<u16>,
}

impl LongLinks {
    /// None yet; and the receiver of their news (a few a worker's life).
    pub fn new(limits: LongLimits) -> (Arc<Self>, mpsc::UnboundedReceiver<LongNews>) {
        let (news, receiver) = mpsc::unbounded_channel();
        (Arc::new(Self { known: Mutex::default(), changed: Notify::new(), news, limits }), receiver)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker has opened its long link. The caller runs it.
    pub(crate) fn join(&self, link: &Arc<Link>) {
        let worker = link.identity().worker;
        let (before, retired, draining) = {
            let mut known = self.known();
            let before = known.links.insert(worker, Arc::clone(link));
            (before, known.retired.contains(worker), known.draining)
        };
        if let Some(before) = before {
            before.end("the worker has opened another");
        }
        if retired {
            link.retire();
        } else if let Some(code) = draining {
            link.dismiss_all(code);
        }
        self.changed.notify_waiters();
    }

    /// Its task is over.
    pub(super) fn left(&self, link: &Arc<Link>) {
        let worker = link.identity().worker;
        {
            let mut known = self.known();
            if known.links.get(&worker).is_some_and(|there| Arc::ptr_eq(there, link)) {
                known.links.remove(&worker);
            }
        }
        if link.was_last.load(Relaxed) {
            self.tell(LongNews::Over(worker));
        }
    }

    /// The worker's long link.
    pub(crate) fn link_of(&self, worker: u32) -> Option<Arc<Link>> {
        self.known().links.get(&worker).map(Arc::clone)
    }

    /// Does the worker have a long link, and no room on it?
    pub(crate) fn is_full(&self, worker: u32) -> bool {
        self.link_of(worker).is_some_and(|link| link.is_full())
    }

    /// Serve in these pools from this generation on (and what is left of earlier ones that are not retired).
    pub fn activate(&self, pools: &[u16], generation: u32, is_asgi: bool) {
        let mut known = self.known();
        known.active.extend(pools.iter().map(|pool| (*pool, (generation, is_asgi))));
        drop(known);
        self.changed.notify_waiters();
    }

    /// No more exchanges for this worker; those it holds are ended after the grace.
    pub fn retire(&self, worker: u32) {
        let link = {
            let mut known = self.known();
            known.retired.insert(worker);
            known.links.get(&worker).map(Arc::clone)
        };
        if let Some(link) = link {
            link.retire();
        }
    }

    /// All slots of a retiring worker are gone. `true`: so is all else of it; otherwise [`LongNews::Over`] will tell.
    pub fn slots_gone(&self, worker: u32) -> bool {
        self.link_of(worker).is_none_or(|link| !link.slots_gone())
    }

    /// The process is about to end, and the grace of what lasts is over. `code` is what WebSockets are told.
    pub fn dismiss_all(&self, code: u16) {
        let links: Vec<_> = {
            let mut known = self.known();
            known.draining = Some(code);
            known.links.values().map(Arc::clone).collect()
        };
        for link in links {
            link.dismiss_all(code);
        }
    }

    /// How many exchanges each worker holds.
    pub fn loads(&self) -> Vec<(u32, usize)> {
        self.known().links.iter().map(|(worker, link)| (*worker, link.open())).collect()
    }

    /// Lets a link do one more piece of work, when its turn comes. `None`: the link has ended.
    async fn admit(link: &Link, deadline: Instant) -> Result<Option<OwnedSemaphorePermit>, NoLink> {
        let admission = Arc::clone(&link.admission);
        if let Ok(admitted) = timeout_at(deadline, admission.acquire_owned()).await {
            return Ok(admitted.ok());
        }
        Err(NoLink::Full)
    }

    /// Begins the handshake of a WebSocket in a worker of `pool`, waiting up to `patience` where an ASGI app has none for the moment; `write` appends
    /// its Request frame.
    pub(crate) async fn begin(
        &self,
        pool: u16,
        patience: Duration,
        write: impl Fn(&mut Vec<u8>),
    ) -> Result<LongStream, NoLink> {
        let deadline = Instant::now() + patience;
        for _ in 0..TRIES_MAX {
            let link = self.choose(pool, deadline).await?;
            let Some(admitted) = Self::admit(&link, deadline).await? else { continue };
            match timeout_at(deadline, link.begin(admitted, &write)).await {
                Ok(Some(stream)) => return Ok(stream),
                Ok(None) => {}
                // It reads nothing: what was sent to it before fills all there is room for.
                Err(_elapsed) => break,
            }
        }
        Err(NoLink::Full)
    }

    async fn choose(&self, pool: u16, deadline: Instant) -> Result<Arc<Link>, NoLink> {
        let mut waits = None;
        loop {
            // Listening begins before the look, so that what comes in between is heard.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.look(pool) {
                Ok(link) => return Ok(link),
                Err(Choice::None) if !self.is_asgi(pool) => return Err(NoLink::Never),
                Err(Choice::None) => {
                    if pool != 0 && waits.is_none() {
                        waits = Some(self.wait_in(pool));
                    }
                    if timeout_at(deadline, changed).await.is_ok() {
                        continue;
                    }
                }
                Err(Choice::Full | Choice::At(_)) => {}
            }
            return Err(NoLink::Full);
        }
    }

    /// An exchange waits in a pool that has no worker. The supervisor is told when it is the first: how many come is the clients'
    /// business.
    fn wait_in(&self, pool: u16) -> Waits<'_> {
        let first = {
            let mut known = self.known();
            let waiting = known.waiting.entry(pool).or_default();
            *waiting += 1;
            *waiting == 1
        };
        if first {
            self.tell(LongNews::Wanted(pool));
        }
        Waits { links: self, pool }
    }

    fn is_asgi(&self, pool: u16) -> bool {
        self.known().active.get(&pool).is_some_and(|(_, is_asgi)| *is_asgi)
    }

    fn look(&self, pool: u16) -> Result<Arc<Link>, Choice> {
        let known = self.known();
        let active = known.active.get(&pool).map(|(generation, _)| *generation);
        let choice = choose(known.links.values().map(|link| link.seen()), pool, active);
        match choice {
            Choice::At(at) => known.links.values().nth(at).map(Arc::clone).ok_or(Choice::None),
            other => Err(other),
        }
    }

    pub(super) fn tell(&self, news: LongNews) {
        // The receiver ends with the process only.
        let _ = self.news.send(news);
    }
}

/// An exchange that waits for the first worker of its pool.
struct Waits<'a> {
    links: &'a LongLinks,
    pool: u16,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut known = self.links.known();
        if let Some(waiting) = known.waiting.get_mut(&self.pool) {
            *waiting -= 1;
            if *waiting == 0 {
                known.waiting.remove(&self.pool);
            }
        }
    }
}

impl Link {
    fn seen(&self) -> Seen {
        let identity = self.identity();
        Seen {
            pool: identity.pool,
            generation: identity.generation,
            retiring: self.is_retiring(),
            busy: self.admission.available_permits() == 0,
            open: self.open(),
            capacity: identity.capacity,
        }
    }
}
