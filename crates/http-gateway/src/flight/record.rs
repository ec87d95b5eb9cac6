//! A streamed answer on its way to its client, and what is kept of it for others.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::spool::{Aborted, BodyStream, Piece, Writer};

/// What all records that are being made may take together; above it answers are not kept.
const MEMORY_BYTES_ALL: u64 = 64 << 20;

static MEMORY_BYTES_NOW: AtomicU64 = AtomicU64::new(0);

/// What has come of an answer.
#[derive(Debug)]
pub(crate) enum Recorded {
    /// All of it.
    Whole(Vec<Piece>),
    /// It became too large to be kept, or has fields behind it.
    TooLarge,
    /// It was broken off.
    Broken,
}

/// The client's end, which is not told yet that nothing more comes: first those are told who want the answer as well.
#[must_use]
pub(crate) struct LastWord(Option<(Writer, Result<(), Aborted>)>);

impl LastWord {
    pub(crate) fn say(self) {
        if let Some((to, how)) = self.0 {
            to.end(how);
        }
    }
}

/// Passes an answer on to its client, who may leave, and keeps up to `bytes_max` of it. `too_large` is called as soon as it is known
/// that nothing will be kept; `is_wanted` says whether anybody but the client waits for it.
pub(crate) async fn record(
    mut from: BodyStream,
    to: Writer,
    bytes_max: u64,
    too_large: impl Fn(),
    is_wanted: impl Fn() -> bool,
) -> (Recorded, LastWord) {
    let mut kept = Some(Kept::default());
    let mut to = Some(to);
    loop {
        match from.next().await {
            Some(Ok(piece)) => {
                if kept.as_mut().is_some_and(|kept| !kept.add(&piece, bytes_max)) {
                    kept = None;
                    too_large();
                }
                if let Some(writer) = &mut to
                    && !pass(writer, piece).await
                {
                    to = None;
                }
                if to.is_none() && (kept.is_none() || !is_wanted()) {
                    // What has not been said need not be.
                    return (Recorded::TooLarge, LastWord(None));
                }
            }
            Some(Err(Aborted)) => return (Recorded::Broken, LastWord(to.map(|to| (to, Err(Aborted))))),
            None => {
                let trailers = from.take_trailers();
                let recorded = match kept {
                    Some(kept) if trailers.is_none() => Recorded::Whole(kept.take()),
                    _ => Recorded::TooLarge,
                };
                if let (Some(to), Some(trailers)) = (&to, trailers) {
                    to.trailers(trailers);
                }
                return (recorded, LastWord(to.map(|to| (to, Ok(())))));
            }
        }
    }
}

/// `false`: the client is gone.
async fn pass(to: &mut Writer, piece: Piece) -> bool {
    match piece {
        // A disk that is full is told to the client by a broken answer.
        Piece::Bytes(bytes) => to.push(bytes, || {}).await.unwrap_or(false),
        Piece::File(file) => to.push_file(file),
    }
}

/// Pieces, counted.
#[derive(Debug, Default)]
struct Kept {
    pieces: Vec<Piece>,
    bytes: u64,
}

impl Kept {
    /// `false`: there is no room.
    fn add(&mut self, piece: &Piece, bytes_max: u64) -> bool {
        let len = match piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            // It lies on the disk, and is shared.
            Piece::File(_) => 0,
        };
        if self.bytes + len > bytes_max || MEMORY_BYTES_NOW.load(Relaxed) + len > MEMORY_BYTES_ALL {
            return false;
        }
        MEMORY_BYTES_NOW.fetch_add(len, Relaxed);
        self.bytes += len;
        self.pieces.push(piece.clone());
        true
    }

    fn take(mut self) -> Vec<Piece> {
        std::mem::take(&mut self.pieces)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        MEMORY_BYTES_NOW.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::spool::{SpoolLimits, spool};

    async fn check(pieces: &[&'static str], end: Result<(), Aborted>, reads: bool, expected: &str) {
        let limits = SpoolLimits { memory_bytes: 100, disk_bytes: 0, dir: std::env::temp_dir() };
        let ((mut app, from), (to, client)) = (spool(limits.clone()), spool(limits));
        for piece in pieces {
            app.push(Bytes::from_static(piece.as_bytes()), || {}).await.unwrap();
        }
        app.end(end);
        let client = reads.then_some(client);
        let said = std::cell::Cell::new(0);
        let (recorded, last) = record(from, to, 5, || said.set(said.get() + 1), || true).await;
        last.say();
        let text = match &recorded {
            Recorded::Whole(pieces) => format!("{} pieces", pieces.len()),
            other => format!("{other:?}, said {}", said.get()),
        };
        assert_eq!(text, expected);
        let Some(mut client) = client else { return };
        let mut all = String::new();
        let ended = loop {
            match client.next().await {
                Some(Ok(Piece::Bytes(bytes))) => all += std::str::from_utf8(&bytes).unwrap(),
                Some(Ok(Piece::File(_))) => panic!("all fits into memory"),
                Some(Err(aborted)) => break Err(aborted),
                None => break Ok(()),
            }
        };
        assert_eq!((all, ended), (pieces.concat(), end), "its client gets all of it");
    }

    #[tokio::test]
    async fn answers_are_kept_up_to_their_bound() {
        check(&["a", "bc"], Ok(()), true, "2 pieces").await;
        check(&["a", "bc"], Ok(()), false, "2 pieces").await;
        check(&["abc", "def", "g"], Ok(()), true, "TooLarge, said 1").await;
        check(&["abc", "def", "g"], Ok(()), false, "TooLarge, said 1").await;
        check(&["abc"], Err(Aborted), true, "Broken, said 0").await;
    }
}
