//! HTTP for operators, on a listener of its own: a unix socket in the runtime directory, or a loopback address.
//!
//! | request | answer |
//! |---|---|
//! | `GET /metrics` | all metrics in Prometheus' text format |
//! | `GET /status` | what the gateway counts, as JSON |
//! | `GET /healthz` | 200 while the process lives |
//! | `GET /readyz` | 200 while clients are served, else 503 |
//! | `POST /reload`, `POST /stop` | 202: the supervisor has been asked |
//! | `POST /upstreams/NAME/drain?server=SERVER` (with `&all`), `/undrain` | the same; 404 where there is no such server |
//!
//! Who may: on the unix socket whoever can open it (the directory is the owner's alone); on loopback, where every user
//! of the machine and every web page in its browsers can connect, only who shows the bearer token (RFC 6750). The two
//! health paths tell nothing and need none. Another address than loopback is refused at the start.

mod servers;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use ctl_admin::words::{Command, GatewayStatus};
use ctl_config::Config;
use ctl_telemetry::metric::Gauge;
use ctl_telemetry::{exposition, metrics};
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc};

use crate::drain::Drain;
use crate::error_page::own_trail;
use crate::h1;
use crate::message::{
    Body, Connection, Exchange, Headers, Method, RequestBody, RequestHead, Response, Service,
};
use crate::pools::Pools;
use crate::request_id::RequestId;
use crate::upstream::Upstreams;

/// Operators, a scraper and a probe or two; whoever is more waits.
const CONNECTIONS_MAX: usize = 32;

/// After a failed `accept`: descriptors come back as clients' connections end.
const PAUSE: Duration = Duration::from_millis(100);

/// The admin listener cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Anybody could ask for a stop.
    #[error(
        "the admin listener is open to the network\n  detail: {0} is no loopback address\n  \
         hint: use 127.0.0.1 or [::1] in admin.bind, or leave it out for a unix socket; a scraper on another host \
         is better served through a proxy with a password"
    )]
    NotLoopback(SocketAddr),
    /// Every program and web page on this machine could ask for a stop.
    #[error(
        "the admin listener has no token\n  detail: {0} can be reached by every user of this machine\n  \
         hint: name a file with a long random word in admin.token_file, or leave admin.bind out for a unix socket"
    )]
    NoToken(SocketAddr),
    /// The system said no.
    #[error("the admin listener cannot be used\n  detail: {0}")]
    Io(#[from] io::Error),
}

/// What the admin listener knows and whom it asks.
pub struct Admin {
    /// The bearer token of a TCP listener.
    pub token: Option<Box<[u8]>>,
    /// Clients are served.
    pub ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// What is counted of them.
    pub pools: Arc<Pools>,
    /// What is counted of them, too.
    pub upstreams: Arc<Upstreams>,
    /// `reload` and `stop` go here.
    pub asked: mpsc::Sender<Command>,
}

/// The bound socket of either kind.
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Checks the socket; the future serves it for ever and is to be spawned on a reactor. Call it within a runtime.
pub fn serve(
    socket: OwnedFd,
    admin: Admin,
    config: Arc<Config>,
    drain: Drain,
) -> Result<impl Future<Output = ()> + Send, AdminError> {
    rustix::io::ioctl_fionbio(&socket, true).map_err(io::Error::from)?;
    let address = rustix::net::getsockname(&socket).map_err(io::Error::from)?;
    let listener = match SocketAddr::try_from(address) {
        Ok(address) if !address.ip().to_canonical().is_loopback() => {
            return Err(AdminError::NotLoopback(address));
        }
        Ok(address) if admin.token.is_none() => return Err(AdminError::NoToken(address)),
        Ok(_) => Listener::Tcp(TcpListener::from_std(socket.into())?),
        Err(_) => Listener::Unix(UnixListener::from_std(socket.into())?),
    };
    Ok(accept(listener, Arc::new(admin), config, drain))
}

async fn accept(listener: Listener, admin: Arc<Admin>, config: Arc<Config>, drain: Drain) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (admin, config, drain) = (Arc::clone(&admin), Arc::clone(&config), drain.clone());
        let accepted = match &listener {
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                let connection = Connection::default();
                tokio::spawn(async move {
                    h1::serve(stream, BytesMut::new(), connection, admin, config, drain).await;
                    drop(place);
                })
            }),
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, peer)| {
                let connection = Connection { peer: Some(peer), ..Connection::default() };
                tokio::spawn(async move {
                    h1::serve(stream, BytesMut::new(), connection, admin, config, drain).await;
                    drop(place);
                })
            }),
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "a connection to the admin listener could not be accepted");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What the gateway counts; of pools all together.
pub fn status(pools: &Pools, upstreams: &Upstreams) -> GatewayStatus {
    let of = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or_default();
    let mut status = GatewayStatus {
        connections: of(&metrics::CONNECTIONS),
        requests_total: metrics::REQUESTS_APP_TOTAL.get()
            + metrics::REQUESTS_FILE_TOTAL.get()
            + metrics::REQUESTS_UPSTREAM_TOTAL.get()
            + metrics::REQUESTS_GATEWAY_TOTAL.get(),
        errors_total: metrics::RESPONSES_5XX_TOTAL.get(),
        upstreams: upstreams.status(),
        ..GatewayStatus::default()
    };
    status.long_lived = status.upstreams.iter().map(|upstream| upstream.long_lived).sum();
    for (_, pool) in pools.metrics() {
        status.slots += of(&pool.slots);
        status.slots_busy += of(&pool.slots_busy);
        status.queue_depth += of(&pool.queue_depth);
        status.long_lived += of(&pool.long_lived);
        status.shed_total += pool.queue_shed.get();
    }
    status
}

