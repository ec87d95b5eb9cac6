//! HTTP/1 from clients: a strict codec without I/O or clock, and a thin driver over any stream.
//!
//! The codec ([`parse`], [`chunked`], [`encode`]) refuses what two programs could read differently: it is the fence
//! against request smuggling. The driver ([`serve`]) reads, calls the [`Service`](crate::message::Service), writes,
//! and keeps the clocks. In the order of a request:
//!
//! | file | what happens there |
//! |---|---|
//! | `connection.rs` | the life of a connection: idle, exchange, lingering close |
//! | `parse.rs`, `field.rs`, `target.rs` | bytes to a checked `RequestHead` and a framing decision |
//! | `body.rs`, `chunked.rs` | the request body as the service pulls it |
//! | `encode.rs`, `date.rs` | a response to the bytes of its head |
//! | `respond.rs`, `file.rs` | the response body: memory, files, streams |
//! | `slowly.rs` | the same where its bandwidth is limited |
//! | `upgrade.rs` | a request that becomes a WebSocket |
//! | `stream.rs`, `transport.rs` | buffers, deadlines and the socket |
//!
//! Promises: no task is spawned for a request; an exchange with a small body costs one read and one write; an idle
//! connection holds no buffer; every wait for the client has a deadline; dropping the future of [`serve`] drops all
//! it holds.

mod body;
pub mod chunked;
mod connection;
pub(crate) mod date;
pub mod encode;
mod field;
mod file;
mod input;
pub mod parse;
mod respond;
mod slowly;
mod stream;
mod target;
mod transport;
mod upgrade;

pub use connection::serve;
pub use field::is_ambiguous_name;
pub(crate) use field::{Field, elements, is_token, is_value, parse_field};
pub(crate) use parse::parse_content_length;
pub(crate) use stream::{Stream, StreamError};
pub(crate) use target::{is_host, parse_method, parse_target};
pub use transport::Transport;

#[cfg(test)]
mod tests;
