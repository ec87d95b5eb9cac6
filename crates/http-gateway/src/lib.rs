//! http-gateway: see ARCHITECTURE.md.

pub mod message;
pub mod spool;
