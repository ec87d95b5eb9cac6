//! The way of one request: identity, health, route, file, body, queue, worker, answer. Read [`Gateway::call`] first.

mod app;
mod errand;
mod flown;
mod forward_auth;
mod passed;
mod passwords;
mod routed;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use ctl_admin::words::{AppReport, Interface};
use ctl_config::{ClientVerify, Config};
use ctl_telemetry::metrics as m;
use tracing::error;

use crate::access_log::AccessLog;
use crate::broken::{self, Broken, Why};
use crate::client::{self, Identity, TrustedProxies};
use crate::compress::Compression;
use crate::dispatch::{Dispatcher, Failure, Handshake, Origin, Ready, Terms};
use crate::error_page;
use crate::files::{AppFiles, FileResponse, Files};
use crate::flight::{Flights, Problems, Store};
use crate::guard::{Entry, Guard, Pass, Turned};
use crate::link::long::LongLinks;
use crate::message::{
    AnsweredBy, BodyError, BodyLength, Connection, Exchange, RequestBody, RequestHead, Response, Service,
    Trail,
};
use crate::pools::Pools;
use crate::queue::NoSlot;
use crate::request_body::{GatherError, GatherLimits, Payload, gather};
use crate::request_id::RequestIds;
use crate::route::{Routes, users_files};
use crate::spool::{HoldLimits, PumpLimits, SpoolLimits};
use crate::upstream::Upstreams;
use crate::websocket::Answer;
use passwords::{Passwords, Turns};

/// Everything a request meets between its protocol and its worker.
pub struct Gateway {
    dispatcher: Dispatcher,
    trusted: Arc<TrustedProxies>,
    ids: RequestIds,
    config: Arc<Config>,
    spool_dir: PathBuf,
    /// Turned off first when the process is to end, so that load balancers look elsewhere.
    ready: AtomicBool,
    routes: Option<Routes>,
    /// Of the routes that ask for them, in their order.
    passwords: Box<[Passwords]>,
    turns: Turns,
    upstreams: Arc<Upstreams>,
    files: AppFiles,
    access: Option<AccessLog>,
    /// By number of the module.
    broken: Box<[Broken]>,
    /// Which of them serve, or are known to be broken, by number of the module.
    known: Box<[AtomicBool]>,
    guard: Arc<Guard>,
    compression: Option<Compression>,
    flights: Arc<Flights>,
    keys: Arc<Store>,
    problems: Problems,
    /// For what outlives its client.
    own: Weak<Self>,
}

/// A request on its way: what is asked, by whom, and how the app is to be asked.
#[derive(Clone, Copy)]
struct Asks<'a> {
    connection: &'a Connection,
    identity: &'a Identity<'a>,
    head: &'a RequestHead,
    terms: Terms<'a>,
    /// The request that this is a question about.
    about: Option<&'a RequestHead>,
}

impl Gateway {
    /// A gateway that serves nothing until [`Gateway::activate`]. The error is for the operator.
    pub fn new(
        config: Arc<Config>,
        trusted: Arc<TrustedProxies>,
        pools: Arc<Pools>,
        links: Arc<LongLinks>,
        access: Option<AccessLog>,
        guard: Arc<Guard>,
        upstreams: Arc<Upstreams>,
    ) -> Result<Arc<Self>, String> {
        let routes = Routes::new(&config)?;
        let passwords = users_files(&config).map(|(file, label)| Passwords::new(file, &label));
        let passwords = passwords.collect::<Result<_, _>>()?;
        let spool_dir = config.buffers.dir.clone().unwrap_or_else(std::env::temp_dir);
        let dispatcher = Dispatcher {
            pools,
            links,
            mount: config.app.mount.clone(),
            asks_clients: config.tls.client_verify != ClientVerify::Off,
            body_bytes_max: config.limits.body_max,
            spool: SpoolLimits {
                memory_bytes: config.buffers.response_memory,
                disk_bytes: config.buffers.response_disk,
                dir: spool_dir.clone(),
            },
            pump: PumpLimits {
                app: config.timeouts.app,
                hold: HoldLimits {
                    held: config.buffers.streaming_timeout,
                    held_max: config.buffers.streaming_max,
                },
            },
        };
        let compression = Compression::new(&config);
        let (flights, keys) =
            (Flights::new(guard.seed()), Store::new(&config, guard.seed(), guard.state_dir()));
        let problems = Problems::new(config.idempotency.help.as_deref());
        Ok(Arc::new_cyclic(|own| Self {
            dispatcher,
            trusted,
            ids: RequestIds::default(),
            files: AppFiles::new(&config),
            broken: config.module_names().map(|_| Broken::default()).collect(),
            known: config.module_names().map(|_| AtomicBool::new(false)).collect(),
            config,
            spool_dir,
            ready: AtomicBool::new(false),
            routes,
            passwords,
            turns: Turns::new(),
            upstreams,
            access,
            guard,
            compression,
            flights,
            keys,
            problems,
            own: Weak::clone(own),
        }))
    }

