//! The hand-shake of a slot.

use serde::{Deserialize, Serialize};

/// What a worker says first on each of its streams; JSON, since it is rare and must grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::VERSION`] of the extension; the gateway refuses another than its own.
    pub version: String,
    /// The supervisor's number for this process; never reused while the supervisor lives.
    pub worker: u32,
    /// The generation of code: one more at each reload.
    pub generation: u32,
    /// Which of the worker's slots this stream is, from 0.
    pub slot: u16,
    /// How many slots the worker will open.
    pub slots: u16,
    /// Process id.
    pub pid: u32,
    /// The secret that the supervisor gave to the worker and the gateway.
    pub token: String,
}
