//! What is still to be sent of a request: the head, then the body from memory, from a file, or as the client sends it.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::{Buf as _, Bytes, BytesMut};

use super::request::Sends;
use crate::file_read::read_piece;
use crate::message::BodyError;
use crate::request_body::Payload;

/// A body up to this goes with its head in one write.
const WITH_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Where the rest of the body is.
#[derive(Debug)]
enum Source {
    Nothing,
    Memory(Bytes),
    File {
        file: Arc<File>,
        offset: u64,
        left: u64,
    },
    /// At the client. `None`: nobody knows how much; it goes in chunks.
    Client(Option<u64>),
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// To be sent now.
    pub(super) ready: Bytes,
    /// Something of `ready` has not been handed to the kernel for good.
    pub(super) sending: bool,
    source: Source,
    /// The server is to ask for the body first.
    pub(super) awaits_continue: bool,
    /// The server takes no more; what it says may still be of use.
    broken: bool,
    /// A byte of the request was handed to the kernel.
    pub(super) touched: bool,
    /// How much the client may still send.
    allowed: u64,
    /// The protocol has frames of its own: pieces go as they are.
    unframed: bool,
}

/// A body that can be sent as often as need be, or once from the client.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Nothing,
    Memory(Bytes),
    File(Arc<File>, u64),
    Client(Option<u64>),
}

impl From<Payload> for Content {
    fn from(payload: Payload) -> Self {
        match payload {
            Payload::Empty => Self::Nothing,
            Payload::Memory(bytes) => Self::Memory(bytes.into()),
            Payload::File(file, len) => Self::File(file, len),
            Payload::Stream(len) => Self::Client(len),
        }
    }
}

impl Content {
    /// How it is framed.
    pub(super) fn sends(&self) -> Sends {
        match self {
            Self::Nothing => Sends::Nothing,
            Self::Memory(bytes) => Sends::Length(bytes.len() as u64),
            Self::File(_, len) | Self::Client(Some(len)) => Sends::Length(*len),
            Self::Client(None) => Sends::Chunked,
        }
    }

    pub(super) fn is_streamed(&self) -> bool {
        matches!(self, Self::Client(_))
    }
}

impl Outgoing {
    /// A head, and the body that follows it.
    /// `client_bytes_max` is for what comes from the client.
    pub(super) fn new(
        mut head: Vec<u8>,
        content: &Content,
        awaits_continue: bool,
        client_bytes_max: u64,
    ) -> Self {
        let source = match content {
            Content::Nothing => Source::Nothing,
            Content::Memory(body) if body.len() <= WITH_HEAD_BYTES_MAX => {
                head.extend_from_slice(body);
                Source::Nothing
            }
            Content::Memory(body) => Source::Memory(body.clone()),
            Content::File(file, len) => Source::File { file: Arc::clone(file), offset: 0, left: *len },
            Content::Client(len) => Source::Client(*len),
        };
        Self {
            ready: head.into(),
            sending: true,
            source,
            awaits_continue,
            broken: false,
            touched: false,
            allowed: client_bytes_max,
            unframed: false,
        }
    }

    /// A body without its head, for a protocol that frames it itself.
    pub(super) fn unframed(content: &Content, awaits_continue: bool, client_bytes_max: u64) -> Self {
        let mut out = Self::new(Vec::new(), content, awaits_continue, client_bytes_max);
        (out.sending, out.unframed) = (out.ready.has_remaining(), true);
        out
    }

    /// Can the server have seen nothing of it?
    pub(super) fn is_untouched(&self) -> bool {
        !self.touched
    }

    /// Has all of the request been handed to the kernel?
    pub(super) fn is_done(&self) -> bool {
        !self.sending && !self.broken && matches!(self.source, Source::Nothing)
    }

    /// Will nothing more be sent, although not all was?
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Is it the client's turn to send some of its body?
    pub(super) fn wants_client(&self) -> bool {
        !self.sending && !self.broken && !self.awaits_continue && matches!(self.source, Source::Client(_))
    }

    /// Does some of the body come from the client still?
    pub(super) fn is_clients(&self) -> bool {
        !self.broken && matches!(self.source, Source::Client(_))
    }

    /// Nothing more can be sent on this connection.
    pub(super) fn give_up(&mut self) {
        (self.broken, self.sending, self.ready, self.source) = (true, false, Bytes::new(), Source::Nothing);
    }

