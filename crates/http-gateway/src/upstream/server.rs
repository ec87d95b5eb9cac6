//! One server of an upstream: where it is, its connections, how it fares.
//!
//! A connection is leased for one exchange and given back when both sides have said all they had to. At most
//! `connections_max` are leased, and none is made while one lies idle, so there are never more than that. An idle connection
//! that the server has closed, or that says something unasked, is never used again.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::BytesMut;
use ctl_telemetry::metrics::UpstreamMetrics;
use http_upstream::Pick;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::resolve::{Name, Spot};
use super::session::Sessions;
use super::socket::Socket;
use super::tls::ClientTls;
use crate::h1::Stream;
use crate::reactor;
use crate::websocket::driver::{Gone, Wire};

/// A request that must not be sent twice takes no connection that was idle for longer: servers close theirs after two
/// seconds and more, and one that closes while the request is on its way leaves its fate unknown.
const SURELY_OPEN: Duration = Duration::from_secs(1);

/// Where a server is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Tcp(Spot),
    Unix(PathBuf),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoConnection {
    #[error("could not connect: {0}")]
    Failed(#[from] io::Error),
    #[error("could not connect within `connect_timeout`")]
    TimedOut,
    /// `connections_max` are in use.
    #[error("all of its `connections_max` connections are in use")]
    Full,
}

/// Bounds of a server's connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) connections_max: usize,
    pub(super) connect_timeout: Duration,
    pub(super) keep_alive: Duration,
}

/// See the head of this file.
pub(super) struct Server {
    /// As configured.
    pub(super) name: String,
    /// What the server itself is called: Host, when it is to be told that.
    pub(super) authority: String,
    at: Place,
    /// The name that it was found by.
    found_by: Option<Arc<Name>>,
    tls: Option<Arc<ClientTls>>,
    bounds: Bounds,
    places: Arc<Semaphore>,
    /// Requests that wait for one: as many may as are served.
    waiting: AtomicUsize,
    /// The last one given back is at the end, and the next to be leased. By reactor: a connection wakes the thread that made it.
    idle: Box<[Mutex<Vec<Idle>>]>,
    /// Which of its addresses answered last.
    answered: AtomicUsize,
    /// It is no longer one of the upstream's servers: nothing is kept for it.
    retired: AtomicBool,
    /// Those of HTTP/2.
    sessions: Sessions,
    metrics: Arc<UpstreamMetrics>,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// A connection, wherever it is.
pub(super) struct Connection {
    pub(super) stream: Stream<Socket>,
    _open: Open,
}

/// Counts a connection while it lives.
#[derive(Debug)]
pub(super) struct Open(Arc<UpstreamMetrics>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections_open.add(-1);
    }
}

/// Counts a WebSocket or an event stream while it lives.
#[derive(Debug)]
pub(super) struct Lasting(Arc<UpstreamMetrics>);

impl Lasting {
    pub(super) fn new(metrics: &Arc<UpstreamMetrics>) -> Self {
        metrics.long_lived.add(1);
        Self(Arc::clone(metrics))
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.0.long_lived.add(-1);
    }
}

/// A connection in use. Dropping it closes the connection.
pub(super) struct Lease {
    connection: Box<Connection>,
    server: Arc<Server>,
    /// It has served a request before.
    pub(super) reused: bool,
    /// The request's place with the server, as long as it is worked on.
    pub(super) pick: Option<Pick<Arc<Server>>>,
    /// It carries a WebSocket or an event stream.
    pub(super) lasts: Option<Lasting>,
    _place: OwnedSemaphorePermit,
}

/// Which connections will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Any.
    Any,
    /// One that is hardly about to be closed: the request must not be sent twice.
    Sure,
    /// A new one.
    New,
}

