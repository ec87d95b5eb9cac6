//! Every event, once: counters, gauges and histograms with their names, help and labels, and how logs are written.
//!
//! A metric is defined in [`metrics`] and nowhere else; its Prometheus text and its row in the docs come from there.
//! Recording is one relaxed atomic operation, so it may stand on the hot path.

pub mod metric;
pub mod metrics;
