//! A streamed body on its way through an encoder, pulled by its client: what is not asked for is not made.
//!
//! Nothing waits: when the app has no more to say for now, all that it has said is flushed. What comes at once is compressed together.
//! After so many bytes the other tasks of the reactor have a turn, so that an export of fifty megabytes holds nobody up.

use bytes::Bytes;
use tracing::warn;

use super::encoder::Encoder;
use crate::encoding::Coding;
use crate::file_read::read_piece;
use crate::message::FileBody;
use crate::spool::{Aborted, Piece, Source};

/// Output is handed on from this size on; what is less waits for more of what is here already.
const OUT_BYTES: usize = 8 << 10;

/// See above.
pub(crate) struct Packing {
    /// `None`: the end has been handed on.
    encoder: Option<Encoder>,
    /// What the encoder has still to be given: first these bytes, then that file.
    bytes: Bytes,
    file: Option<FileBody>,
    /// Bytes that the app has announced and not yet sent. We drop its Content-Length, so we hold it to it.
    left: Option<u64>,
    /// The encoder has taken something since it was flushed.
    is_dirty: bool,
    /// Bytes taken since the last rest.
    worked: usize,
}

impl Packing {
    /// `None`: it cannot be compressed now, for want of memory.
    pub(crate) fn new(coding: Coding, announced: Option<u64>) -> Option<Self> {
        Some(Self {
            encoder: Some(Encoder::new(coding)?),
            bytes: Bytes::new(),
            file: None,
            left: announced,
            is_dirty: false,
            worked: 0,
        })
    }

    /// As [`crate::spool::BodyStream::next`]. Cancel safe: whatever has been taken is kept here.
    pub(crate) async fn next(&mut self, source: &mut Source) -> Option<Result<Piece, Aborted>> {
        loop {
            if let Some(next) = self.try_next(source) {
                return next;
            }
            if self.is_due_a_rest() {
                tokio::task::yield_now().await;
            } else if let Some(file) = &mut self.file {
                match read_piece(&file.file, file.offset, file.len).await {
                    Ok(piece) => {
                        file.offset += piece.len() as u64;
                        file.len = file.len.saturating_sub(piece.len() as u64);
                        self.file.take_if(|file| file.len == 0);
                        self.bytes = piece;
                        continue;
                    }
                    Err(error) => {
                        warn!(%error, "a file broke off while it was compressed");
                        return Some(Err(Aborted));
                    }
                }
            } else {
                source.came().await;
            }
            self.worked = 0;
        }
    }

    /// As [`crate::spool::BodyStream::try_next`].
    #[allow(clippy::option_option)] // as there
    pub(crate) fn try_next(&mut self, source: &mut Source) -> Option<Option<Result<Piece, Aborted>>> {
        loop {
            let Some(encoder) = &mut self.encoder else { return Some(None) };
            if self.worked >= encoder.stint_bytes() {
                return None;
            }
            if !self.bytes.is_empty() {
                let room = encoder.stint_bytes() - self.worked;
                let slice = self.bytes.split_to(room.min(self.bytes.len()));
                if encoder.write(&slice).is_err() {
                    return Some(Some(Err(Aborted)));
                }
                self.worked += slice.len();
                self.is_dirty = true;
                if encoder.ready() >= OUT_BYTES {
                    return Some(Some(Ok(Piece::Bytes(encoder.take().into()))));
                }
            } else if self.file.is_some() {
                return None;
            } else {
                match source.try_next() {
                    Some(Some(Ok(piece))) => self.took(piece),
                    Some(Some(Err(aborted))) => return Some(Some(Err(aborted))),
                    Some(None) => return Some(Some(self.finish())),
                    None if self.is_dirty => {
                        self.is_dirty = false;
                        let flushed = encoder.flush().map_err(|_| Aborted);
                        return Some(Some(flushed.map(|out| Piece::Bytes(out.into()))));
                    }
                    None => return None,
                }
            }
        }
    }

    fn is_due_a_rest(&self) -> bool {
        self.encoder.as_ref().is_some_and(|encoder| self.worked >= encoder.stint_bytes())
    }

    /// The app has sent a piece. What is more than it announced is left away, as the drivers do.
    fn took(&mut self, piece: Piece) {
        let mut cut = |len: u64| match &mut self.left {
            Some(left) => {
                let len = len.min(*left);
                *left -= len;
                len
            }
            None => len,
        };
        match piece {
            Piece::Bytes(mut bytes) => {
                bytes.truncate(usize::try_from(cut(bytes.len() as u64)).unwrap_or(usize::MAX));
                self.bytes = bytes;
            }
            Piece::File(mut file) => {
                file.len = cut(file.len);
                self.file = Some(file).filter(|file| file.len > 0);
            }
        }
    }

    /// The app has ended its body: in order, if it kept its word.
    fn finish(&mut self) -> Result<Piece, Aborted> {
        let encoder = self.encoder.take().ok_or(Aborted)?;
        if self.left.is_some_and(|left| left > 0) {
            return Err(Aborted);
        }
        encoder.finish().map(|out| Piece::Bytes(out.into())).map_err(|_| Aborted)
    }
}
