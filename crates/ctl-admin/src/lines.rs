//! One JSON message a line: the codec. Pure; bytes come in as they arrive, messages come out as they are whole.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::LINE_BYTES_MAX;

/// Why a line is no message.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Longer than [`LINE_BYTES_MAX`]: the sender is at fault, and what follows cannot be trusted either.
    #[error("a line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// Not JSON, or a message that is not known here.
    #[error("not understood: {0}")]
    NotUnderstood(#[from] serde_json::Error),
}

/// Collects bytes and gives out messages.
///
/// Holds at most one line besides what was pushed last: it never grows beyond [`LINE_BYTES_MAX`] and one push.
#[derive(Debug, Default)]
pub struct LineReader {
    buffer: Vec<u8>,
    /// Where the first line begins that has not been given out.
    start: usize,
    /// Up to here no newline was found, so that long lines are searched once.
    searched: usize,
}

impl LineReader {
    /// Takes bytes in. Take all messages out before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, or `None` until more bytes come. Empty lines are passed over.
    ///
    /// After [`LineError::NotUnderstood`] the next line can be read; after [`LineError::TooLong`] nothing can.
    pub fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LineError> {
        loop {
            let Some(length) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                if self.searched - self.start > LINE_BYTES_MAX {
                    return Err(LineError::TooLong);
                }
                return Ok(None);
            };
            let end = self.searched + length;
            let line = self.start..end;
            self.start = end + 1;
            self.searched = self.start;
            if line.len() > LINE_BYTES_MAX {
                return Err(LineError::TooLong);
            }
            let line = self.buffer[line].trim_ascii();
            if !line.is_empty() {
                return Ok(Some(serde_json::from_slice(line)?));
            }
        }
    }
}

/// A message as a line, newline included.
pub fn line<T: Serialize>(message: &T) -> Result<Vec<u8>, LineError> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    if line.len() > LINE_BYTES_MAX {
        return Err(LineError::TooLong);
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::words::{Command, Reply};

    fn all<T: DeserializeOwned>(reader: &mut LineReader) -> Vec<T> {
        std::iter::from_fn(|| reader.next_message().unwrap()).collect()
    }

    #[test]
    fn a_message_is_one_readable_line() {
        assert_eq!(line(&Command::Reload { module: None }).unwrap(), b"{\"command\":\"reload\"}\n");
        let text = "two\nlines".to_owned();
        assert_eq!(
            line(&Reply::Failed { text, app: true }).unwrap(),
            b"{\"reply\":\"failed\",\"text\":\"two\\nlines\",\"app\":true}\n"
        );
    }

    #[test]
    fn a_bad_line_does_not_spoil_the_next() {
        let mut reader = LineReader::default();
        reader.push(b"\n  \nnonsense\n{\"command\":\"dance\"}\n{\"command\":\"stop\"}\r\n{\"comm");
        assert!(matches!(reader.next_message::<Command>(), Err(LineError::NotUnderstood(_))));
        assert!(matches!(reader.next_message::<Command>(), Err(LineError::NotUnderstood(_))));
        assert_eq!(reader.next_message::<Command>().unwrap(), Some(Command::Stop));
        assert_eq!(reader.next_message::<Command>().unwrap(), None);
        reader.push(b"and\":\"status\"}\n");
        assert_eq!(reader.next_message::<Command>().unwrap(), Some(Command::Status));
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut reader = LineReader::default();
        let piece = vec![b'x'; 64 << 10];
        for _ in 0..LINE_BYTES_MAX / piece.len() {
            reader.push(&piece);
            assert_eq!(reader.next_message::<Command>().unwrap(), None);
        }
        reader.push(b"x");
        assert!(matches!(reader.next_message::<Command>(), Err(LineError::TooLong)));
        let text = "x".repeat(LINE_BYTES_MAX);
        assert!(matches!(line(&Reply::Done { text }), Err(LineError::TooLong)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_in_any_pieces(
            texts in proptest::collection::vec(".{0,40}", 0..8),
            cuts in proptest::collection::vec(1_usize..30, 1..20),
        ) {
            let mut bytes = Vec::new();
            for text in &texts {
                bytes.extend(line(&Reply::Progress { text: text.clone() }).unwrap());
            }
            let mut reader = LineReader::default();
            let (mut read, mut rest, mut cuts) = (Vec::new(), bytes.as_slice(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                reader.push(piece);
                read.extend(all::<Reply>(&mut reader));
                rest = after;
            }
            let read: Vec<String> = read
                .into_iter()
                .map(|reply| match reply {
                    Reply::Progress { text } => text,
                    other => panic!("{other:?}"),
                })
                .collect();
            prop_assert_eq!(read, texts);
        }

        #[test]
        fn no_bytes_make_it_panic(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..20)) {
            let mut reader = LineReader::default();
            for piece in pieces {
                reader.push(&piece);
                while let Ok(Some(_)) | Err(LineError::NotUnderstood(_)) = reader.next_message::<Command>() {}
            }
        }
    }
}
