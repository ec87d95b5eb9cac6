//! A worker's end of a slot or a long link, played by a test.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use py_link::{Flags, Frame, HEADER_BYTES, Kind, encode_response_head, frame_on};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Long enough on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// See the head of this file.
pub(crate) struct Worker {
    pub(crate) stream: UnixStream,
    pub(crate) received: Vec<u8>,
}

/// A frame: stream, kind, flags, payload.
pub(crate) type Told = (u16, Kind, Flags, Vec<u8>);

impl Worker {
    /// The gateway's end of a stream, and the worker's.
    pub(crate) fn pair() -> (StdUnixStream, Self) {
        let (ours, theirs) = StdUnixStream::pair().expect("pair");
        theirs.set_nonblocking(true).expect("nonblocking");
        (ours, Self { stream: UnixStream::from_std(theirs).expect("stream"), received: Vec::new() })
    }

    /// The next frame; `None` at the end. Cancel safe.
    pub(crate) async fn hear(&mut self) -> Option<Told> {
        loop {
            if let Some(Frame { header, payload }) = py_link::decode(&self.received).expect("sane") {
                let told = (header.stream, header.kind, header.flags, payload.to_vec());
                self.received.drain(..HEADER_BYTES + told.3.len());
                return Some(told);
            }
            if timeout(SOON, self.stream.read_buf(&mut self.received)).await.expect("silence").ok()? == 0 {
                return None;
            }
        }
    }

    /// The next frame's number; it is of this kind.
    pub(crate) async fn hears(&mut self, kind: Kind) -> u16 {
        let told = self.hear().await.expect("a frame");
        assert_eq!(told.1, kind, "{told:?}");
        told.0
    }

    pub(crate) async fn say(&mut self, number: u16, kind: Kind, flags: Flags, payload: &[u8]) {
        self.stream.write_all(&frame_on(number, kind, flags, payload)).await.expect("sent");
    }

    /// Says the head of an answer with this Content-Type.
    pub(crate) async fn head(&mut self, number: u16, status: u16, kind: &str, flags: Flags, body: &[u8]) {
        self.say(number, Kind::ResponseHead, flags, &head(status, kind, body)).await;
    }
}

/// The payload of a head.
pub(crate) fn head(status: u16, kind: &str, body: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    let fields = [(&b"content-type"[..], kind.as_bytes())];
    encode_response_head(&mut payload, status, b"", fields.into_iter());
    payload.extend_from_slice(body);
    payload
}
