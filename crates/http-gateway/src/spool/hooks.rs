//! What hangs on a streamed answer until it is complete: something that is held as long as the app works on it, and who may cut it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

use tokio::sync::Notify;

use super::{BodyStream, Origin, Piece, Shared, State};

/// Something that is dropped when the app has said everything, or was broken off.
pub(crate) type Held = Box<dyn Send>;

/// Breaks an answer off that is on its way: its client can tell, and the app is cancelled.
#[derive(Debug)]
pub(crate) struct Cutter(Weak<Shared>);

impl Cutter {
    pub(crate) fn cut(&self) {
        let Some(shared) = self.0.upgrade() else { return };
        let mut state = shared.state();
        state.cut = true;
        state.reader_gone = true;
        let pieces = std::mem::take(&mut state.pieces);
        let memory = state.memory;
        state.free_memory(memory);
        drop(state);
        drop(pieces);
        shared.to_writer.notify_one();
        shared.to_reader.notify_one();
    }
}

impl BodyStream {
    /// Holds `held` until the app has said everything. An exchange on the long link holds nothing.
    pub(crate) fn hold(&self, held: Held) {
        let Origin::Spool(shared) = &self.source.origin else { return };
        let mut state = shared.state();
        let over = if state.ended.is_some() { Some(held) } else { state.held.replace(held) };
        drop(state);
        drop(over);
    }

    /// Who may cut it; `None` on the long link.
    pub(crate) fn cutter(&self) -> Option<Cutter> {
        let Origin::Spool(shared) = &self.source.origin else { return None };
        Some(Cutter(Arc::downgrade(shared)))
    }

    /// A body that is complete.
    pub(crate) fn whole(pieces: impl IntoIterator<Item = Piece>) -> Self {
        let pieces: VecDeque<Piece> = pieces.into_iter().collect();
        let bytes = pieces.iter().map(|piece| match piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::File(_) => 0,
        });
        let mut state = State::default();
        state.ended = Some(Ok(()));
        state.take_memory(bytes.sum());
        state.pieces = pieces;
        let state = Mutex::new(state);
        Self::new(Origin::Spool(Arc::new(Shared {
            state,
            to_reader: Notify::new(),
            to_writer: Notify::new(),
        })))
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{Aborted, SpoolLimits, spool};
    use super::*;

    fn limits() -> SpoolLimits {
        SpoolLimits { memory_bytes: 100, disk_bytes: 0, dir: std::env::temp_dir() }
    }

    #[tokio::test]
    async fn what_is_held_is_dropped_with_the_apps_last_word() {
        for orderly in [true, false] {
            let (mut writer, stream) = spool(limits());
            let held = Arc::new(());
            stream.hold(Box::new(Arc::clone(&held)));
            assert!(writer.push(Bytes::from_static(b"x"), || {}).await.unwrap());
            assert_eq!(Arc::strong_count(&held), 2);
            if orderly {
                writer.end(Ok(()));
            } else {
                drop(writer);
            }
            assert_eq!(Arc::strong_count(&held), 1, "though its client has read nothing");
            stream.hold(Box::new(Arc::clone(&held)));
            assert_eq!(Arc::strong_count(&held), 1, "it is over");
        }
    }

    #[tokio::test]
    async fn who_cuts_is_heard_on_both_ends() {
        let (mut writer, mut stream) = spool(limits());
        writer.start(Bytes::from_static(b"x"));
        stream.cutter().unwrap().cut();
        assert!(matches!(stream.next().await, Some(Err(Aborted))));
        writer.reader_gone().await;
        assert!(!writer.push(Bytes::from_static(b"y"), || {}).await.unwrap());
    }

    #[tokio::test]
    async fn a_body_that_is_complete_is_read_as_it_was() {
        let mut stream =
            BodyStream::whole(["a", "bc"].map(|text| Piece::Bytes(Bytes::from_static(text.as_bytes()))));
        for expected in ["a", "bc"] {
            assert!(matches!(stream.next().await, Some(Ok(Piece::Bytes(bytes))) if bytes == expected));
        }
        assert!(stream.next().await.is_none());
    }
}
