//! The words spoken between the command, the supervisor, the gateway and the workers.
//!
//! All of it is JSON, one message a line, over unix sockets: rare, readable with `socat`, and free to grow.
//! Bounded: a line is at most [`LINE_BYTES_MAX`].

pub mod client;
pub mod lines;
pub mod place;
pub mod words;

/// The longest line. App information and tracebacks fit; what is longer is a fault of the sender.
pub const LINE_BYTES_MAX: usize = 1 << 20;
