//! How an upstream is used: what the configuration says, in the words of this room.

use std::path::PathBuf;
use std::time::Duration;

use crate::spool::SpoolLimits;

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

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerAddress {
    /// A name or an address (without brackets), a port.
    Tcp {
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// TLS.
        tls: bool,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// How an upstream is used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// In logs and metrics.
    pub name: String,
    /// Where its servers are; at least one.
    pub servers: Vec<ServerAddress>,
    /// Host.
    pub host: HostRule,
    /// What certificates must be for, where it is not the server's name.
    pub tls_server_name: Option<String>,
    /// To connect, with TLS and all.
    pub connect_timeout: Duration,
    /// From the last byte of a request to the head of its answer.
    pub response_timeout: Duration,
    /// Between two pieces of a body.
    pub idle_timeout: Duration,
    /// How long a connection is kept for the next request.
    pub keep_alive: Duration,
    /// Connections to each server.
    pub connections_max: u32,
    /// Bodies are read whole before they go on, either way, as far as there is room.
    pub buffer: bool,
    /// How long an answer about a name is good.
    pub resolve_interval: Duration,
    /// Failures in a row after which a server rests.
    pub eject_after: u32,
    /// For how long.
    pub eject_time: Duration,
    /// Longest body of a streamed request; the others were bounded when they were read.
    pub body_bytes_max: u64,
    /// Of answers that are read faster than their clients take them.
    pub spool: SpoolLimits,
    /// The longest time that a client may take no byte while all of that is full.
    pub held: Duration,
}

impl ServerAddress {
    /// In logs, and as the server itself is called.
    pub(super) fn names(&self) -> (String, String) {
        let (host, port, tls) = match self {
            // RFC 9110, 7.2: something must stand there.
            Self::Unix(path) => return (format!("unix:{}", path.display()), "localhost".to_owned()),
            Self::Tcp { host, port, tls } => (host, *port, *tls),
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let scheme = if tls { "https" } else { "http" };
        // RFC 9110, 4.2.3: the scheme's own port goes without saying.
        let usual = if tls { 443 } else { 80 };
        let authority = if port == usual { host.clone() } else { format!("{host}:{port}") };
        (format!("{scheme}://{host}:{port}"), authority)
    }
}
