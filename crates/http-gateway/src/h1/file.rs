//! Ranges of files to the client, without waiting for a disk on a reactor thread.
//!
//! Plain sockets take the range from the page cache (`sendfile`); what is not there is read by the blocking pool
//! first. Other transports get pieces that were read without waiting where possible, by the blocking pool otherwise.

use std::fs::File;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::ReadWriteFlags;

use super::stream::{Stream, StreamError};
use super::transport::Transport;
use crate::message::FileBody;

/// What is checked and sent at once: large enough that the checks cost nothing beside it, small enough that a
/// connection does not keep the others of its thread waiting.
const WINDOW_BYTES: u64 = 512 * 1024;

/// Within a window, one page in so many bytes is looked at. Readahead works in pieces of this size by default.
const PROBE_STEP_BYTES: u64 = 128 * 1024;

/// A piece that goes through our memory.
const PIECE_BYTES: usize = 64 * 1024;

/// Sends a range of a file. Fails with `Gone` when the file is shorter than promised: the connection must be broken.
pub(super) async fn send<T: Transport>(
    stream: &mut Stream<T>,
    body: &FileBody,
    timeout: Duration,
    sent: &mut u64,
) -> Result<(), StreamError> {
    if T::SENDS_FILES && body.len > 0 {
        stream.write_more(timeout).await?;
        in_kernel(stream, body, timeout, sent).await
    } else {
        through_memory(stream, body, timeout, sent).await
    }
}

async fn in_kernel<T: Transport>(
    stream: &mut Stream<T>,
    body: &FileBody,
    timeout: Duration,
    sent: &mut u64,
) -> Result<(), StreamError> {
    let end = body.offset.saturating_add(body.len);
    let mut offset = body.offset;
    while offset < end {
        let window_end = end.min(offset.saturating_add(WINDOW_BYTES));
        if !is_resident(&body.file, offset, window_end) {
            let file = Arc::clone(&body.file);
            blocking(move || read_through(&file, offset, window_end)).await?;
        }
        while offset < window_end {
            let taken = stream.send_file(&body.file, offset, (window_end - offset) as usize, timeout).await?;
            if taken == 0 {
                return Err(StreamError::Gone);
            }
            offset += taken as u64;
            *sent += taken as u64;
        }
        // A fast client must not keep the others of this thread waiting: `sendfile` is unknown to tokio's budget.
        tokio::task::consume_budget().await;
    }
    Ok(())
}

/// Can the range be read without waiting for the disk, as far as a few pages tell?
fn is_resident(file: &File, start: u64, end: u64) -> bool {
    let is_there = |offset: u64| {
        let mut byte = [0];
        rustix::io::preadv2(file, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT) == Ok(1)
    };
    let mut offset = start;
    while offset < end {
        if !is_there(offset) {
            return false;
        }
        offset += PROBE_STEP_BYTES;
    }
    is_there(end.saturating_sub(1))
}

/// Reads a range so that it is in the page cache afterwards.
fn read_through(file: &File, start: u64, end: u64) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut offset = start;
    while offset < end {
        match file.read_at(&mut piece, offset)? {
            0 => break,
            bytes => offset += bytes as u64,
        }
    }
    Ok(())
}

async fn through_memory<T: Transport>(
    stream: &mut Stream<T>,
    body: &FileBody,
    timeout: Duration,
    sent: &mut u64,
) -> Result<(), StreamError> {
    let mut offset = body.offset;
    let mut left = body.len;
    let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
    while left > 0 {
        piece.truncate(usize::try_from(left).unwrap_or(PIECE_BYTES));
        let read = rustix::io::preadv2(
            &body.file,
            &mut [IoSliceMut::new(&mut piece)],
            offset,
            ReadWriteFlags::NOWAIT,
        );
        let bytes = match read {
            Ok(bytes) if bytes > 0 => bytes,
            _ => {
                let file = Arc::clone(&body.file);
                let (back, bytes) = blocking(move || {
                    let bytes = file.read_at(&mut piece, offset)?;
                    Ok((piece, bytes))
                })
                .await?;
                piece = back;
                bytes
            }
        };
        if bytes == 0 {
            return Err(StreamError::Gone);
        }
        stream.write(piece.get(..bytes).unwrap_or_default(), timeout, sent).await?;
        offset += bytes as u64;
        left -= bytes as u64;
    }
    stream.write(&[], timeout, sent).await
}

/// Runs what may wait for a disk where it may. A file that cannot be read breaks the connection.
async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<R> + Send + 'static,
) -> Result<R, StreamError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) | Err(_) => Err(StreamError::Gone),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::fs::{Advice, fadvise};

    use super::*;

    #[test]
    fn what_is_not_in_memory_is_noticed_and_fetched() {
        let len = 3 * WINDOW_BYTES;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; len as usize]).unwrap();
        file.sync_all().unwrap();
        if !is_resident(&file, 0, len) {
            // This file system does not answer such questions; then every window is fetched first.
            return;
        }
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let was_dropped = !is_resident(&file, WINDOW_BYTES, 2 * WINDOW_BYTES);
        read_through(&file, WINDOW_BYTES, 2 * WINDOW_BYTES).unwrap();
        assert!(is_resident(&file, WINDOW_BYTES, 2 * WINDOW_BYTES));
        // What lives in memory only (tmpfs) cannot be dropped.
        let lives_in_memory = rustix::fs::fstatfs(&file).unwrap().f_type == 0x0102_1994;
        assert!(was_dropped || lives_in_memory);
    }
}
