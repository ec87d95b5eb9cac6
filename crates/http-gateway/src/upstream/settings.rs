//! How an upstream is used: what the configuration says, in the words of this room.

use std::time::Duration;

use ctl_config::Config;
pub use ctl_config::upstream::ServerAddress;
use ctl_config::upstream::{HOST_OF_CLIENT, HOST_OF_SERVER, Policy, Protocol};
use http_upstream::Terms;

use super::check::Checks;
use super::secret::Secrets;
use super::sticky::Sticky;
use crate::spool::SpoolLimits;

/// What of an answer that is not to be buffered waits here all the same: as much as is read at once.
const UNBUFFERED_BYTES: u64 = 64 * 1024;

/// How long a server waits for the client of such an answer: longer than `timeouts.write` can be.
const UNBUFFERED_HELD: Duration = Duration::from_secs(24 * 3600);

/// What is told to a server as Host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRule {
    /// What the client said.
    Client,
    /// The server's own name, as configured.
    Server,
    /// This.
    Name(String),
}

/// What requests are hashed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// The client's address.
    Address,
    /// The path, without the query.
    Path,
    /// A header; its name in small letters.
    Header(String),
}

/// How an upstream is used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// In logs and metrics.
    pub name: String,
    /// Where its servers are, with their weights; at least one.
    pub servers: Vec<(ServerAddress, u32)>,
    /// What requests are hashed by, where that is the policy.
    pub hash_by: HashBy,
    /// Clients come back to their servers.
    pub sticky: Option<Sticky>,
    /// Requests go over HTTP/2.
    pub http2: bool,
    /// Host.
    pub host: HostRule,
    /// They are told that requests came through here.
    pub via: bool,
    /// What certificates must be for, where it is not the server's name.
    pub tls_server_name: Option<String>,
    /// To connect, with TLS and all.
    pub connect_timeout: Duration,
    /// From the last byte of a request to the head of its answer.
    pub response_timeout: Duration,
    /// Between two pieces of a body.
    pub idle_timeout: Duration,
    /// The longest silence of a WebSocket or an event stream.
    pub tunnel_timeout: Duration,
    /// How long a connection is kept for the next request.
    pub keep_alive: Duration,
    /// Connections to each server.
    pub connections_max: u32,
    /// Bodies are read whole before they go on, either way, as far as there is room.
    pub buffer: bool,
    /// How long an answer about a name is good.
    pub resolve_interval: Duration,
    /// Who gets a request, who rests after failures.
    pub balance: http_upstream::Terms,
    /// Active health checks.
    pub checks: Option<Checks>,
    /// Of answers that are read faster than their clients take them.
    pub spool: SpoolLimits,
    /// The longest time that a client may take no byte while all of that is full.
    pub held: Duration,
}

impl Settings {
    /// From the configuration, which has been checked. The error is for the operator.
    pub(super) fn new(
        own: &ctl_config::Upstream,
        config: &Config,
        secrets: &Secrets,
    ) -> Result<Self, String> {
        let servers: Result<Vec<_>, _> =
            own.servers.iter().map(|text| ServerAddress::weighted(text)).collect();
        let dir = config.buffers.dir.clone().unwrap_or_else(std::env::temp_dir);
        let (spool, held) = if own.buffer {
            let (memory_bytes, disk_bytes) = (config.buffers.response_memory, config.buffers.response_disk);
            (SpoolLimits { memory_bytes, disk_bytes, dir }, config.buffers.streaming_timeout)
        } else {
            // `timeouts.write` sees to clients that take nothing.
            (SpoolLimits { memory_bytes: UNBUFFERED_BYTES, disk_bytes: 0, dir }, UNBUFFERED_HELD)
        };
        Ok(Self {
            name: own.name.clone(),
            servers: servers.map_err(|fault| format!("upstream {}: {}", own.name, fault.message))?,
            hash_by: match own.hash_by.as_deref().unwrap_or("address") {
                "address" => HashBy::Address,
                "path" => HashBy::Path,
                header => HashBy::Header(header.trim_start_matches("header:").to_ascii_lowercase()),
            },
            sticky: sticky(own, secrets)?,
            http2: own.protocol == Protocol::Http2,
            host: match own.host.as_str() {
                HOST_OF_CLIENT => HostRule::Client,
                HOST_OF_SERVER => HostRule::Server,
                name => HostRule::Name(name.to_owned()),
            },
            via: own.via,
            tls_server_name: own.tls_server_name.clone(),
            connect_timeout: own.connect_timeout,
            response_timeout: own.response_timeout,
            idle_timeout: own.idle_timeout,
            tunnel_timeout: own.tunnel_timeout,
            keep_alive: own.keep_alive,
            connections_max: own.connections_max,
            buffer: own.buffer,
            resolve_interval: own.resolve_interval,
            balance: balance(own),
            checks: checks(own),
            spool,
            held,
        })
    }
}

fn sticky(own: &ctl_config::Upstream, secrets: &Secrets) -> Result<Option<Sticky>, String> {
    let Some(cookie) = own.sticky_cookie.clone() else { return Ok(None) };
    let secret = secrets.of(own.sticky_secret_file.as_deref())?;
    Ok(Some(Sticky { cookie, time: own.sticky_time, secret }))
}

fn checks(own: &ctl_config::Upstream) -> Option<Checks> {
    Some(Checks {
        path: own.health_path.clone()?,
        host: own.health_host.clone().or_else(|| match own.host.as_str() {
            HOST_OF_CLIENT | HOST_OF_SERVER => None,
            name => Some(name.to_owned()),
        }),
        http2: own.protocol == Protocol::Http2,
        statuses: own.healthy_statuses(),
        interval: own.health_interval,
        timeout: own.health_timeout,
    })
}

fn balance(own: &ctl_config::Upstream) -> Terms {
    let usual = Terms::default();
    Terms {
        policy: match own.policy {
            Policy::PeakEwma => http_upstream::Policy::PeakEwma,
            Policy::LeastLoaded => http_upstream::Policy::LeastLoaded,
            Policy::RoundRobin => http_upstream::Policy::RoundRobin,
            Policy::Hash => http_upstream::Policy::Hash,
        },
        // Those that have a connection, and as many that wait for one.
        concurrency_max: own.connections_max.saturating_mul(2),
        slow_start: own.slow_start,
        eject_after: own.eject_after,
        eject_time: own.eject_time,
        eject_time_max: usual.eject_time_max.max(own.eject_time),
        health_rise: own.health_rise,
        health_fall: own.health_fall,
        retry_percent: own.retry_budget,
        ..usual
    }
}

/// A server's names: in logs, and as it is called.
pub(super) fn names(server: &ServerAddress) -> (String, String) {
    let (host, port, tls) = match server {
        // RFC 9110, 7.2: something must stand there.
        ServerAddress::Unix(path) => return (format!("unix:{}", path.display()), "localhost".to_owned()),
        ServerAddress::Tcp { host, port, tls } => (host, *port, *tls),
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let scheme = if tls { "https" } else { "http" };
    // RFC 9110, 4.2.3: the scheme's own port goes without saying.
    let usual = if tls { 443 } else { 80 };
    let authority = if port == usual { host.clone() } else { format!("{host}:{port}") };
    (format!("{scheme}://{host}:{port}"), authority)
}
