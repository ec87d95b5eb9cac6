//! The hand-shake of a slot.

use serde::{Deserialize, Serialize};

/// What a stream of a worker is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// One request at a time.
    #[default]
    Slot,
    /// Many exchanges that last, see [`crate::long`].
    Long,
}

/// What a worker says first on each of its streams; JSON, since it is rare and must grow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`crate::VERSION`] of the extension; the gateway refuses another than its own.
    pub version: String,
    /// The supervisor's number for this process; never reused while the supervisor lives.
    pub worker: u32,
    /// The generation of code: one more at each reload.
    pub generation: u32,
    /// What the stream is for.
    #[serde(default)]
    pub channel: Channel,
    /// The pool it belongs to: 0 is the default one, N the Nth `[[worker_pool]]`.
    #[serde(default)]
    pub pool: u16,
    /// Which of the worker's slots this stream is, from 0; 0 on a long link.
    pub slot: u16,
    /// How many slots the worker will open; on a long link, how many exchanges it takes at one time.
    pub slots: u16,
    /// Process id.
    pub pid: u32,
    /// The secret that the supervisor gave to the worker and the gateway.
    pub token: String,
}
