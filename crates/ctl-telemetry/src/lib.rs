//! Every event, once: counters, gauges and histograms with their names, help and labels, and how logs are written.
//!
//! A metric is defined in [`metrics`] and nowhere else; its Prometheus text ([`exposition`]) and its row in the docs
//! ([`reference`]) come from there. A warning that is counted as well is one definition in [`events`]. Recording is one
//! relaxed atomic operation, so it may stand on the hot path; an event takes a second one.

pub mod event;
pub mod events;
pub mod exposition;
pub mod logging;
pub mod metric;
pub mod metrics;
pub mod reference;