    /// The upstreams of the configuration.
    pub fn upstreams(&self) -> &Arc<Upstreams> {
        &self.upstreams
    }

    /// Idempotency-Keys.
    pub(crate) fn keys(&self) -> &Arc<Store> {
        &self.keys
    }

    /// `quintet dev`: the code of a module does not start, or may start again.
    pub fn set_broken(&self, module: u16, why: Option<Why>) {
        if why.is_some() {
            self.knows(module);
        }
        if let Some(broken) = self.broken.get(usize::from(module)) {
            broken.set(why);
        }
    }

    fn knows(&self, module: u16) {
        if let Some(known) = self.known.get(usize::from(module)) {
            known.store(true, Relaxed);
        }
    }

    /// Has each module been activated, or is known to be broken?
    pub fn knows_all_apps(&self) -> bool {
        self.known.iter().all(|known| known.load(Relaxed))
    }

    /// A generation of a module serves from now on: its files, and requests to its workers.
    pub fn activate(&self, module: u16, generation: u32, app: &AppReport) {
        if let Err(error) = self.files.activate(&self.config, module, app) {
            // The configuration was checked before we were started, so this is an app that reports nonsense.
            error!("files are not served: {error}");
        }
        self.guard.set_session_cookie(module, app.session_cookie.as_deref());
        let Dispatcher { pools, links, .. } = &self.dispatcher;
        pools.activate(module, generation, app);
        links.activate(&pools.of_module(module), generation, app.interface == Interface::Asgi);
        self.knows(module);
        self.ready.store(true, Relaxed);
    }

    /// `/readyz` says no from now on; requests are still served.
    pub fn not_ready(&self) {
        self.ready.store(false, Relaxed);
    }

    /// Would a request be served now?
    pub fn is_ready(&self) -> bool {
        self.ready.load(Relaxed) && self.dispatcher.pools.is_served()
    }

