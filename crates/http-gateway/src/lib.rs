//! http-gateway: see ARCHITECTURE.md.

pub mod drain;
pub mod message;
pub mod spool;
pub mod tls;
