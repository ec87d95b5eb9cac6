//! Upstreams: what `quintet upstream` asks of the gateway through the supervisor, and how their servers fare.

use serde::{Deserialize, Serialize};

/// Servers that may be drained at one time: an heir gets their names in its environment.
pub const DRAINED_MAX: usize = 200;

/// Servers that are told of at one time, of all upstreams together: their rows fit into a line.
pub const SERVERS_TOLD_MAX: usize = 1000;

/// A server that gets no new requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// The upstream's name.
    pub upstream: String,
    /// The server, as `quintet upstream list` shows it.
    pub server: String,
    /// None of clients that belong to it either.
    pub all: bool,
}

/// `quintet upstream drain` and `undrain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum UpstreamRequest {
    /// No new requests for a server.
    Drain(Drained),
    /// Requests for it again.
    Undrain {
        /// The upstream's name.
        upstream: String,
        /// The server; may be short, as in [`UpstreamRequest::Drain`].
        server: String,
    },
}

/// The gateway's answer to an [`UpstreamRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum UpstreamAnswer {
    /// It is done.
    Done {
        /// For people.
        text: String,
        /// All that are drained now: the supervisor tells the next gateway.
        drained: Vec<Drained>,
    },
    /// It was not done.
    Failed {
        /// Message, hint.
        text: String,
    },
}

/// An upstream in `quintet status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its name.
    pub name: String,
    /// Requests for it.
    pub requests_total: u64,
    /// Attempts that came to nothing.
    pub failures_total: u64,
    /// Requests that were sent once more.
    pub retries_total: u64,
    /// Connections that are open.
    pub connections: u64,
    /// WebSockets and event streams that are open.
    pub long_lived: u64,
    /// Its servers; of all upstreams together the first [`SERVERS_TOLD_MAX`].
    pub servers: Vec<ServerStatus>,
}

/// A server in [`UpstreamStatus`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// As in logs.
    pub name: String,
    /// Its share.
    pub weight: u32,
    /// serving, warming, probation, ejected, down, draining, leaving.
    pub standing: String,
    /// While it is ejected: for how long yet.
    pub back_in_ms: Option<u64>,
    /// Requests it works on.
    pub pending: u32,
    /// How long a request takes, by estimate; 0 before the first.
    pub latency_us: u64,
    /// Requests it was given.
    pub requests_total: u64,
    /// Those it failed with.
    pub failures_total: u64,
    /// How often it was ejected.
    pub ejections_total: u64,
}

/// May an operator mean the server of this name? As in logs, without the scheme, or without the address behind a name.
pub fn is_called(name: &str, asked: &str) -> bool {
    let plain = |text: &str| {
        text == asked || text.strip_prefix("http://").or(text.strip_prefix("https://")) == Some(asked)
    };
    plain(name) || name.split_once(' ').is_some_and(|(name, _)| plain(name))
}

impl ServerStatus {
    /// Does it get new requests?
    pub fn serves(&self) -> bool {
        matches!(&*self.standing, "serving" | "warming" | "probation")
    }
}
