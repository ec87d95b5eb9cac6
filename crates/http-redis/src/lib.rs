//! What is said to Redis or Valkey and what they answer, and when they are left alone. No I/O, no clock.
//!
//! | file | what it knows |
//! |---|---|
//! | `resp.rs` | commands and answers as bytes (RESP3, as of Redis 6) |
//! | `circuit.rs` | from which failure on nobody asks any more, and when it is tried again |
//!
//! The gateway (`http-gateway/redis/`) connects, waits and tells. Bytes of a server are not believed: what has no end within its
//! bounds, or no meaning, is an error and no panic.

mod circuit;
mod resp;

pub use circuit::{Circuit, Failure, Patience};
pub use resp::{Malformed, Value, decode, encode};
