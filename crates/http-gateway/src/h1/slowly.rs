//! Bodies that go no faster than their [`Pace`] allows: a piece each time that something may go.

use std::sync::Arc;
use std::time::Duration;

use super::file;
use super::respond::COPY_BYTES_MAX;
use super::stream::{Stream, StreamError};
use super::transport::Transport;
use crate::message::{Body, FileBody};
use crate::pace::Pace;
use crate::spool;

/// What lies in `stream.output`, and then a body that is known.
pub(super) async fn body<T: Transport>(
    stream: &mut Stream<T>,
    body: &Body,
    pace: Option<Box<Pace>>,
    timeout: Duration,
    sent: &mut u64,
) -> Result<(), StreamError> {
    match (body, pace) {
        (Body::Bytes(body), Some(mut pace)) => bytes(stream, body, &mut pace, timeout, sent).await,
        (Body::File(body), Some(mut pace)) => range(stream, body, &mut pace, timeout, sent).await,
        (Body::Empty | Body::Stream(_), _) | (_, None) => Ok(()),
    }?;
    // An empty one has sent nothing yet.
    stream.write(&[], timeout, &mut 0).await
}

/// The same with a piece of a stream.
pub(super) async fn piece<T: Transport>(
    stream: &mut Stream<T>,
    piece: &spool::Piece,
    pace: &mut Pace,
    timeout: Duration,
    sent: &mut u64,
) -> Result<(), StreamError> {
    match piece {
        spool::Piece::Bytes(body) => bytes(stream, body, pace, timeout, sent).await,
        spool::Piece::File(body) => range(stream, body, pace, timeout, sent).await,
    }
}

/// A small piece that may go at once is paid for, and may be gathered with others; else the pace comes back.
pub(super) fn unless_paid<'a>(pace: &'a mut Box<Pace>, piece: &spool::Piece) -> Option<&'a mut Pace> {
    if let spool::Piece::Bytes(bytes) = piece
        && bytes.len() <= COPY_BYTES_MAX
        && pace.try_allow(bytes.len() as u64) == Some(bytes.len() as u64)
    {
        pace.spent(bytes.len() as u64);
        return None;
    }
    Some(pace)
}

async fn bytes<T: Transport>(
    stream: &mut Stream<T>,
    mut body: &[u8],
    pace: &mut Pace,
    timeout: Duration,
    sent: &mut u64,
) -> Result<(), StreamError> {
    while !body.is_empty() {
        let bytes = next(stream, body.len() as u64, pace, timeout).await?;
        let (piece, rest) = body.split_at(usize::try_from(bytes).unwrap_or(body.len()).min(body.len()));
        stream.write(piece, timeout, sent).await?;
        pace.spent(bytes);
        body = rest;
    }
    Ok(())
}

async fn range<T: Transport>(
    stream: &mut Stream<T>,
    body: &FileBody,
    pace: &mut Pace,
    timeout: Duration,
    sent: &mut u64,
) -> Result<(), StreamError> {
    let FileBody { file, mut offset, mut len } = body.clone();
    while len > 0 {
        let bytes = next(stream, len, pace, timeout).await?;
        let piece = FileBody { file: Arc::clone(&file), offset, len: bytes };
        file::send(stream, &piece, timeout, sent).await?;
        pace.spent(bytes);
        offset += bytes;
        len -= bytes;
    }
    Ok(())
}

/// How many of `wanted` bytes may go. What is before them does not wait for that.
async fn next<T: Transport>(
    stream: &mut Stream<T>,
    wanted: u64,
    pace: &mut Pace,
    timeout: Duration,
) -> Result<u64, StreamError> {
    if let Some(bytes) = pace.try_allow(wanted) {
        return Ok(bytes);
    }
    stream.write(&[], timeout, &mut 0).await?;
    Ok(pace.allow(wanted).await)
}
