//! A response body between the worker that makes it and the client that takes it (under construction).

use bytes::Bytes;

use crate::message::FileBody;

/// The reading end: what a protocol driver pulls. Dropping it tells the worker that the client is gone.
#[derive(Debug)]
pub struct BodyStream {}

/// A piece of a streamed body.
#[derive(Debug)]
pub enum Piece {
    /// Bytes from memory.
    Bytes(Bytes),
    /// A range of a file: spooled to disk before, or handed over by the worker.
    File(FileBody),
}

/// The worker died or gave up after the head was sent: break the connection so that the client can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the response was cut short")]
pub struct Aborted;

impl BodyStream {
    /// The next piece as soon as there is one; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Piece, Aborted>> {
        std::future::pending().await
    }
}