    /// Takes the next piece from where it lies, if the last one is out. Cancel safe.
    pub(super) async fn refill(&mut self) -> io::Result<()> {
        if self.sending || self.broken {
            return Ok(());
        }
        match &mut self.source {
            Source::Memory(_) => {
                if let Source::Memory(bytes) = std::mem::replace(&mut self.source, Source::Nothing) {
                    self.send(bytes);
                }
            }
            Source::File { file, offset, left } => {
                let piece = read_piece(file, *offset, *left).await?;
                *offset += piece.len() as u64;
                *left = left.saturating_sub(piece.len() as u64);
                if *left == 0 {
                    self.source = Source::Nothing;
                }
                self.send(piece);
            }
            Source::Nothing | Source::Client(_) => {}
        }
        Ok(())
    }

    /// A piece of the client's, or `None` at the end of its body. The error: it is longer than it may be, or not as long as was
    /// announced. (The protocols see to the latter; it must not depend on them.)
    pub(super) fn take_piece(&mut self, piece: Option<Bytes>) -> Result<(), BodyError> {
        let Source::Client(len) = &mut self.source else { return Ok(()) };
        let bytes = piece.as_ref().map_or(0, |piece| piece.len() as u64);
        self.allowed = self.allowed.checked_sub(bytes).ok_or(BodyError::TooLarge)?;
        match (piece, len) {
            (Some(piece), Some(left)) => {
                *left = left.checked_sub(bytes).ok_or(BodyError::Malformed)?;
                self.send(piece);
            }
            (Some(piece), None) if self.unframed => self.send(piece),
            (Some(piece), None) if !piece.is_empty() => {
                let mut chunk = BytesMut::with_capacity(piece.len() + 12);
                chunk.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                chunk.extend_from_slice(&piece);
                chunk.extend_from_slice(b"\r\n");
                self.send(chunk.freeze());
            }
            (Some(_), None) => {}
            (None, Some(0)) => self.source = Source::Nothing,
            (None, Some(_)) => return Err(BodyError::Malformed),
            (None, None) => {
                self.source = Source::Nothing;
                if !self.unframed {
                    self.send(Bytes::from_static(b"0\r\n\r\n"));
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, bytes: Bytes) {
        self.sending = bytes.has_remaining();
        self.ready = bytes;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// All that is sent, as if the kernel took everything.
    async fn all(mut out: Outgoing, pieces: &[&'static str]) -> Option<String> {
        let mut wire = Vec::new();
        let mut pieces = pieces.iter();
        loop {
            out.refill().await.unwrap();
            if out.sending {
                wire.extend_from_slice(&out.ready);
                (out.sending, out.ready) = (false, Bytes::new());
            } else if out.is_done() {
                return Some(String::from_utf8(wire).unwrap());
            } else {
                let piece = pieces.next().map(|piece| Bytes::from_static(piece.as_bytes()));
                out.take_piece(piece).ok()?;
            }
        }
    }

    async fn check(content: Content, pieces: &[&'static str], expected: Option<&str>) {
        let out = Outgoing::new(b"HEAD ".to_vec(), &content, false, 8);
        assert_eq!(all(out, pieces).await.as_deref(), expected, "{content:?}");
    }

    #[tokio::test]
    async fn bodies_come_from_anywhere() {
        check(Content::Nothing, &[], Some("HEAD ")).await;
        check(Content::Memory(Bytes::from_static(b"body")), &[], Some("HEAD body")).await;
        let large = "x".repeat(WITH_HEAD_BYTES_MAX + 1);
        check(Content::Memory(large.clone().into()), &[], Some(&format!("HEAD {large}"))).await;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![b'f'; 100_000]).unwrap();
        let content = Content::File(Arc::new(file), 100_000);
        check(content, &[], Some(&format!("HEAD {}", "f".repeat(100_000)))).await;
        check(Content::Client(Some(5)), &["ab", "cde"], Some("HEAD abcde")).await;
        check(Content::Client(Some(0)), &[], Some("HEAD ")).await;
        check(Content::Client(None), &["ab", "", "cde"], Some("HEAD 2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n")).await;
    }

    #[tokio::test]
    async fn a_body_is_as_long_as_was_announced() {
        check(Content::Client(Some(5)), &["ab"], None).await;
        check(Content::Client(Some(5)), &["ab", "cdef"], None).await;
        check(Content::Client(None), &["abcd", "efghi"], None).await;
    }
}