impl Server {
    pub(super) fn new(
        (name, authority): (String, String),
        (place, found_by): (Place, Option<Arc<Name>>),
        tls: Option<Arc<ClientTls>>,
        bounds: Bounds,
        metrics: &Arc<UpstreamMetrics>,
    ) -> Self {
        let shards = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            name,
            authority,
            at: place,
            found_by,
            tls,
            bounds,
            places: Arc::new(Semaphore::new(bounds.connections_max)),
            waiting: AtomicUsize::new(0),
            idle: (0..shards).map(|_| Mutex::default()).collect(),
            answered: AtomicUsize::new(0),
            retired: AtomicBool::new(false),
            sessions: Sessions::new(shards),
            metrics: Arc::clone(metrics),
        }
    }

    /// A connection: one that lies idle, or a new one. Cancel safe.
    pub(super) async fn lease(self: &Arc<Self>, wanted: Wanted, now: Instant) -> Result<Lease, NoConnection> {
        let deadline = now + self.bounds.connect_timeout;
        let place = self.place(deadline).await?;
        let kept = match wanted {
            Wanted::Any => self.take(self.bounds.keep_alive, now),
            Wanted::Sure => self.take(self.bounds.keep_alive.min(SURELY_OPEN), now),
            Wanted::New => None,
        };
        let reused = kept.is_some();
        let connection = match kept {
            Some(connection) => connection,
            None => Box::new(self.dial(deadline).await?),
        };
        Ok(Lease { connection, server: Arc::clone(self), reused, pick: None, lasts: None, _place: place })
    }

    /// One of `connections_max` places.
    pub(super) async fn place(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, NoConnection> {
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => Ok(place),
            Err(_) => self.wait_for_place(deadline).await,
        }
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.bounds.connect_timeout
    }

    /// How the server is spoken to.
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    async fn wait_for_place(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, NoConnection> {
        let waiting = Waiting(&self.waiting);
        if waiting.0.fetch_add(1, Relaxed) >= self.bounds.connections_max {
            return Err(NoConnection::Full);
        }
        match timeout_at(deadline, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(NoConnection::Full),
        }
    }

    /// A connection from the idle ones, of this reactor first.
    fn take(&self, idle_max: Duration, now: Instant) -> Option<Box<Connection>> {
        let own = reactor::current();
        for shard in 0..self.idle.len() {
            let shard = self.idle.get((own + shard) % self.idle.len())?;
            loop {
                let Some(idle) = shard.lock().unwrap_or_else(PoisonError::into_inner).pop() else { break };
                let Idle { mut connection, since } = idle;
                if now.saturating_duration_since(since) >= idle_max {
                    // Those below are older still.
                    if idle_max >= self.bounds.keep_alive {
                        continue;
                    }
                    shard.lock().unwrap_or_else(PoisonError::into_inner).push(Idle { connection, since });
                    break;
                }
                if is_silent(&mut connection.stream) {
                    return Some(connection);
                }
            }
        }
        None
    }

    fn keep(&self, connection: Box<Connection>) {
        if self.retired.load(Relaxed) {
            return;
        }
        let own = reactor::current();
        if let Some(shard) = self.idle.get(own % self.idle.len().max(1)) {
            let idle = Idle { connection, since: Instant::now() };
            shard.lock().unwrap_or_else(PoisonError::into_inner).push(idle);
        }
    }

    /// Closes idle connections whose time is over, and those that the server has closed.
    pub(super) fn sweep(&self) {
        self.sessions.sweep(self.bounds.keep_alive);
        for shard in &self.idle {
            // They are closed when the lock is free again.
            let mut over = Vec::new();
            let mut idle = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let mut at = 0;
            while let Some(Idle { connection, since }) = idle.get_mut(at) {
                let good = since.elapsed() < self.bounds.keep_alive && is_silent(&mut connection.stream);
                if good {
                    at += 1;
                } else {
                    over.push(idle.remove(at));
                }
            }
            drop(idle);
        }
    }

    /// It is one of the upstream's servers, or no longer: then what it works on comes to its end, and nothing is kept.
    pub(super) fn set_retired(&self, retired: bool) {
        self.retired.store(retired, Relaxed);
        if retired {
            self.sessions.sweep(Duration::ZERO);
            for shard in &self.idle {
                let over = std::mem::take(&mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
                drop(over);
            }
        }
    }

    /// It could not be reached: it may have moved.
    pub(super) fn may_have_moved(&self) {
        if let Some(name) = &self.found_by {
            name.hurry();
        }
    }

    async fn dial(&self, deadline: Instant) -> Result<Connection, NoConnection> {
        let (socket, open) = self.connect(deadline, false).await?;
        Ok(Connection { stream: Stream::new(socket, Vec::new()), _open: open })
    }

    /// A socket whose other end has agreed to HTTP/2. In the clear that is said in the configuration (RFC 9113, 3.3).
    pub(super) async fn dial_for_h2(&self, deadline: Instant) -> Result<(Socket, Open), NoConnection> {
        self.connect(deadline, true).await
    }

    async fn connect(&self, deadline: Instant, http2: bool) -> Result<(Socket, Open), NoConnection> {
        let socket = match timeout_at(deadline, self.reach(http2)).await {
            Ok(reached) => reached.map_err(NoConnection::Failed)?,
            Err(_) => return Err(NoConnection::TimedOut),
        };
        self.metrics.connections_open.add(1);
        self.metrics.connections.inc();
        Ok((socket, Open(Arc::clone(&self.metrics))))
    }

    /// A socket to the server, TLS and all, which counts as none of its connections. The caller bounds the time.
    pub(super) async fn reach(&self, http2: bool) -> io::Result<Socket> {
        let socket = match &self.at {
            Place::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
            Place::Tcp(spot) => Socket::Tcp(self.dial_one_of(spot).await?),
        };
        let socket = match (socket, &self.tls) {
            (Socket::Tcp(stream), Some(tls)) => Socket::Tls(Box::new(tls.connect(stream, http2).await?)),
            (socket, _) => socket,
        };
        match &socket {
            Socket::Tls(stream) if http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") => {
                Err(io::Error::other("the server does not speak HTTP/2"))
            }
            _ => Ok(socket),
        }
    }

    /// The first of its addresses that answers, beginning with the one that did so last.
    async fn dial_one_of(&self, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        let first = self.answered.load(Relaxed);
        // So that one address that swallows everything leaves time for the next.
        let patience = self.bounds.connect_timeout / addresses.len().max(1) as u32;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for attempt in 0..addresses.len() {
            let at = first.wrapping_add(attempt) % addresses.len();
            let Some(&address) = addresses.get(at) else { break };
            match timeout(patience, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    self.answered.store(at, Relaxed);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }
}

/// Counts a request that waits, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Has the server neither closed nor said anything unasked?
fn is_silent(stream: &mut Stream<Socket>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    stream.buffered().is_empty() && stream.poll_fill(&mut context).is_pending()
}

impl Lease {
    pub(super) fn stream(&mut self) -> &mut Stream<Socket> {
        &mut self.connection.stream
    }

    pub(super) fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Both sides have said all they had to: the connection may serve another request.
    pub(super) fn give_back(self) {
        let Self { mut connection, server, _place, .. } = self;
        // What comes behind a response that is over was never asked for.
        if connection.stream.buffered().is_empty() {
            connection.stream.release();
            server.keep(connection);
        }
    }
}

/// What comes behind a 101.
impl Wire for Lease {
    fn buffered(&self) -> &[u8] {
        self.connection.stream.buffered()
    }

    fn consume(&mut self, bytes: usize) {
        self.connection.stream.consume(bytes);
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        self.connection.stream.poll_fill(context).map_err(|_| Gone)
    }

    fn poll_send(&mut self, context: &mut Context<'_>, out: &mut BytesMut) -> Poll<Result<(), Gone>> {
        self.connection.stream.poll_send(context, out).map_err(|_| Gone)
    }

    fn release(&mut self) {
        self.connection.stream.release();
    }
}
