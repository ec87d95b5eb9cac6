//! An upstream: its servers, and the attempts of one request.
//!
//! ```text
//! choose ─► lease ─► ask ─► answer
//!   ▲         │       │
//!   │         │       └ closed without a byte on a kept connection: once more on a new one, if it may be sent twice
//!   └─────────┴ not reached, or broken before the answer's head: another server, if it may be sent twice
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ctl_telemetry::metrics::UpstreamMetrics;
use http_upstream::{Change, Group, NoServer, Outcome, Pick, Policy, ServerId, Token};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::attempt::{Ask, Heard, Way};
use super::exchange::Lost;
use super::health::Watch;
use super::members::Members;
use super::outgoing::Content;
use super::parse::{Asked, BadAnswer};
use super::server::{Lasting, NoConnection, Server, Wanted};
use super::settings::{HashBy, Settings};
use super::tls::TlsFiles;
use super::via::goes_in_a_circle;
use crate::dispatch::Origin;
use crate::message::{AnsweredBy, BodyError, Headers, Method, RequestBody, RequestHead, Response, Trail};
use crate::request_body::Payload;
use crate::websocket::handshake::accept;
use crate::websocket::tunnel::Tunnel;

/// Servers that one request is sent to, when those before could not be reached or broke off. More would only make its client wait.
const SERVERS_TRIED_MAX: usize = 3;

/// See the head of this file.
pub struct Upstream {
    pub(super) settings: Settings,
    /// Where its servers are.
    pub(super) members: Members,
    /// Who gets a request.
    group: Arc<Group<Arc<Server>>>,
    /// A number for each request, from a random one on: the group makes its choices of it.
    random: AtomicU64,
    pub(super) metrics: Arc<UpstreamMetrics>,
}

/// A request on its way.
pub struct Forward<'a> {
    /// The head.
    pub head: &'a RequestHead,
    /// Who asks.
    pub origin: Origin<'a>,
    /// Longest streamed body; the others were bounded when they were read.
    pub body_bytes_max: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// 503: every connection that may be is in use, or all servers are being drained.
    #[error("all connections are in use")]
    Busy,
    /// 502: no server can be reached.
    #[error("no server answered")]
    NotReached,
    /// 502: an answer broke off before its head was over.
    #[error("no server answered")]
    Lost,
    /// 502
    #[error("the answer is not understood")]
    Bad,
    /// 504
    #[error("no answer in time")]
    TimedOut,
    /// The request's body failed.
    #[error("request body: {0}")]
    Body(BodyError),
    /// 508: it has come through here too often.
    #[error("the request goes in a circle")]
    Circle,
    /// Nobody is left to answer.
    #[error("the client went away")]
    ClientGone,
    /// 400: it cannot be said in HTTP/1.1.
    #[error("the request cannot be passed on: {0}")]
    Refused(&'static str),
    /// 500: its spooled body cannot be read, or the system gives no random number.
    #[error("something of ours failed")]
    Ours,
}

impl Failure {
    /// A server may have begun to work on it.
    pub fn has_begun(&self) -> bool {
        !matches!(self, Self::Busy | Self::NotReached | Self::Circle | Self::Refused(_))
    }
}

/// What a server says to a WebSocket's handshake.
pub enum Handshake {
    /// It takes part: its fields, and the conversation.
    Accepted(Headers, Tunnel),
    /// It answers as to a request.
    Answered(Box<Response>),
}

