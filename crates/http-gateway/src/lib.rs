//! http-gateway: see ARCHITECTURE.md.

pub mod drain;
pub mod link;
pub mod message;
pub mod queue;
pub mod reactor;
pub mod spool;
pub mod tls;
