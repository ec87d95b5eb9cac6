//! Request bodies are read before a worker is asked: a slow upload never holds one.
//!
//! In memory up to a bound, then in an unlinked file that is handed over as a descriptor. A route may have its
//! bodies streamed instead (`buffers.request_stream`).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use ctl_telemetry::metrics::REQUEST_SPOOLED_TOTAL;

use crate::message::{BodyError, BodyLength, RequestBody};
use crate::spool::unlinked_file;

/// Bytes gathered before they are written to the file in one go, on a thread that may block.
const WRITE_BYTES: usize = 256 << 10;

/// A request body, ready to be sent (twice, if need be).
#[derive(Debug)]
pub enum Payload {
    /// None.
    Empty,
    /// In memory.
    Memory(Vec<u8>),
    /// In an unlinked file, from offset 0.
    File(Arc<File>, u64),
    /// To be streamed from the client.
    Stream(Option<u64>),
}

/// Why there is no payload.
#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    /// The client's fault.
    #[error(transparent)]
    Client(#[from] BodyError),
    /// The temporary file could not be written.
    #[error("could not write a request body to {dir}: {error}")]
    Disk {
        /// Where.
        dir: String,
        /// Why.
        error: io::Error,
    },
}

/// Bounds, from the configuration.
#[derive(Debug, Clone, Copy)]
pub struct GatherLimits<'a> {
    /// Longest body.
    pub body_bytes_max: u64,
    /// Held in memory up to here.
    pub memory_bytes: u64,
    /// Directory of the file.
    pub dir: &'a Path,
}

/// Reads all of a body.
pub async fn gather<B: RequestBody>(body: &mut B, limits: GatherLimits<'_>) -> Result<Payload, GatherError> {
    if let Some(payload) = body.gathered() {
        return Ok(payload);
    }
    let announced = match body.length() {
        BodyLength::None => return Ok(Payload::Empty),
        BodyLength::Known(len) if len > limits.body_bytes_max => return Err(BodyError::TooLarge.into()),
        BodyLength::Known(len) => Some(len),
        BodyLength::Unknown => None,
    };
    let in_memory = announced.unwrap_or(0).min(limits.memory_bytes);
    let mut memory = Vec::with_capacity(in_memory as usize);
    while let Some(piece) = body.chunk().await? {
        let total = memory.len() as u64 + piece.len() as u64;
        if total > limits.body_bytes_max {
            return Err(BodyError::TooLarge.into());
        }
        memory.extend_from_slice(&piece);
        if total > limits.memory_bytes || announced.is_some_and(|len| len > limits.memory_bytes) {
            return to_file(body, memory, limits).await;
        }
    }
    Ok(if memory.is_empty() { Payload::Empty } else { Payload::Memory(memory) })
}

/// The rest of a large body goes to a file.
async fn to_file<B: RequestBody>(
    body: &mut B,
    mut pending: Vec<u8>,
    limits: GatherLimits<'_>,
) -> Result<Payload, GatherError> {
    REQUEST_SPOOLED_TOTAL.inc();
    let disk = |error| GatherError::Disk { dir: limits.dir.display().to_string(), error };
    let dir = limits.dir.to_owned();
    let file = Arc::new(blocking(move || unlinked_file(&dir)).await.map_err(disk)?);
    let mut written = 0;
    loop {
        let piece: Option<Bytes> = body.chunk().await?;
        if let Some(piece) = &piece {
            if written + pending.len() as u64 + piece.len() as u64 > limits.body_bytes_max {
                return Err(BodyError::TooLarge.into());
            }
            pending.extend_from_slice(piece);
        }
        if pending.len() >= WRITE_BYTES || piece.is_none() {
            let (to, batch, at) = (Arc::clone(&file), std::mem::take(&mut pending), written);
            written += batch.len() as u64;
            pending = blocking(move || {
                to.write_all_at(&batch, at)?;
                let mut batch = batch;
                batch.clear();
                Ok(batch)
            })
            .await
            .map_err(disk)?;
        }
        if piece.is_none() {
            return Ok(Payload::File(file, written));
        }
    }
}

/// Runs what may wait for a disk where it may.
async fn blocking<R: Send + 'static>(work: impl FnOnce() -> io::Result<R> + Send + 'static) -> io::Result<R> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Pieces(BodyLength, Vec<Result<&'static [u8], BodyError>>);

    impl RequestBody for Pieces {
        fn length(&self) -> BodyLength {
            self.0
        }

        async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
            if self.1.is_empty() {
                return Ok(None);
            }
            self.1.remove(0).map(|piece| Some(Bytes::from_static(piece)))
        }

        async fn closed(&mut self) {
            std::future::pending::<()>().await;
        }
    }

    async fn check(length: BodyLength, pieces: &[Result<&'static [u8], BodyError>], expected: &str) {
        let dir = std::env::temp_dir();
        let limits = GatherLimits { body_bytes_max: 12, memory_bytes: 4, dir: &dir };
        let got = match gather(&mut Pieces(length, pieces.to_vec()), limits).await {
            Ok(Payload::Empty) => "empty".to_owned(),
            Ok(Payload::Memory(bytes)) => format!("memory {}", String::from_utf8_lossy(&bytes)),
            Ok(Payload::File(file, len)) => {
                let mut bytes = vec![0; len as usize];
                file.read_exact_at(&mut bytes, 0).expect("written");
                format!("file {}", String::from_utf8_lossy(&bytes))
            }
            Ok(Payload::Stream(_)) => "stream".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected, "{length:?} {pieces:?}");
    }

    #[tokio::test]
    async fn bodies_go_where_they_fit() {
        use BodyLength::{Known, None, Unknown};
        check(None, &[], "empty").await;
        check(Unknown, &[], "empty").await;
        check(Known(4), &[Ok(b"ab"), Ok(b"cd")], "memory abcd").await;
        check(Known(5), &[Ok(b"ab"), Ok(b"cde")], "file abcde").await;
        check(Unknown, &[Ok(b"abc"), Ok(b"def"), Ok(b"ghi")], "file abcdefghi").await;
        check(Known(13), &[], "the body is too large").await;
        check(Unknown, &[Ok(b"abcdef"), Ok(b"ghijklm")], "the body is too large").await;
        check(Known(9), &[Ok(b"ab"), Err(BodyError::Timeout)], "the client was too slow").await;
        check(Known(9), &[Ok(b"abcdef"), Err(BodyError::Gone)], "the client went away").await;
    }
}