impl Upstream {
    /// With no connection yet. The error is for the operator.
    pub fn new(settings: Settings, tls: TlsFiles<'_>) -> Result<Self, String> {
        let metrics: Arc<UpstreamMetrics> = Arc::default();
        let members = Members::new(&settings, tls, &metrics)?;
        let mut random = [0; 8];
        SystemRandom::new().fill(&mut random).map_err(|_| "the system gives no random numbers")?;
        let secret = settings.sticky.as_ref().map(|sticky| sticky.secret.clone());
        let group = Group::new(&settings.name, settings.balance, secret, members.servers(), now());
        let random = AtomicU64::new(u64::from_le_bytes(random));
        Ok(Self { settings, members, group, random, metrics })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What is counted of it.
    pub fn metrics(&self) -> &UpstreamMetrics {
        &self.metrics
    }

    pub(super) fn group(&self) -> &Group<Arc<Server>> {
        &self.group
    }

    /// Do clients belong to servers?
    pub(super) fn is_sticky(&self) -> bool {
        self.settings.sticky.is_some()
    }

    /// The health checks of its servers, if they are to be made.
    pub(super) fn watch(&self, gate: &Arc<Semaphore>) -> Option<Watch> {
        let checks = self.settings.checks.clone()?;
        Some(Watch {
            upstream: self.name().into(),
            group: Arc::clone(&self.group),
            checks: Arc::new(checks),
            metrics: Arc::clone(&self.metrics),
            gate: Arc::clone(gate),
        })
    }

    /// Are bodies to be read whole before they are passed on?
    pub fn buffers(&self) -> bool {
        self.settings.buffer
    }

    /// Closes connections that nobody needs any more. To be called every second or so.
    pub fn sweep(&self) {
        for (_, server) in self.group.servers() {
            server.sweep();
        }
    }

    /// Finds out where its servers are, for ever.
    pub(super) async fn keep_fresh(&self) {
        self.members.keep_fresh(&self.group, self.name()).await;
    }

    /// An answer. `trail` comes back inside it.
    pub async fn forward<B: RequestBody>(
        &self,
        request: &Forward<'_>,
        payload: Payload,
        body: &mut B,
        trail: &mut Trail,
    ) -> Result<Response, Failure> {
        let content = Content::from(payload);
        self.metrics.requests.inc();
        let asked = Asked { head_only: request.head.method == Method::Head, upgrade: false };
        let ask = Ask { request, content: &content, asked, key: None };
        let heard = self.attempts(ask, body, trail).await?;
        let token = heard.way.new_token();
        let mut response = self.answer(heard, trail).await.inspect_err(|_| self.metrics.failures.inc())?;
        self.bind(token, request, response.status, &mut response.headers);
        Ok(response)
    }

    /// Tells the client which server is its own, when that is news.
    fn bind(&self, token: Option<Token>, request: &Forward<'_>, status: u16, headers: &mut Headers) {
        if let (Some(sticky), Some(token)) = (&self.settings.sticky, token) {
            sticky.tell(token, request.origin.scheme, status, headers);
        }
    }

    /// Opens a WebSocket. The client's handshake is a good one; ours has a key of its own, and the server must show that it has
    /// understood it (RFC 6455, 4.1).
    pub async fn websocket<B: RequestBody>(
        &self,
        request: &Forward<'_>,
        body: &mut B,
        trail: &mut Trail,
    ) -> Result<Handshake, Failure> {
        self.metrics.requests.inc();
        let mut random = [0; 16];
        SystemRandom::new().fill(&mut random).map_err(|_| Failure::Ours)?;
        let key = STANDARD.encode(random);
        let asked = Asked { head_only: false, upgrade: true };
        let ask = Ask { request, content: &Content::Nothing, asked, key: Some(&key) };
        let heard = self.attempts(ask, body, trail).await?;
        let token = heard.way.new_token();
        let (mut lease, mut answer) = match heard {
            Heard { answer, way: Way::One(lease, _) } if answer.status == 101 => (lease, answer),
            heard => {
                let mut response =
                    self.answer(heard, trail).await.inspect_err(|_| self.metrics.failures.inc())?;
                self.bind(token, request, response.status, &mut response.headers);
                return Ok(Handshake::Answered(Box::new(response)));
            }
        };
        let mut shown = answer.headers.all("sec-websocket-accept");
        if shown.next() != Some(accept(key.as_bytes()).as_bytes()) || shown.next().is_some() {
            self.metrics.failures.inc();
            let why = BadAnswer("Sec-WebSocket-Accept is not the answer to our key");
            self.tell(lease.server(), &why, false, trail);
            return Err(Failure::Bad);
        }
        drop(shown);
        self.bind(token, request, 101, &mut answer.headers);
        trail.by = AnsweredBy::Upstream;
        trail.lasts = true;
        lease.lasts = Some(Lasting::new(&self.metrics));
        let tunnel = Tunnel::new(Box::new(lease), self.settings.tunnel_timeout);
        Ok(Handshake::Accepted(answer.headers, tunnel))
    }

    /// Tries servers until one answers, or it must not be tried again.
    async fn attempts<B: RequestBody>(
        &self,
        ask: Ask<'_>,
        body: &mut B,
        trail: &Trail,
    ) -> Result<Heard, Failure> {
        let Ask { request, content, key, .. } = ask;
        self.turn_back_circles(request, trail)?;
        if self.members.count() == 0 {
            tokio::select! {
                () = self.members.first(&self.group, self.name()) => {}
                () = body.closed(), if !content.is_streamed() => return Err(Failure::ClientGone),
            }
        }
        let mut tried = Vec::new();
        let mut retry_same = None;
        let mut last = None;
        loop {
            let asked_at = now();
            let (mut pick, renewed) = match (retry_same.take(), last.take()) {
                (Some(pick), _) => (pick, true),
                (None, last) => match self.pick(request, &tried, asked_at) {
                    Ok(pick) => (pick, false),
                    Err(why) => return Err(self.nobody(why, last, trail)),
                },
            };
            let wanted = match (renewed, request.head.method.is_idempotent() && !content.is_streamed()) {
                (true, _) => Wanted::New,
                (false, true) => Wanted::Any,
                (false, false) => Wanted::Sure,
            };
            let leased = tokio::select! {
                biased;
                leased = self.line(pick.server(), wanted, key.is_some(), asked_at.into()) => leased,
                () = body.closed(), if !content.is_streamed() => return Err(Failure::ClientGone),
            };
            let another = tried.len() + 1 < self.members.count().min(SERVERS_TRIED_MAX);
            let line = match leased {
                Ok(line) => line,
                Err(error) => {
                    let failure = self.not_reached(&mut pick, &error, asked_at, another, trail);
                    if !another {
                        return Err(failure);
                    }
                    tried.push(pick.id());
                    last = Some(failure);
                    continue;
                }
            };
            let asked_at = now();
            let missed = match self.attempt(line, ask, body).await {
                Ok(mut heard) => {
                    self.record(&mut pick, Outcome::of_status(heard.answer.status), asked_at);
                    heard.way.hold(pick);
                    return Ok(heard);
                }
                Err(missed) => missed?,
            };
            if missed.stale && missed.again && !renewed {
                self.metrics.retries.inc();
                retry_same = Some(pick);
                continue;
            }
            let again = missed.again && another && self.group.may_retry(now());
            let failure = self.missed(&mut pick, &missed.lost, asked_at, again, trail);
            if !again {
                return Err(failure);
            }
            tried.push(pick.id());
            last = Some(failure);
        }
    }

    /// A request that has come through here too often already.
    fn turn_back_circles(&self, request: &Forward<'_>, trail: &Trail) -> Result<(), Failure> {
        if !goes_in_a_circle(&request.head.headers) {
            return Ok(());
        }
        self.metrics.failures.inc();
        let (request_id, upstream) = (&*trail.request_id, &self.settings.name);
        warn!(
            request_id,
            upstream, "the request goes in a circle: some server behind this one sends it back"
        );
        Err(Failure::Circle)
    }

    /// A place with a server.
    fn pick(
        &self,
        request: &Forward<'_>,
        tried: &[ServerId],
        now: Instant,
    ) -> Result<Pick<Arc<Server>>, NoServer> {
        let key = match &self.settings.hash_by {
            _ if self.settings.balance.policy != Policy::Hash => None,
            HashBy::Address => Some(request.origin.remote_addr.as_bytes()),
            HashBy::Path => Some(request.head.path()),
            HashBy::Header(name) => request.head.headers.get(name),
        };
        let ask = http_upstream::Ask {
            now,
            random: self.random.fetch_add(1, Relaxed),
            key: key.map(http_upstream::key),
            sticky: self.settings.sticky.as_ref().and_then(|it| it.token(&request.head.headers)),
            tried,
        };
        self.group.pick(&ask)
    }

    /// No server can be asked; `last`: what came of the one before, which is what the client is to know.
    fn nobody(&self, why: NoServer, last: Option<Failure>, trail: &Trail) -> Failure {
        let (request_id, upstream) = (&*trail.request_id, &self.settings.name);
        warn!(request_id, upstream, "{why}: the client was told so");
        if let Some(last) = last {
            return last;
        }
        self.metrics.failures.inc();
        match why {
            NoServer::Full | NoServer::Drained => Failure::Busy,
            NoServer::None | NoServer::Tried => Failure::NotReached,
        }
    }

    /// What became of a request that was sent at that time.
    fn record(&self, pick: &mut Pick<Arc<Server>>, outcome: Outcome, asked_at: Instant) {
        let now = now();
        let change = pick.record(outcome, now.saturating_duration_since(asked_at), now);
        let (upstream, server) = (&self.settings.name, &pick.server().name);
        match change {
            Some(Change::Ejected(time)) => {
                let rests_s = time.as_secs_f64();
                warn!(upstream, server, rests_s, "a server of an upstream has failed too often and rests");
            }
            Some(Change::Returned) => info!(upstream, server, "a server of an upstream answers again"),
            Some(Change::Up | Change::Down) | None => {}
        }
    }

    fn not_reached(
        &self,
        pick: &mut Pick<Arc<Server>>,
        error: &NoConnection,
        asked_at: Instant,
        another: bool,
        trail: &Trail,
    ) -> Failure {
        self.metrics.failures.inc();
        let failure = match error {
            // That it is busy says nothing against it.
            NoConnection::Full => Failure::Busy,
            NoConnection::Failed(_) | NoConnection::TimedOut => {
                self.record(pick, Outcome::NotReached, asked_at);
                pick.server().may_have_moved();
                Failure::NotReached
            }
        };
        self.tell(pick.server(), error, another, trail);
        failure
    }

    fn missed(
        &self,
        pick: &mut Pick<Arc<Server>>,
        lost: &Lost,
        asked_at: Instant,
        again: bool,
        trail: &Trail,
    ) -> Failure {
        self.metrics.failures.inc();
        if !matches!(lost, Lost::Client(_) | Lost::ClientGone | Lost::Disk(_)) {
            self.record(pick, Outcome::Failed, asked_at);
        }
        self.tell(pick.server(), lost, again, trail);
        match lost {
            Lost::Closed | Lost::Cut => Failure::Lost,
            Lost::Bad(_) => Failure::Bad,
            Lost::TimedOut | Lost::Stalled => Failure::TimedOut,
            Lost::Client(error) => Failure::Body(*error),
            Lost::ClientGone => Failure::ClientGone,
            Lost::Disk(_) => Failure::Ours,
        }
    }

    fn tell(&self, server: &Server, why: &dyn std::fmt::Display, again: bool, trail: &Trail) {
        if again {
            self.metrics.retries.inc();
        }
        let what = if again { "trying another server" } else { "the client was told so" };
        let (request_id, upstream, server) = (&*trail.request_id, &self.settings.name, &server.name);
        warn!(request_id, upstream, server, "{why}: {what}");
    }
}

/// The clock of the balance.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