impl Admin {
    /// Without a token (a unix socket) everybody who is here may.
    fn allows(&self, head: &RequestHead) -> bool {
        let Some(token) = &self.token else { return true };
        // RFC 6750, 2.1; the scheme's letter case does not matter (RFC 9110, 11.1).
        let shown = head.headers.get("authorization").and_then(|value| {
            let (scheme, token) = value.split_at_checked(b"bearer ".len())?;
            scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
        });
        // In constant time, so that the token cannot be guessed letter by letter.
        shown.is_some_and(|shown| shown.ct_eq(token).into())
    }

    fn answer(&self, head: &RequestHead) -> Response {
        let is_read = matches!(head.method, Method::Get | Method::Head);
        let (path, allowed) = match head.path() {
            path @ (b"/healthz" | b"/readyz" | b"/metrics" | b"/status") => (path, "GET, HEAD"),
            path @ (b"/reload" | b"/stop") => (path, "POST"),
            path if path.starts_with(b"/upstreams/") => (path, "POST"),
            _ => return text(404, "There is no such page. Try /metrics, /status, /healthz or /readyz.\n"),
        };
        match path {
            b"/healthz" => return text(200, "ok\n"),
            b"/readyz" if (self.ready)() => return text(200, "ready\n"),
            b"/readyz" => return text(503, "not ready\n"),
            _ if !self.allows(head) => {
                let mut refused = text(401, "Show the token: Authorization: Bearer …\n");
                refused.headers.push(b"www-authenticate", b"Bearer");
                return refused;
            }
            _ => {}
        }
        if is_read != (allowed != "POST") || !is_read && head.method != Method::Post {
            let mut refused = text(405, "Not with this method.\n");
            refused.headers.push(b"allow", allowed.as_bytes());
            return refused;
        }
        match path {
            b"/metrics" => typed(
                200,
                exposition::CONTENT_TYPE,
                exposition::text(
                    &self.pools.metrics(),
                    &self.upstreams.metrics(),
                    &self.upstreams.server_metrics(),
                ),
            ),
            b"/status" => match serde_json::to_string(&status(&self.pools, &self.upstreams)) {
                Ok(json) => typed(200, "application/json", json + "\n"),
                Err(error) => text(500, format!("{error}\n")),
            },
            b"/reload" => {
                self.ask(Command::Reload { module: None }, "The supervisor has been asked to reload.\n")
            }
            path if path.starts_with(b"/upstreams/") => match servers::asked(&head.target) {
                Some(request) if self.upstreams.knows(&request) => {
                    self.ask(Command::Upstream(request), "The supervisor has been asked.\n")
                }
                _ => text(404, "There is no such server. Try /status, and ?server=….\n"),
            },
            _ => self.ask(Command::Stop, "The supervisor has been asked to stop.\n"),
        }
    }

    fn ask(&self, command: Command, done: &'static str) -> Response {
        match self.asked.try_send(command) {
            Ok(()) => text(202, done),
            Err(_) => text(503, "The supervisor has not yet taken what it was asked before.\n"),
        }
    }
}

fn text(status: u16, text: impl Into<Bytes>) -> Response {
    typed(status, "text/plain; charset=utf-8", text)
}

fn typed(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response {
    let mut headers = Headers::with_capacity(3, 128);
    headers.push(b"content-type", content_type.as_bytes());
    // Metrics and status are of the moment; and no browser shall guess another type.
    headers.push(b"cache-control", b"no-store");
    headers.push(b"x-content-type-options", b"nosniff");
    let trail = own_trail(Instant::now(), RequestId::default(), None);
    Response { status, reason: Box::default(), headers, body: Body::Bytes(body.into()), close: false, trail }
}

impl Service for Admin {
    async fn call<B: RequestBody>(&self, _: &Connection, head: &RequestHead, _: &mut B) -> Response {
        self.answer(head)
    }

    fn refuse(&self, _: &Connection, status: u16, why: &'static str) -> Response {
        Response { close: true, ..text(status, format!("{why}\n")) }
    }

    /// Operators' requests are not the site's: neither counted nor logged among them.
    fn finished(&self, _: &Exchange<'_>) {}
}

#[cfg(test)]
mod tests;