    /// Who asks, and the beginning of the request's trail.
    fn arrive<'a>(&self, connection: &Connection, head: &'a RequestHead) -> (Identity<'a>, Trail) {
        let started = Instant::now();
        let identity = client::identify(connection, &head.headers, &self.trusted);
        let given = identity.headers_heard.then(|| head.headers.get("x-request-id")).flatten();
        let request_id = self.ids.keep_or_make(given);
        let trail = error_page::own_trail(started, request_id, identity.addr);
        (identity, trail)
    }

    /// Those of the site.
    fn files(&self) -> Option<Files> {
        self.files.of(0)
    }

    /// Why the app that a request is for does not start, once that is known.
    async fn broken(&self, asks: Asks<'_>) -> Arc<Why> {
        let module = self.dispatcher.module(asks.head, &asks.terms);
        match self.broken.get(usize::from(module)) {
            Some(broken) => broken.known().await,
            None => std::future::pending().await,
        }
    }

    fn health(&self, path: &[u8], trail: &Trail) -> Option<Response> {
        let server = &self.config.server;
        let is = |at: &str| !at.is_empty() && path == at.as_bytes();
        if is(&server.healthz) {
            return Some(error_page::plain(200, "ok\n", trail.clone()));
        }
        if is(&server.readyz) {
            let (status, text) = if self.is_ready() { (200, "ready\n") } else { (503, "not ready\n") };
            return Some(error_page::plain(status, text, trail.clone()));
        }
        None
    }

    /// Bans and limits; the answer is for whom may not go on. Waits where a limit smooths.
    async fn enter(&self, head: &RequestHead, trail: &Trail) -> Result<Pass, Response> {
        self.in_turn(self.guard.enter(trail.client, head, trail), head, trail).await
    }

    async fn in_turn(&self, entry: Entry, head: &RequestHead, trail: &Trail) -> Result<Pass, Response> {
        let entry = match entry {
            // Boxed: without Redis no request does this, and all would carry it.
            Entry::Asks(question) => Box::pin(self.guard.settle(*question, head, trail)).await,
            entry => entry,
        };
        match entry {
            // Nothing is asked twice.
            Entry::Asks(_) => Ok(Pass::default()),
            Entry::Passes(pass) => Ok(pass),
            Entry::Refused(response) => Err(*response),
            Entry::Waits(turn_in, pass) => {
                // Boxed: few requests wait, and all would carry the timer.
                if Box::pin(self.guard.wait(turn_in)).await {
                    Ok(pass)
                } else {
                    Err(self.guard.too_many_wait(head, trail, turn_in))
                }
            }
        }
    }

    /// A route's answer, or that of files and app.
    async fn serve<B: RequestBody>(&self, asks: Asks<'_>, body: &mut B, trail: &mut Trail) -> Response {
        match &self.routes {
            None => self.site(asks, body, trail).await,
            Some(routes) => self.routed(routes, asks, body, trail).await,
        }
    }

    /// What every response gets on its way out.
    async fn leave(&self, head: &RequestHead, pass: Pass, response: &mut Response) {
        pass.tell(&mut response.headers);
        if let Some(compression) = &self.compression {
            compression.apply(head, response).await;
        }
    }

    /// A file, or the app's answer.
    async fn site<B: RequestBody>(&self, asks: Asks<'_>, body: &mut B, trail: &mut Trail) -> Response {
        if let Some(files) = self.files.of(self.dispatcher.module(asks.head, &asks.terms))
            && let Some(file) = files.answer(asks.head).await
        {
            return from_file(file, trail.clone());
        }
        self.ask_app(asks, body, trail).await
    }
}

/// The request of a handshake has no body, for an app that sees a GET in it.
struct NoBody;

impl RequestBody for NoBody {
    fn length(&self) -> BodyLength {
        BodyLength::None
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        Ok(None)
    }

    async fn closed(&mut self) {
        // The driver drops the service when its client goes.
        std::future::pending::<()>().await;
    }
}

/// Who asks, in the words of the dispatcher.
fn origin<'a>(asks: Asks<'a>, request_id: &'a str, client: &'a str) -> Origin<'a> {
    let Asks { connection, identity, about, .. } = asks;
    Origin {
        request_id,
        remote_addr: client,
        remote_port: identity.port,
        scheme: identity.scheme,
        host: &identity.host,
        server_name: &identity.server_name,
        server_port: identity.server_port,
        local: connection.local.as_ref(),
        tls: connection.tls_facts,
        certificate: connection.certificate.as_deref(),
        headers_heard: identity.headers_heard,
        about,
    }
}

/// A file as a response.
fn from_file(file: FileResponse, mut trail: Trail) -> Response {
    trail.by = AnsweredBy::File;
    let FileResponse { status, headers, body } = file;
    Response { status, reason: Box::default(), headers, body, close: false, trail }
}

