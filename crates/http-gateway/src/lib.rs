//! http-gateway: see ARCHITECTURE.md.

pub mod client;
pub mod dispatch;
pub mod drain;
pub mod encoding;
pub mod error_page;
pub mod file_read;
pub mod files;
pub mod h1;
pub mod h2;
pub mod link;
pub mod listen;
pub mod message;
pub mod proxy_protocol;
pub mod queue;
pub mod reactor;
pub mod request_body;
pub mod request_id;
pub mod spool;
#[cfg(test)]
mod testing;
pub mod tls;
