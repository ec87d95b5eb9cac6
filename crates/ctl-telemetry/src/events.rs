//! The table of all warnings that are counted: the words of the log line stand beside the counter.

use crate::event::Event;
use crate::metrics;

/// No descriptor or memory was left for a new connection.
pub static ACCEPT_FAILED: Event = Event::new(
    &metrics::ACCEPT_ERRORS_TOTAL,
    "new connections wait because one could not be accepted",
    "raise the limit of open files (ulimit -n, LimitNOFILE=) or lower limits.connections_max",
);

/// `limits.connections_max` is reached.
pub static CONNECTION_REFUSED: Event = Event::new(
    &metrics::CONNECTIONS_REFUSED_TOTAL,
    "a connection was refused because too many are open",
    "raise limits.connections_max if the machine has memory and file descriptors to spare",
);

/// `limits.connections_per_address` is reached.
pub static CONNECTION_PER_ADDRESS_REFUSED: Event = Event::new(
    &metrics::CONNECTIONS_PER_ADDRESS_REFUSED_TOTAL,
    "a connection was refused because its address has too many open",
    "raise limits.connections_per_address if honest clients share an address; name your proxies in proxy.trusted",
);

/// A client has earned a ban.
pub static CLIENT_BANNED: Event = Event::new(
    &metrics::BANS_TOTAL,
    "a client was banned for too many refused or failed requests",
    "`quintet bans list` shows all, `quintet bans remove` pardons; see bans.after",
);

/// Redis does not answer, or not in time.
pub static REDIS_AWAY: Event = Event::new(
    &metrics::REDIS_AWAY_TOTAL,
    "Redis is away: this host counts limits by itself, and bans on other hosts are heard of when it is back",
    "no request waits for it meanwhile; `quintet status` tells since when; see docs/guides/hosts.md",
);

/// There is no room for another ban.
pub static BANS_FULL: Event = Event::new(
    &metrics::BANS_FULL_TOTAL,
    "a client could not be banned because too many are",
    "raise bans.clients_max",
);

/// A trusted peer began without a good PROXY protocol header.
pub static PROXY_HEADER_BAD: Event = Event::new(
    &metrics::PROXY_HEADER_FAILURES_TOTAL,
    "a proxy's connection was closed because its PROXY protocol header is missing or malformed",
    "switch the PROXY protocol on in the proxy too, or proxy.protocol off here",
);

/// An app chose a subprotocol that its client had not offered: any client can bring that about, as often as it likes.
pub static SUBPROTOCOL_DROPPED: Event = Event::new(
    &metrics::WEBSOCKET_SUBPROTOCOLS_DROPPED_TOTAL,
    "the app chose a subprotocol that the client did not offer: it was left out",
    "let the app choose from scope[\"subprotocols\"], or refuse clients that do not offer what it speaks",
);

/// The access log's writer does not keep up.
pub static ACCESS_LOG_DROPPED: Event = Event::new(
    &metrics::ACCESS_LOG_DROPPED_TOTAL,
    "lines of the access log were dropped because whoever reads it is too slow",
    "look at what standard output is connected to",
);
