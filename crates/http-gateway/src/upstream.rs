//! Upstreams: other servers that answer for some routes, over HTTP/1.1 with a strict codec of our own, or over HTTP/2.
//!
//! In the order of a request: [`Upstream::forward`] chooses a server, leases a connection, sends the request, reads the head of
//! the answer, and hands the body to a spool or to the client. What of a request or an answer could be read differently by two
//! programs is refused, never repaired (docs/decisions/0015).
//!
//! | file | what happens there |
//! |---|---|
//! | `all.rs` | the upstreams of the configuration |
//! | `group.rs`, `settings.rs` | an upstream: its servers, the attempts of one request; who gets it is `http-upstream`'s to say |
//! | `members.rs`, `resolve.rs` | from what is configured to servers: each address of a name is one |
//! | `server.rs` | a server's connections |
//! | `socket.rs`, `tls.rs` | TCP, unix, TLS |
//! | `session.rs`, `h2.rs` | HTTP/2: connections that requests share; one request in a stream |
//! | `sticky.rs`, `secret.rs` | the cookie by which a client comes back to its server (pure), and what it is signed with |
//! | `standing.rs` | how servers fare, and taking them out by hand |
//! | `check.rs`, `health.rs` | active health checks: one, and all |
//! | `request.rs`, `via.rs`, `outgoing.rs` | a request's head as bytes, and the way it has come (pure), and what follows it |
//! | `attempt.rs`, `exchange.rs` | one request on one connection, up to the answer's head |
//! | `parse.rs`, `body.rs` | bytes to heads and bodies (pure) |
//! | `answer.rs`, `flow.rs`, `pump.rs` | from there to a response: its body at once, straight to a quick client, or into a spool |
//!
//! Invariants: a request is sent twice only when that is safe (nothing of it was sent, or its method is idempotent and its body
//! still here); no byte of one answer is ever taken for another's: a connection on which anything was doubtful is closed;
//! every wait has a deadline; dropping a request's future closes its connection.

mod all;
mod answer;
mod attempt;
pub mod body;
mod check;
mod exchange;
mod flow;
mod group;
mod h2;
mod health;
mod members;
mod outgoing;
pub mod parse;
mod pump;
pub mod request;
mod resolve;
mod secret;
mod server;
mod session;
mod settings;
mod socket;
mod standing;
mod sticky;
mod tls;
mod via;

pub use all::Upstreams;
pub use check::Checks;
pub(crate) use flow::Flow;
pub use group::{Failure, Forward, Handshake, Upstream};
pub use secret::Secrets;
pub use settings::{HashBy, HostRule, ServerAddress, Settings};
pub(crate) use socket::Socket;
pub use sticky::Sticky;
pub use tls::TlsFiles;
pub(crate) use tls::client_config;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