/// The status that tells a client what was wrong with its body.
fn body_status(error: BodyError) -> u16 {
    match error {
        BodyError::Gone => 499,
        BodyError::Malformed => 400,
        BodyError::Timeout => 408,
        BodyError::TooLarge => 413,
    }
}

/// An error as the client can read it best.
fn error_for(head: &RequestHead, status: u16, trail: &Trail) -> Response {
    error_saying(head, status, "", trail)
}

/// The same with words of its own.
fn error_saying(head: &RequestHead, status: u16, why: &str, trail: &Trail) -> Response {
    let mut trail = trail.clone();
    trail.by = AnsweredBy::Gateway;
    error_page::error(status, error_page::wants_html(head), why, trail)
}

impl Service for Gateway {
    fn turns_away(&self, peer: SocketAddr) -> Option<Turned> {
        self.guard.turns_away(peer.ip().to_canonical())
    }

    async fn call<B: RequestBody>(
        &self,
        connection: &Connection,
        head: &RequestHead,
        body: &mut B,
    ) -> Response {
        let (identity, mut trail) = self.arrive(connection, head);
        if let Some(response) = self.health(head.path(), &trail) {
            return response;
        }
        let pass = match self.enter(head, &trail).await {
            Ok(pass) => pass,
            Err(refused) => return refused,
        };
        let asks = Asks { connection, identity: &identity, head, terms: Terms::default(), about: None };
        let mut response = self.serve(asks, body, &mut trail).await;
        self.leave(head, pass, &mut response).await;
        response
    }

    async fn websocket(&self, connection: &Connection, head: &RequestHead) -> Answer {
        let (identity, mut trail) = self.arrive(connection, head);
        if let Some(response) = self.health(head.path(), &trail) {
            return Answer::Refused(response);
        }
        let pass = match self.enter(head, &trail).await {
            Ok(pass) => pass,
            Err(refused) => return Answer::Refused(refused),
        };
        let asks = Asks { connection, identity: &identity, head, terms: Terms::default(), about: None };
        let opened = match &self.routes {
            None => self.open(asks, &mut trail).await,
            Some(routes) => self.routed_websocket(routes, asks, &mut trail).await,
        };
        if let Some(answer) = opened {
            return answer;
        }
        // RFC 9110, 7.8: a server may ignore Upgrade. The app sees a GET.
        let mut response = self.serve(asks, &mut NoBody, &mut trail).await;
        self.leave(head, pass, &mut response).await;
        Answer::Refused(response)
    }

    fn refuse(&self, connection: &Connection, status: u16, why: &'static str) -> Response {
        let client = connection.peer.map(|peer| peer.ip().to_canonical());
        let trail = error_page::own_trail(Instant::now(), self.ids.make(), client);
        let mut response = error_page::error(status, false, why, trail);
        response.close = true;
        response
    }

    fn finished(&self, exchange: &Exchange<'_>) {
        let class = match exchange.status {
            100..=199 => &m::RESPONSES_1XX_TOTAL,
            200..=299 => &m::RESPONSES_2XX_TOTAL,
            300..=399 => &m::RESPONSES_3XX_TOTAL,
            400..=499 => &m::RESPONSES_4XX_TOTAL,
            _ => &m::RESPONSES_5XX_TOTAL,
        };
        class.inc();
        let by = match exchange.trail.by {
            AnsweredBy::Worker(_) => &m::REQUESTS_APP_TOTAL,
            AnsweredBy::File => &m::REQUESTS_FILE_TOTAL,
            AnsweredBy::Upstream => &m::REQUESTS_UPSTREAM_TOTAL,
            AnsweredBy::Gateway => &m::REQUESTS_GATEWAY_TOTAL,
        };
        by.inc();
        if !exchange.trail.lasts {
            m::REQUEST_SECONDS.observe(exchange.trail.started.elapsed());
        }
        self.guard.seen(exchange);
        if let Some(access) = &self.access {
            access.record(exchange);
        }
    }
}

#[cfg(test)]
mod tests;
