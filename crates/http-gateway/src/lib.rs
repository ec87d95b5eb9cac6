//! The gateway: everything between a client's connection and a worker's slot.
//!
//! In the order a request travels: [`listen`] accepts, [`tls`] and the protocols [`h1`] and [`h2`] turn bytes into a
//! [`message::RequestHead`]; [`service`] asks [`client`] who is there, [`guard`] whether he may come in, [`files`] whether it is a file, [`request_body`] for all of the
//! body, and [`dispatch`] for an answer: [`pools`] for its [`queue`], that for a slot, [`link`] for the exchange, [`spool`] for an answer that is larger
//! than its client is fast; or [`upstream`] for another server's. [`gateway`] is the process around it.
//!
//! # Promises
//! - Dropping any future of this crate gives back what it holds: a place in the queue, a slot (after its exchange has
//!   been ended in order), memory and files.
//! - Nothing here panics on a client's or a worker's bytes; nothing grows without a bound from the configuration.
//! - No reactor thread blocks: what may touch a disk runs on blocking threads.
//!
//! Called by `cli` only. Knows no other player.

mod access_log;
pub mod admin_http;
pub mod broken;
pub mod client;
mod compress;
mod cookie;
pub mod dispatch;
pub mod drain;
pub mod encoding;
pub mod error_page;
mod extra_fields;
pub mod file_read;
pub mod files;
pub mod flight;
pub mod gateway;
pub mod guard;
pub mod h1;
pub mod h2;
pub mod link;
pub mod listen;
pub mod message;
pub mod pace;
pub mod pools;
pub mod proxy_protocol;
pub mod queue;
pub mod reactor;
pub mod redis;
pub mod request_body;
pub mod request_id;
mod retired;
pub mod route;
pub mod service;
pub mod spool;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod upload;
pub mod upstream;
pub mod websocket;
