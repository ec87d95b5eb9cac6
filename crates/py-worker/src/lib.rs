//! py-worker.
